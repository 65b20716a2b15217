"""Load images upright and in RGB with 8 bits, as viewers show them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from captum_interactions.user_warnings import warn_caller

_WIDE = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
"""Pillow's modes with more than 8 bits per channel, which its conversion to RGB clips at 255.
"""

_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
"""TIFF tags, and a value."""

_FEW_LEVELS = 16
"""Minimum number of grey levels; an image with fewer is hardly visible."""


def load_image(source: Any) -> Image.Image:
    """Open one image in RGB, as viewers show it.

    Photographs are turned as their EXIF orientation says. Transparent pixels are composited over
    white. Images of 16 bits are scaled so that the largest value of their format is white. Images
    of floats or of 32-bit integers are refused, since they do not say which value is white. Of
    several frames or pages, the first is taken. Colour profiles are not applied.

    Args:
        source: A PIL image, a path, or a uint8 array of shape (height, width), (height, width, 3),
            or (height, width, 4) with alpha.

    Raises:
        FileNotFoundError: If the path is no file.
        ValueError: If the file cannot be read as an image, or the array has another shape or type.
        TypeError: If the source is of another kind.

    Warns:
        UserWarning: If an image of 16 bits is so dark or so flat that few grey levels are left.
    """
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "the image")
    elif isinstance(source, (str, Path)):
        if not os.path.isfile(source):  # noqa: PTH113 - unlike Path.is_file, it raises nothing
            raise FileNotFoundError(
                f"there is no image file at {str(source)!r} (the image is the first input of a "
                "pair; addresses on the web are not opened)"
            )
        name = repr(str(source))
    elif isinstance(source, np.ndarray):
        is_picture = source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4))
        if source.dtype != np.uint8 or not is_picture or not source.size:
            raise ValueError(
                "an image array must be uint8 of shape (height, width), (height, width, 3) or "
                f"(height, width, 4), but got {source.dtype} of shape {source.shape}"
            )
        source, name = Image.fromarray(source), "the image"
    else:
        raise TypeError(
            "an image is a PIL image, a path, a uint8 array or a tensor, but got "
            f"{type(source).__name__}"
        )
    try:
        return read_image(source, name)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error


def load_images(raw: Any) -> list[Image.Image]:
    """Open one image or a sequence of images; see :func:`load_image`."""
    many = isinstance(raw, Sequence) and not isinstance(raw, str)
    images = [load_image(source) for source in (raw if many else [raw])]
    if not images:
        raise ValueError("expected at least one image, but got an empty list")
    return images


def read_image(
    source: Image.Image | str | Path | IO[bytes], name: str, *, upright: bool = True
) -> Image.Image:
    """Convert a PIL image or a file as :func:`load_image` does.

    Args:
        source: The image, or a file that may be broken.
        name: Its name in warnings.
        upright: Turn it as its EXIF orientation says. Default: True

    Returns:
        An image in RGB without metadata, so that nothing turns it a second time.

    Raises:
        ValueError: If it cannot be read; the caller adds the name.
    """
    try:
        if isinstance(source, Image.Image):
            return _as_rgb(source, name, upright)
        with Image.open(source) as file:
            return _as_rgb(file, name, upright)
    except UnidentifiedImageError as error:  # its message may contain an address in memory
        raise ValueError("cannot be read as an image of any known format") from error
    except Exception as error:
        # Broken files raise nearly anything: OSError, SyntaxError, struct.error, IndexError,
        # DecompressionBombError, ...
        reason = str(error) or type(error).__name__
        raise ValueError(f"cannot be read as an image: {reason}") from error


def _as_rgb(image: Image.Image, name: str, upright: bool) -> Image.Image:
    ends = _ends(image)
    if upright:
        image = ImageOps.exif_transpose(image)
    if ends is not None:
        image = _grey(image, *ends, name)
    elif image.has_transparency_data:
        image = _over_white(image)
    image = image.convert("RGB")
    image.info.clear()
    return image


def _ends(image: Image.Image) -> tuple[int, int] | None:
    """The values of black and white in an image of more than 8 bits; None for any other image."""
    if image.mode not in _WIDE:
        return None
    # Before Pillow 11 all images of 16 bits in PNG had the mode "I", as those in PPM still have.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise ValueError(
            f"its pixels are {kind} (mode {image.mode}), which do not say which value is white: "
            "scale them to uint8 first"
        )
    tags = getattr(image, "tag_v2", {})
    white = 2 ** tags.get(_BITS, (16,))[0] - 1
    return (white, 0) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else (0, white)


def _grey(image: Image.Image, black: int, white: int, name: str) -> Image.Image:
    """Convert an image of 16 bits to 8 bits."""
    values = np.asarray(image).astype(np.float32)
    shown = np.rint((values - black) * (255 / (white - black))).clip(0, 255).astype(np.uint8)
    n_levels, n_values = int(np.ptp(shown)) + 1, 0
    if n_levels < _FEW_LEVELS:
        n_values = len(np.unique(values))
    if n_values > n_levels:
        warn_caller(
            f"{name} has {n_values} different values, from {values.min():.0f} to "
            f"{values.max():.0f} where {max(black, white)} is the largest possible, which are "
            f"shown in {n_levels} of 256 grey levels: stretch its contrast first if they should be "
            "told apart"
        )
    if "transparency" in image.info:
        shown[values == image.info["transparency"]] = 255
    return Image.fromarray(shown)


def _over_white(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # of 16 bits
        image.info["transparency"] = tuple(value >> 8 for value in key)
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image.convert("RGBA"))
    return flat
