"""Colours of attributions: one palette and one symmetric scale for every figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from captum_interactions.maps.base import AttributionMap
from captum_interactions.visualization.lettering import figure_of, format_number, size_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar

COLOURS = "RdBu_r"
"""Diverging and safe for colour-blind readers: red raises the score, blue lowers it."""
POSITIVE, NEGATIVE, NEUTRAL = "#b2182b", "#2166ac", "#5f5f5f"
"""Lines, bars and letters: the ends of the palette, and a grey for what has no sign."""

_PALE = 0.75
"""Grey of an image under a heat map, about: half as dark as it is in black and white."""

Colour = tuple[float, float, float, float]


def limit_of(*values: Any, limit: float | None = None, source: Any = None) -> float:
    """The end of a symmetric scale that holds all values.

    Args:
        values (array-like): What will be drawn; entries that are not finite count for nothing.
        limit (float, optional): A limit to use instead, as for panels that share a scale.
        source (optional): The map that the values are of, if they are of one. Where all of them are
            no larger than its rounding errors, the limit is the map's scale, so that they have no
            colour. Default: None

    Returns:
        float: greater than 0; 1.0 if all values are zero and no map has another scale.

    Raises:
        ValueError: If ``limit`` is not a positive number.
    """
    if limit is not None:
        if not (np.isfinite(limit) and limit > 0):
            raise ValueError(f"the limit of a scale must be a positive number, but got {limit!r}")
        return float(limit)
    largest = 0.0
    for array in values:
        numbers = np.abs(np.asarray(array, np.float64))
        largest = max(largest, float(numbers[np.isfinite(numbers)].max(initial=0.0)))
    if isinstance(source, AttributionMap) and largest <= source.rounding:
        largest = source.scale
    return largest or 1.0


def rounding_note(source: Any, *values: Any) -> str:
    """What a title says of values of a map that are no larger than its rounding errors."""
    sizes = [float(np.abs(np.asarray(array)).max(initial=0.0)) for array in values]
    is_noise = isinstance(source, AttributionMap) and 0 < max(sizes) <= source.rounding
    return " (no larger than rounding)" if is_noise else ""


def opacity(values: Any, limit: float) -> NDArray[np.float64]:
    """How much values hide of the image under them: nothing at zero, so that zero is grey there."""
    return 0.9 * np.sqrt(np.clip(np.abs(np.asarray(values, np.float64)) / limit, 0.0, 1.0))


def scale(limit: float, *, over_image: bool = False) -> ScalarMappable:
    """Colours of values between ``-limit`` and ``limit``, on paper or over an image."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colours = colormaps[COLOURS]
    if over_image:
        values = np.linspace(-1.0, 1.0, 255)
        share = opacity(values, 1.0)[:, None]
        mixed = share * colours(0.5 + 0.5 * values)[:, :3] + (1.0 - share) * _PALE
        colours = ListedColormap(mixed, "over an image")
    return ScalarMappable(Normalize(-limit, limit), colours)


def colour(value: float, limit: float, opacity: float = 1.0) -> Colour:
    """The colour (red, green, blue, opacity) of one value."""
    from matplotlib import colormaps

    red, green, blue, _ = colormaps[COLOURS](0.5 + 0.5 * value / limit)
    return float(red), float(green), float(blue), opacity


def sign_colour(value: float) -> str:
    """Red for what raises the score, blue for what lowers it, grey for zero."""
    return POSITIVE if value > 0 else NEGATIVE if value < 0 else NEUTRAL


def add_colorbar(
    ax: Axes, limit: float, aspect: float = 1.0, label: str = "", *, over_image: bool = False
) -> None:
    """Draw the scale at the right of axes whose height is ``aspect`` times their width."""
    beside = ax.inset_axes((1.0 + 0.03 * aspect, 0.0, 0.045 * aspect, 1.0))
    bar = figure_of(ax).colorbar(scale(limit, over_image=over_image), cax=beside)
    mark_scale(bar, limit, size_of(ax)[1], label)


def mark_scale(bar: Colorbar, limit: float, height: float, label: str = "") -> None:
    """Write the ends of a scale, and zero and what it is of where its height leaves room.

    Args:
        bar (Colorbar): The scale.
        limit (float): Where it ends.
        height (float): Inches of the bar.
        label (str): What has these values. Default: nothing is written
    """
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=8 if height > 0.5 else 7, length=2, pad=2)
    ticks = [-limit, 0.0, limit] if height > 0.4 else [-limit, limit]
    written = [format_number(tick, ".2g") for tick in ticks]
    bar.set_ticks(ticks, labels=written)
    # A label stands beside the numbers: no room is kept for it where they are long.
    if height * 72 > 8 * 0.6 * len(label) and max(map(len, written)) <= 7:
        bar.set_label(label, fontsize=8, labelpad=-2)


def ink(background: Colour) -> str:
    """Black or white, whichever reads better on the background over white paper."""
    red, green, blue, alpha = background
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "black" if alpha * luminance + 1.0 - alpha > 0.45 else "white"
