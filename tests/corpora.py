"""A small collection on a small model, and its index."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from captum_interactions import DualEncoderWrapper, wrap
from captum_interactions.corpus import FactorIndex, build_index
from tests import models

TEXTS = (
    "a red circle",
    "red",
    "a circle in a red circle",
    "no circle",
    "a red red red",
    "circle a",
    "one red dot",
)
"""Captions of different numbers of tokens."""
OPTIONS: dict[str, Any] = {"n_steps": 4, "batch_size": 2, "shard_size": 3}


def small_wrapper(**options: Any) -> DualEncoderWrapper:
    return wrap(*models.clip_with_processor(**options))


def picture(seed: int, size: tuple[int, int] = (12, 12)) -> Image.Image:
    """Noise of another size each, so that frames differ."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def images(count: int = 8) -> dict[str, Callable[[], Image.Image]]:
    sizes = ((12, 12), (12, 20), (24, 16))
    return {f"image {i}": partial(picture, i, sizes[i % 3]) for i in range(count)}


def texts() -> dict[str, str]:
    return {f"text {i}": text for i, text in enumerate(TEXTS)}


def build_both(folder: Path, storage: str = "float32") -> tuple[FactorIndex, FactorIndex]:
    wrapper = small_wrapper()
    options = OPTIONS | {"storage": storage}
    index_a = build_index(folder / "a", wrapper, images(), side="a", **options)
    return index_a, build_index(folder / "b", wrapper, texts(), side="b", **options)


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, hidden files included."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def build_slowly(folder: Path, seconds: float, begin: Callable[[], object] = lambda: None) -> None:
    """Build the index of the images, each of which takes its time to open."""

    def slow(opener: Callable[[], Image.Image]) -> Image.Image:
        time.sleep(seconds)
        return opener()

    items = {key: partial(slow, opener) for key, opener in images().items()}
    wrapper = small_wrapper()
    begin()
    build_index(folder, wrapper, items, side="a", storage="float32", **OPTIONS)
