"""Several methods on one pair, and first-order beside second-order maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_interactions.axes import AudioAxis, ImageAxis, TextAxis, TokenAxis
from captum_interactions.maps.orders import values_of
from captum_interactions.maps.sides import Side, axis_of, other, picture_side, text_side
from captum_interactions.visualization.lettering import set_legible, set_title, size_of
from captum_interactions.visualization.palette import limit_of, rounding_note
from captum_interactions.visualization.panels import name_of_selection, panels
from captum_interactions.visualization.picture import (
    Style,
    Upsampling,
    check_style,
    draw_heat,
    picture_of,
)
from captum_interactions.visualization.words import (
    draw_words,
    height_of,
    style_words,
    weights_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_interactions.maps.first_order_map import FirstOrderMap
    from captum_interactions.maps.interaction_map import InteractionMap


def plot_comparison(
    maps: Mapping[str, InteractionMap | FirstOrderMap],
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
    """Draw the maps of several methods for one pair, each with its name.

    Without selections there is one panel a method, row by row. With several selections there is one
    row a method and one column a selection, which shows what a first-order map cannot: it is the
    same for every phrase. Panels of one method share a symmetric scale, whose end is written
    there; methods have scales of their own, since their units differ, unless ``limit`` sets
    one for all.

    Panels are heat maps of the image or sound; for two texts, the words of b.

    Args:
        maps (mapping): Maps of the same pair by the names to write, such as
            ``{"Integrated Gradients": first, "second order": imap}``.
        selections (sequence, optional): Selections of the other input. Default: all of it
        side (str, optional): ``"a"`` or ``"b"``, which input is drawn. Default: the image or the
            sound; b for two texts
        style (str): See :func:`plot_heatmap`. Default: ``"overlay"``
        upsampling (str): ``"nearest"`` or ``"smooth"``. Default: ``"nearest"``
        limit (float, optional): End of the scale of all panels. Default: one a method
        columns (int, optional): Panels in a row, if there is at most one selection. Default: up
            to 5, of at least 1.3 inches
        width (float): Inches of the new figure. Default: 5.0
        axes (array of Axes, optional): One a panel, row by row. Default: a new figure

    Returns:
        tuple: figure, and an ndarray of the axes, of shape (methods,) or (methods, selections).
        Nothing is shown.

    Raises:
        TypeError: If the input that is drawn is neither an image, nor a sound, nor a text.
        ValueError: If there are no maps, or too few axes.
    """
    check_style(style, upsampling)
    if not maps:
        raise ValueError("there are no maps to compare")
    chosen = [None] if not selections else list(selections)
    one = next(iter(maps.values()))
    side = _side(one, side)
    axis = axis_of(one, side)
    others = axis_of(one, other(side))
    text = others.text if isinstance(others, TextAxis) else ""
    as_grid = len(chosen) > 1
    n = len(maps) * len(chosen)
    if isinstance(axis, (ImageAxis, AudioAxis)):
        picture = picture_of(axis)
        aspect = picture.aspect / picture.n_across(style)
        columns = columns or min(len(maps), 5, max(int(width / 1.3), 1))
    else:
        columns = columns or 1
        across = len(chosen) if as_grid else columns
        styled = style_words(axis, np.zeros(len(axis.units)), 1.0)
        each = (width - 0.7) / across
        aspect = (height_of(styled, each, 9.0) + 0.05) / each
    figure, places = panels(n, len(chosen) if as_grid else columns, width, aspect, axes)

    panel = iter(places)
    room = size_of(places[0])[0]  # once: a layout takes a while
    for row, (name, imap) in enumerate(maps.items()):
        drawn = [values_of(imap, side, selection) for selection in chosen]
        weights = [None if v is None else _shown(axis_of(imap, side), v) for v in drawn]
        known = [w for w in weights if w is not None]
        top = limit_of(*known, limit=limit, source=imap)
        end = f"±{top:.2g}" if known else ""
        if known:
            name += rounding_note(imap, *known)
        if known and (as_grid or isinstance(axis, TextAxis)):
            name = f"{name} {end}"
        for column, values in enumerate(weights):
            ax = next(panel)
            _draw(ax, axis_of(imap, side), values, top, style, upsampling)
            phrase = name_of_selection(chosen[column], text)
            if not as_grid:
                set_title(ax, name, fontsize=8, width=room)
                if not isinstance(axis, TextAxis):
                    _write_inside(ax, end)
                continue
            if row == 0:
                set_title(ax, phrase, fontsize=8, width=room)
            if column == 0:
                _wrap_beside(ax, name)
    if axes is None and not as_grid and chosen[0] is not None:
        set_legible(figure.suptitle("", fontsize=9), name_of_selection(chosen[0], text))
    found = np.array(places, dtype=object)
    return figure, found.reshape(len(maps), len(chosen)) if as_grid else found


def _side(imap: InteractionMap | FirstOrderMap, side: Side | None) -> Side:
    try:
        return picture_side(imap, side)
    except TypeError:
        return text_side(imap, side)


def _shown(axis: TokenAxis, values: Any) -> Any:
    """Values as they are drawn: of patches or cells, or of words."""
    if isinstance(axis, (ImageAxis, AudioAxis)):
        return axis.to_grid(values)
    return weights_of(axis, values)


def _draw(
    ax: Axes, axis: TokenAxis, values: Any, limit: float, style: Style, upsampling: Upsampling
) -> None:
    if values is None:
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, "no map\nof this input", ha="center", va="center", fontsize=8)
        return
    if isinstance(axis, (ImageAxis, AudioAxis)):
        draw_heat(ax, picture_of(axis), values, limit, style, upsampling)
        ax.set(xticks=[], ylabel="")
        return
    draw_words(ax, style_words(axis, values, limit), fontsize=9.0)


def _write_inside(ax: Axes, text: str) -> None:
    """Write into the lower right corner of a panel."""
    ax.text(
        0.98, 0.02, text, transform=ax.transAxes, fontsize=8, ha="right", va="bottom",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8},
    )  # fmt: skip


def _wrap_beside(ax: Axes, name: str) -> None:
    """Write a name at the left of a panel, upright, also where the axes are switched off."""
    import textwrap

    label = ax.text(
        -0.04, 0.5, "", transform=ax.transAxes, rotation=90, fontsize=8, ha="right", va="center",
        multialignment="center",
    )  # fmt: skip
    set_legible(label, name)
    label.set_text("\n".join(textwrap.wrap(label.get_text(), 20)))
