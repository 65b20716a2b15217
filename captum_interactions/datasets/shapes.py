"""Anti-aliased drawing of coloured, textured shapes on backgrounds, in NumPy.

A shape is a signed distance: negative inside, zero on the outline, positive outside, in units of
the shape's radius, y pointing down. Coverage of a pixel is the distance clipped over one pixel,
which is what makes the edges smooth without drawing at a higher resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]
Distance = Callable[[Floats, Floats], Floats]

OUTLINE_WIDTH = 1.2
"""Width, in pixels, of the darker rim drawn inside every shape."""


def _box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    dx, dy = np.abs(x) - half_width, np.abs(y) - half_height
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0)


def _polygon(corners: list[tuple[float, float]]) -> Distance:
    starts = np.asarray(corners, np.float32)
    edges = np.roll(starts, -1, axis=0) - starts

    def distance(x: Floats, y: Floats) -> Floats:
        nearest = np.full(x.shape, np.inf, np.float32)
        inside = np.zeros(x.shape, bool)
        for (ax, ay), (ex, ey) in zip(starts, edges, strict=True):
            px, py = x - ax, y - ay
            along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, (px - along * ex) ** 2 + (py - along * ey) ** 2)
            crosses = (ay > y) != (ay + ey > y)
            if ey != 0:
                inside ^= crosses & (px < py * ex / ey)
        return np.where(inside, -1, 1).astype(np.float32) * np.sqrt(nearest)

    return distance


def _regular(n_corners: int, inner: float = 1.0) -> Distance:
    """A regular polygon with a corner at the top; ``inner`` < 1 pulls every second corner in."""
    steps = [2 * math.pi * k / n_corners for k in range(n_corners)]
    radii = [inner if k % 2 and inner < 1 else 1.0 for k in range(n_corners)]
    return _polygon(
        [(r * math.sin(t), -r * math.cos(t)) for r, t in zip(radii, steps, strict=True)]
    )


def _circle(x: Floats, y: Floats) -> Floats:
    result: Floats = np.hypot(x, y) - np.float32(0.92)
    return result


def _ring(x: Floats, y: Floats) -> Floats:
    result: Floats = np.abs(np.hypot(x, y) - np.float32(0.7)) - np.float32(0.25)
    return result


def _crescent(x: Floats, y: Floats) -> Floats:
    bite = np.float32(0.82) - np.hypot(x - np.float32(0.62), y)
    result: Floats = np.maximum(np.hypot(x - np.float32(0.15), y) - np.float32(1), bite)
    return result


def _square(x: Floats, y: Floats) -> Floats:
    return _box(x, y, 0.78, 0.78)


def _cross(x: Floats, y: Floats) -> Floats:
    return np.minimum(_box(x, y, 0.98, 0.32), _box(x, y, 0.32, 0.98))


def _heart(x: Floats, y: Floats) -> Floats:
    # https://iquilezles.org/articles/distfunctions2d, scaled so that the heart spans about [-1, 1].
    scale = np.float32(1.75)
    u, v = np.abs(x) / scale, (np.float32(0.95) - y) / scale
    lobe = np.hypot(u - 0.25, v - 0.75) - math.sqrt(2) / 4
    fold = np.maximum(u + v, 0) / 2
    tip = np.minimum(u**2 + (v - 1) ** 2, (u - fold) ** 2 + (v - fold) ** 2)
    distance: Floats = np.where(u + v > 1, lobe, np.sqrt(tip) * np.sign(u - v))
    result: Floats = (distance * scale).astype(np.float32)
    return result


SHAPES: Mapping[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _polygon([(0, -1.02), (0.92, 0.66), (-0.92, 0.66)]),
    "star": _regular(10, inner=0.45),
    "heart": _heart,
    "cross": _cross,
    "ring": _ring,
    "crescent": _crescent,
    "hexagon": _regular(6),
    "diamond": _polygon([(0, -1.05), (0.72, 0), (0, 1.05), (-0.72, 0)]),
}
"""Signed distance of every shape, by name."""

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "orange": (245, 130, 32),
    "yellow": (247, 214, 50),
    "green": (44, 150, 62),
    "cyan": (60, 200, 215),
    "blue": (38, 84, 200),
    "purple": (124, 58, 173),
    "pink": (245, 140, 190),
    "white": (248, 248, 248),
    "black": (28, 28, 30),
}
"""sRGB of every colour, by name."""

FILLS = ("plain", "striped", "dotted")
"""Names of the textures that a shape can have."""


def draw_shape(
    canvas: Floats,
    shape: str,
    colour: str,
    fill: str,
    *,
    centre: tuple[float, float],
    radius: float,
    angle: float = 0.0,
    pitch: float = 7.0,
    slant: float = 0.785,
) -> npt.NDArray[np.bool_]:
    """Paint one shape onto ``canvas``, in place.

    Args:
        canvas: (H, W, 3), values in [0, 255].
        shape: A key of :data:`SHAPES`.
        colour: A key of :data:`COLOURS`.
        fill: One of :data:`FILLS`.
        centre: (x, y) in pixels.
        radius: Half the shape's extent, in pixels.
        angle: Rotation of the shape, in radians.
        pitch: Distance between two stripes or dots, in pixels.
        slant: Direction of the stripes or dots, in radians.

    Returns:
        (H, W) mask of the pixels that the shape covers by more than a half.
    """
    height, width = canvas.shape[:2]
    reach = 1.5 * radius + 2
    x0, x1 = max(0, int(centre[0] - reach)), min(width, int(centre[0] + reach) + 1)
    y0, y1 = max(0, int(centre[1] - reach)), min(height, int(centre[1] + reach) + 1)
    x = (np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - centre[0]))[None, :]
    y = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - centre[1]))[:, None]
    cos, sin = np.float32(math.cos(angle) / radius), np.float32(math.sin(angle) / radius)
    distance = SHAPES[shape](x * cos + y * sin, y * cos - x * sin) * np.float32(radius)

    paint = np.asarray(COLOURS[colour], np.float32)
    pale = paint + (255 - paint) * 0.7 if paint.sum() < 700 else paint * 0.6
    body = paint + (pale - paint) * _texture(fill, x, y, pitch, slant)[..., None]
    rim = np.clip(distance + OUTLINE_WIDTH + 0.5, 0, 1)[..., None]
    body = body + (paint * 0.62 - body) * rim
    coverage = np.clip(0.5 - distance, 0, 1)[..., None]
    window = canvas[y0:y1, x0:x1]
    window += (body - window) * coverage

    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = distance < 0
    return mask


def _texture(fill: str, x: Floats, y: Floats, pitch: float, slant: float) -> Floats:
    """How pale each pixel is, in [0, 1]; broadcasts to the window that ``x`` and ``y`` span."""
    if fill == "plain":
        return np.zeros((1, 1), np.float32)
    turn, cos, sin = 2 * math.pi / pitch, math.cos(slant), math.sin(slant)
    u, v = turn * (x * cos + y * sin), turn * (y * cos - x * sin)
    edge = pitch / 5  # steepness that softens the pattern over about one pixel
    shade: Floats = np.sin(u)
    if fill == "dotted":
        shade = np.cos(u) + np.cos(v) - np.float32(0.7)
    pale: Floats = np.clip(0.5 + shade * edge, 0, 1)
    return pale


def draw_background(kind: str, size: int, rng: np.random.Generator) -> Floats:
    """Draw a muted background, against which every colour of :data:`COLOURS` stands out.

    Args:
        kind: ``"plain"``, ``"gradient"``, ``"mottled"`` (soft blotches), ``"checkered"``,
            ``"wavy"`` or ``"rough"`` (small, strong blotches).
        size: Side of the square, in pixels.
        rng: Source of the tones and of the pattern.

    Returns:
        (size, size, 3), values in [0, 255].
    """
    first, second = _muted(rng), _muted(rng)
    if kind == "plain":
        return np.tile(first, (size, size, 1))
    axis = np.arange(size, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    theta = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(theta) + y * math.sin(theta)
    if kind == "gradient":
        mix = (along - along.min()) / np.ptp(along)
    elif kind in ("mottled", "rough"):
        cells = 5 if kind == "mottled" else 20
        coarse = Image.fromarray(rng.random((cells, cells), np.float32))
        mix = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    elif kind == "checkered":
        cell = rng.uniform(8, 16)
        shift = rng.uniform(0, cell, 2)
        mix = (((x + shift[0]) // cell + (y + shift[1]) // cell) % 2).astype(np.float32)
    elif kind == "wavy":
        bend = np.sin(2 * math.pi * (x * math.sin(theta) - y * math.cos(theta)) / (0.6 * size))
        mix = 0.5 + 0.5 * np.sin(2 * math.pi * (along + 5 * bend) / rng.uniform(10, 20))
    else:
        raise ValueError(f"unknown background {kind!r}")
    canvas: Floats = first + (second - first) * mix[..., None]
    return canvas.astype(np.float32)


def _muted(rng: np.random.Generator) -> Floats:
    """A greyish tone, far from white, black and saturated colours."""
    grey = rng.uniform(95, 190)
    return (grey + rng.uniform(-22, 22, 3)).astype(np.float32)
