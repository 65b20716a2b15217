"""Line charts of several methods, in panels side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from captum_interactions.visualization.charts import (
    LETTERS,
    LineStyle,
    line_style,
    new_chart,
    set_heading,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Line(NamedTuple):
    """One line of a panel."""

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: str
    """A name; lines with the same name share their colour."""
    dashed: bool = False


def panels(
    shown: Mapping[str, Sequence[Line]],
    labels: tuple[str, str],
    *,
    title: str = "",
    plain: str = "",
    log_x: bool = False,
    log_y: bool = False,
    markers: bool = False,
    reference: float | None = None,
) -> Figure:
    """Panels of lines with one legend, two in a row; lines differ in colour and markers.

    Args:
        shown: Lines of each panel, by its title.
        labels: Labels of both axes.
        title (str): Title of the figure. Default: none
        plain: The colour name of lines that are grey, such as chance levels.
        log_x, log_y: Whether an axis is logarithmic.
        markers: Whether to mark all points. Default: a few points of each line
        reference (float, optional): Position of a dotted horizontal line.
    """
    columns = min(2, len(shown))
    n_rows = -(-len(shown) // columns)
    labelled = {line.label for lines in shown.values() for line in lines}
    height = 0.5 + (3.0 if columns == 1 else 2.1) * n_rows + 0.19 * len(labelled)
    figure, axes = new_chart(height, n_rows, columns, sharex=True)
    names = dict.fromkeys(line.colour for lines in shown.values() for line in lines)
    coloured = [name for name in names if name != plain]
    styles = {name: line_style(place) for place, name in enumerate(coloured)}
    styles[plain] = LineStyle("0.45", "")
    legend = {}
    for ax, (name, lines) in zip(axes.flat, shown.items(), strict=False):
        for place, line in enumerate(lines):
            colour, mark, fill = styles[line.colour]
            apart = max(len(line.x) // 4, 1)
            (drawn,) = ax.plot(
                line.x, line.y, label=line.label, color=colour, linewidth=1.5, marker=mark,
                fillstyle=fill,
                linestyle="--" if line.dashed else "-", markersize=4.5,
                markevery=1 if markers else (place % apart, apart), zorder=3 if line.dashed else 2,
            )  # fmt: skip
            legend[line.label] = drawn
        if log_x:
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter("{x:g}")
        if log_y:
            ax.set_yscale("log")
        if reference is not None:
            ax.axhline(reference, color="0.5", linestyle=":", linewidth=1)
        ax.set_title(name, fontsize=LETTERS)
    for ax in axes[-1]:
        ax.set_xlabel(labels[0])
    for ax in axes[:, 0]:
        ax.set_ylabel(labels[1])
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    figure.legend(
        legend.values(), legend.keys(), loc="outside lower left", frameon=False, fontsize=LETTERS
    )
    set_heading(figure, title)
    return figure
