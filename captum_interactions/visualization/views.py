"""Figures and pages of a map: the one module of this package that maps import, when needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from captum_interactions.axes import ImageAxis, TextAxis
from captum_interactions.maps.orders import Map, is_second_order
from captum_interactions.visualization.comparison import plot_comparison
from captum_interactions.visualization.lettering import set_legible
from captum_interactions.visualization.matrix import plot_matrix
from captum_interactions.visualization.pair import plot_interactions
from captum_interactions.visualization.report import notebook_html, report_html, save_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "draw_maps", "notebook_html", "report_html", "save_report"]


def draw(imap: Map, *, b: Any, a: Any, **options: Any) -> tuple[Figure, Axes]:
    """The figure of :meth:`~captum_interactions.maps.base.AttributionMap.plot`."""
    is_image_text = isinstance(imap.axis_a, ImageAxis) and isinstance(imap.axis_b, TextAxis)
    if is_image_text or a is not None or b is not None or not is_second_order(imap):
        return plot_interactions(imap, b=b, a=a, **options)
    return plot_matrix(imap, **options)


def draw_maps(
    maps: Mapping[str, Map], *, b: Any = None, a: Any = None, heading: str | None = None
) -> Figure:
    """One figure of the maps of a pair: that of :func:`draw` for one map, or all side by side.

    A single first-order map of two texts has no figure of its own and is drawn as several are.

    Args:
        maps (mapping): The maps by the names to write, if they are drawn side by side.
        b, a (optional): Selections of the two inputs; side by side, only that of b is drawn.
        heading (str, optional): Written over maps that are drawn side by side.
    """
    first = next(iter(maps.values()))
    if len(maps) == 1 and (is_second_order(first) or isinstance(first.axis_a, ImageAxis)):
        return draw(first, b=b, a=a)[0]
    figure, _ = plot_comparison(maps, None if b is None else [b])
    if heading is not None:
        set_legible(figure.suptitle("", fontsize=9), heading)
    return figure
