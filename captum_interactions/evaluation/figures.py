"""Figures that several studies draw; each is returned, none is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PALE, WARM = "#1f4e79", "#b9cfe4", "#c8553d"
COLOURS = (INK, WARM, "#7a9e4b", "#8a6bb1")
"""Of kinds that stand side by side."""


def boxplots(
    values: Mapping[str, npt.NDArray[np.float64]], label: str, *, reference: float | None = None
) -> Figure:
    """Distributions side by side, the first on top: quartiles, whiskers at 5 and 95 %.

    Args:
        values: Arrays by name; empty ones are left out.
        label: What they are.
        reference (float, optional): Where to draw a dashed line, such as chance.
    """
    from matplotlib import pyplot as plt

    shown = {name: array for name, array in values.items() if len(array)}
    figure, ax = plt.subplots(figsize=(7.0, 0.9 + 0.32 * len(shown)), layout="constrained")
    ax.boxplot(
        list(shown.values())[::-1],
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        widths=0.6,
        boxprops={"facecolor": PALE, "edgecolor": INK},
        medianprops={"color": INK, "linewidth": 2},
        whiskerprops={"color": INK},
        capprops={"color": INK},
    )
    ax.set_yticks(range(1, len(shown) + 1), list(shown)[::-1], fontsize=9)
    if reference is not None:
        ax.axvline(reference, color="0.35", linestyle="--", linewidth=1, zorder=0)
    ax.set_xlabel(label)
    _plain(ax)
    return figure


def bars(
    names: Sequence[str],
    values: Sequence[float],
    label: str,
    *,
    intervals: Sequence[tuple[float | None, float | None]] | None = None,
    references: Sequence[float] | None = None,
) -> Figure:
    """Horizontal bars, the first on top.

    Args:
        names: Of the bars.
        values: Their lengths.
        label: What they are.
        intervals (optional): (lower, upper) end of each bar's interval.
        references (optional): A value beside each bar, such as chance, drawn as a short line.
    """
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(7.0, 1.0 + 0.28 * len(names)), layout="constrained")
    places = np.arange(len(names))[::-1]
    ax.barh(places, values, color=PALE, edgecolor=INK, height=0.65)
    for place, (low, high) in zip(places, intervals or (), strict=False):
        if low is not None and high is not None:
            ax.plot([low, high], [place, place], color=INK, linewidth=1.5)
    for place, reference in zip(places, references or (), strict=False):
        ax.plot([reference] * 2, [place - 0.33, place + 0.33], color=WARM, linewidth=2)
    ax.set_yticks(places, list(names), fontsize=9)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xlabel(label + (" (short line: chance)" if references else ""))
    _plain(ax)
    return figure


def grouped_bars(
    names: Sequence[str], groups: Mapping[str, Sequence[float | None]], label: str
) -> Figure:
    """Bars of several kinds for each name, the first on top; None draws nothing."""
    from matplotlib import pyplot as plt

    n = len(groups)
    figure, ax = plt.subplots(
        figsize=(7.0, 1.1 + (0.16 + 0.2 * n) * len(names)), layout="constrained"
    )
    places = np.arange(len(names))[::-1].astype(float)
    for index, (kind, values) in enumerate(groups.items()):
        lengths = [0.0 if value is None else value for value in values]
        at = places + (0.5 * (n - 1) - index) * 0.8 / n
        ax.barh(at, lengths, height=0.72 / n, color=COLOURS[index % len(COLOURS)], label=kind)
    ax.set_yticks(places, list(names), fontsize=9)
    ax.set_xlabel(label)
    figure.legend(loc="outside upper right", ncols=n, frameon=False, fontsize=9)
    _plain(ax)
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
    """Points with their names; names are left out where there are more than 40.

    With ``log_x``, the first axis is logarithmic if its values span more than a factor of ten.
    """
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(5.5, 4.0), layout="constrained")
    ax.scatter(x, y, color=INK, s=16)
    for place, name in enumerate(names if len(names) <= 40 else ()):
        ax.annotate(
            name, (x[place], y[place]), xytext=(4, 3), textcoords="offset points", fontsize=8
        )
    if log_x and min(x) > 0 and max(x) > 10 * min(x):
        ax.set_xscale("log")
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.set_title(title, fontsize=10)
    _plain(ax)
    return figure


def matrix(
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    *,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """A table in colours, with its numbers; None is left white."""
    from matplotlib import pyplot as plt

    array = np.array([[np.nan if v is None else v for v in row] for row in values], np.float64)
    figure, ax = plt.subplots(
        figsize=(4.2 + 0.42 * len(columns), 1.6 + 0.3 * len(rows)), layout="constrained"
    )
    image = ax.imshow(array, cmap="Blues", vmin=limits[0], vmax=limits[1], aspect="auto")
    middle = sum(limits) / 2
    for (row, column), value in np.ndenumerate(array):
        if not np.isnan(value):
            ink = "white" if value > middle else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
    ax.set_yticks(range(len(rows)), list(rows), fontsize=8)
    ax.set_xticks(
        range(len(columns)),
        list(columns),
        rotation=60,
        ha="right",
        rotation_mode="anchor",
        fontsize=8,
    )
    ax.tick_params(length=0)
    figure.colorbar(image, ax=ax, label=label)
    return figure


def _plain(ax: object) -> None:
    """No frame but the axes themselves."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)  # type: ignore[attr-defined]
