"""From what is typed in the app to maps, which are cached."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageFilter

from captum_interactions.attr import ATTRIBUTIONS
from captum_interactions.encoders import (
    DualEncoderWrapper,
    ImageTower,
    Layer,
    TextTower,
    Tower,
    from_pretrained,
)
from captum_interactions.encoders.inputs.loading import load_image
from captum_interactions.explanation import check_options, explain
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.maps.interaction_map import InteractionMap
from captum_interactions.maps.orders import values_of
from captum_interactions.maps.titles import method_title

METHODS = {
    method_title(name) + (" (first order)" if method.order == 1 else ""): name
    for name, method in ATTRIBUTIONS.items()
}
"""Attribution methods by what the app calls them."""

LAYERS = ("the model's default", "embeddings", "middle block", "last block")
BASELINES = ("the model's default", "black", "grey", "white", "blurred image")
"""The first of each leaves the choice to the model."""

MOST_PIXELS = 25_000_000
"""Of an image: cached maps hold their images."""

BAD_INPUT = (ImportError, OSError, RuntimeError, TypeError, ValueError)
"""Errors whose message is shown in the page."""


class Explained(NamedTuple):
    """A map, and what a reader of it must know."""

    map: InteractionMap | FirstOrderMap
    notes: tuple[str, ...]


@lru_cache(maxsize=2)
def load_model(name: str) -> DualEncoderWrapper:
    """A model by its name or folder, on a GPU if there is one."""
    return from_pretrained(name).to("cuda" if torch.cuda.is_available() else "cpu")


@lru_cache(maxsize=16)
def explain_image(
    model: str, path: str, caption: str, method: str, layer: str, baseline: str
) -> Explained:
    """Explain an image and its caption.

    Args:
        model (str): Name or folder of the model.
        path (str): File of the image.
        caption (str): The caption.
        method (str): An attribution by its own name.
        layer (str): One of :data:`LAYERS`.
        baseline (str): One of :data:`BASELINES`.

    Raises:
        OSError, TypeError, ValueError: With a message for the user, if something is wrong with the
            image, the caption or the model.
    """
    wrapper = load_model(model)
    if not isinstance(wrapper.tower_a, ImageTower) or not isinstance(wrapper.tower_b, TextTower):
        raise TypeError("this model does not take an image and a text; try the tab for two texts")
    image = _open(path)
    image_baseline = _baseline(wrapper.tower_a, image, baseline)
    return _explain(wrapper, image, caption, method, layer, image_baseline)


@lru_cache(maxsize=16)
def explain_texts(model: str, first: str, second: str, method: str, layer: str) -> Explained:
    """Explain two texts; of a model of images and texts, the text encoder takes both."""
    wrapper = load_model(model)
    if not isinstance(wrapper.tower_b, TextTower):
        raise TypeError("this model takes no texts")
    if not isinstance(wrapper.tower_a, TextTower):
        text = wrapper.tower_b
        layers = (wrapper.default_layers[1],) * 2
        wrapper = DualEncoderWrapper(text, text, layers, wrapper.default_n_steps)
    return _explain(wrapper, first, second, method, layer)


def difference(first: Explained, second: Explained) -> FirstOrderMap:
    """Interactions of each part of the image with one caption less those with another.

    Raises:
        ValueError: If the method has no map of the image.
    """
    values = [values_of(one.map, "a") for one in (first, second)]
    if values[0] is None or values[1] is None:
        raise ValueError("the method has no map of the image, so there is no difference to show")
    score = first.map.score - second.map.score
    change = torch.from_numpy(values[0] - values[1])
    return FirstOrderMap(change, None, score, first.map.axis_a, first.map.axis_b)


def message_of(error: Exception) -> str:
    """What a user is told."""
    message = str(error).replace("text 0", "the text")
    message = message.replace("shorten it or pass truncation=True", "please shorten it")
    return shorten(message, 300, placeholder=" …")


def _explain(
    wrapper: DualEncoderWrapper, a: Any, b: str, method: str, layer: str, baseline: Any = None
) -> Explained:
    layers = _layers(wrapper, layer)
    asked = {"layers": layers, "baselines": None if baseline is None else (baseline, None)}
    options: dict[str, Any] = {}
    notes = []
    for name, value in asked.items():
        if value is None:
            continue
        try:
            check_options(method, {name: value})
        except TypeError:
            notes.append(f"{method_title(method)} has no choice of {name}.")
        else:
            options[name] = value
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        imap = explain(wrapper, a, b, method, **options)
    notes += [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    return Explained(imap, tuple(notes))


def _layers(wrapper: DualEncoderWrapper, layer: str) -> tuple[Layer, Layer] | None:
    def of(tower: Tower) -> Layer:
        if not tower.n_blocks:
            return "input"
        return {"embeddings": 0, "middle block": tower.n_blocks // 2, "last block": -1}[layer]

    return None if layer == LAYERS[0] else (of(wrapper.tower_a), of(wrapper.tower_b))


def _open(path: str) -> Image.Image:
    """The image of a file, which messages call by its name alone."""
    try:
        with Image.open(path) as file:  # the header alone
            width, height = file.size
        if width * height <= MOST_PIXELS:
            return load_image(path)
    except (OSError, ValueError) as error:
        name = Path(path).name
        raise ValueError(f"the file {name!r} cannot be read as an image") from error
    raise ValueError(
        f"the image has {width} × {height} pixels, but at most {MOST_PIXELS // 10**6} million are "
        "allowed here"
    )


def _baseline(tower: ImageTower, image: Image.Image, baseline: str) -> torch.Tensor | None:
    if baseline == BASELINES[0]:
        return None
    if baseline == "blurred image":
        picture = image.filter(ImageFilter.GaussianBlur(max(image.size) / 16))
    else:
        picture = Image.new("RGB", image.size, baseline)
    return tower.prepare(picture).inputs
