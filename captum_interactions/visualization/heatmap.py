"""Where in an image or a sound a phrase, or all of the other input, raises or lowers the score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from captum_interactions.axes.image import checked_mask
from captum_interactions.maps.orders import is_map, is_second_order
from captum_interactions.maps.sides import Side, axis_of, picture_side
from captum_interactions.visualization.lettering import figure_of, format_number, set_title
from captum_interactions.visualization.palette import add_colorbar, limit_of, rounding_note
from captum_interactions.visualization.picture import (
    Picture,
    Style,
    Upsampling,
    check_region,
    check_style,
    draw_heat,
    outline,
    picture_of,
    picture_of_array,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from captum_interactions.maps.first_order_map import FirstOrderMap
    from captum_interactions.maps.interaction_map import InteractionMap


def plot_heatmap(
    source: InteractionMap | FirstOrderMap | ArrayLike,
    selection: Any = None,
    *,
    side: Side | None = None,
    style: Style = "overlay",
    upsampling: Upsampling = "nearest",
    limit: float | None = None,
    mask: NDArray[np.bool_] | None = None,
    region: Any = None,
    image: Any = None,
    title: str | None = None,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw a heat map over the image, or over the cells of the sound, that it speaks of.

    Red raises the score together with the selection, blue lowers it; the stronger, the more opaque,
    and zero shows the image in grey. What the model does not see of an
    image, or silence after a sound, is hatched. The coordinates of the axes are pixels of the image
    in every style.

    Args:
        source (InteractionMap, FirstOrderMap or array): A map of which an input is an image or a
            sound, or a grid of values of shape (rows, columns) that covers ``image``.
        selection: A selection of the other input, such as a phrase. Default: None, all of it
        side (str, optional): ``"a"`` or ``"b"``, whose picture. Default: a's if it has one
        style (str): ``"overlay"`` over a pale image; ``"side_by_side"`` with the image at the left
            of it, in the same axes; ``"contour"``, lines at a quarter, a half and three quarters of
            the limit over the image itself, clashes dashed. Default: ``"overlay"``
        upsampling (str): ``"nearest"``, each patch has one colour, or ``"smooth"``, bilinear
            between the centres of patches. Default: ``"nearest"``
        limit (float, optional): End of the symmetric scale; give panels that are to be compared the
            same. Default: the largest absolute value that is drawn
        mask (ndarray, optional): Booleans of shape (rows, columns): cells that are hatched instead
            of coloured, and do not count for the limit.
        region: A box, a mask or seconds to outline. Default: None
        image (PIL image, path or uint8 array, optional): The image under an array; a photograph is
            turned as its EXIF orientation says. Default: None
        title (str, optional): Default: the selection and the sum of its values
        colorbar (bool): Draw the scale at the right. Default: True
        ax (Axes, optional): Where to draw. Default: a new figure

    Returns:
        tuple: figure and axes. Nothing is shown.

    Raises:
        TypeError: If the map has neither an image nor a sound.
        ValueError: If a style is unknown, an array has not two dimensions, a mask another shape, or
            a first-order map no values of the picture.

    Examples::

        >>> import numpy as np
        >>> from captum_interactions.visualization import plot_heatmap
        >>> figure, ax = plot_heatmap(np.eye(3), title="identity")
    """
    check_style(style, upsampling)
    check_region(region)
    if is_map(source):
        picture, heat = heat_of(source, selection, side)
        title = heat_title(source, selection, heat) if title is None else title
    else:
        heat = np.asarray(source, np.float32)
        if heat.ndim != 2 or not heat.size:
            raise ValueError(f"a heat map has shape (rows, columns), but got shape {heat.shape}")
        picture = picture_of_array(heat.shape, image)
    if mask is not None and np.shape(mask) != heat.shape:
        raise ValueError(
            f"the mask must have the shape of the grid, {heat.shape}, but got {np.shape(mask)}"
        )
    mask = None if mask is None else checked_mask(np.asarray(mask))
    shown = heat if mask is None else heat[~mask]
    limit = limit_of(shown, limit=limit, source=source)
    if ax is None:
        ax = new_axes(picture, picture.n_across(style), colorbar)
    draw_heat(ax, picture, heat, limit, style, upsampling, mask)
    outline(ax, region)
    if colorbar:
        add_scale(ax, picture, limit, style)
    set_title(ax, title or "")
    return figure_of(ax), ax


def add_scale(ax: Axes, picture: Picture, limit: float, style: Style) -> None:
    """Draw the scale of a heat map at its right."""
    aspect = min(picture.aspect, 3.0) / picture.n_across(style)
    over_image = picture.is_over_image(style)
    add_colorbar(ax, limit, aspect, f"per {picture.part}", over_image=over_image)


def heat_of(
    imap: InteractionMap | FirstOrderMap, selection: Any = None, side: Side | None = None
) -> tuple[Picture, NDArray[np.float32]]:
    """The picture of a map and its grid of values."""
    side = picture_side(imap, side)
    axis: Any = axis_of(imap, side)
    return picture_of(axis), axis.to_grid(imap.marginal(side, selection).numpy())


def heat_title(
    imap: InteractionMap | FirstOrderMap, selection: Any, heat: NDArray[np.float32]
) -> str:
    """What is selected, and the sum of what is drawn."""
    if not is_second_order(imap):
        shown = f"{imap.method} (first order)"
    elif selection is None:
        shown = "all of the other input"
    else:
        shown = f"“{selection}”" if isinstance(selection, str) else "the selection"
    return f"{shown}, sum {format_number(heat.sum(), '+.3g')}{rounding_note(imap, heat)}"


def new_axes(picture: Picture, n_pictures: int = 1, colorbar: bool = True) -> Axes:
    """Axes of a new figure that fits a picture, its title and its scale."""
    from matplotlib import pyplot as plt

    longest = 3.4
    width = longest * min(1.0, 1.5 / picture.aspect) * (1.4 if picture.is_sound else 1.0)
    height = min(max(width * picture.aspect, 0.25), 6.0)
    width = max(min(width, height / picture.aspect), 1.2)
    below = 0.3 if picture.is_sound else 0.08
    left, right, title = (0.3 if picture.is_sound else 0.08), 0.75 if colorbar else 0.08, 0.42
    total = (left + n_pictures * width + right, below + height + title)
    figure = plt.figure(figsize=total)
    size = (n_pictures * width / total[0], height / total[1])
    return figure.add_axes((left / total[0], below / total[1], *size))
