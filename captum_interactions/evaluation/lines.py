"""Figures of lines: curves of several methods, side by side for several questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Line(NamedTuple):
    """One line of a panel."""

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: str
    """Lines of the same name share their colour."""
    dashed: bool = False


def panels(
    shown: Mapping[str, Sequence[Line]],
    labels: tuple[str, str],
    *,
    plain: str = "",
    log_x: bool = False,
    log_y: bool = False,
    markers: bool = False,
    reference: float | None = None,
) -> Figure:
    """Panels of lines with one legend, two in a row.

    Args:
        shown: Lines of each panel, by its title.
        labels: Of both axes.
        plain: Lines of this colour name are grey, such as those of chance.
        log_x, log_y: Whether an axis is logarithmic.
        markers: Whether to mark the points.
        reference (float, optional): Where to draw a dotted horizontal line.
    """
    from matplotlib import pyplot as plt

    columns = min(2, len(shown))
    n_rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        n_rows, columns, figsize=(3.9 * columns, 2.9 * n_rows), layout="constrained", squeeze=False,
        sharex=True,
    )  # fmt: skip
    names = dict.fromkeys(line.colour for lines in shown.values() for line in lines)
    palette = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    coloured = [name for name in names if name != plain]
    colours = {name: palette[place % 10] for place, name in enumerate(coloured)} | {plain: "0.45"}
    legend = {}
    for ax, (title, lines) in zip(axes.flat, shown.items(), strict=False):
        for line in lines:
            (drawn,) = ax.plot(
                line.x, line.y, label=line.label, color=colours[line.colour], linewidth=1.5,
                linestyle="--" if line.dashed else "-", marker="o" if markers else None,
                markersize=3.5, zorder=3 if line.dashed else 2,
            )  # fmt: skip
            legend[line.label] = drawn
        if log_x:
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter("{x:g}")
        if log_y:
            ax.set_yscale("log")
        if reference is not None:
            ax.axhline(reference, color="0.5", linestyle=":", linewidth=1)
        ax.set_title(title, fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel(labels[0])
    for ax in axes[:, 0]:
        ax.set_ylabel(labels[1])
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    figure.legend(
        legend.values(), legend.keys(), loc="outside lower center", frameon=False, fontsize=8,
        ncols=2,
    )  # fmt: skip
    return figure
