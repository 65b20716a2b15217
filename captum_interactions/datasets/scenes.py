"""Generated scenes: images of coloured shapes with captions and complete ground truth.

The ground truth is complete: each object has a box and a mask, and each object that the caption
names has the character span of its phrase. Relations in captions are true; distractor words do not
depend on the image; some captions leave objects out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_interactions.datasets.shapes import COLOURS, FILLS, SHAPES, draw_background, draw_shape

SIZES = ("small", "medium", "large")
"""Names of the sizes. Captions never say "medium"."""

IMAGE_SIZE = 96
"""Side of every image, in pixels."""


@dataclass(frozen=True)
class Domain:
    """How scenes look. The words mean the same in every domain."""

    radii: Mapping[str, tuple[float, float]]
    """Range of radii in pixels, for each of :data:`SIZES`."""
    backgrounds: tuple[str, ...]
    pitch: tuple[float, float]
    """Range of distances between stripes or dots, in pixels."""
    slants: tuple[float, ...]
    """Directions of stripes and dots, in radians."""
    tilt: float
    """Largest rotation of a shape in either direction, in radians."""
    noise: float
    """Standard deviation of the pixel noise, in [0, 255] units."""


DOMAINS: Mapping[str, Domain] = {
    "plain": Domain(
        radii={"small": (10.5, 12.5), "medium": (15.5, 18.0), "large": (21.0, 24.0)},
        backgrounds=("plain", "gradient", "mottled"),
        pitch=(5.5, 6.5),
        slants=(0.25 * math.pi, -0.25 * math.pi),
        tilt=0.2,
        noise=2.0,
    ),
    "shifted": Domain(
        radii={"small": (8.0, 10.5), "medium": (12.5, 15.0), "large": (17.0, 22.0)},
        backgrounds=("checkered", "wavy", "rough"),
        pitch=(4.5, 8.5),
        slants=(0.0, 0.5 * math.pi, 0.4),
        tilt=0.4,
        noise=8.0,
    ),
}
"""The domain that the bundled model is trained on, and one with other backgrounds, textures and
sizes."""


@dataclass(frozen=True)
class Thing:
    """The attributes and geometry of an object, from which it is drawn and described."""

    shape: str
    colour: str
    size: str
    fill: str
    centre: tuple[float, float]
    radius: float
    angle: float
    pitch: float
    slant: float

    @property
    def name(self) -> str:
        """Every attribute that a caption may state, such as ``"small striped red circle"``."""
        words = (
            self.size.replace("medium", ""),
            self.fill.replace("plain", ""),
            self.colour,
            self.shape,
        )
        return " ".join(filter(None, words))


@dataclass(frozen=True)
class Mention:
    """A phrase of a caption: the thing that it names, its words, and their place."""

    thing: int
    phrase: str
    span: tuple[int, int]
    size: str | None
    """The size that the phrase states; None if it states none. The same holds for ``fill``."""
    fill: str | None


@dataclass(frozen=True)
class Description:
    """A caption and its meaning."""

    caption: str
    mentions: tuple[Mention, ...]
    """In the caption's order."""
    relation: str | None
    """The stated relation of the first thing to the second, see :func:`true_relations`."""


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene with its ground truth."""

    shape: str
    colour: str
    size: str
    fill: str
    name: str
    """All attributes in words, whether the caption states them or not."""
    phrase: str | None
    """The caption's words for this object; None if the caption leaves it out."""
    span: tuple[int, int] | None
    """Half-open character range of ``phrase`` in the caption."""
    box: tuple[int, int, int, int]
    """(x0, y0, x1, y1) in pixels, half-open, tight around the mask."""
    mask: npt.NDArray[np.bool_] = field(repr=False)
    """(H, W), true inside the object."""


