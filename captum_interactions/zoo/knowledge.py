"""What the bundled model knows: attributes, their binding, relations, and retrieval.

``python -m captum_interactions.zoo.knowledge`` prints a Markdown table for held-out scenes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from captum_interactions.datasets.scenes import (
    DOMAINS,
    RELATIONS,
    Description,
    Domain,
    Thing,
    arrange,
    describe,
    likelihood,
    render,
    true_relations,
)
from captum_interactions.datasets.shapes import COLOURS, SHAPES
from captum_interactions.encoders import DualEncoderWrapper, from_pretrained
from captum_interactions.evaluation.statistics import proportion_interval
from captum_interactions.zoo import DEMO, REPORT_SEED

OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above"}
N_GALLERY = 256
"""Number of scenes that retrieval chooses from."""
_N_MARGINAL = 1_000
"""Number of scenes over which the probability of a caption is averaged."""


class Question(NamedTuple):
    """An image and captions, the first of which alone is true of it."""

    things: list[Thing]
    captions: list[str]


class Retrieval(NamedTuple):
    """Share of scenes whose own counterpart scores highest among those of all scenes."""

    image_to_caption: float
    caption_to_image: float


def colour(rng: np.random.Generator, domain: Domain) -> Question:
    """One object, and its shape in each of the ten colours."""
    (thing,) = arrange(rng, domain, count=1)
    others = [c for c in COLOURS if c != thing.colour]
    return Question([thing], [_phrase(c, thing.shape) for c in (thing.colour, *others)])


def shape(rng: np.random.Generator, domain: Domain) -> Question:
    """One object, and each of the ten shapes in its colour."""
    (thing,) = arrange(rng, domain, count=1)
    others = [s for s in SHAPES if s != thing.shape]
    return Question([thing], [_phrase(thing.colour, s) for s in (thing.shape, *others)])


def other_colour(rng: np.random.Generator, domain: Domain) -> Question:
    """A scene with its caption, in which one colour is replaced so that no object fits."""
    return _minimal_pair(rng, domain, "colour", tuple(COLOURS))


def other_shape(rng: np.random.Generator, domain: Domain) -> Question:
    """A scene with its caption, in which one shape is replaced so that no object fits."""
    return _minimal_pair(rng, domain, "shape", tuple(SHAPES))


def binding(rng: np.random.Generator, domain: Domain) -> Question:
    """Two objects named by colour and shape, and the same with their colours swapped."""
    a, b = _two_unlike(rng, domain)
    own = f"{_phrase(a.colour, a.shape)} and {_phrase(b.colour, b.shape)}"
    swapped = f"{_phrase(b.colour, a.shape)} and {_phrase(a.colour, b.shape)}"
    return Question([a, b], [own, swapped])


def left_right(rng: np.random.Generator, domain: Domain) -> Question:
    """Two objects side by side, and the opposite relation."""
    return _related(rng, domain, ("left", "right"))


def above_below(rng: np.random.Generator, domain: Domain) -> Question:
    """Two objects one above the other, and the opposite relation."""
    return _related(rng, domain, ("above", "below"))


def size(rng: np.random.Generator, domain: Domain) -> Question:
    """One small or large object, and the opposite size."""
    return _adjective(rng, domain, "size", ("small", "large"))


def texture(rng: np.random.Generator, domain: Domain) -> Question:
    """One striped or dotted object, and the other texture."""
    return _adjective(rng, domain, "fill", ("striped", "dotted"))


QUESTIONS: dict[str, Callable[[np.random.Generator, Domain], Question]] = {
    "colour (of 10)": colour,
    "shape (of 10)": shape,
    "other colour (of 2)": other_colour,
    "other shape (of 2)": other_shape,
    "binding (of 2)": binding,
    "left or right (of 2)": left_right,
    "above or below (of 2)": above_below,
    "size (of 2)": size,
    "texture (of 2)": texture,
}
"""What is asked, and of how many captions the right one is to be found."""


def answers(
    wrapper: DualEncoderWrapper, name: str, n_questions: int, seed: int, domain: str
) -> npt.NDArray[np.bool_]:
    """Whether the true caption scores highest, for each of ``n_questions`` drawn questions.

    Args:
        wrapper: The bundled model, or another one that takes the same inputs.
        name: A key of :data:`QUESTIONS`.
        n_questions: Number of questions.
        seed: Any non-negative integer.
        domain: A key of :data:`DOMAINS`.

    Returns:
        (n_questions,).
    """
    rng = _rng(seed, domain, 1 + list(QUESTIONS).index(name))
    drawn = [QUESTIONS[name](rng, DOMAINS[domain]) for _ in range(n_questions)]
    images = embed_images(wrapper, [_image(rng, q.things, domain) for q in drawn])
    texts = embed_texts(wrapper, [caption for q in drawn for caption in q.captions])
    scores = torch.einsum("nk,nck->nc", images, texts.unflatten(0, (n_questions, -1)))
    right: npt.NDArray[np.bool_] = (scores.argmax(1) == 0).numpy()
    return right


def chance(name: str) -> float:
    """Share of right answers of a guess at a kind of question."""
    question = QUESTIONS[name](np.random.default_rng(0), DOMAINS["plain"])
    return 1 / len(question.captions)


def retrieve(wrapper: DualEncoderWrapper, seed: int, domain: str) -> tuple[Retrieval, Retrieval]:
    """Retrieval among :data:`N_GALLERY` scenes, and what is reachable.

    Several captions may be true of one image. What is reachable is the retrieval by the
    generator's own probabilities, with ties broken at random: of an image's caption by
    ``P(caption | scene) / P(caption)``, of a caption's image by ``P(caption | scene)``.

    Returns:
        What the model reaches, and what is reachable.
    """
    rng = _rng(seed, domain, 0)
    scenes = [arrange(rng, DOMAINS[domain]) for _ in range(N_GALLERY)]
    said = [describe(rng, things) for things in scenes]
    images = embed_images(wrapper, [_image(rng, things, domain) for things in scenes])
    texts = embed_texts(wrapper, [description.caption for description in said])
    scores = (images @ texts.T).double().numpy()
    marginal = [arrange(rng, DOMAINS[domain]) for _ in range(_N_MARGINAL)]
    conditional = _likelihoods(said, scenes, scenes)
    given = conditional / (_likelihoods(said, scenes, marginal).mean(0) + 1e-12)
    return (
        Retrieval(_recall(scores), _recall(scores.T)),
        Retrieval(_recall(given), _recall(conditional.T)),
    )


def embed_images(wrapper: DualEncoderWrapper, images: Sequence[Image.Image]) -> Tensor:
    """Unit embeddings (N, K) of images."""
    return _embed(wrapper, "a", images)


def embed_texts(wrapper: DualEncoderWrapper, texts: Sequence[str]) -> Tensor:
    """Unit embeddings (N, K) of texts."""
    return _embed(wrapper, "b", texts)


@torch.no_grad()
def _embed(wrapper: DualEncoderWrapper, side: str, raw: Sequence[object]) -> Tensor:
    tower = wrapper.tower_a if side == "a" else wrapper.tower_b
    encode = wrapper.encode_a if side == "a" else wrapper.encode_b
    parts = []
    for start in range(0, len(raw), 100):
        prepared = tower.prepare(raw[start : start + 100])
        parts.append(normalize(encode(prepared.inputs, *prepared.extras), dim=-1))
    return torch.cat(parts)


def _likelihoods(
    said: Sequence[Description], named: Sequence[list[Thing]], scenes: Sequence[list[Thing]]
) -> npt.NDArray[np.float64]:
    """Likelihood of every description in every scene, (scenes, descriptions)."""
    return np.array(
        [[likelihood(d, n, s) for d, n in zip(said, named, strict=True)] for s in scenes]
    )


def _recall(scores: npt.NDArray[np.float64]) -> float:
    """Recall@1 of scores (N, N) with the own counterpart on the diagonal; ties are shared out."""
    best = scores == scores.max(1, keepdims=True)
    return float((best.diagonal() / best.sum(1)).mean())


def _rng(seed: int, domain: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, list(DOMAINS).index(domain), number])


def _image(rng: np.random.Generator, things: list[Thing], domain: str) -> Image.Image:
    return Image.fromarray(render(rng, things, DOMAINS[domain])[0])


def _phrase(*words: str) -> str:
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def _minimal_pair(
    rng: np.random.Generator, domain: Domain, attribute: str, values: tuple[str, ...]
) -> Question:
    things = arrange(rng, domain)
    description = describe(rng, things)
    mention = description.mentions[int(rng.integers(len(description.mentions)))]
    named = things[mention.thing]
    present = {(t.colour, t.shape) for t in things}
    is_colour = attribute == "colour"
    absent = [
        value
        for value in values
        if ((value, named.shape) if is_colour else (named.colour, value)) not in present
    ]
    true, false = getattr(named, attribute), absent[rng.integers(len(absent))]
    start, end = mention.span
    phrase = mention.phrase.replace(true, false)
    before, after = description.caption[:start], description.caption[end:]
    stem = before[: -len("an ")] if before.endswith("an ") else before[: -len("a ")]
    return Question(things, [description.caption, stem + _phrase(*phrase.split()) + after])


def _two_unlike(rng: np.random.Generator, domain: Domain) -> tuple[Thing, Thing]:
    """Two things of different colours and shapes."""
    while True:
        things = arrange(rng, domain, count=2)
        if (
            len(things) == 2
            and len({t.colour for t in things}) == len({t.shape for t in things}) == 2
        ):
            return things[0], things[1]


def _related(rng: np.random.Generator, domain: Domain, relations: tuple[str, str]) -> Question:
    while True:
        a, b = _two_unlike(rng, domain)
        holding = [r for r in relations if r in true_relations(a, b)]
        if holding:
            break
    form = int(rng.integers(2))
    captions = [
        _phrase(a.colour, a.shape) + RELATIONS[relation][form] + _phrase(b.colour, b.shape)
        for relation in (holding[0], OPPOSITES[holding[0]])
    ]
    return Question([a, b], captions)


def _adjective(
    rng: np.random.Generator, domain: Domain, attribute: str, values: tuple[str, str]
) -> Question:
    while True:
        (thing,) = arrange(rng, domain, count=1)
        own = getattr(thing, attribute)
        if own in values:
            break
    ordered = [own, *(value for value in values if value != own)]
    return Question([thing], [_phrase(value, thing.colour, thing.shape) for value in ordered])


def table(wrapper: DualEncoderWrapper, seed: int, n_questions: int) -> Iterator[str]:
    """Lines of a Markdown table: shares of right answers with their 95 % intervals."""
    yield f"| | {' | '.join(DOMAINS)} | chance |"
    yield "|---|" + "---|" * (len(DOMAINS) + 1)
    for name in QUESTIONS:
        cells = []
        for domain in DOMAINS:
            right = answers(wrapper, name, n_questions, seed, domain)
            low, high = proportion_interval(int(right.sum()), len(right))
            cells.append(f"{right.mean():.3f} [{low:.3f}, {high:.3f}]")
        yield f"| {name} | {' | '.join(cells)} | {chance(name):g} |"
    reached = [retrieve(wrapper, seed, domain) for domain in DOMAINS]
    for field in Retrieval._fields:
        cells = [
            f"{getattr(own, field):.3f} (reachable: {getattr(best, field):.3f})"
            for own, best in reached
        ]
        name = f"Recall@1 of {N_GALLERY}, {field.replace('_', ' ')}"
        yield f"| {name} | {' | '.join(cells)} | {1 / N_GALLERY:.3f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What the bundled model knows.")
    parser.add_argument("--model", type=Path, default=DEMO, help="folder (default: the bundled)")
    parser.add_argument("--questions", type=int, default=1000, help="of a kind (%(default)s)")
    parser.add_argument("--seed", type=int, default=REPORT_SEED, help="default: %(default)s")
    options = parser.parse_args()
    for line in table(from_pretrained(options.model), options.seed, options.questions):
        print(line, flush=True)


if __name__ == "__main__":
    main()
