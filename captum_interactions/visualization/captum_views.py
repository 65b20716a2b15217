"""Captum's own views, by their names, fed from the maps of this package."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_interactions.axes import ImageAxis
from captum_interactions.encoders.inputs.loading import load_image
from captum_interactions.maps.orders import is_second_order
from captum_interactions.maps.sides import Side, axis_of, other, picture_side, text_side
from captum_interactions.visualization.lettering import figure_of
from captum_interactions.visualization.palette import COLOURS, limit_of, rounding_note
from captum_interactions.visualization.words import weights_of

if TYPE_CHECKING:
    from captum.attr._utils.visualization import VisualizationDataRecord
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_interactions.maps.first_order_map import FirstOrderMap
    from captum_interactions.maps.interaction_map import InteractionMap


def visualize_image_attr(
    imap: InteractionMap | FirstOrderMap,
    selection: Any = None,
    method: str = "blended_heat_map",
    sign: str = "all",
    *,
    side: Side | None = None,
    ax: Axes | None = None,
    **options: Any,
) -> tuple[Figure, Axes]:
    """Draw an image's attributions with ``captum.attr.visualization.visualize_image_attr``.

    The map is spread over the pixels of the original image and scaled to [-1, 1] first, since
    Captum fails at maps of zeros and warns of small ones. Where there is nothing of the sign to
    draw, the image alone is drawn.

    Args:
        imap (InteractionMap or FirstOrderMap): A map of which an input is an image.
        selection: A selection of the other input, such as a phrase. Default: None, all of it
        method (str): One of Captum's: ``"heat_map"``, ``"blended_heat_map"``,
            ``"original_image"``, ``"masked_image"``, ``"alpha_scaling"``. Default:
            ``"blended_heat_map"``
        sign (str): One of Captum's: ``"all"``, ``"positive"``, ``"negative"``,
            ``"absolute_value"``. Default: ``"all"``
        side (str, optional): ``"a"`` or ``"b"``, whose image. Default: a's if it has one
        ax (Axes, optional): Where to draw. Default: a new figure
        options: Captum's other options: ``outlier_perc``, ``cmap`` (default: this package's palette
            for ``"all"``), ``alpha_overlay``, ``show_colorbar``, ``title``.

    Returns:
        tuple: figure and axes. Nothing is shown.

    Raises:
        TypeError: If neither input is an image.
        ValueError: If the image is not known, or a first-order map has no values of it.
    """
    from captum.attr import visualization

    side = picture_side(imap, side)
    axis = axis_of(imap, side)
    if not isinstance(axis, ImageAxis):
        raise TypeError(f"visualize_image_attr draws images, but input {side} is a sound")
    values = imap.marginal(side, selection).numpy()
    if axis.image is None and method != "heat_map":
        raise ValueError(
            f"the image is not known, so that only 'heat_map' can draw it: got {method!r}"
        )
    grid = axis.to_grid(values)
    if rounding_note(imap, grid):
        grid = np.zeros_like(grid)  # Captum would stretch rounding errors to its full scale
    pixels = axis.to_image(grid / limit_of(grid))
    image = None if axis.image is None else np.asarray(load_image(axis.image))
    of_sign = {"positive": pixels > 0, "negative": pixels < 0}.get(sign, pixels != 0)
    if ax is None:
        from matplotlib import pyplot as plt

        height = 3.4 * min(pixels.shape[0] / pixels.shape[1], 1.6)
        ax = plt.subplots(figsize=(3.8, height + 0.3), layout="constrained")[1]
    if sign == "all":
        options.setdefault("cmap", COLOURS)
    options.update(plt_fig_axis=(figure_of(ax), ax), use_pyplot=False)
    if not of_sign.any() and method != "original_image":
        if image is not None:
            ax.imshow(image)
        ax.set(xticks=[], yticks=[], title=options.get("title") or "")
        return figure_of(ax), ax
    visualization.visualize_image_attr(pixels[..., None], image, method, sign, **options)
    return figure_of(ax), ax


def visualization_data_record(
    imap: InteractionMap | FirstOrderMap, selection: Any = None, *, side: Side | None = None
) -> VisualizationDataRecord:
    """The words of a text as the record that Captum's ``visualize_text`` takes.

    Captum speaks of classes, a pair has none: the fields for the predicted probability and the
    score hold the score of the pair and the sum of what is shown, those for labels say what is
    shown. Attributions are scaled to [-1, 1], which Captum's colours expect; words are escaped,
    since Captum writes them into its page as they are.

    Args:
        imap (InteractionMap or FirstOrderMap): A map of which an input is a text.
        selection: A selection of the other input, such as a box. Default: None, all of it
        side (str, optional): ``"a"`` or ``"b"``, whose text. Default: b's if it has one

    Returns:
        captum.attr.visualization.VisualizationDataRecord: ``raw_input_ids`` are words.

    Raises:
        TypeError: If neither input is a text.
        ValueError: If a first-order map has no values of it.
    """
    from captum.attr import visualization

    side = text_side(imap, side)
    axis = axis_of(imap, side)
    weights = weights_of(axis, imap.marginal(side, selection).numpy())
    largest = limit_of(weights, source=imap)
    shown = "all" if selection is None else html.escape(str(selection))
    return visualization.VisualizationDataRecord(
        word_attributions=weights / largest,
        pred_prob=imap.score,
        pred_class="score",
        true_class="pair",
        attr_class=f"{shown} of input {other(side)}",
        attr_score=float(weights.sum()),
        raw_input_ids=[html.escape(unit.label) for unit in axis.units],
        convergence_score=imap.convergence_delta if is_second_order(imap) else float("nan"),
    )


def visualize_text(records: Iterable[VisualizationDataRecord]) -> str:
    """The table that Captum's ``visualize_text`` shows, as HTML, without IPython.

    Colours are Captum's: green for positive, red for negative attributions.

    Args:
        records (iterable): What :func:`visualization_data_record` gives, whose words are escaped.

    Returns:
        str: HTML of a table. In a notebook: ``IPython.display.HTML(visualize_text(records))``.
    """
    from captum.attr import visualization

    cells = visualization.format_classname
    titles = ("Pair", "Score", "Attribution Label", "Attribution Score", "Word Importance")
    rows = ["<tr>" + "".join(f"<th>{title}</th>" for title in titles) + "</tr>"]
    for record in records:
        words = visualization.format_word_importances(
            record.raw_input_ids, record.word_attributions
        )
        rows.append(
            "<tr>"
            + cells(record.true_class)
            + cells(f"{record.pred_class} ({record.pred_prob:.2f})")
            + cells(record.attr_class)
            + cells(f"{record.attr_score:.2f}")
            + words
            + "</tr>"
        )
    return "<table>" + "".join(rows) + "</table>"
