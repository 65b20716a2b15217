"""How the four parts of a map add up, and by how much their sum differs from the score."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from captum_interactions.maps.orders import is_second_order
from captum_interactions.maps.sides import side_names
from captum_interactions.visualization.lettering import figure_of, format_number, set_title, size_of
from captum_interactions.visualization.palette import NEUTRAL, sign_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_interactions.maps.interaction_map import InteractionMap


def plot_waterfall(
    imap: InteractionMap, *, title: str | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw how constant, main effects and interactions add up to the score.

    Each bar of a part begins where the one above it ends: red increases the score, blue decreases
    it. Grey bars start at zero: the constant and the score. The last bar is the convergence delta,
    the sum of the parts minus the score: it leads from the score to where the parts end.

    Args:
        imap (InteractionMap): An explanation of inputs of any kind.
        title (str, optional): Default: what is added up
        ax (Axes, optional): Where to draw. Default: a new figure

    Returns:
        tuple: figure and axes. Nothing is shown.

    Raises:
        TypeError: If the map is of the first order, whose sums are no parts of the score.
        ValueError: If a part, the score or the delta is not finite.
    """
    if not is_second_order(imap):
        raise TypeError(
            "plot_waterfall draws the parts of an InteractionMap, but got "
            f"{type(imap).__name__}, which has no constant, main effects and interactions"
        )
    names = side_names(imap)
    parts = [
        ("constant", imap.constant),
        (f"main effects, {names[0]}", float(imap.main_effects_a.sum())),
        (f"main effects, {names[1]}", float(imap.main_effects_b.sum())),
        ("interactions", float(imap.interactions.sum())),
    ]
    rows = [*parts, ("score", imap.score), ("convergence delta", imap.convergence_delta)]
    for name, value in rows:
        if not isfinite(value):
            raise ValueError(f"a waterfall adds up finite values, but the map's {name} is {value}")
    fontsize = 9.0
    if ax is None:
        from matplotlib import pyplot as plt

        ax = plt.subplots(figsize=(5.0, 2.6), layout="constrained")[1]
    elif size_of(ax)[0] < 3.4:
        fontsize = 8.0
    position = 0.0
    ends = [0.0]
    for row, (_, value) in enumerate(parts):
        colour = NEUTRAL if row == 0 else sign_colour(value)
        ax.barh(row, value, left=position, height=0.62, color=colour)
        position += value
        ax.plot([position, position], [row - 0.31, row + 1.31], color="black", linewidth=0.6)
        ends.append(position)
    last = len(parts)
    ax.barh(last, imap.score, height=0.62, color=NEUTRAL)
    delta = imap.convergence_delta
    ax.barh(last + 1, delta, left=imap.score, height=0.62, fc="white", ec=NEUTRAL, hatch="////")
    for end in (position, imap.score):
        ax.plot([end, end], [last - 0.31, last + 1.31], color="black", linewidth=0.6, zorder=0)
    ax.axvline(0.0, color="black", linewidth=0.6)

    starts = [*ends[:-1], 0.0, imap.score]
    stops = [*ends[1:], imap.score, imap.score + delta]
    low, high = min(*starts, *stops), max(*starts, *stops)
    span = high - low or 1.0
    for row, (name, value) in enumerate(rows):
        right = max(starts[row], stops[row])
        if row == last:  # a line down from the end of the parts crosses this row
            right = max(right, position)
        specification = ".3f" if name in ("constant", "score") else "+.3f"
        if 0 < abs(value) < 5e-4:
            specification = "+.0e"
        written = format_number(value, specification)
        ax.text(right + 0.02 * span, row, written, va="center", fontsize=fontsize)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=fontsize)
    ax.get_yticklabels()[last].set_fontweight("bold")
    ax.tick_params(axis="x", labelsize=fontsize - 1)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.set_xlim(low - 0.03 * span, high + 0.24 * span)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel("in units of the score", fontsize=fontsize)
    default = "The parts of the score; delta is their sum minus the score"
    set_title(ax, default if title is None else title)
    return figure_of(ax), ax
