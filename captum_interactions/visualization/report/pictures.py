"""Pictures inside of a page: photographs that are embedded once, and small heat maps."""

from __future__ import annotations

import base64
import hashlib
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captum_interactions.encoders.inputs.loading import load_image

MATCH = (202, 0, 32)
"""Red, green and blue of a match."""
CLASH = (5, 113, 176)
"""Red, green and blue of a clash: told apart from a match by colour-blind readers too."""
OPACITY = 0.85
"""How much the strongest patch hides of the image until a reader changes it."""
GAMMA = 0.75
"""Opacity grows with this power of a value, so that weak ones are still seen."""

_MOST_BYTES = 220_000
_TRIES = ((720, 85), (720, 65), (540, 60), (400, 50))
"""Longest side in pixels, and quality of the JPEG."""


class Pictures:
    """The images of a page, each embedded once whatever number of pairs shares it."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        """Data addresses, in the order of their indices."""
        self._known: dict[bytes, int] = {}

    def add(self, image: Image.Image) -> int:
        """The index of an image, which is embedded if it is new."""
        flat = load_image(image)
        content = f"{flat.size}".encode() + flat.tobytes()
        key = hashlib.sha256(content).digest()
        if key not in self._known:
            self._known[key] = len(self.sources)
            self.sources.append(_embed(flat))
        return self._known[key]

    def style(self) -> str:
        """One rule of CSS an image, for elements of the class ``picture-<index>``."""
        return "\n".join(
            f'.ci-report .picture-{index} {{ background-image: url("{source}"); }}'
            for index, source in enumerate(self.sources)
        )


def heat_picture(heat: NDArray[np.float32], limit: float) -> str:
    """A grid of values (rows, columns) as the data address of a picture, one pixel a cell.

    Args:
        heat (ndarray): The values, from ``-limit`` to ``limit``.
        limit (float): Where the scale ends.
    """
    pixels = np.empty((*heat.shape, 4), np.uint8)
    pixels[..., :3] = np.where(heat[..., None] >= 0, MATCH, CLASH)
    pixels[..., 3] = np.rint(255 * OPACITY * (np.abs(heat) / limit) ** GAMMA)
    return _address(_encoded(Image.fromarray(pixels), "PNG"), "png")


def _embed(image: Image.Image) -> str:
    for side, quality in _TRIES:
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        jpeg = _encoded(small, "JPEG", quality=quality, optimize=True)
        if max(small.size) <= 256:  # drawings and tiny images stay as they are
            png = _encoded(small, "PNG", optimize=True)
            if len(png) <= max(2 * len(jpeg), 40_000):
                return _address(png, "png")
        if len(jpeg) <= _MOST_BYTES:
            break
    return _address(jpeg, "jpeg")


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
