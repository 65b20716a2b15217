"""Figures and pages of a map: the one module of this package that maps import, when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from captum_interactions.axes import ImageAxis, TextAxis
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.visualization.matrix import plot_matrix
from captum_interactions.visualization.pair import plot_interactions
from captum_interactions.visualization.report import notebook_html, report_html, save_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_interactions.maps.interaction_map import InteractionMap

__all__ = ["draw", "notebook_html", "report_html", "save_report"]


def draw(
    imap: InteractionMap | FirstOrderMap, *, b: Any, a: Any, **options: Any
) -> tuple[Figure, Axes]:
    """The figure of :meth:`~captum_interactions.maps.base.AttributionMap.plot`."""
    is_image_text = isinstance(imap.axis_a, ImageAxis) and isinstance(imap.axis_b, TextAxis)
    if is_image_text or a is not None or b is not None or isinstance(imap, FirstOrderMap):
        return plot_interactions(imap, b=b, a=a, **options)
    return plot_matrix(imap, **options)
