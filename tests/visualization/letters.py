"""Whether the letters of a figure can be read on a phone."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.text import Text

PHONE = 360
"""Pixels of a narrow screen, which a figure fills from left to right."""


def smallest_letters(figure: Figure) -> float:
    """Font size in pixels of the smallest text that is seen, where a figure is a phone wide."""
    figure.draw_without_rendering()
    sizes = [
        text.get_fontsize()
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip()  # type: ignore[attr-defined]
    ]
    return min(sizes) * PHONE / (72 * figure.get_size_inches()[0])
