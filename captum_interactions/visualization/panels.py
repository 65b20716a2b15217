"""Several panels in one figure: where they lie, and the scale that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_interactions.visualization.lettering import figure_of
from captum_interactions.visualization.palette import mark_scale, scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(
    n: int, columns: int, width: float, aspect: float, axes: Any = None
) -> tuple[Figure, list[Axes]]:
    """Axes for n panels: of a new figure, or the first ones of those given.

    Args:
        n (int): How many.
        columns (int): Panels in a row of a new figure.
        width (float): Inches of a new figure.
        aspect (float): Height over width of a panel.
        axes (array of Axes, optional): What to use instead; those that are too many are hidden.

    Raises:
        ValueError: If there are too few axes, or the width or the columns are not positive.
    """
    if axes is not None:
        given = list(np.ravel(np.asarray(axes, dtype=object)))
        if len(given) < n:
            raise ValueError(f"there are {n} panels to draw, but only {len(given)} axes")
        for ax in given[n:]:
            ax.set_axis_off()
        return figure_of(given[0]), given[:n]
    if not (width > 0 and columns > 0):
        raise ValueError(f"width and columns must be positive, but got {width} and {columns}")
    from matplotlib import pyplot as plt

    rows = -(-n // columns)
    each = (width - 0.7) / columns
    height = rows * (min(max(each * aspect, 0.3), 4.0) + 0.36) + 0.05
    figure, grid = plt.subplots(
        rows, columns, figsize=(width, height), layout="constrained", squeeze=False
    )
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)  # type: ignore[call-arg]
    for ax in grid.flat[n:]:
        ax.set_axis_off()
    return figure, list(grid.flat[:n])


def shared_colorbar(
    figure: Figure, places: Sequence[Axes], limit: float, label: str, *, over_image: bool
) -> None:
    """One scale at the right of all panels, or no higher than one panel can use."""
    colours = scale(limit, over_image=over_image)
    bar = figure.colorbar(colours, ax=list(places), fraction=0.05, pad=0.02, aspect=25)
    mark_scale(bar, limit, float(figure.get_size_inches()[1]) - 0.4, label)


def name_of_selection(selection: Any, text: str = "") -> str:
    """What a person would call a selection."""
    if selection is None:
        return "all"
    if isinstance(selection, str):
        return selection
    if text and isinstance(selection, tuple) and len(selection) == 2:
        return text[slice(*selection)]
    if isinstance(selection, tuple):
        return "(" + ", ".join(f"{value:g}" for value in selection) + ")"
    return "mask" if getattr(selection, "ndim", 1) == 2 else "selection"
