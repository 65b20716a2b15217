"""The axis of an image: the pixels of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from reprlib import repr as shortened
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captum_interactions.axes.token import TokenAxis, Weights


@dataclass(frozen=True)
class Frame:
    """The geometry of preprocessing, from the original image to model pixels.

    A point (x, y) of the original image is at ``scale * (x, y) - offset`` in model pixels.
    """

    original: tuple[int, int]
    """(height, width) of the original image, in pixels."""
    size: tuple[int, int]
    """(height, width) of the model's input, in pixels."""
    scale: tuple[float, float]
    """Model pixels per original pixel, (x, y)."""
    offset: tuple[float, float]
    """Model pixels cropped at the left and the top (negative: padded)."""

    @classmethod
    def identity(cls, size: tuple[int, int]) -> Frame:
        """The frame of an image without preprocessing."""
        return cls.resized(size, size)

    @classmethod
    def resized(cls, original: tuple[int, int], size: tuple[int, int]) -> Frame:
        """The frame of a whole image of (height, width), resized to a size."""
        scale = (size[1] / original[1], size[0] / original[0])
        return cls(original, size, scale, (0.0, 0.0))


@dataclass(frozen=True)
class ImageAxis(TokenAxis):
    """The tokens of an image: special tokens, the cells of a patch grid row by row, and others.

    Cells at the right and the lower border may extend beyond the image.
    """

    grid: tuple[int, int]
    """(rows, columns) of patches."""
    cell: tuple[int, int]
    """(height, width) of a patch in model pixels."""
    frame: Frame
    image: Image.Image | None = None
    """The original image, if available."""

    @classmethod
    def of_grid(
        cls,
        grid: tuple[int, int],
        cell: tuple[int, int],
        frame: Frame,
        image: Image.Image | None = None,
        *,
        before: Sequence[str] = (),
        after: Sequence[str] = (),
        padding: int = 0,
    ) -> ImageAxis:
        """An axis of the patches of a grid between special tokens, with padding at the end."""
        rows, columns = grid
        patches = [f"patch {row},{column}" for row in range(rows) for column in range(columns)]
        return cls(
            labels=(*before, *patches, *after, *("[padding]",) * padding),
            special=(True,) * len(before)
            + (False,) * len(patches)
            + (True,) * len(after)
            + (False,) * padding,
            padding=(False,) * (len(before) + len(patches) + len(after)) + (True,) * padding,
            grid=grid,
            cell=cell,
            frame=frame,
            image=image,
        )

    @property
    def patches(self) -> slice:
        """The slice of the patches among the tokens."""
        first = self.special.index(False)
        return slice(first, first + self.grid[0] * self.grid[1])

    def at_input(self) -> ImageAxis:
        """The axis of the patches and the padding alone."""
        keep = [not special for special in self.special]
        return replace(
            self,
            labels=tuple(compress(self.labels, keep)),
            special=tuple(compress(self.special, keep)),
            padding=tuple(compress(self.padding, keep)),
        )

    def select(self, selection: Any = None) -> Weights:
        """Convert a selection to one weight per token: the share of each patch that is covered.

        Args:
            selection: None for every token, special ones included; a tuple (x0, y0, x1, y1), a box
                in pixels of the original image; a mask of the original image's (height, width),
                of booleans, 0 and 1, or 0 and 255; or a slice, range, set or list of token indices.

        Returns:
            ndarray: float32 weights in [0, 1], shape (T,).

        Raises:
            TypeError: If the kind of selection is unknown.
            ValueError: If a box is empty, a mask has another size, other values or no pixel, the
                selection was cropped, or a list of four numbers may be a box or tokens.
        """
        if not _is_region(selection):
            check_not_a_box(selection)
            return super().select(selection)
        coverage = self.coverage(selection)
        if isinstance(selection, np.ndarray) and not selection.any():
            raise ValueError("the mask has no pixel inside")
        if not coverage.any():
            height, width = self.frame.original
            x0, y0, x1, y1 = self.visible
            raise ValueError(
                "the model sees nothing of the selected region, which lies outside of the crop: of "
                f"{width} × {height} pixels it sees x from {x0:.0f} to {x1:.0f} and y from "
                f"{y0:.0f} to {y1:.0f}. Boxes are (x0, y0, x1, y1) in pixels, but got "
                f"{shortened(selection)}"
            )
        weights = np.zeros(len(self), np.float32)
        weights[self.patches] = coverage.ravel()
        return weights

    def coverage(self, *regions: Any) -> Weights:
        """Share of each patch that is covered by the union of boxes and masks.

        Overlaps count once. Pixels outside of the model's crop do not count: of a region that is
        partly cropped, the visible part counts, and all shares are zero if it is fully cropped.

        Args:
            regions: Tuples (x0, y0, x1, y1), boxes in pixels of the original image, and masks of
                the original image's (height, width), of booleans, 0 and 1, or 0 and 255. No region
                gives zeros.

        Returns:
            ndarray: float32 shares in [0, 1], shape (rows, columns).

        Raises:
            TypeError: If a region is neither a box nor a mask.
            ValueError: If a box is empty, or a mask has another size or other values.
        """
        boxes = [checked_box(region) for region in regions if isinstance(region, tuple)]
        masks = [checked_mask(region) for region in regions if not isinstance(region, tuple)]
        for mask in masks:
            if mask.shape != self.frame.original:
                raise ValueError(
                    "a mask must have the original image's (height, width) = "
                    f"{self.frame.original}, but got shape {mask.shape}"
                )
        # Between consecutive borders of patches, boxes and pixels, coverage is constant.
        centres, shares = [], []
        for axis in (1, 0):
            edges = self._edges(axis)
            sides = [np.asarray(box[axis::2]) for box in boxes]
            if masks:
                sides.append(np.arange(self.frame.original[1 - axis] + 1.0))
            borders = np.unique(np.concatenate([edges, *sides]).clip(edges[0], edges[-1]))
            overlap = np.minimum(edges[1:, None], borders[1:])
            overlap = overlap - np.maximum(edges[:-1, None], borders[:-1])
            shares.append(overlap.clip(0) / np.diff(edges)[:, None])
            centres.append((borders[1:] + borders[:-1]) / 2)
        y, x = centres[0][:, None], centres[1]
        covered = np.zeros((len(y), len(x)), bool)
        for x0, y0, x1, y1 in boxes:
            covered |= (y0 < y) & (y < y1) & (x0 < x) & (x < x1)
        if masks:
            height, width = self.frame.original
            inside = (y > 0) & (y < height) & (x > 0) & (x < width)
            row, column = y.astype(int).clip(0, height - 1), x.astype(int).clip(0, width - 1)
            covered |= inside & np.any([mask[row, column] for mask in masks], axis=0)
        return np.asarray((shares[0] @ covered @ shares[1].T).clip(0, 1), np.float32)

    def _expects(self) -> str:
        return (
            "select patches by a tuple (x0, y0, x1, y1), a mask of the image's (height, width), or "
            "by a slice, a range, a set or a list of token indices"
        )

    def to_grid(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of all tokens (..., T) as a grid (..., rows, columns), special tokens left out."""
        return values[..., self.patches].reshape(*values.shape[:-1], *self.grid)

    def to_image(self, grid: NDArray[Any], fill: float = 0.0) -> NDArray[Any]:
        """Spread a grid of values over the original image.

        Args:
            grid (ndarray): shape (rows, columns).
            fill (float): Value of cropped pixels. Default: 0.0

        Returns:
            ndarray: shape (height, width) of the original image; each pixel has its patch's value.
        """
        index_x, inside_x = self._cells_of_pixels(axis=0)
        index_y, inside_y = self._cells_of_pixels(axis=1)
        values = grid[index_y[:, None], index_x[None, :]]
        return np.where(inside_y[:, None] & inside_x[None, :], values, fill)

    @property
    def visible(self) -> tuple[float, float, float, float]:
        """What the model sees as (x0, y0, x1, y1) in pixels of the original, clipped to it."""
        height, width = self.frame.original
        left, right, bottom, top = self.extent()
        return max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)

    @property
    def is_cropped(self) -> bool:
        """Whether the model does not see a pixel or more at some border of the image."""
        height, width = self.frame.original
        x0, y0, x1, y1 = self.visible
        return max(x0, y0, width - x1, height - y1) >= 1

    def box(self, token: int) -> tuple[float, float, float, float] | None:
        """The patch of a token as (x0, y0, x1, y1) in original pixels, clipped to the image.

        None if the token is not a patch.
        """
        index = token - self.patches.start
        if not 0 <= index < self.grid[0] * self.grid[1]:
            return None
        row, column = divmod(index, self.grid[1])
        height, width = self.frame.original
        x0, x1 = self._edges(0)[column : column + 2].clip(0, width).tolist()
        y0, y1 = self._edges(1)[row : row + 2].clip(0, height).tolist()
        return x0, y0, x1, y1

    def extent(self) -> tuple[float, float, float, float]:
        """(left, right, bottom, top) of the patch grid in original pixels, as in matplotlib."""
        x, y = self._edges(0), self._edges(1)
        return float(x[0]), float(x[-1]), float(y[-1]), float(y[0])

    def _edges(self, axis: int) -> NDArray[np.float64]:
        """Borders of the patches along x (axis 0) or y (axis 1), in original pixels."""
        count, length = self.grid[1 - axis], self.cell[1 - axis]
        model = np.arange(count + 1) * float(length)
        return np.asarray((model + self.frame.offset[axis]) / self.frame.scale[axis])

    def _cells_of_pixels(self, axis: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        centres = np.arange(self.frame.original[1 - axis]) + 0.5
        index = np.searchsorted(self._edges(axis), centres, side="right") - 1
        count = self.grid[1 - axis]
        return index.clip(0, count - 1), (index >= 0) & (index < count)


def _is_region(selection: Any) -> bool:
    is_box = isinstance(selection, tuple) and len(selection) == 4
    return is_box or (isinstance(selection, np.ndarray) and selection.ndim == 2)


def checked_box(box: tuple[Any, ...]) -> tuple[float, ...]:
    """A box (x0, y0, x1, y1) as floats.

    Raises:
        ValueError: If it is not four finite numbers, or empty.
    """
    if not _may_be_box(box):
        raise ValueError(
            f"a box is four finite numbers (x0, y0, x1, y1) with x0 < x1 and y0 < y1, but got {box}"
        )
    return tuple(float(value) for value in box)


def checked_mask(mask: Any) -> NDArray[np.bool_]:
    """A mask of two dimensions as booleans.

    Raises:
        TypeError: If it is not an array.
        ValueError: If it does not have two dimensions, or other values than booleans, 0 and 1, or
            0 and 255.
    """
    if not isinstance(mask, np.ndarray):
        raise TypeError(
            "a region is a tuple (x0, y0, x1, y1) or an array of the image's (height, width), but "
            f"got {mask!r}"
        )
    if mask.ndim != 2:
        raise ValueError(f"a mask has shape (height, width), but got shape {mask.shape}")
    inside = mask != 0
    if mask.dtype != bool and not any(np.array_equal(mask, inside * top) for top in (1, 255)):
        raise ValueError(
            "a mask holds booleans, 0 and 1, or 0 and 255, but got other values of "
            f"{mask.dtype}: choose what is inside, as in mask > 0.5"
        )
    return np.asarray(inside, bool)


def _may_be_box(values: Sequence[Any]) -> bool:
    are_numbers = len(values) == 4 and all(
        isinstance(value, (int, float, np.integer, np.floating)) and np.isfinite(float(value))
        for value in values
    )
    return are_numbers and values[0] < values[2] and values[1] < values[3]


def check_not_a_box(selection: Any) -> None:
    """Raise a ValueError for a list or an array that may be a box or four tokens."""
    if isinstance(selection, np.ndarray) and selection.ndim == 1:
        selection = selection.tolist()
    if isinstance(selection, list) and _may_be_box(selection):
        box = ", ".join(map(str, selection))
        raise ValueError(
            f"[{box}] may be a box or four tokens: pass the tuple ({box}) for the box (x0, y0, x1, "
            f"y1) in pixels, or the set {{{box}}} for the tokens"
        )
