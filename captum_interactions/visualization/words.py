"""A line of text whose words have their own colours, wrapped like a paragraph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class StyledWord(NamedTuple):
    """A piece of text as it is drawn."""

    text: str
    background: tuple[float, float, float, float]
    framed: bool
    glued: bool
    """Whether it follows the piece before without a space, as punctuation does."""


def draw_words(ax: Axes, words: Sequence[StyledWord], fontsize: float = 11.0) -> None:
    """Write words into axes from the top left, line by line, and hide the axes' frame.

    Args:
        ax (Axes): Axes to fill. Its height should leave room for the lines.
        words (sequence of StyledWord): What to write.
        fontsize (float): Size in points. Default: 11.0
    """
    ax.set_axis_off()
    figure = ax.get_figure(root=True)
    assert figure is not None
    renderer = figure._get_renderer()  # type: ignore[attr-defined]  # measures text before drawing
    width, height = ax.get_window_extent(renderer).size
    pixels = figure.dpi / 72.0
    line_height, space = 2.0 * fontsize * pixels, 0.55 * fontsize * pixels
    x, y = 0.0, height - 0.5 * line_height
    for word in words:
        text = ax.text(
            0, 0, word.text, fontsize=fontsize, va="center", ha="left",
            color=_ink(word.background),
        )  # fmt: skip
        extent = text.get_window_extent(renderer).width
        gap = 0.0 if word.glued or x == 0.0 else space
        if x > 0.0 and x + gap + extent > width:
            x, y, gap = 0.0, y - line_height, 0.0
        x += gap
        text.set_transform(ax.transAxes)
        text.set_position((x / width, y / height))
        if word.framed or word.background[3] > 0.0:
            text.set_bbox(
                {
                    "boxstyle": "round,pad=0.2",
                    "facecolor": word.background,
                    "edgecolor": "black" if word.framed else "none",
                    "linewidth": 1.2,
                }
            )
        x += extent


def _ink(background: tuple[float, float, float, float]) -> str:
    """Black or white, whichever reads better on the background over white paper."""
    red, green, blue, alpha = background
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "black" if alpha * luminance + 1.0 - alpha > 0.45 else "white"
