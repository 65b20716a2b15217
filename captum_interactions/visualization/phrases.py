"""Many phrases of one pair: a panel for each, all on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_interactions.axes import TextAxis
from captum_interactions.maps.sides import Side, axis_of, other, picture_side
from captum_interactions.visualization.heatmap import heat_of
from captum_interactions.visualization.lettering import format_number, set_title, size_of
from captum_interactions.visualization.palette import limit_of, rounding_note
from captum_interactions.visualization.panels import name_of_selection, panels, shared_colorbar
from captum_interactions.visualization.picture import Style, Upsampling, check_style, draw_heat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from captum_interactions.maps.first_order_map import FirstOrderMap
    from captum_interactions.maps.interaction_map import InteractionMap


def plot_phrase_grid(
    imap: InteractionMap | FirstOrderMap,
    selections: Sequence[Any] | None = None,
    *,
    side: Side | None = None,
    style: Style = "overlay",
    upsampling: Upsampling = "nearest",
    limit: float | None = None,
    columns: int | None = None,
    width: float = 5.0,
    axes: Any = None,
) -> tuple[Figure, Any]:
    """Draw one heat map for each word or phrase, all of them on the same symmetric scale.

    Over each stands the sum of its values.

    Args:
        imap (InteractionMap or FirstOrderMap): A map of which an input is an image or a sound.
        selections (sequence, optional): Selections of the other input, such as phrases. Default:
            each of its words
        side (str, optional): ``"a"`` or ``"b"``, whose picture. Default: a's if it has one
        style (str): See :func:`plot_heatmap`. Default: ``"overlay"``
        upsampling (str): ``"nearest"`` or ``"smooth"``. Default: ``"nearest"``
        limit (float, optional): End of the shared scale. Default: the largest absolute value of
            all panels
        columns (int, optional): Panels in a row. Default: as many as are readable in the width
        width (float): Inches of the new figure. Default: 5.0
        axes (array of Axes, optional): One for each selection, at least. Default: a new figure

    Returns:
        tuple: figure, and an ndarray of the axes that were drawn into, one a selection. Nothing is
        shown.

    Raises:
        TypeError: If neither input is an image or a sound.
        ValueError: If there is nothing to select or there are too few axes.
    """
    check_style(style, upsampling)
    side = picture_side(imap, side)
    others = axis_of(imap, other(side))
    chosen: list[tuple[str, Any]]
    if selections is None:
        chosen = [(unit.label, list(unit.tokens)) for unit in others.units]
    else:
        text = others.text if isinstance(others, TextAxis) else ""
        chosen = [(name_of_selection(selection, text), selection) for selection in selections]
    if not chosen:
        raise ValueError("there is no word or phrase to draw a panel for")
    drawn = [heat_of(imap, selection, side) for _, selection in chosen]
    picture = drawn[0][0]
    limit = limit_of(*(heat for _, heat in drawn), limit=limit, source=imap)
    wide = picture.n_across(style)
    if columns is None:
        columns = min(len(chosen), max(int(width / (1.15 * wide)), 1))
    figure, places = panels(len(chosen), columns, width, picture.aspect / wide, axes)
    room = size_of(places[0])[0]  # once: a layout takes a while
    for ax, (name, _), (_, heat) in zip(places, chosen, drawn, strict=True):
        draw_heat(ax, picture, heat, limit, style, upsampling)
        ax.set_ylabel("")
        if picture.is_sound:
            ax.set_xticks([])
        title = f"{name}  {format_number(heat.sum(), '+.2g')}{rounding_note(imap, heat)}"
        set_title(ax, title, fontsize=8, width=room)
    over_image = picture.is_over_image(style)
    shared_colorbar(figure, places, limit, f"per {picture.part}", over_image=over_image)
    return figure, np.array(places, dtype=object)
