"""How the four parts of a score, and the error of the method, add up to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_interactions.axes import AudioAxis, ImageAxis, TextAxis, TokenAxis
from captum_interactions.visualization.lettering import figure_of, set_title, size_of
from captum_interactions.visualization.palette import NEUTRAL, sign_colour
from captum_interactions.visualization.sides import is_second_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_interactions.maps.interaction_map import InteractionMap


def plot_waterfall(
    imap: InteractionMap, *, title: str | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw how constant, main effects, interactions and the convergence delta make the score.

    Each bar begins where the one above it ends: red adds to the score, blue takes from it. Grey
    bars start at zero: the constant and the score. The delta is drawn as what is subtracted.

    Args:
        imap (InteractionMap): An explanation of inputs of any kind.
        title (str, optional): Default: none
        ax (Axes, optional): Where to draw. Default: a new figure

    Returns:
        tuple: figure and axes. Nothing is shown.

    Raises:
        TypeError: If the map is of the first order, whose sums are no parts of the score.
    """
    if not is_second_order(imap):
        raise TypeError(
            "plot_waterfall draws the parts of an InteractionMap, but got "
            f"{type(imap).__name__}, which has no constant, main effects and interactions"
        )
    names = [_name(axis) for axis in (imap.axis_a, imap.axis_b)]
    if names[0] == names[1]:
        names = [f"{name} {side}" for name, side in zip(names, "ab", strict=True)]
    parts = [
        ("constant", imap.constant),
        (f"main effects, {names[0]}", float(imap.main_effects_a.sum())),
        (f"main effects, {names[1]}", float(imap.main_effects_b.sum())),
        ("interactions", float(imap.interactions.sum())),
        ("convergence delta", -imap.convergence_delta),
    ]
    if ax is None:
        from matplotlib import pyplot as plt

        ax = plt.subplots(figsize=(5.4, 2.5), layout="constrained")[1]
    fontsize = 8.0 if size_of(ax)[0] < 3.4 else 9.0
    position = 0.0
    ends = [0.0]
    for row, (_, value) in enumerate(parts):
        colour = NEUTRAL if row == 0 else sign_colour(value)
        ax.barh(row, value, left=position, height=0.62, color=colour)
        position += value
        ax.plot([position, position], [row - 0.31, row + 1.31], color="black", linewidth=0.6)
        ends.append(position)
    ax.barh(len(parts), imap.score, height=0.62, color=NEUTRAL)
    ax.axvline(0.0, color="black", linewidth=0.6)

    span = max(ends) - min(ends) or 1.0
    rows = [*parts, ("score", imap.score)]
    for row, (name, value) in enumerate(rows):
        right = max(ends[row], ends[row + 1]) if row < len(parts) else max(0.0, value)
        written = f"{value:.3f}" if name in ("constant", "score") else f"{value:+.3f}"
        if 0 < abs(value) < 5e-4:
            written = f"{value:+.0e}"
        ax.text(right + 0.015 * span, row, written, va="center", fontsize=fontsize)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=fontsize)
    ax.get_yticklabels()[-1].set_fontweight("bold")
    ax.tick_params(axis="x", labelsize=fontsize - 1)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.set_xlim(min(ends) - 0.03 * span, max(ends) + 0.24 * span)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.locator_params(axis="x", nbins=5)
    if title:
        set_title(ax, title)
    return figure_of(ax), ax


def _name(axis: TokenAxis) -> str:
    kinds = ((ImageAxis, "image"), (TextAxis, "text"), (AudioAxis, "sound"))
    return next((name for kind, name in kinds if isinstance(axis, kind)), "input")