@dataclass(frozen=True)
class Scene:
    """An image and a caption that is true of it."""

    image: Image.Image
    caption: str
    objects: tuple[SceneObject, ...]

    @property
    def named(self) -> tuple[SceneObject, ...]:
        """The objects that the caption names, in the caption's order."""
        return tuple(sorted((o for o in self.objects if o.span), key=lambda o: o.span or (0, 0)))


class Scenes(Sequence[Scene]):
    """A seeded, map-style dataset of generated scenes.

    Scene ``i`` depends only on the seed, the domain and ``i``, not on ``n`` or the order of access.

    Args:
        n: Number of scenes.
        seed: Any non-negative integer. Default: 0.
        domain: A key of :data:`DOMAINS`. Default: ``"plain"``.

    Raises:
        ValueError: If ``n`` or ``seed`` is negative or the domain is unknown.

    Examples:
        >>> scene = Scenes(10, seed=7)[3]
        >>> scene.image.size
        (96, 96)
        >>> all(scene.caption[slice(*o.span)] == o.phrase for o in scene.named)
        True
    """

    def __init__(self, n: int, seed: int = 0, domain: str = "plain") -> None:
        if n < 0 or seed < 0:
            raise ValueError(f"n and seed must not be negative, got n={n} and seed={seed}")
        if domain not in DOMAINS:
            raise ValueError(f"unknown domain {domain!r}, expected one of {sorted(DOMAINS)}")
        self.n, self.seed, self.domain = n, seed, domain

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scene]: ...
    def __getitem__(self, index: int | slice) -> Scene | list[Scene]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.n))]
        if not -self.n <= index < self.n:
            raise IndexError(f"scene {index} of {self.n}")
        rng = scene_rng(self.seed, self.domain, index % self.n)
        things = arrange(rng, DOMAINS[self.domain])
        description = describe(rng, things)
        pixels, masks = render(rng, things, DOMAINS[self.domain])
        said = {mention.thing: mention for mention in description.mentions}
        objects = tuple(
            SceneObject(
                shape=thing.shape,
                colour=thing.colour,
                size=thing.size,
                fill=thing.fill,
                name=thing.name,
                phrase=said[k].phrase if k in said else None,
                span=said[k].span if k in said else None,
                box=box_of(masks[k]),
                mask=masks[k],
            )
            for k, thing in enumerate(things)
        )
        return Scene(Image.fromarray(pixels), description.caption, objects)

    def __iter__(self) -> Iterator[Scene]:
        return (self[i] for i in range(self.n))

    def __repr__(self) -> str:
        return f"Scenes({self.n}, seed={self.seed}, domain={self.domain!r})"


def scene_rng(seed: int, domain: str, index: int) -> np.random.Generator:
    """The random number generator of scene ``index``."""
    return np.random.default_rng([seed, list(DOMAINS).index(domain), index])


def arrange(
    rng: np.random.Generator,
    domain: Domain,
    *,
    count: int | None = None,
    colours: Sequence[str] = tuple(COLOURS),
    shapes: Sequence[str] = tuple(SHAPES),
) -> list[Thing]:
    """Draw things in boxes that do not overlap; no two have the same colour and shape.

    Args:
        rng: Source of the choices.
        domain: How scenes look.
        count: Number of things; fewer are drawn if there is no space left. Default: 1 to 4.
        colours: Colours to choose from. Default: all.
        shapes: Shapes to choose from. Default: all.

    Returns:
        At least one thing.
    """
    if count is None:
        count = int(rng.choice([1, 2, 3, 4], p=[0.15, 0.35, 0.3, 0.2]))
    things: list[Thing] = []
    for _ in range(count * 12):  # tries; a scene too full for another large shape stays as it is
        thing = draw_thing(rng, domain, colours, shapes)
        if all(_apart(thing, other) and _distinct(thing, other) for other in things):
            things.append(thing)
            if len(things) == count:
                break
    return things


