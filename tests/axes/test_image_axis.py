"""Selections of an image: boxes and masks in its own pixels, through resizing and cropping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from captum_interactions.encoders import Frame, ImageAxis
from captum_interactions.encoders.inputs.images import process_images
from tests import models

# Patches of 4 × 4 pixels.
PROCESSORS = {
    "resize and crop": {"size": {"shortest_edge": 24}, "crop_size": 24},
    "resize more and crop": {"size": {"shortest_edge": 32}, "crop_size": 24},
    "crop alone": {"do_resize": False, "crop_size": 24},
    "squash": {"size": {"height": 24, "width": 24}, "do_center_crop": False},
    "squash, not square": {"size": {"height": 16, "width": 32}, "do_center_crop": False},
    "resize alone": {"size": {"shortest_edge": 24}, "do_center_crop": False},
    "crop larger than the image": {
        "size": {"shortest_edge": 12},
        "crop_size": {"height": 24, "width": 20},
    },
    "as it is": {"do_resize": False, "do_center_crop": False},
}
SIZES = [(48, 48), (50, 90), (90, 50), (33, 41)]


def prepared(name, picture):
    processor = models.clip_processor(
        **{"do_normalize": False, "resample": Image.Resampling.BILINEAR} | PROCESSORS[name]
    ).image_processor
    pixels, (frame,) = process_images(processor, [picture])
    grid = (pixels.shape[-2] // 4, pixels.shape[-1] // 4)
    return pixels[0, 0], ImageAxis.of_grid(grid, (4, 4), frame, picture, before=("[class]",))


def black(height, width):
    return np.zeros((height, width, 3), np.uint8)


def patches(values, axis):
    """Means of a (height, width) array over the patches of a grid."""
    rows, columns = axis.grid
    return values[: rows * 4, : columns * 4].reshape(rows, 4, columns, 4).mean((1, 3))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", PROCESSORS)
def test_a_bright_box_is_bright_in_the_patches_that_it_selects(name, size):
    height, width = size
    box = (0.3 * width, 0.2 * height, 0.7 * width, 0.6 * height)
    x0, y0, x1, y1 = (round(edge) for edge in box)
    pixels = black(height, width)
    pixels[y0:y1, x0:x1] = 255
    brightness, axis = prepared(name, Image.fromarray(pixels))
    seen = patches(brightness.numpy(), axis)
    selected = axis.select((x0, y0, x1, y1))
    assert selected[0] == 0
    # Resizing blurs the borders of the box by part of a pixel, cropping rounds to whole ones.
    assert np.abs(axis.to_grid(selected) - seen).max() < 0.3
    assert np.abs(axis.to_grid(selected) - seen).mean() < 0.03
    assert axis.to_grid(selected).sum() == pytest.approx(seen.sum(), rel=0.03)
    mask = pixels[..., 0] > 0
    np.testing.assert_allclose(axis.select(mask), selected, atol=1e-6)


@pytest.fixture
def axis():
    """An image of 20 × 30 pixels, halved; 2 columns are cut off: 2 × 3 patches of 4 × 4."""
    frame = Frame((20, 30), (8, 12), (0.5, 0.5), (2.0, 1.0))
    return ImageAxis.of_grid((2, 3), (4, 4), frame, before=("[class]", "[register]"))


@pytest.mark.parametrize(
    ("box", "grid"),
    [
        ((4, 2, 12, 10), [[1, 0, 0], [0, 0, 0]]),
        ((4, 2, 28, 18), [[1, 1, 1], [1, 1, 1]]),
        ((0, 0, 30, 20), [[1, 1, 1], [1, 1, 1]]),
        ((-50, -50, 90, 90), [[1, 1, 1], [1, 1, 1]]),
        ((8, 2, 12, 10), [[0.5, 0, 0], [0, 0, 0]]),
        ((10, 8, 14, 14), [[1 / 16, 1 / 16, 0], [1 / 8, 1 / 8, 0]]),
        ((12.5, 4.25, 13.5, 5.25), [[0, 1 / 64, 0], [0, 0, 0]]),
        ((0, 0, 6, 6), [[1 / 8, 0, 0], [0, 0, 0]]),
    ],
)
def test_shares_of_patches_that_a_box_covers(axis, box, grid):
    weights = axis.select(box)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [0, 0, *np.ravel(grid)], atol=1e-6)


def test_a_mask_is_the_sum_of_its_pixels(axis):
    mask = np.random.default_rng(0).random((20, 30)) < 0.3
    parts = [
        axis.select((x, y, x + 1, y + 1))
        for y, x in zip(*mask.nonzero(), strict=True)
        if 4 <= x < 28 and 2 <= y < 18
    ]
    np.testing.assert_allclose(axis.select(mask), np.sum(parts, 0), atol=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("top", [1, 255])
def test_masks_of_any_type(axis, dtype, top):
    mask = np.random.default_rng(0).random((20, 30)) < 0.3
    same = (mask * top).astype(dtype)
    assert axis.select(same).tolist() == axis.select(mask).tolist()


def test_other_selections(axis):
    assert axis.select([5, 4, 3, 2]).tolist() == [0, 0, 1, 1, 1, 1, 0, 0]  # no box: 5 > 3
    assert axis.select({2, 3, 4, 5}).tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert axis.select().tolist() == [1] * 8
    assert axis.select([0, 2]).tolist() == [1, 0, 1, 0, 0, 0, 0, 0]
    assert axis.select({0, 2, 3, 4}).tolist() == [1, 0, 1, 1, 1, 0, 0, 0]
    assert axis.select(slice(2, None)).tolist() == [0, 0] + [1] * 6


def test_at_the_input_there_are_no_special_tokens(axis):
    inner = axis.at_input()
    assert (len(axis), len(inner), sum(inner.special)) == (8, 6, 0)
    np.testing.assert_array_equal(inner.select((4, 2, 12, 10)), axis.select((4, 2, 12, 10))[2:])


def test_a_grid_spread_over_the_image(axis):
    values = np.arange(1.0, 7.0).reshape(2, 3)
    image = axis.to_image(values, fill=-1)
    assert image.shape == (20, 30)
    expected = np.full((20, 30), -1.0)
    expected[2:18, 4:28] = values.repeat(8, 0).repeat(8, 1)
    np.testing.assert_array_equal(image, expected)
    assert axis.extent() == (4.0, 28.0, 18.0, 2.0)


@pytest.mark.parametrize("name", PROCESSORS)
def test_spreading_and_selecting_agree(name):
    """Each patch, spread over the image and taken as a mask, selects that patch above all."""
    _, axis = prepared(name, Image.fromarray(black(50, 90)))
    for index in range(np.prod(axis.grid)):
        grid = np.zeros(np.prod(axis.grid))
        grid[index] = 1
        mask = axis.to_image(grid.reshape(axis.grid)) > 0
        if mask.any():  # patches of padding are not in the image
            weights = axis.to_grid(axis.select(mask)).ravel()
            assert weights.argmax() == index


def test_values_of_all_tokens_as_a_grid(axis):
    grid = axis.to_grid(np.arange(16).reshape(2, 8))
    assert grid.tolist() == [[[2, 3, 4], [5, 6, 7]], [[10, 11, 12], [13, 14, 15]]]


def test_units_are_patches(axis):
    assert [(unit.label, unit.tokens) for unit in axis.units][:2] == [
        ("patch 0,0", (2,)),
        ("patch 0,1", (3,)),
    ]
    assert len(axis.units) == 6


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        ((0, 0, 3, 20), ValueError, "the model sees nothing of the selected region.*crop"),
        ((40, 0, 50, 20), ValueError, "the model sees nothing of the selected region"),
        ((5, 5, 5, 9), ValueError, r"x0 < x1 and y0 < y1, but got \(5, 5, 5, 9\)"),
        ((5, 9, 8, 2), ValueError, r"x0 < x1 and y0 < y1, but got \(5, 9, 8, 2\)"),
        ((float("nan"), 0, 8, 2), ValueError, "x0 < x1 and y0 < y1, but got"),
        (np.zeros((20, 30), bool), ValueError, "the mask has no pixel inside"),
        (
            np.ones((30, 20), bool),
            ValueError,
            r"original image's \(height, width\) = \(20, 30\), but got shape \(30, 20\)",
        ),
        ("dog", TypeError, r"select patches by a tuple \(x0, y0, x1, y1\), .*but got 'dog'"),
        (torch.ones(20, 30), TypeError, "select patches by a tuple .* a mask .* but got"),
        ((0, 0, float("inf"), 9), ValueError, "four finite numbers"),
        (("0", "0", "9", "9"), ValueError, "four finite numbers"),
        (np.full((20, 30), 0.5), ValueError, "0 and 255, but got other values of float64"),
        (np.linspace(0, 1, 600).reshape(20, 30), ValueError, "choose what is inside, as in mask"),
        (np.where(np.eye(20, 30) > 0, np.nan, 0.0), ValueError, "a mask holds booleans, 0 and 1"),
        (np.eye(20, 30) * 2 - 1, ValueError, "a mask holds booleans"),
        (np.eye(20, 30, dtype=np.uint8) * 254, ValueError, "but got other values of uint8"),
        (np.eye(20, 30) * 255 + np.eye(20, 30, 1), ValueError, "a mask holds booleans"),
        (np.zeros((20, 30), "U1"), ValueError, "a mask holds booleans"),
        (
            [2, 3, 4, 5],
            ValueError,
            r"\(2, 3, 4, 5\) for the box .* or the set \{2, 3, 4, 5\} for the tokens",
        ),
        (np.array([2, 3, 4, 5]), ValueError, "may be a box or four tokens"),
        ([0.5, 0.0, 8.0, 9.5], ValueError, "may be a box or four tokens"),
        ([8], ValueError, "token 8 does not exist: there are 8 tokens"),
    ],
)
def test_bad_selections(axis, selection, error, message):
    with pytest.raises(error, match=message):
        axis.select(selection)


def test_the_frame_of_ready_pixels():
    assert Frame.identity((8, 12)) == Frame((8, 12), (8, 12), (1.0, 1.0), (0.0, 0.0))


def raster(axis, boxes, masks, fine=64):
    """The share of each patch that a fine raster finds covered."""
    height, width = axis.frame.original
    left, right, bottom, top = axis.extent()
    rows, columns = axis.grid
    y = (top + (np.arange(rows * fine) + 0.5) * (bottom - top) / (rows * fine))[:, None]
    x = left + (np.arange(columns * fine) + 0.5) * (right - left) / (columns * fine)
    covered = np.zeros((y.size, x.size), bool)
    for x0, y0, x1, y1 in boxes:
        covered |= (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    for mask in masks:
        covered |= inside & mask[row.clip(0, height - 1), column.clip(0, width - 1)]
    return covered.reshape(rows, fine, columns, fine).mean((1, 3))


@pytest.mark.parametrize("kind", ["boxes", "masks", "both"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", PROCESSORS)
def test_coverage_is_the_union(name, size, kind):
    height, width = size
    _, axis = prepared(name, Image.fromarray(black(height, width)))
    boxes = [
        (0.1 * width, 0.2 * height, 0.6 * width, 0.7 * height),
        (0.4 * width, 0.5 * height, 0.8 * width, 0.9 * height),  # overlaps the first
        (-5.0, -5.0, 7.5, 3.25),  # reaches out of the image
    ]
    masks = [np.zeros(size, bool) for _ in range(2)]
    masks[0][5:20, 10:25] = masks[1][12:30, 3:17] = True
    boxes, masks = boxes if kind != "masks" else [], masks if kind != "boxes" else []
    coverage = axis.coverage(*boxes, *masks)
    assert coverage.shape == axis.grid
    assert coverage.dtype == np.float32
    np.testing.assert_allclose(coverage, raster(axis, boxes, masks), atol=0.04)


def test_overlapping_regions_count_once():
    axis = ImageAxis.of_grid((2, 2), (4, 4), Frame.identity((8, 8)))
    box, other = (0, 0, 4, 4), (2.0, 0.0, 6.0, 4.0)
    assert axis.coverage(box, box).tolist() == [[1, 0], [0, 0]]
    assert axis.coverage(box, other).tolist() == [[1, 0.5], [0, 0]]
    assert axis.coverage().tolist() == [[0, 0], [0, 0]]
    mask = np.zeros((8, 8), bool)
    mask[4:6, :4] = True
    assert axis.coverage(mask, other).tolist() == [[0.5, 0.5], [0.5, 0]]
    # What one region alone covers is what it selects.
    for region in (box, other, mask):
        assert axis.coverage(region).ravel().tolist() == axis.select(region).tolist()


def test_coverage_of_what_the_crop_cut():
    _, axis = prepared("resize and crop", Image.fromarray(black(50, 90)))
    cut_off, cut = (0, 0, 15, 50), (0, 0, 45, 50)
    assert not axis.coverage(cut_off).any()
    # 90 × 50 pixels are scaled by 0.48 to 43 × 24, of which the middle 24 columns are kept.
    assert axis.visible == pytest.approx((20, 0, 70, 50), abs=2)
    assert axis.is_cropped
    seen = r"of 90 × 50 pixels it sees x from (19|20|21) to (69|70|71) and y from 0 to 50"
    with pytest.raises(ValueError, match=rf"{seen}.*but got \(0, 0, 15, 50\)"):
        axis.select(cut_off)
    assert 0.45 < axis.coverage(cut).mean() < 0.55
    assert np.array_equal(axis.coverage(cut, cut_off), axis.coverage(cut))


@pytest.mark.parametrize("name", ["squash", "resize alone", "as it is"])
def test_images_that_are_not_cropped(name):
    _, axis = prepared(name, Image.fromarray(black(24, 48)))
    assert axis.visible == pytest.approx((0, 0, 48, 24))
    assert not axis.is_cropped


@pytest.mark.parametrize(
    ("region", "error", "message"),
    [
        ([0, 0, 4, 4], TypeError, r"a region is a tuple .* but got \[0, 0, 4, 4\]"),
        ((0, 0, 4), ValueError, r"with x0 < x1 and y0 < y1, but got \(0, 0, 4\)"),
        ((4, 0, 4, 4), ValueError, "with x0 < x1"),
        ((0, float("nan"), 4, 4), ValueError, "with x0 < x1"),
        (np.zeros((8, 9), bool), ValueError, r"= \(8, 8\), but got shape \(8, 9\)"),
        (np.full((8, 8), 0.2), ValueError, "a mask holds booleans, 0 and 1, or 0 and 255"),
        (
            np.zeros((8, 8, 1), bool),
            ValueError,
            r"shape \(height, width\), but got shape \(8, 8, 1",
        ),
    ],
)
def test_regions_that_are_none(region, error, message):
    axis = ImageAxis.of_grid((2, 2), (4, 4), Frame.identity((8, 8)))
    with pytest.raises(error, match=message):
        axis.coverage((0, 0, 4, 4), region)
