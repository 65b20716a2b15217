"""One pair of any kind: a matrix with a cell for each word or part of a and each of b."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_interactions.visualization.pair import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_interactions.interaction_map import InteractionMap

_NAMED = 64
"""Up to so many rows or columns have their names written beside them."""


def plot_matrix(imap: InteractionMap, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw the interactions of the words (or other parts) of both inputs as a matrix.

    Rows are parts of a, columns parts of b; special and padding tokens are left out. The scale is
    symmetric around zero: red is a match, blue a clash, white no interaction.

    Args:
        imap (InteractionMap): An explanation of inputs of any kind.
        ax (Axes, optional): Where to draw. Default: a new figure of a size that fits

    Returns:
        tuple: figure and axes. Nothing is shown.
    """
    values = imap.by_unit().numpy()
    rows, columns = ([unit.label for unit in axis.units] for axis in (imap.axis_a, imap.axis_b))
    if ax is None:
        from matplotlib import pyplot as plt

        size = (0.45 * min(len(columns), _NAMED) + 2.2, 0.32 * min(len(rows), _NAMED) + 1.6)
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    limit = float(abs(values).max(initial=0.0)) or 1.0
    image = ax.imshow(values, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto")
    for axis, labels, turn in ((ax.xaxis, columns, 60), (ax.yaxis, rows, 0)):
        named = len(labels) <= _NAMED
        axis.set_ticks(range(len(labels)) if named else [], labels if named else [])
        axis.set_tick_params(labelrotation=turn, labelsize=9, length=0)
    for label in ax.get_xticklabels():
        label.set(horizontalalignment="right", rotation_mode="anchor")
    figure = ax.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(image, ax=ax, fraction=0.05, pad=0.03)
    bar.set_ticks([-limit, 0.0, limit], labels=[f"{-limit:.2g}", "0", f"{limit:.2g}"])
    bar.ax.tick_params(labelsize=8)
    ax.set_title(f"score {imap.score:.3f}, shown {values.sum():+.3f}", fontsize=10)
    return figure, ax
