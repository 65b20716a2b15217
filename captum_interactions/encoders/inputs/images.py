"""Image processing, and the map from pixels back to the original image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from captum_interactions.axes import Frame

_PLAIN_STEPS = "transformers.image_processing_backends"
"""The module of processing steps that are fully described by a processor's options."""

_FEWEST = 8
"""Minimum length in pixels of a side of a probe image."""

_LARGEST = 16.0
"""Upper bound of normalised pixel values: with ImageNet's normalisation the maximum is 2.7."""


def check_pixels(pixels: Tensor, processor: Any = None) -> None:
    """Refuse pixel values that are not normalised.

    Models are trained on values of a few units around zero. Values without a negative one, and with
    one above 16, are taken to be levels from 0 to 255.

    Args:
        pixels (Tensor): Pixel values of any shape.
        processor (optional): The model's image processor. If it does not normalise, all
            values are accepted. Default: None

    Raises:
        ValueError: If they are levels.
    """
    if not getattr(processor, "do_normalize", True) or not pixels.numel():
        return
    low, high = (float(end) for end in pixels.detach().aminmax())
    if low >= 0 and high > _LARGEST:
        raise ValueError(
            f"pixel values lie between {low:g} and {high:g}: they seem to be levels from 0 to 255, "
            "which the model was not trained on. Normalise them as its image processor does, or "
            "pass PIL images or uint8 arrays"
        )


def process_images(processor: Any, images: Sequence[Image.Image]) -> tuple[Tensor, list[Frame]]:
    """Run an image processor, and determine where it maps each pixel.

    Args:
        processor: An image processor of ``transformers``; or any function from an image to pixel
            values (3, H, W), such as torchvision's transforms. If its options do not determine the
            geometry, it is measured on images of ramps.
        images: RGB images.

    Returns:
        tuple: pixel values (B, 3, H, W), and one frame per image.

    Raises:
        ValueError: If the processor does not return one image for each image, or does more than
            resizing, cropping and padding.
    """

    def process(batch: Sequence[Image.Image]) -> Tensor:
        if not hasattr(processor, "do_resize"):
            return torch.stack([processor(image) for image in batch])
        pixels: Tensor = processor(images=list(batch), return_tensors="pt")["pixel_values"]
        return pixels

    pixels = process(images)
    if pixels.dim() != 4 or len(pixels) != len(images):
        raise ValueError(
            f"{type(processor).__name__} must make pixel values of shape ({len(images)}, 3, height,"
            f" width) of {len(images)} images, but made {tuple(pixels.shape)}"
        )
    size = (pixels.shape[-2], pixels.shape[-1])
    originals = [(image.height, image.width) for image in images]
    frames = {
        original: _known_frame(processor, original, size) or _probed_frame(process, original, size)
        for original in set(originals)
    }
    return pixels, [frames[original] for original in originals]


def _known_frame(processor: Any, original: tuple[int, int], size: tuple[int, int]) -> Frame | None:
    """The geometry of an image processor from its options, if these determine it."""
    steps = [getattr(type(processor), name, None) for name in ("_preprocess", "resize")]
    if any(getattr(step, "__module__", None) != _PLAIN_STEPS for step in steps):
        return None
    resized = _resized(dict(processor.size), original) if processor.do_resize else original
    if resized is None:
        return None
    cropped = resized
    if processor.do_center_crop:
        cropped = (processor.crop_size["height"], processor.crop_size["width"])
    offset = (resized[1] - cropped[1], resized[0] - cropped[0])
    # Backends of transformers differ in centring a crop that is larger than the image.
    if min(offset) < 0 or (cropped != size and not processor.do_pad):
        return None
    scale = (resized[1] / original[1], resized[0] / original[0])
    return Frame(original, size, scale, (float(offset[0] // 2), float(offset[1] // 2)))


def _resized(size: dict[str, Any], original: tuple[int, int]) -> tuple[int, int] | None:
    height, width = original
    size = {name: value for name, value in size.items() if value}
    if size.keys() == {"height", "width"}:
        return size["height"], size["width"]
    if size.keys() == {"shortest_edge"}:
        # The longer side is truncated to whole pixels, as the processors do.
        shortest = size["shortest_edge"]
        if height <= width:
            return shortest, int(shortest * width / height)
        return int(shortest * height / width), shortest
    return None


def _probed_frame(
    process: Callable[[Sequence[Image.Image]], Tensor],
    original: tuple[int, int],
    size: tuple[int, int],
) -> Frame:
    """The geometry of a function for images of this size, measured on images of ramps."""
    ramps = [_ramp(length) for length in original]
    pictures = np.zeros((4, *original), np.uint8)
    pictures[1] = 255
    pictures[2], pictures[3] = ramps[0][:, None], ramps[1][None, :]
    seen = process([Image.fromarray(picture).convert("RGB") for picture in pictures])
    again = process([Image.fromarray(pictures[-1]).convert("RGB")])
    if not torch.equal(again[0], seen[-1]):
        raise ValueError(
            "the preprocessing of images is random: it gave another result the second time (are "
            "these the transforms for training?)"
        )
    black, white, down, across = seen[:, 0].double().numpy()
    contrast = white - black  # none at padding
    lines = []
    for axis, picture in ((1, across), (0, down)):
        total = contrast.sum(1 - axis)
        shown = np.flatnonzero(np.abs(total) > 1e-3 * np.abs(total).max())
        levels = 255 * (picture - black).sum(1 - axis)[shown] / total[shown]
        lines.append(_line(shown + 0.5, levels, original[axis]))
    (scale_x, offset_x), (scale_y, offset_y) = lines
    return Frame(original, size, (scale_x, scale_y), (offset_x, offset_y))


def _ramp(length: int) -> NDArray[np.uint8]:
    """Levels that increase along an image, in whole steps if there are enough levels."""
    return np.round(_step(length) * np.arange(length)).astype(np.uint8)


def _step(length: int) -> float:
    return 255 // length or 255 / length


def _line(positions: NDArray[Any], levels: NDArray[Any], length: int) -> tuple[float, float]:
    """The scale and the offset of a resized ramp of this length, from its observed levels."""
    places = levels / _step(length) + 0.5
    slope, error, count = 0.0, 0.0, len(positions)
    if length >= _FEWEST and count >= 4:
        # Resizing reads up to three pixels around: borders are blurred, and left out of the fit.
        inner = slice(count // 4, count - count // 4)
        slope = np.polyfit(positions[inner], places[inner], 1)[0]
        margin = min(count // 4, math.ceil(3 / min(max(slope, 1e-3), 1)))
        positions, places = (values[margin : count - margin] for values in (positions, places))
        slope, start = np.polyfit(positions, places, 1)
        error = np.abs(slope * positions + start - places).max()
    # With more pixels than levels, the measurement is less precise.
    if slope <= 0 or error > (0.5 + length / 255) * max(1, slope):
        raise ValueError(
            "cannot find out where the image processor puts the pixels of an image whose side has "
            f"{length} of them: it must resize, crop and pad images and nothing else, and images "
            f"must have at least {_FEWEST} pixels per side"
        )
    # Images are resized to whole pixels, and most are cropped at whole pixels.
    scale = round(length / slope) / length
    offset = float(np.mean(scale * places - positions))
    nearest = round(offset)
    return scale, float(nearest) if abs(offset - nearest) < 0.3 else offset
