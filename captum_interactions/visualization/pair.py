"""One pair: the image with its heat map, and the caption with its words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from captum_interactions.axes import ImageAxis, TextAxis
from captum_interactions.maps.orders import is_second_order, values_of
from captum_interactions.visualization.heatmap import add_scale
from captum_interactions.visualization.lettering import figure_of, format_number, set_title
from captum_interactions.visualization.palette import NEUTRAL, limit_of, rounding_note
from captum_interactions.visualization.picture import (
    Picture,
    Style,
    Upsampling,
    check_style,
    draw_heat,
    outline,
    picture_of,
)
from captum_interactions.visualization.words import (
    StyledWord,
    draw_words,
    height_of,
    style_words,
    weights_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_interactions.maps.first_order_map import FirstOrderMap
    from captum_interactions.maps.interaction_map import InteractionMap


def plot_interactions(
    imap: InteractionMap | FirstOrderMap,
    b: Any = None,
    a: Any = None,
    ax: Axes | None = None,
    *,
    style: Style = "overlay",
    upsampling: Upsampling = "nearest",
) -> tuple[Figure, Axes]:
    """Draw an image–text pair: the patches and the words that raise or lower the score together.

    Patches are coloured by their interaction with the selected text, words by their interaction
    with the selected region: red raises the score, blue lowers it, what has no colour does neither.
    Patches and words have a symmetric scale each; the end of that of words is written over them.

    Args:
        imap (InteractionMap or FirstOrderMap): An explanation whose first input is an image and
            whose second a text.
        b: A selection of the text. Default: None, the whole caption
        a: A selection of the image. Default: None, the whole image
        ax (Axes, optional): Where the image is drawn; the caption comes below it. Default: a new
            figure of a size that fits, with the image itself at the left
        style (str): How the heat map is drawn, see :func:`plot_heatmap`. Default: ``"overlay"``
        upsampling (str): ``"nearest"`` or ``"smooth"``. Default: ``"nearest"``

    Returns:
        tuple: figure and axes of the image. Nothing is shown.

    Raises:
        TypeError: If the first input is not an image or the second not a text.
        ValueError: If a style is unknown.
    """
    image, text = imap.axis_a, imap.axis_b
    if not isinstance(image, ImageAxis) or not isinstance(text, TextAxis):
        raise TypeError(
            "plot_interactions draws an image as input a and a text as input b, but the axes are "
            f"{type(image).__name__} and {type(text).__name__}"
        )
    check_style(style, upsampling)
    heat = imap.heatmap(b)
    values = values_of(imap, "b", a)
    weights = weights_of(text, np.zeros(len(text)) if values is None else values)
    largest = limit_of(weights, source=imap)
    words = style_words(text, weights, largest, b if is_second_order(imap) else None)
    picture = picture_of(image)

    if ax is None:
        ax, below = _new_axes(picture, words, style)
    else:
        below = ax.inset_axes((0.0, -0.4, 1.0, 0.28))
    limit = limit_of(heat, source=imap)
    draw_heat(ax, picture, heat, limit, style, upsampling)
    outline(ax, a)
    add_scale(ax, picture, limit, style)
    set_title(ax, _title(imap, b, a, heat) + rounding_note(imap, heat), lines=3)
    draw_words(below, words)
    if values is not None:
        note = f"Words: the strongest colour is ±{largest:.2g}"
        below.set_title(note, fontsize=8, loc="left", color=NEUTRAL, pad=2)
    return figure_of(ax), ax


def _new_axes(picture: Picture, words: list[StyledWord], style: Style) -> tuple[Axes, Axes]:
    """A figure with the image itself at the left; returns axes for heat map and caption."""
    from matplotlib import pyplot as plt

    size = (2.0, 2.0 * min(max(picture.aspect, 0.4), 1.6))
    margin, bar, title, note = 0.1, 0.8, 0.56, 0.25
    n_pictures = 1 if picture.image is None else 2
    total_width = n_pictures * (size[0] + margin) + margin + bar
    caption = height_of(words, total_width - 2 * margin) + 2 * margin
    total_height = size[1] + title + note + caption
    figure = plt.figure(figsize=(total_width, total_height))

    def add(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes(
            (x / total_width, y / total_height, w / total_width, h / total_height)
        )

    below = add(margin, margin / 2, total_width - 2 * margin, caption - margin)
    if style == "side_by_side":  # the image shares the axes of the heat map
        return add(margin, caption + note, n_pictures * size[0] + margin, size[1]), below
    if picture.image is not None:
        original = add(margin, caption + note, *size)
        original.imshow(picture.image)
        set_title(original, "image")
        original.set_xticks([])
        original.set_yticks([])
        for spine in original.spines.values():
            spine.set_linewidth(0.5)
    left = margin + (n_pictures - 1) * (size[0] + margin)
    return add(left, caption + note, *size), below


def _title(imap: InteractionMap | FirstOrderMap, b: Any, a: Any, heat: NDArray[np.float32]) -> str:
    score, total = format_number(imap.score, ".3f"), format_number(heat.sum(), "+.3g")
    if not is_second_order(imap):
        return f"{imap.method} (first order), score {score}"
    if b is None and a is None:
        return f"score {score}, patches with the caption: sum {total}"
    shown = f"“{b}”" if isinstance(b, str) else "the caption" if b is None else "selected tokens"
    if a is None:
        return f"patches with {shown}: sum {total}"  # what is drawn: patches alone
    return f"{shown} with the selected region: {format_number(imap.between(a, b), '+.3g')}"
