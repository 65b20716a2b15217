"""An image, or the cells of a sound, with a heat map: the panel that several figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captum_interactions.axes import AudioAxis, ImageAxis
from captum_interactions.axes.image import check_not_a_box, checked_box, checked_mask
from captum_interactions.encoders.inputs.loading import load_image
from captum_interactions.visualization.palette import COLOURS, NEGATIVE, POSITIVE, opacity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Style = Literal["overlay", "side_by_side", "contour"]
Upsampling = Literal["nearest", "smooth"]
Box = tuple[float, float, float, float]

_GAP = 0.06
_FINE = 256
"""A smooth map has about so many cells a side."""


class Picture(NamedTuple):
    """Where a grid of values lies in what is drawn; boxes are (left, right, bottom, top)."""

    image: NDArray[np.uint8] | None
    """Pixels (height, width, 3), or None if they are not known."""
    extent: Box
    """Of the grid, in pixels of the image or in seconds and bands."""
    frame: Box
    """Of all that is drawn."""
    unseen: tuple[Box, ...]
    """What the model does not see or hear: outside of its crop, or silence after a sound."""
    is_sound: bool

    @property
    def part(self) -> str:
        """What has a value of its own."""
        return "cell" if self.is_sound else "patch"

    @property
    def aspect(self) -> float:
        """Height over width on paper."""
        if self.is_sound:
            return 0.45
        left, right, bottom, top = self.frame
        return abs(bottom - top) / (right - left)

    def n_across(self, style: Style) -> int:
        """How many pictures a style draws beside each other in the same axes."""
        return 2 if style == "side_by_side" and self.image is not None else 1

    def is_over_image(self, style: Style) -> bool:
        """Whether a style mixes its colours with those of the image."""
        return self.image is not None and style != "contour"


def picture_of(axis: ImageAxis | AudioAxis) -> Picture:
    """The picture of an image or a sound."""
    if isinstance(axis, AudioAxis):
        start, stop = min(t[0] for t in axis.times), max(t[1] for t in axis.times)
        extent = (start, stop, 0.0, float(max(axis.bands) + 1))
        heard = axis.copies * axis.duration
        silence = ((heard, stop, *extent[2:]),) if start <= heard < stop - 1e-6 else ()
        return Picture(None, extent, extent, silence, True)
    height, width = axis.frame.original
    pixels = None if axis.image is None else np.asarray(load_image(axis.image))
    frame = (0.0, float(width), float(height), 0.0)
    return Picture(pixels, axis.extent(), frame, _around(axis.extent(), frame), False)


def picture_of_array(shape: tuple[int, ...], image: Any = None) -> Picture:
    """The picture of a plain grid, which covers all of an image.

    Args:
        shape (tuple): (rows, columns) of the grid.
        image (optional): What :func:`~captum_interactions.encoders.inputs.loading.load_image`
            takes.
    """
    if image is None:
        extent = (0.0, float(shape[1]), float(shape[0]), 0.0)
        return Picture(None, extent, extent, (), False)
    image = load_image(image)
    extent = (0.0, float(image.width), float(image.height), 0.0)
    return Picture(np.asarray(image), extent, extent, (), False)


def check_style(style: str, upsampling: str) -> None:
    """Raise a ValueError for a style or an upsampling that does not exist."""
    for name, value, known in (
        ("style", style, get_args(Style)),
        ("upsampling", upsampling, get_args(Upsampling)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, but got {value!r}")


def draw_heat(
    ax: Axes,
    picture: Picture,
    heat: NDArray[Any],
    limit: float,
    style: Style = "overlay",
    upsampling: Upsampling = "nearest",
    mask: NDArray[np.bool_] | None = None,
) -> None:
    """Draw a grid of values over its picture; what ``mask`` marks has no colour.

    The coordinates of the axes are those of the picture in every style.
    """
    left, right, bottom, top = picture.frame
    gap = _GAP * (right - left)
    beside = picture.n_across(style) == 2
    if picture.image is not None:
        show = (0.0, right, bottom, 0.0)
        pixels = picture.image
        if beside:
            shift = right - left + gap
            ax.imshow(pixels, extent=(left - shift, right - shift, bottom, top))
        elif style == "contour":
            ax.imshow(pixels, extent=show)
        if style != "contour":  # pale grey, so that colours speak of attribution alone
            grey = np.asarray(Image.fromarray(pixels).convert("L")) * 0.5 + 127.5
            ax.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=show)
    values = np.asarray(heat, np.float32)
    hidden = np.zeros(values.shape, bool) if mask is None else np.asarray(mask, bool)
    if style == "contour":
        _contours(ax, picture, smooth(np.where(hidden, 0.0, values)), limit)
    else:
        _colours(ax, picture, np.where(hidden, 0.0, values), limit, upsampling, hidden)
    for box in (*picture.unseen, *_cells(picture, hidden)):
        veil(ax, box)
    ax.set_xlim(left - (right - left) - gap if beside else left, right)
    ax.set_ylim(bottom, top)
    ax.set_xticks([])
    ax.set_yticks([])
    if picture.is_sound:
        ax.set_aspect("auto")
        ax.set_box_aspect(picture.aspect)
        ax.tick_params(labelsize=7, length=2, pad=2)
        ax.set_xticks(
            np.linspace(left, right, 3), [f"{t:.3g} s" for t in np.linspace(left, right, 3)]
        )
        ax.set_ylabel("frequency" if top > 1 else "", fontsize=8)
    for spine in ax.spines.values():
        spine.set_linewidth(0.5)
        spine.set_visible(not beside)


def check_region(region: Any) -> None:
    """Raise a ValueError for a box or a mask that :func:`outline` could not draw."""
    if isinstance(region, np.ndarray) and region.ndim == 2:
        checked_mask(region)
    elif isinstance(region, tuple) and len(region) == 4:
        checked_box(region)
    else:
        check_not_a_box(region)


def outline(ax: Axes, selection: Any, colour: str = "black") -> None:
    """Draw a selected box or mask of an image, or seconds of a sound, on its picture."""
    if isinstance(selection, np.ndarray) and selection.ndim == 2:
        mask = checked_mask(selection)
        # A border of zeros closes contours that reach the border of the image.
        padded = np.pad(mask.astype(float), 1)
        rows, columns = (np.arange(-1, n + 1) + 0.5 for n in mask.shape)
        if mask.any():
            ax.contour(columns, rows, padded, levels=[0.5], colors=colour, linewidths=1.5)
    elif isinstance(selection, tuple) and len(selection) == 4:
        from matplotlib.patches import Rectangle

        x0, y0, x1, y1 = selection
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, lw=1.8, ec=colour))
    elif isinstance(selection, tuple) and len(selection) == 2:
        ax.axvspan(*selection, fill=False, lw=1.8, ec=colour)


def smooth(values: NDArray[Any]) -> NDArray[np.float32]:
    """A grid with finer cells, interpolated between the centres of the coarse ones."""
    rows, columns = values.shape
    factor = max(2, round(_FINE / max(rows, columns)))
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    fine = image.resize((columns * factor, rows * factor), Image.Resampling.BILINEAR)
    return np.asarray(fine, np.float32)


def veil(ax: Axes, box: Box) -> None:
    """Hatch a box, to say that there is nothing to see."""
    from matplotlib.patches import Rectangle

    left, right, bottom, top = box
    corner, width, height = (left, min(bottom, top)), right - left, abs(bottom - top)
    ax.add_patch(
        Rectangle(corner, width, height, fc="#f2f2f2", ec="#a8a8a8", hatch="////", lw=0, alpha=0.9)
    )


def _colours(
    ax: Axes,
    picture: Picture,
    values: NDArray[Any],
    limit: float,
    upsampling: Upsampling,
    hidden: NDArray[np.bool_],
) -> None:
    fine = smooth(values) if upsampling == "smooth" else values
    shown = np.ones(fine.shape) if picture.image is None else opacity(fine, limit)
    if hidden.any():
        rows, columns = (fine.shape[axis] // hidden.shape[axis] for axis in (0, 1))
        shown[np.kron(hidden, np.ones((rows, columns), bool))] = 0.0
    ax.imshow(
        fine, cmap=COLOURS, vmin=-limit, vmax=limit, alpha=np.nan_to_num(shown),
        extent=picture.extent, interpolation="nearest",
        origin="lower" if picture.is_sound else "upper",
    )  # fmt: skip


def _contours(ax: Axes, picture: Picture, fine: NDArray[Any], limit: float) -> None:
    """Lines at a quarter, a half and three quarters of the limit, thicker where it is stronger."""
    x, y = centres(picture, fine.shape)
    for sign, colour, dashes in ((1, POSITIVE, "solid"), (-1, NEGATIVE, "dashed")):
        for share, width in ((0.25, 1.0), (0.5, 1.6), (0.75, 2.4)):
            level = sign * share * limit
            if fine.min() < level < fine.max():
                for ink, extra in (("white", 1.4), (colour, 0.0)):  # readable on any image
                    ax.contour(
                        x, y, fine, levels=[level], colors=ink, linewidths=width + extra,
                        linestyles="solid" if extra else dashes,
                    )  # fmt: skip


def _around(extent: Box, frame: Box) -> tuple[Box, ...]:
    """The parts of an image's frame that are outside of an extent."""
    left, right, bottom, top = frame
    x0, x1, y1, y0 = extent
    x0, x1 = (min(max(x, left), right) for x in (x0, x1))
    y0, y1 = (min(max(y, top), bottom) for y in (y0, y1))
    strips = (
        (left, x0, bottom, top),
        (x1, right, bottom, top),
        (x0, x1, y0, top),
        (x0, x1, bottom, y1),
    )
    return tuple(box for box in strips if box[1] - box[0] > 0.5 and box[2] - box[3] > 0.5)


def centres(picture: Picture, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where the columns (x) and rows (y) of a grid of a shape have their middle."""
    left, right, bottom, top = picture.extent
    first, last = (bottom, top) if picture.is_sound else (top, bottom)
    x = left + (np.arange(shape[1]) + 0.5) * (right - left) / shape[1]
    y = first + (np.arange(shape[0]) + 0.5) * (last - first) / shape[0]
    return x, y


def _cells(picture: Picture, hidden: NDArray[np.bool_]) -> list[Box]:
    x, y = centres(picture, hidden.shape)
    left, right, bottom, top = picture.extent
    width, height = (right - left) / len(x) / 2, (bottom - top) / len(y) / 2
    return [
        (x[column] - width, x[column] + width, y[row] + height, y[row] - height)
        for row, column in np.argwhere(hidden)
    ]
