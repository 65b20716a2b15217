"""What charts of several methods share: their size, letters, colours and marks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from captum_interactions.maps.titles import method_title
from captum_interactions.visualization.lettering import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.0
"""Inches. On a screen of 360 pixels, a letter of so many points is then as many pixels high."""
LETTERS, SMALL = 9.0, 8.0
"""Points of names and labels, and of numbers."""
ROW = 0.4
"""Inches of a row whose name stands above it."""
LINE_COLOURS = ("#0072b2", "#d55e00", "#000000", "#009e73", "#56b4e9", "#e69f00", "#cc79a7")
"""Of Okabe and Ito, which readers with a colour vision deficiency can tell apart; those that
differ most come first."""
MARKS = "osD^vPX*"
"""One more than there are colours, so that 56 lines differ in one or the other."""


class LineStyle(NamedTuple):
    """How a line and its points are drawn."""

    colour: str
    mark: str
    fill: str = "full"
    """The ``fillstyle`` of the points: none where the colour was used before."""


def line_style(place: int) -> LineStyle:
    """A colour and a mark for the line of this number."""
    n = len(LINE_COLOURS)
    return LineStyle(
        LINE_COLOURS[place % n], MARKS[place % len(MARKS)], "full" if place < n else "none"
    )


def method_label(variant: str) -> str:
    """A method with its options: ``"grad_cam:layers=[2,0]"`` as ``"Grad-CAM (layers=[2, 0])"``."""
    name, _, options = variant.partition(":")
    options = options.replace(",", ", ")  # where lines may be broken
    return method_title(name) + (f" ({options})" if options else "")


def new_chart(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure that a phone and a printed column have room for, and its axes.

    Args:
        height (float): Inches.
        rows, columns (int): Of its panels. Default: one panel
        options: Of ``matplotlib.pyplot.subplots``.

    Returns:
        tuple: the figure and an array of axes of shape (rows, columns).
    """
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, height), layout="constrained", squeeze=False, **options
    )
    for ax in axes.flat:
        ax.tick_params(labelsize=SMALL)
        ax.xaxis.label.set_size(LETTERS)
        ax.yaxis.label.set_size(LETTERS)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def set_heading(figure: Figure, title: str) -> None:
    """Say over a figure what is seen in it."""
    text, families = legible(title)
    figure.suptitle(
        textwrap.fill(text, 62), x=0.02, ha="left", fontsize=LETTERS + 1, fontfamily=families,
        parse_math=False,
    )  # fmt: skip


def name_rows(ax: Axes, places: Sequence[float], names: Sequence[str]) -> None:
    """Write the name of each row above it, from the left border on, instead of beside the axis.

    Rows are one unit apart, and what they show is drawn within 0.25 units of their places.
    """
    for place, name in zip(places, names, strict=True):
        text, families = legible(name)
        ax.text(
            0.0, place + 0.3, text, transform=ax.get_yaxis_transform(), fontsize=LETTERS,
            va="bottom", ha="left", fontfamily=families, parse_math=False, in_layout=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )  # fmt: skip
    ax.set_yticks([])
    ax.set_ylim(min(places) - 0.4, max(places) + 0.85)
    ax.spines["left"].set_visible(False)


def add_legend(figure: Figure, ax: Axes, columns: int = 1) -> None:
    """Write the names of the lines of axes below a figure."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower left", frameon=False, fontsize=LETTERS, ncols=columns
    )
