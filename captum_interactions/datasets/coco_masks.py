"""COCO's segmentations as masks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_interactions.datasets.problems import DatasetError
from captum_interactions.datasets.reading import is_coordinate, need, shown

Mask = npt.NDArray[np.bool_]
Segmentation = list[npt.NDArray[np.float32]] | npt.NDArray[np.int64]
"""Polygons, each (corners, 2) of (x, y), or run lengths in column order, the first one outside."""


def read_segmentation(value: Any, size: tuple[int, int], where: str) -> Segmentation:
    """Check a segmentation, and convert it to arrays.

    Args:
        value: ``[[x, y, x, y, ...], ...]`` or ``{"counts": [...], "size": [height, width]}``.
        size: (width, height) of the image.
        where: The place of the annotation, for messages.

    Raises:
        DatasetError: If the value has neither form, or does not fit the image.
    """
    if isinstance(value, list):
        return [_polygon(polygon, where) for polygon in value]
    counts = need(value, "counts", list, f"{where}: segmentation")
    if not all(is_coordinate(run) and isinstance(run, int) and run >= 0 for run in counts):
        raise DatasetError(where, f"runs are whole numbers from 0, but got {shown(counts)}")
    if need(value, "size", list, where) != [*size[::-1]] or sum(counts) != size[0] * size[1]:
        raise DatasetError(
            where, f"its segmentation is of another size than its image, {size[0]}x{size[1]}"
        )
    return np.asarray(counts, np.int64)


def _polygon(value: Any, where: str) -> npt.NDArray[np.float32]:
    is_flat = isinstance(value, list) and len(value) % 2 == 0 and len(value) >= 6
    if not is_flat or not all(map(is_coordinate, value)):
        raise DatasetError(where, f"a polygon is [x, y, x, y, ...], but got {shown(value)}")
    return np.asarray(value, np.float32).reshape(-1, 2)


def mask_of(segmentations: Iterable[Segmentation], size: tuple[int, int]) -> Mask:
    """The pixels that at least one of several objects covers.

    A pixel is covered if its centre is inside a polygon.

    Args:
        segmentations: One for each object.
        size: (width, height) of the image.

    Returns:
        (height, width).
    """
    mask = np.zeros(size[::-1], bool)
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            for corners in segmentation:
                _fill(mask, corners)
        else:
            inside = np.arange(len(segmentation)) % 2 == 1
            mask |= np.repeat(inside, segmentation).reshape(size).T
    return mask


def _fill(mask: Mask, corners: npt.NDArray[np.float32]) -> None:
    height, width = mask.shape
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    left, right = max(0, math.floor(x0)), min(width, math.ceil(x1))
    top, bottom = max(0, math.floor(y0)), min(height, math.ceil(y1))
    x, y = np.arange(left, right)[None, :] + 0.5, np.arange(top, bottom)[:, None] + 0.5
    inside = np.zeros((y.size, x.size), bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if ay != by:  # how often a ray to the right crosses the outline
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    mask[top:bottom, left:right] |= inside
