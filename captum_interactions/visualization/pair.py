"""One pair: the image with its heat map, and the caption with its words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from captum_interactions.encoders.axes import ImageAxis, TextAxis
from captum_interactions.visualization.words import StyledWord, draw_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_interactions.first_order_map import FirstOrderMap
    from captum_interactions.interaction_map import InteractionMap

COLOURS = "RdBu_r"
"""Diverging and safe for colour-blind readers: red is a match, blue a clash."""


def plot_interactions(
    imap: InteractionMap | FirstOrderMap, b: Any = None, a: Any = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw an image–text pair: where the image, and which words, matched or clashed.

    Patches are coloured by their interaction with the selected text, words by their interaction
    with the selected region. Both scales are symmetric around zero, so white is no interaction.

    Args:
        imap (InteractionMap or FirstOrderMap): An explanation whose first input is an image and
            whose second a text.
        b: A selection of the text. Default: None, the whole caption
        a: A selection of the image. Default: None, the whole image
        ax (Axes, optional): Where the image is drawn; the caption comes below it. Default: a new
            figure of a size that fits

    Returns:
        tuple: figure and axes of the image. Nothing is shown.

    Raises:
        TypeError: If the first input is not an image or the second not a text.
    """
    image, text = imap.axis_a, imap.axis_b
    if not isinstance(image, ImageAxis) or not isinstance(text, TextAxis):
        raise TypeError(
            "plot_interactions draws an image as input a and a text as input b, but the axes are "
            f"{type(image).__name__} and {type(text).__name__}"
        )
    heat = imap.heatmap(b)
    words = _style(imap, text, b, a)

    if ax is None:
        ax, below = _new_axes(image, words)
    else:
        below = ax.inset_axes((0.0, -0.32, 1.0, 0.28))
    _draw_heat(ax, image, heat)
    _outline(ax, a)
    ax.set_title(_title(imap, b, a, heat), fontsize=10)
    draw_words(below, words)
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure, ax


def _new_axes(image: ImageAxis, words: list[StyledWord]) -> tuple[Axes, Axes]:
    """A figure with the image itself at the left; returns axes for heat map and caption."""
    from matplotlib import pyplot as plt

    height, width = image.frame.original
    picture = (3.0, 3.0 * min(max(height / width, 0.4), 1.6))
    margin, bar, title = 0.12, 0.95, 0.32
    n_pictures = 1 if image.image is None else 2
    total_width = n_pictures * (picture[0] + margin) + margin + bar
    letters = (total_width - 2 * margin) * 9.0  # about nine letters an inch at 11 points
    n_lines = 1 + int(sum(len(word.text) + 2 for word in words) / letters)
    caption = 0.32 * n_lines + margin
    total_height = picture[1] + title + caption

    figure = plt.figure(figsize=(total_width, total_height))

    def add(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes(
            (x / total_width, y / total_height, w / total_width, h / total_height)
        )

    if image.image is not None:
        original = add(margin, caption, *picture)
        original.imshow(image.image)
        original.set_title("image", fontsize=10)
        original.set_xticks([])
        original.set_yticks([])
    ax = add(margin + (n_pictures - 1) * (picture[0] + margin), caption, *picture)
    below = add(margin, margin / 2, total_width - 2 * margin, caption - margin)
    return ax, below


def _draw_heat(ax: Axes, image: ImageAxis, heat: NDArray[np.float32]) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height, width = image.frame.original
    limit = float(np.abs(heat).max()) or 1.0
    if image.image is not None:
        # Pale grey, so that colours speak of attribution alone.
        grey = np.asarray(image.image.convert("L")) * 0.5 + 127.5
        ax.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    colours = ScalarMappable(Normalize(-limit, limit), colormaps[COLOURS])
    opacity = 0.9 * np.sqrt(np.abs(heat) / limit)
    ax.imshow(colours.to_rgba(heat, alpha=opacity), extent=image.extent(), interpolation="nearest")
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.set_xticks([])
    ax.set_yticks([])
    beside = ax.inset_axes((1.03, 0.0, 0.04, 1.0))
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(colours, cax=beside)
    bar.ax.tick_params(labelsize=8)
    bar.set_ticks([-limit, 0.0, limit], labels=[f"{-limit:.2g}", "0", f"{limit:.2g}"])


def _outline(ax: Axes, selection: Any) -> None:
    """Draw a selected box or mask on the image."""
    if isinstance(selection, np.ndarray) and selection.ndim == 2:
        ax.contour(selection.astype(float), levels=[0.5], colors="black", linewidths=1.5)
    elif isinstance(selection, tuple) and len(selection) == 4:
        from matplotlib.patches import Rectangle

        x0, y0, x1, y1 = selection
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, lw=1.8, ec="black"))


def _style(
    imap: InteractionMap | FirstOrderMap, text: TextAxis, b: Any, a: Any
) -> list[StyledWord]:
    """Words coloured by the selected region; those of the selected phrase are framed."""
    from matplotlib import colormaps

    if getattr(imap, "attributions_b", 0) is None:  # a first-order method without a map of texts
        weights = np.zeros(len(text.words))
    else:
        weights = np.array([weight for _, weight in imap.word_weights(a)])
    chosen = text.select(b) if b is not None else np.zeros(len(text))
    limit = float(np.abs(weights).max(initial=0.0)) or 1.0
    styled: list[StyledWord] = []
    end = 0
    words = text.words or ()
    for word, weight in zip(words, weights, strict=False):
        red, green, blue, _ = colormaps[COLOURS](0.5 + 0.5 * weight / limit)
        styled.append(
            StyledWord(
                word.text,
                background=(red, green, blue, 0.85),
                framed=bool(chosen[list(word.tokens)].any()),
                glued=word.span[0] == end and bool(styled),
            )
        )
        end = word.span[1]
    return styled


def _title(imap: InteractionMap | FirstOrderMap, b: Any, a: Any, heat: NDArray[np.float32]) -> str:
    if not hasattr(imap, "between"):
        return f"{imap.settings.get('attribution', 'first order')}, score {imap.score:.3f}"
    if b is None and a is None:
        return f"score {imap.score:.3f}, interactions of patches {heat.sum():+.3f}"
    shown = f"“{b}”" if isinstance(b, str) else "the caption" if b is None else "selected tokens"
    if a is None:
        return f"{shown} in the image: {heat.sum():+.3f}"  # what is drawn: patches alone
    return f"{shown} in the selected region: {imap.between(a, b):+.3f}"
