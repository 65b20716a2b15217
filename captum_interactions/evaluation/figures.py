"""Figures of several studies, which are returned and not shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from captum_interactions.visualization.charts import (
    LETTERS,
    LINE_COLOURS,
    ROW,
    SMALL,
    WIDTH,
    add_legend,
    name_rows,
    new_chart,
    set_heading,
)
from captum_interactions.visualization.lettering import format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PALE, WARM = LINE_COLOURS[0], "#a6cbe3", LINE_COLOURS[1]


def boxplots(
    values: Mapping[str, npt.NDArray[np.float64]],
    label: str,
    *,
    title: str = "",
    reference: float | None = None,
) -> Figure:
    """Box plots below each other, the first on top: quartiles, whiskers at 5 and 95 %.

    Args:
        values: Arrays by name; empty ones are left out.
        label: Label of the values.
        title (str): Title of the figure. Default: none
        reference (float, optional): Position of a dashed line, such as the chance level.
    """
    shown = {name: array for name, array in values.items() if len(array)}
    figure, ((ax,),) = new_chart(0.9 + ROW * len(shown))
    places = np.arange(len(shown))[::-1]
    ax.boxplot(
        list(shown.values()),
        positions=places,
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        widths=0.4,
        boxprops={"facecolor": PALE, "edgecolor": INK},
        medianprops={"color": INK, "linewidth": 2},
        whiskerprops={"color": INK},
        capprops={"color": INK},
    )
    name_rows(ax, list(places), list(shown))
    if reference is not None:
        ax.axvline(reference, color="0.35", linestyle="--", linewidth=1, zorder=0)
        label += " (dashed: chance)"
    ax.set_xlabel(label)
    set_heading(figure, title)
    return figure


def bars(
    names: Sequence[str],
    values: Sequence[float],
    label: str,
    *,
    title: str = "",
    intervals: Sequence[tuple[float | None, float | None]] | None = None,
    references: Sequence[float] | None = None,
) -> Figure:
    """Horizontal bars, the first on top.

    Args:
        names: Names of the bars.
        values: Lengths of the bars.
        label: Label of the values.
        title (str): Title of the figure. Default: none
        intervals (optional): (lower, upper) end of each bar's interval.
        references (optional): A value for each bar, such as the chance level, drawn as a short
            line.
    """
    figure, ((ax,),) = new_chart(0.9 + ROW * len(names))
    places = np.arange(len(names))[::-1]
    ax.barh(places, values, color=PALE, edgecolor=INK, height=0.4)
    for place, (low, high) in zip(places, intervals or (), strict=False):
        if low is not None and high is not None:
            ax.plot([low, high], [place, place], color=INK, linewidth=1.5)
    for place, reference in zip(places, references or (), strict=False):
        ax.plot([reference] * 2, [place - 0.25, place + 0.25], color=WARM, linewidth=2)
    name_rows(ax, list(places), list(names))
    ax.set_xlabel(label + (" (short line: chance)" if references else ""))
    set_heading(figure, title)
    return figure


def grouped_bars(
    names: Sequence[str],
    groups: Mapping[str, Sequence[float | None]],
    label: str,
    *,
    title: str = "",
) -> Figure:
    """Bars of several kinds for each name, the first on top; None draws nothing."""
    n = len(groups)
    figure, ((ax,),) = new_chart(1.2 + (0.22 + 0.18 * n) * len(names))
    places = np.arange(len(names))[::-1].astype(float)
    hatches = ("", "////", "....", "xxxx")  # told apart in black and white too
    for index, (kind, values) in enumerate(groups.items()):
        lengths = [0.0 if value is None else value for value in values]
        at = places + (0.5 * (n - 1) - index) * 0.5 / n
        ax.barh(
            at, lengths, height=0.46 / n, color=LINE_COLOURS[index % len(LINE_COLOURS)], label=kind,
            hatch=hatches[index % len(hatches)], edgecolor="white", linewidth=0,
        )  # fmt: skip
    name_rows(ax, list(places), list(names))
    ax.set_xlabel(label)
    add_legend(figure, ax)
    set_heading(figure, title)
    return figure


def scatter(
    x: Sequence[float],
    y: Sequence[float],
    names: Sequence[str],
    labels: tuple[str, str],
    *,
    title: str = "",
    log_x: bool = False,
) -> Figure:
    """Points with their names, if there are at most 40.

    With ``log_x``, the first axis is logarithmic if its values span more than a factor of ten.
    """
    figure, ((ax,),) = new_chart(3.8)
    ax.scatter(x, y, color=INK, s=16)
    for place, name in enumerate(names if len(names) <= 40 else ()):
        ax.annotate(
            name, (x[place], y[place]), xytext=(4, 3), textcoords="offset points", fontsize=SMALL
        )
    if log_x and min(x) > 0 and max(x) > 10 * min(x):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    set_heading(figure, title)
    return figure


def matrix(
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    *,
    title: str = "",
    limits: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """A table in colours, with its numbers to two digits; None is left white.

    A scale from a negative to a positive number has white at zero. A figure of more than twelve
    columns is wider than others.
    """
    import textwrap

    array = np.array([[np.nan if v is None else v for v in row] for row in values], np.float64)
    names = [textwrap.fill(name, 24, max_lines=2, placeholder=" …") for name in rows]
    figure, ((ax,),) = new_chart(1.9 + 0.34 * len(rows))
    figure.set_size_inches(max(WIDTH, 1.9 + 0.27 * len(columns)), figure.get_size_inches()[1])
    is_signed = limits[0] < 0
    image = ax.imshow(
        array, cmap="RdBu_r" if is_signed else "Blues", vmin=limits[0], vmax=limits[1],
        aspect="auto",
    )  # fmt: skip
    middle = 0.6 * limits[1] if is_signed else sum(limits) / 2
    for (row, column), value in np.ndenumerate(array):
        if not np.isnan(value):
            ink = "white" if (abs(value) if is_signed else value) > middle else "black"
            text = format_number(value, ".2f").replace("0.", ".")
            ax.text(column, row, text, ha="center", va="center", fontsize=SMALL - 0.5, color=ink)
    ax.set_yticks(range(len(rows)), names, fontsize=SMALL)
    ax.set_xticks(
        range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor",
        fontsize=SMALL,
    )  # fmt: skip
    ax.tick_params(length=0)
    bar = figure.colorbar(image, ax=ax, orientation="horizontal", aspect=40)
    bar.set_label(label, fontsize=LETTERS)
    bar.ax.tick_params(labelsize=SMALL)
    set_heading(figure, title)
    return figure