def draw_thing(
    rng: np.random.Generator,
    domain: Domain,
    colours: Sequence[str] = tuple(COLOURS),
    shapes: Sequence[str] = tuple(SHAPES),
) -> Thing:
    """Draw one thing's attributes and geometry."""
    size = str(rng.choice(SIZES))
    radius = rng.uniform(*domain.radii[size])
    low, high = radius + 1, IMAGE_SIZE - radius - 1
    return Thing(
        shape=str(rng.choice(shapes)),
        colour=str(rng.choice(colours)),
        size=size,
        fill=str(rng.choice(FILLS, p=_FILL_SHARES)),
        centre=(rng.uniform(low, high), rng.uniform(low, high)),
        radius=radius,
        angle=rng.uniform(-domain.tilt, domain.tilt),
        pitch=rng.uniform(*domain.pitch),
        slant=float(rng.choice(domain.slants)),
    )


_FILL_SHARES = (0.4, 0.3, 0.3)

CLEARANCE = 1.1  # corners of a tilted shape reach out to 1.1 radii


def _apart(a: Thing, b: Thing) -> bool:
    gap = max(abs(a.centre[0] - b.centre[0]), abs(a.centre[1] - b.centre[1]))
    return gap > CLEARANCE * (a.radius + b.radius)


def _distinct(a: Thing, b: Thing) -> bool:
    return (a.shape, a.colour) != (b.shape, b.colour)


def render(
    rng: np.random.Generator, things: Sequence[Thing], domain: Domain
) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]]]:
    """Draw things on a background.

    Returns:
        Pixels (96, 96, 3) and one mask (96, 96) for each thing.
    """
    canvas = draw_background(str(rng.choice(domain.backgrounds)), IMAGE_SIZE, rng)
    masks = [
        draw_shape(
            canvas,
            thing.shape,
            thing.colour,
            thing.fill,
            centre=thing.centre,
            radius=thing.radius,
            angle=thing.angle,
            pitch=thing.pitch,
            slant=thing.slant,
        )
        for thing in things
    ]
    canvas += domain.noise * rng.standard_normal(canvas.shape, np.float32)
    return np.clip(canvas, 0, 255).astype(np.uint8), masks


