"""From image files and arrays to pixel values, and from pixels back to the original image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from captum_interactions.encoders.axes import Frame


def load_image(source: Any) -> Image.Image:
    """Open one image as RGB.

    Args:
        source: A PIL image, a path, or a uint8 array (height, width, 3) or (height, width).

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the file is not an image, or the array has another shape or type.
        TypeError: If the source is of another kind.
    """
    if isinstance(source, Image.Image):
        return _upright(source)
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise FileNotFoundError(f"there is no image file at {str(source)!r}")
        try:
            with Image.open(source) as file:
                return _upright(file)
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{str(source)!r} cannot be read as an image: {error}") from error
    if isinstance(source, np.ndarray):
        is_picture = source.ndim == 2 or (source.ndim == 3 and source.shape[2] == 3)
        if source.dtype != np.uint8 or not is_picture:
            raise ValueError(
                "an image array must be uint8 of shape (height, width) or (height, width, 3), but "
                f"got {source.dtype} of shape {source.shape}"
            )
        return Image.fromarray(source).convert("RGB")
    raise TypeError(
        "an image is a PIL image, a path, a uint8 array or a tensor, but got "
        f"{type(source).__name__}"
    )


def _upright(image: Image.Image) -> Image.Image:
    """The image as viewers show it: cameras store the orientation apart from the pixels."""
    turned: Image.Image = ImageOps.exif_transpose(image)
    return turned.convert("RGB")


def load_images(raw: Any) -> list[Image.Image]:
    """Open one image or a sequence of images; see :func:`load_image`."""
    many = isinstance(raw, Sequence) and not isinstance(raw, str)
    images = [load_image(source) for source in (raw if many else [raw])]
    if not images:
        raise ValueError("expected at least one image, but got an empty list")
    return images


def process_images(processor: Any, images: Sequence[Image.Image]) -> tuple[Tensor, list[Frame]]:
    """Run an image processor of ``transformers`` and record where each pixel came from.

    Args:
        processor: An image processor that resizes and crops as its ``size``, ``crop_size``,
            ``do_resize`` and ``do_center_crop`` say; or any function from an image to pixel values
            (3, H, W), such as torchvision's transforms, which is asked where it puts pixels.
        images: RGB images.

    Returns:
        tuple: pixel values (B, 3, H, W), and one frame an image.
    """
    sizes = [(image.height, image.width) for image in images]
    if not hasattr(processor, "do_resize"):
        frames = {size: _probed_frame(processor, size) for size in set(sizes)}
        return torch.stack([processor(image) for image in images]), [frames[size] for size in sizes]
    pixels: Tensor = processor(images=list(images), return_tensors="pt")["pixel_values"]
    size = (pixels.shape[-2], pixels.shape[-1])
    return pixels, [_frame(processor, original, size) for original in sizes]


def _frame(processor: Any, original: tuple[int, int], size: tuple[int, int]) -> Frame:
    resized = original
    if getattr(processor, "do_resize", False):
        resized = _resized(dict(processor.size), original) or size
    if not getattr(processor, "do_center_crop", False):
        resized = size
    scale = (resized[1] / original[1], resized[0] / original[0])
    offset = ((resized[1] - size[1]) // 2, (resized[0] - size[0]) // 2)
    return Frame(original, size, scale, (float(offset[0]), float(offset[1])))


def _probed_frame(preprocess: Callable[[Image.Image], Tensor], size: tuple[int, int]) -> Frame:
    """Where a function puts the pixels of an image of this size, read off images of ramps."""
    height, width = size
    scales, offsets, shape = [], [], (0, 0)
    for axis, length in enumerate((width, height)):
        ramp = (np.arange(length) + 0.5) / length
        picture = np.broadcast_to(ramp if axis == 0 else ramp[:, None], size)
        seen = [
            preprocess(Image.fromarray((255 * levels).round().astype(np.uint8)).convert("RGB"))[0]
            for levels in (picture, np.zeros(size), np.ones(size))
        ]
        shape = (seen[0].shape[0], seen[0].shape[1])
        if shape[1 - axis] < 2 or length < 2:
            raise ValueError(f"images of {width} × {height} pixels are too small for {preprocess}")
        # Where black and white look alike, the function has put something of its own.
        shown = (seen[2] - seen[1]).abs() > 1e-6
        level = ((seen[0] - seen[1]) / (seen[2] - seen[1]).where(shown, torch.ones(()))).numpy()
        inside = shown.numpy() & (level > 0.02) & (level < 0.98)
        position = np.broadcast_to(
            np.arange(shape[1 - axis]) + 0.5, level.T.shape if axis else shape
        )
        position = position.T if axis else position
        slope, start = np.polyfit(position[inside], level[inside] * length, 1)
        scales.append(1 / float(slope))
        offsets.append(float(start) / float(slope))
    return Frame(size, shape, (scales[0], scales[1]), (offsets[0], offsets[1]))


def _resized(size: dict[str, Any], original: tuple[int, int]) -> tuple[int, int] | None:
    height, width = original
    if size.get("height") and size.get("width"):
        return size["height"], size["width"]
    shortest = size.get("shortest_edge")
    if shortest and not size.get("longest_edge"):
        # The longer side is truncated to whole pixels, as the processors do.
        if height <= width:
            return shortest, int(shortest * width / height)
        return int(shortest * height / width), shortest
    return None
