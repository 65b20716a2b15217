"""Batches of images and captions that the bundled model is trained on.

A batch is drawn when it is needed, from the seed and the number of its step alone, so nothing is
kept on disk and an interrupted training meets the same batches again. What an image is drawn of
decides what the contrastive loss can teach: in most batches all scenes share what the model knows
already, so that only the rest tells its images apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import CLIPTokenizer

from captum_interactions.datasets.scenes import (
    DOMAINS,
    IMAGE_SIZE,
    Thing,
    arrange,
    describe,
    render,
    true_relations,
)
from captum_interactions.datasets.shapes import COLOURS, SHAPES

TRAINING_SEED = 1_000_003
"""Scenes with any other seed are held out."""

_DOMAIN = DOMAINS["plain"]
_CENTRE = IMAGE_SIZE / 2


class Batch(NamedTuple):
    """B images with a caption each."""

    images: Tensor
    """(B, 3, H, W) uint8."""
    tokens: Tensor
    """(B, T) token ids."""


class Kind(NamedTuple):
    """How the scenes of a batch are drawn, and how often there is such a batch."""

    share: Callable[[float], float]
    """Relative frequency, by how much of the training is done, in [0, 1]."""
    counts: tuple[int, ...] | None
    """Numbers of things to choose from; None for those of :class:`Scenes`."""
    n_colours: int = len(COLOURS)
    """Number of colours that all scenes of the batch are drawn in."""
    n_shapes: int = len(SHAPES)
    """Number of shapes, likewise."""
    is_distinct: bool = False
    """Whether no two things of a scene share their colour or their shape."""
    is_relation: bool = False
    """Whether all scenes show the same two things, and captions relate them."""


def _steps(*shares: tuple[float, float]) -> Callable[[float], float]:
    """A frequency that changes in steps; each of them is (where it starts, what it is then)."""
    return lambda done: next((share for start, share in reversed(shares) if done >= start), 0.0)


KINDS = {
    "single": Kind(_steps((0.0, 1.0), (0.04, 0.1)), (1,)),
    "one colour": Kind(_steps((0.04, 0.35), (0.5, 0.25)), (1,), n_colours=1),
    "two colours": Kind(_steps((0.1, 0.15)), (2, 3), n_colours=2),
    "binding": Kind(
        _steps((0.2, 0.1), (0.5, 0.25)), (2,), n_colours=3, n_shapes=3, is_distinct=True
    ),
    "relation": Kind(
        _steps((0.2, 0.15), (0.5, 0.1)), (2,), n_colours=2, n_shapes=2, is_relation=True
    ),
    "free": Kind(_steps((0.1, 0.25), (0.5, 0.3)), None),
}
"""Colours are learned first. Then shapes, where nothing but shape, size and texture tells images
apart; then which colour goes with which shape, and how things stand to each other."""

SCATTERED_FROM = 0.25
"""Share of the training after which single things stand anywhere, and have any size and texture.
Before, they are nearer to the centre, and more often large and plain."""


class Batches(Dataset[Batch]):
    """The batch of every step of a training.

    Args:
        n_steps: Number of steps.
        size: Number of images of a batch.
        seed: Any non-negative integer.
        tokenizer: Turns captions into ids.
    """

    def __init__(self, n_steps: int, size: int, seed: int, tokenizer: CLIPTokenizer) -> None:
        self.n_steps, self.size, self.seed, self.tokenizer = n_steps, size, seed, tokenizer

    def __len__(self) -> int:
        return self.n_steps

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([TRAINING_SEED, self.seed, step])
        done = step / self.n_steps
        kind = _choose(rng, done)
        colours = _some(rng, tuple(COLOURS), kind.n_colours)
        shapes = _some(rng, tuple(SHAPES), kind.n_shapes)
        images = np.empty((self.size, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        captions = []
        for row in range(self.size):
            things = draw_things(rng, kind, colours, shapes, min(1.0, done / SCATTERED_FROM))
            images[row] = render(rng, things, _DOMAIN)[0]
            relate = 1.0 if kind.is_relation else 0.5
            description = describe(rng, things, relate=relate)
            while kind.is_relation and description.relation is None:
                description = describe(rng, things, relate=relate)
            captions.append(description.caption)
        tokens = self.tokenizer(captions, padding=True, return_tensors="pt").input_ids
        return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), tokens)


def draw_things(
    rng: np.random.Generator,
    kind: Kind,
    colours: tuple[str, ...],
    shapes: tuple[str, ...],
    scatter: float = 1.0,
) -> list[Thing]:
    """Draw the things of a scene of a kind.

    Args:
        rng: Source of the choices.
        kind: What to draw.
        colours, shapes: What to choose from.
        scatter: How far a single thing may be from the centre, in [0, 1], and how often its size
            and texture are free.
    """
    while True:
        count = None if kind.counts is None else int(rng.choice(kind.counts))
        things = arrange(rng, _DOMAIN, count=count, colours=colours, shapes=shapes)
        if count == 1:
            return [_gathered(rng, things[0], scatter)]
        if count is not None and len(things) < count:
            continue
        if kind.is_relation:
            names = zip(colours, shapes, strict=True)
            things = [
                replace(thing, colour=colour, shape=shape)
                for thing, (colour, shape) in zip(things, names, strict=True)
            ]
            if not true_relations(*things):
                continue
        names_differ = len({t.colour for t in things}) == len({t.shape for t in things}) == count
        if not kind.is_distinct or names_differ:
            return things


def _choose(rng: np.random.Generator, done: float) -> Kind:
    kinds = list(KINDS.values())
    shares: npt.NDArray[np.float64] = np.array([kind.share(done) for kind in kinds])
    return kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]


def _some(rng: np.random.Generator, values: tuple[str, ...], count: int) -> tuple[str, ...]:
    return tuple(str(value) for value in rng.permutation(values)[:count])


def _gathered(rng: np.random.Generator, thing: Thing, scatter: float) -> Thing:
    """A thing nearer to the centre; with the remaining probability, large and plain."""
    if rng.random() > scatter:
        radius = rng.uniform(*_DOMAIN.radii["large"])
        thing = replace(thing, size="large", fill="plain", radius=radius)
    reach = _CENTRE - thing.radius - 1
    x, y = (_CENTRE + scatter * np.clip(c - _CENTRE, -reach, reach) for c in thing.centre)
    return replace(thing, centre=(float(x), float(y)))