def box_of(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The tight, half-open box (x0, y0, x1, y1) around a mask (H, W)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


_OPENINGS = (
    "",
    "",
    "",
    "a photo of ",
    "a picture of ",
    "an image showing ",
    "there is ",
    "we can see ",
    "here is ",
)
_ENDINGS = ("", "", "", "", ".", " on a simple background", " in this scene", " in the picture")
_SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
RELATIONS = {
    "left": (" left of ", " to the left of "),
    "right": (" right of ", " to the right of "),
    "above": (" above ", " over "),
    "below": (" below ", " under "),
}
"""The words for relations of two things in captions."""
_LINKS = (" and ", " with ", " next to ")
_PIECES = (
    *COLOURS, *SHAPES, *FILLS, *_OPENINGS, *_ENDINGS, *_LINKS,
    *itertools.chain(*_SIZE_WORDS.values(), *RELATIONS.values()),
)  # fmt: skip
CAPTION_WORDS = tuple(
    sorted({word for piece in _PIECES for word in piece.strip(".").split()} - {"plain"})
)
"""All words that captions may hold."""


def describe(
    rng: np.random.Generator, things: Sequence[Thing], *, relate: float = 0.5
) -> Description:
    """Write a caption that is true of a scene.

    It names one to three things, always by colour and shape, often also by size and texture, as a
    list or by the relation of two of them.

    Args:
        rng: Source of the choices.
        things: At least one thing.
        relate: Probability that two things are named by a relation, where one holds. Default: 0.5

    Returns:
        The caption and its meaning.
    """
    most = min(3, len(things))
    count = int(rng.choice([1, 2, 3][:most], p=_MENTIONS_SHARES[most]))
    chosen = [int(k) for k in rng.permutation(len(things))[:count]]
    caption = str(rng.choice(_OPENINGS))
    mentions: list[Mention] = []
    relation = None
    for position, k in enumerate(chosen):
        if position == 1:
            relations = true_relations(things[chosen[0]], things[k])
            if relations and rng.random() < relate:
                relation = str(rng.choice(relations))
                caption += str(rng.choice(RELATIONS[relation]))
            else:
                caption += ", " if count > 2 else str(rng.choice(_LINKS))
        elif position == 2:
            caption += str(rng.choice([" and ", ", and ", " with "]))
        size, fill = _stated(rng, things[k])
        phrase = " ".join(filter(None, (size, fill, things[k].colour, things[k].shape)))
        caption += "an " if phrase[0] in "aeiou" else "a "
        start = len(caption)
        caption += phrase
        mentions.append(
            Mention(
                thing=k,
                phrase=phrase,
                span=(start, len(caption)),
                size=things[k].size if size else None,
                fill=things[k].fill if fill else None,
            )
        )
    return Description(caption + str(rng.choice(_ENDINGS)), tuple(mentions), relation)


_MENTIONS_SHARES = {1: [1.0], 2: [0.4, 0.6], 3: [0.25, 0.45, 0.3]}
"""Probabilities of naming 1, 2, ... things, by the number that could be named."""
_SIZE_SHARE, _FILL_SHARE = 0.4, 0.5
"""Probabilities that a phrase states a size other than medium, and a texture other than plain."""


def _stated(rng: np.random.Generator, thing: Thing) -> tuple[str, str]:
    """The words for size and texture; empty if the phrase does not state them."""
    size = (
        str(rng.choice(_SIZE_WORDS[thing.size]))
        if thing.size != "medium" and rng.random() < _SIZE_SHARE
        else ""
    )
    fill = thing.fill if thing.fill != "plain" and rng.random() < _FILL_SHARE else ""
    return size, fill


def true_relations(a: Thing, b: Thing) -> list[str]:
    """The relations of ``a`` to ``b`` that hold: of "left", "right", "above", "below".

    A relation holds if the two extents do not overlap along its axis.
    """
    reach = CLEARANCE * (a.radius + b.radius)
    dx, dy = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
    holds = {"left": dx > reach, "right": -dx > reach, "above": dy > reach, "below": -dy > reach}
    return [name for name, true in holds.items() if true]


def likelihood(description: Description, named: Sequence[Thing], things: Sequence[Thing]) -> float:
    """Probability that :func:`describe` gives the same description of other things.

    It omits a constant factor, the probability of the words, which does not depend on the things.

    Args:
        description: The description.
        named: The things that were described, to which :attr:`Mention.thing` refers.
        things: The things of another scene, or of the same one.

    Returns:
        Zero if the description is not true of ``things``.
    """
    count, most = len(description.mentions), min(3, len(things))
    if count > most:
        return 0.0
    total = 0.0
    for chosen in itertools.permutations(things, count):
        probability = 1.0
        for mention, thing in zip(description.mentions, chosen, strict=True):
            probability *= _phrase_likelihood(mention, named[mention.thing], thing)
        if probability and count > 1:
            relations = true_relations(chosen[0], chosen[1])
            if description.relation is not None:
                holds = description.relation in relations
                probability *= 0.5 / len(relations) if holds else 0.0
            elif relations:
                probability *= 0.5
        total += probability
    orders = math.perm(len(things), count)
    return total * _MENTIONS_SHARES[most][count - 1] / orders


def _phrase_likelihood(mention: Mention, named: Thing, thing: Thing) -> float:
    """Probability that a thing gets the same phrase as another one."""
    if (named.colour, named.shape) != (thing.colour, thing.shape):
        return 0.0
    probability = 1.0
    if mention.size is not None:
        probability *= _SIZE_SHARE if mention.size == thing.size else 0.0
    elif thing.size != "medium":
        probability *= 1 - _SIZE_SHARE
    if mention.fill is not None:
        probability *= _FILL_SHARE if mention.fill == thing.fill else 0.0
    elif thing.fill != "plain":
        probability *= 1 - _FILL_SHARE
    return probability
