"""Figures that several studies draw; each is returned, none is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PALE = "#1f4e79", "#b9cfe4"


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
    reference: float | None = None,
) -> Figure:
    """Horizontal bars, the first on top, with intervals where they are known."""
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(7.0, 0.9 + 0.26 * len(names)), layout="constrained")
    places = np.arange(len(names))[::-1]
    ax.barh(places, values, color=PALE, edgecolor=INK, height=0.65)
    for place, (low, high) in zip(places, intervals or (), strict=False):
        if low is not None and high is not None:
            ax.plot([low, high], [place, place], color=INK, linewidth=1.5)
    if reference is not None:
        ax.axvline(reference, color="0.35", linestyle="--", linewidth=1)
    ax.set_yticks(places, list(names), fontsize=9)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xlabel(label)
    _plain(ax)
    return figure


def _plain(ax: object) -> None:
    """No frame but the axes themselves."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)  # type: ignore[attr-defined]
