"""From image files and arrays to pixel values, and from pixels back to the original image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
            ``do_resize`` and ``do_center_crop`` say.
        images: RGB images.

    Returns:
        tuple: pixel values (B, 3, H, W), and one frame an image.
    """
    pixels: Tensor = processor(images=list(images), return_tensors="pt")["pixel_values"]
    size = (pixels.shape[-2], pixels.shape[-1])
    return pixels, [_frame(processor, (image.height, image.width), size) for image in images]


def _frame(processor: Any, original: tuple[int, int], size: tuple[int, int]) -> Frame:
    resized = original
    if getattr(processor, "do_resize", False):
        resized = _resized(dict(processor.size), original) or size
    if not getattr(processor, "do_center_crop", False):
        resized = size
    scale = (resized[1] / original[1], resized[0] / original[0])
    offset = ((resized[1] - size[1]) // 2, (resized[0] - size[0]) // 2)
    return Frame(original, size, scale, (float(offset[0]), float(offset[1])))


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
