"""The training set of the bundled model: scenes with hard negatives, kept in a folder.

Scenes come in groups of siblings: a scene and copies of it in which the least has changed. Which
captions are true of which images is known, so a loss need not treat a true caption as a negative.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm
from transformers import CLIPTokenizer

from captum_interactions.datasets.scenes import (
    CLEARANCE,
    DOMAINS,
    IMAGE_SIZE,
    MAX_OBJECTS,
    SIZES,
    Mention,
    Thing,
    alter,
    arrange,
    describe,
    render,
    scene_rng,
)
from captum_interactions.datasets.shapes import COLOURS, FILLS, SHAPES

TRAINING_SEED = 1_000_003
"""Scenes with any other seed are held out."""

SIBLINGS = 4
"""Images in a group: one scene and three changed copies."""

CAPTIONS = 4
"""Captions written for each image."""

MAX_MENTIONS = 3
MAX_TOKENS = 40

_ATTRIBUTES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("shape", tuple(SHAPES)),
    ("colour", tuple(COLOURS)),
    ("size", SIZES),
    ("fill", FILLS),
)
UNSTATED = -1
ABSENT = -2

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TrainingSet:
    """N images with C captions each; siblings lie next to each other.

    Attributes:
        images: (N, 96, 96, 3) uint8.
        tokens: (N, C, MAX_TOKENS) token ids, padded.
        objects: (N, MAX_OBJECTS, 4) shape, colour, size and fill of every object; ABSENT where
            there is none.
        boxes: (N, MAX_OBJECTS, 4) x0, y0, x1, y1 in pixels, with a little to spare.
        mentions: (N, C, MAX_MENTIONS, 4) the same of every phrase; UNSTATED where the caption does
            not say.
        places: (N, C, MAX_MENTIONS, 4) the token that states it; 0, where the start token is, for
            none.
    """

    images: npt.NDArray[np.uint8]
    tokens: npt.NDArray[np.int16]
    objects: npt.NDArray[np.int8]
    boxes: npt.NDArray[np.int16]
    mentions: npt.NDArray[np.int8]
    places: npt.NDArray[np.int8]


def is_true(mentions: npt.NDArray[np.int8], objects: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Which captions hold of which sets of objects, relations left aside.

    Args:
        mentions: (..., MAX_MENTIONS, 4).
        objects: (..., any, 4); the leading dimensions of both are broadcast.

    Returns:
        (...); true where every phrase fits some object.
    """
    said, seen = mentions[..., :, None, :], objects[..., None, :, :]
    fits: Any = ((said == UNSTATED) | (said == seen)).all(-1)
    result: npt.NDArray[np.bool_] = fits.any(-1).all(-1)
    return result


def training_captions(groups: int) -> Iterator[str]:
    """Captions to train a tokenizer on."""
    for index in range(groups):
        rng = scene_rng(TRAINING_SEED, "plain", index)
        things = arrange(rng, DOMAINS["plain"])
        for _ in range(CAPTIONS):
            yield describe(rng, things)[0]


_WORTH_A_POOL = 1_000
"""Groups from which on the scenes are drawn by one process a core."""


def load_or_draw(folder: Path, groups: int, tokenizer: CLIPTokenizer) -> TrainingSet:
    """Open the training set in ``folder``; draw it first unless it is there already.

    Args:
        folder: Where the arrays are, or will be (about 28 kB an image).
        groups: Number of groups of SIBLINGS images.
        tokenizer: Turns captions into ids.

    Returns:
        The set; its images are mapped from the disk, read-only.
    """
    names = tuple(TrainingSet.__dataclass_fields__)
    finished = folder / f"finished-{groups}"
    if not finished.exists():
        folder.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(
            folder / "images.npy",
            mode="w+",
            dtype=np.uint8,
            shape=(groups * SIBLINGS, IMAGE_SIZE, IMAGE_SIZE, 3),
        )
        parts: list[Arrays] = []
        with ExitStack() as stack:
            draw: Callable[..., Iterator[Arrays]] = map
            if groups >= _WORTH_A_POOL:
                pool = stack.enter_context(multiprocessing.get_context("spawn").Pool())
                draw = partial(pool.imap, chunksize=64)
            drawn = draw(partial(_draw_group, tokenizer=tokenizer), range(groups))
            for index, part in enumerate(tqdm(drawn, "scenes", groups, mininterval=2)):
                images[index * SIBLINGS : (index + 1) * SIBLINGS] = part.pop("images")
                parts.append(part)
        images.flush()
        for name in names[1:]:
            np.save(folder / f"{name}.npy", np.concatenate([part[name] for part in parts]))
        finished.touch()
    return TrainingSet(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names})


def _draw_group(index: int, tokenizer: CLIPTokenizer) -> Arrays:
    domain = DOMAINS["plain"]
    rng = scene_rng(TRAINING_SEED, "plain", index)
    original = arrange(rng, domain)
    siblings = [original] + [alter(rng, original, domain) for _ in range(SIBLINGS - 1)]
    backdrop = int(rng.integers(2**32))  # the same for all siblings, noise included
    arrays: Arrays = {
        "images": np.stack(
            [render(np.random.default_rng(backdrop), things, domain)[0] for things in siblings]
        ),
        "tokens": np.full((SIBLINGS, CAPTIONS, MAX_TOKENS), tokenizer.pad_token_id, np.int16),
        "objects": np.full((SIBLINGS, MAX_OBJECTS, len(_ATTRIBUTES)), ABSENT, np.int8),
        "boxes": np.zeros((SIBLINGS, MAX_OBJECTS, 4), np.int16),
        "mentions": np.full(
            (SIBLINGS, CAPTIONS, MAX_MENTIONS, len(_ATTRIBUTES)), UNSTATED, np.int8
        ),
        "places": np.zeros((SIBLINGS, CAPTIONS, MAX_MENTIONS, len(_ATTRIBUTES)), np.int8),
    }
    for s, things in enumerate(siblings):
        for k, thing in enumerate(things):
            arrays["objects"][s, k] = [
                values.index(getattr(thing, name)) for name, values in _ATTRIBUTES
            ]
            reach = CLEARANCE * thing.radius
            low, high = np.subtract(thing.centre, reach), np.add(thing.centre, reach)
            arrays["boxes"][s, k] = [*np.floor(low), *np.ceil(high)]
        for c in range(CAPTIONS):
            caption, mentions = describe(rng, things)
            encoded = tokenizer(caption, return_offsets_mapping=True)
            arrays["tokens"][s, c, : len(encoded["input_ids"])] = encoded["input_ids"]
            for m, mention in enumerate(mentions):
                stated, places = _stated(mention, things[mention.thing], encoded["offset_mapping"])
                arrays["mentions"][s, c, m], arrays["places"][s, c, m] = stated, places
    return arrays


def _stated(
    mention: Mention, thing: Thing, offsets: list[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """What a phrase states, and the token that states it, in the order of _ATTRIBUTES."""
    words = mention.phrase.split()
    starts = [mention.span[0] + sum(len(word) + 1 for word in words[:w]) for w in range(len(words))]
    at = {
        "shape": len(words) - 1,
        "colour": len(words) - 2,
        "size": 0 if mention.size else None,
        "fill": len(words) - 3 if mention.fill else None,
    }
    stated, places = [], []
    for name, values in _ATTRIBUTES:
        word = at[name]
        stated.append(UNSTATED if word is None else values.index(getattr(thing, name)))
        places.append(
            0
            if word is None
            else next(t for t, (a, b) in enumerate(offsets) if b > a == starts[word])
        )
    return stated, places
