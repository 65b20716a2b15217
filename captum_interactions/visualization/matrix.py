"""One pair of any kind: a matrix with a cell for each part of a and each of b."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from captum_interactions.axes import ImageAxis, TokenAxis
from captum_interactions.axes.text import shorten
from captum_interactions.maps.orders import is_map, is_second_order
from captum_interactions.visualization.lettering import (
    figure_of,
    format_number,
    legible,
    set_title,
    size_of,
)
from captum_interactions.visualization.palette import COLOURS, limit_of, mark_scale, rounding_note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from captum_interactions.maps.interaction_map import InteractionMap

_LARGEST, _SMALLEST = 9.0, 5.0
"""Points of the labels; where the smallest ones have no room, only each n-th is written."""
_LETTERS = 24


def plot_matrix(
    source: InteractionMap | ArrayLike,
    ax: Axes | None = None,
    *,
    by: Literal["unit", "token"] = "unit",
    labels_a: Sequence[str] | None = None,
    labels_b: Sequence[str] | None = None,
    limit: float | None = None,
    title: str | None = None,
) -> tuple[Figure, Axes]:
    """Draw the interactions of the words (or other parts) of both inputs as a matrix.

    Rows are parts of a, columns parts of b. The scale is symmetric around zero: red is a match,
    blue a clash, white no interaction. Patches of an image are labelled by the row of the grid in
    which they are; a line separates rows. Labels shrink, and then only each n-th is written, where
    there is no room for all.

    Args:
        source (InteractionMap or array): An explanation of inputs of any kind, or values of shape
            (rows, columns).
        ax (Axes, optional): Where to draw. Default: a new figure of a size that fits
        by (str): ``"unit"``, words of several tokens are one and special and padding tokens are
            left out; or ``"token"``, everything. Default: ``"unit"``
        labels_a (sequence of str, optional): Names of the rows. Default: those of the map, numbers
            for an array
        labels_b (sequence of str, optional): Names of the columns.
        limit (float, optional): End of the symmetric scale. Default: the largest absolute value
        title (str, optional): Default: the score and the sum of what is shown

    Returns:
        tuple: figure and axes. Nothing is shown.

    Raises:
        TypeError: If the source is a first-order map, which has no pairs.
        ValueError: If an array has not two dimensions, or there is not one label a row and column.
    """
    if by not in ("unit", "token"):
        raise ValueError(f"by must be 'unit' or 'token', but got {by!r}")
    values, sides = _content(source, by)
    for index, (given, name) in enumerate(((labels_a, "labels_a"), (labels_b, "labels_b"))):
        if given is not None:
            if len(given) != values.shape[index]:
                raise ValueError(
                    f"{name} must be {values.shape[index]} names, but got {len(given)}"
                )
            sides[index] = [str(label) for label in given], None
    limit = limit_of(values, limit=limit, source=source)
    (rows, row_length), (columns, column_length) = sides
    if ax is None:
        ax = _new_axes(len(rows), len(columns), row_length, column_length)
    image = ax.imshow(
        values, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
    )
    bar = figure_of(ax).colorbar(image, ax=ax, fraction=0.05, pad=0.03)
    width, height = size_of(ax)
    mark_scale(bar, limit, height, "per pair")
    for spine in ax.spines.values():
        spine.set_linewidth(0.5)
    if title is None:
        title = ""
        if is_second_order(source):
            total = format_number(values.sum(), "+.3f") + rounding_note(source, values)
            title = f"score {format_number(source.score, '.3f')}, shown {total}"
    set_title(ax, title, width=max(width, 2.0))
    width, height = size_of(ax)
    _label(ax, "y", rows, row_length, height)
    _label(ax, "x", columns, column_length, width)
    return figure_of(ax), ax


_Side = tuple[list[str], int | None]
"""Labels, and how many patches a row of the grid has if they are patches."""


def _content(source: Any, by: str) -> tuple[NDArray[np.float32], list[_Side]]:
    if is_second_order(source):
        axes = (source.axis_a, source.axis_b)
        values = source.by_unit().numpy() if by == "unit" else source.interactions.numpy()
        return values, [_side(axis, by) for axis in axes]
    if is_map(source):
        raise TypeError("a first-order map has one value a token, but plot_matrix draws pairs")
    values = np.asarray(source, np.float32)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a matrix has shape (rows, columns), but got shape {values.shape}")
    return values, [([str(index) for index in range(n)], None) for n in values.shape]


def _side(axis: TokenAxis, by: str) -> _Side:
    labels = [unit.label for unit in axis.units] if by == "unit" else list(axis.labels)
    patches = by == "unit" and isinstance(axis, ImageAxis) and len(labels) > 12
    return labels, axis.grid[1] if patches and isinstance(axis, ImageAxis) else None


def _new_axes(
    n_rows: int, n_columns: int, row_length: int | None, column_length: int | None
) -> Axes:
    """Room for each label, up to the size of a page; patches need less."""
    from matplotlib import pyplot as plt

    width = 3.2 if column_length else max(0.15 * n_columns, min(0.45 * n_columns, 3.2))
    height = 3.6 if row_length else max(0.14 * n_rows, min(0.32 * n_rows, 5.0))
    size = (min(max(width, 0.6), 11.0) + 1.8, min(max(height, 0.4), 11.0) + 1.6)
    return plt.subplots(figsize=size, layout="constrained")[1]


def _label(ax: Axes, which: str, labels: list[str], length: int | None, inches: float) -> None:
    axis = ax.xaxis if which == "x" else ax.yaxis
    places = list(range(len(labels)))
    step = 1
    if length is not None:  # patches, row by row
        places = places[::length]
        labels = [str(row) for row in range(len(places))]
        axis.set_label_text("patches, by their row", fontsize=_LARGEST)
        if which == "x" and len(places) > 1 and inches * 72 / len(places) > 5.0:
            for place in places[1:]:
                ax.axvline(place - 0.5, color="#00000040", linewidth=0.5)
        elif which == "y" and len(places) > 1 and inches * 72 / len(places) > 5.0:
            for place in places[1:]:
                ax.axhline(place - 0.5, color="#00000040", linewidth=0.5)
        if length > 1:  # the name stands at the middle of its row
            places = [place + (length - 1) / 2 for place in places]  # type: ignore[misc]
    pitch = inches * 72 / max(len(labels), 1)
    fontsize = min(max(pitch / 1.15, _SMALLEST), _LARGEST)
    step = max(1, int(np.ceil(_SMALLEST * 1.1 / max(pitch, 1e-3))))
    texts = [legible(shorten(label, _LETTERS)) for label in labels[::step]]
    axis.set_ticks(places[::step], [text for text, _ in texts])
    turned = which == "x" and length is None
    axis.set_tick_params(length=0, labelsize=fontsize, labelrotation=60 if turned else 0)
    for label, (_, families) in zip(axis.get_ticklabels(), texts, strict=True):
        label.set(fontfamily=families, parse_math=False)
        if turned:
            label.set(horizontalalignment="right", rotation_mode="anchor")
