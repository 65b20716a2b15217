"""Maps for the tests of pages, and what a page holds."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from captum_interactions import InteractionMap
from captum_interactions.axes import AudioAxis, TokenAxis
from captum_interactions.encoders import Frame, ImageAxis, TextAxis

WHITE = Image.new("RGB", (60, 40), "white")


def text_axis(text: str) -> TextAxis:
    """A token a word, between a start and an end token."""
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    n_tokens = len(spans) + 2
    special = (True, *(False,) * len(spans), True)
    labels = ("[start]", *(text[slice(*span)] for span in spans), "[end]")
    return TextAxis(labels, special, (False,) * n_tokens, text, (None, *spans, None))


def image_axis(image: Image.Image | None, grid: tuple[int, int] = (2, 3)) -> ImageAxis:
    """Patches of a whole image of (width, height) (60, 40) by default, and a class token."""
    width, height = image.size if image is not None else (60, 40)
    frame = Frame.resized((height, width), (20 * grid[0], 20 * grid[1]))
    return ImageAxis.of_grid(grid, (20, 20), frame, image, before=("[class]",))


def make(
    axis_a: TokenAxis, axis_b: TokenAxis, score: float = 0.3, delta: float = 0.01, seed: int = 0
) -> InteractionMap:
    """A map of random values whose parts make the score."""
    generator = torch.Generator().manual_seed(seed)
    a, b = len(axis_a), len(axis_b)
    values = torch.randn(a, b, generator=generator)
    main = [torch.randn(size, generator=generator) for size in (a, b)]
    constant = score + delta - float(values.sum()) - sum(float(m.sum()) for m in main)
    return InteractionMap(values, *main, constant, score, delta, axis_a, axis_b)


def picture_and_text(
    text: str, image: Image.Image | None = WHITE, *, grid: tuple[int, int] = (2, 3), **options: Any
) -> InteractionMap:
    return make(image_axis(image, grid), text_axis(text), **options)


def two_texts(a: str, b: str) -> InteractionMap:
    return make(text_axis(a), text_axis(b))


def sound(text: str = "a dog barks") -> InteractionMap:
    """A spectrogram of 2 bands and 3 columns, low band first."""
    times = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]] * 2)
    bands = np.repeat([0, 1], 3)
    return make(AudioAxis.of_cells(times, bands, 3.0, 1), text_axis(text))


def page_data(page: str) -> Any:
    """The data of a page, as its script reads it."""
    found = re.search(r'<script type="application/json" class="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def stored_values(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4")
