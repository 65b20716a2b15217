"""Words with their own colours, wrapped like a paragraph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from captum_interactions.axes import TextAxis, TokenAxis
from captum_interactions.maps.orders import is_map, is_second_order
from captum_interactions.maps.sides import Side, axis_of, other, text_side
from captum_interactions.visualization.lettering import (
    figure_of,
    format_number,
    renderer_of,
    runs_leftwards,
    set_legible,
    set_title,
    size_of,
)
from captum_interactions.visualization.palette import (
    Colour,
    add_colorbar,
    colour,
    ink,
    limit_of,
    rounding_note,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from captum_interactions.maps.first_order_map import FirstOrderMap
    from captum_interactions.maps.interaction_map import InteractionMap

_SMALLEST = 3.5
"""Points: letters do not shrink further, however long the text."""
_LINE = 1.9
"""Height of a line, in font sizes."""


class StyledWord(NamedTuple):
    """A piece of text as it is drawn."""

    text: str
    background: Colour
    framed: bool
    glued: bool
    """Whether it follows the piece before without a space, as punctuation does."""


def plot_words(
    source: InteractionMap | FirstOrderMap | Sequence[tuple[str, float]],
    selection: Any = None,
    *,
    side: Side | None = None,
    framed: Any = None,
    limit: float | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Write a text whose words have the colour of their interaction with a selection.

    Args:
        source (InteractionMap, FirstOrderMap or sequence): A map with a text, or (word, weight)
            pairs in reading order.
        selection: A selection of the other input, such as a box of the image. Default: None, all
        side (str, optional): ``"a"`` or ``"b"``, whose text. Default: that of b if it is a text
        framed: A selection of the text that gets a frame. Default: None, no frame
        limit (float, optional): End of the symmetric scale. Default: the largest absolute weight
        title (str, optional): Default: what is selected and what its interactions sum to
        ax (Axes, optional): Where to write; letters shrink where there is no room. Default: a new
            figure that is 5 inches wide

    Returns:
        tuple: figure and axes. Nothing is shown.

    Raises:
        TypeError: If the map has no text.
        ValueError: If a first-order map has no values of the text.

    Examples::

        >>> from captum_interactions.visualization import plot_words
        >>> figure, ax = plot_words([("a", 0.0), ("red", 0.4), ("star", -0.2)])
    """
    if is_map(source):
        side = text_side(source, side)
        axis = axis_of(source, side)
        weights = weights_of(axis, source.marginal(side, selection).numpy())
        limit = limit_of(weights, limit=limit, source=source)
        words = style_words(axis, weights, limit, framed)
        if title is None:
            what = f"“{selection}”" if isinstance(selection, str) else "the selected part"
            what = f"input {other(side)}" if selection is None else what
            title = f"words with {what}, sum {format_number(weights.sum(), '+.3g')}"
            title = title if is_second_order(source) else f"{source.method} (first order)"
            title = (title + rounding_note(source, weights)).strip()
    else:
        pairs = list(source)  # type: ignore[arg-type]  # a map was handled above
        limit = limit_of([weight for _, weight in pairs], limit=limit)
        words = [StyledWord(str(w), colour(v, limit, 0.85), False, False) for w, v in pairs]
    if ax is None:
        from matplotlib import pyplot as plt

        width = 5.0
        height = max(height_of(words, width - 1.0) + 0.1, 0.5)
        total = height + 0.45
        figure = plt.figure(figsize=(width, total))
        ax = figure.add_axes((0.1 / width, 0.1 / total, 1 - 1.0 / width, height / total))
    figure = draw_words(ax, words)
    width, height = size_of(ax)
    add_colorbar(ax, limit, min(height / width, 0.25) * 1.2)
    set_title(ax, title or "")
    return figure, ax


def weights_of(axis: TokenAxis, values: Any) -> Any:
    """Values of tokens summed to those of words or other units, shape (units,)."""
    return np.asarray(axis.sum_units(values), np.float32)


def style_words(
    axis: TokenAxis, weights: Any, limit: float, framed: Any = None
) -> list[StyledWord]:
    """The units of an axis in the colours of their weights; those of a selection are framed."""
    chosen = axis.select(framed) if framed is not None else np.zeros(len(axis))
    spans = [word.span for word in axis.words] if isinstance(axis, TextAxis) else []
    styled: list[StyledWord] = []
    for index, (unit, weight) in enumerate(zip(axis.units, weights, strict=True)):
        glued = 0 < index < len(spans) and spans[index][0] == spans[index - 1][1]
        is_framed = bool(chosen[list(unit.tokens)].any())
        styled.append(StyledWord(unit.label, colour(weight, limit, 0.85), is_framed, glued))
    return styled


def height_of(words: Sequence[StyledWord], width: float, fontsize: float = 11.0) -> float:
    """Inches that words need, about, when their lines are so many inches wide."""
    letters = max(width * 72 / (fontsize * 0.6), 1.0)
    needed = sum(len(word.text) + 1.5 for word in words)
    longest = max((len(word.text) for word in words), default=1)
    n_lines = 1 + int(needed / max(letters - 0.5 * min(longest, 0.5 * letters), 1.0))
    return n_lines * _LINE * fontsize / 72


def draw_words(ax: Axes, words: Sequence[StyledWord], fontsize: float = 11.0) -> Figure:
    """Write words into axes from the top, line by line, and hide the axes' frame.

    Letters shrink until all lines fit. Lines are broken anew whenever the axes change their size.

    Args:
        ax (Axes): Axes to fill.
        words (sequence of StyledWord): What to write.
        fontsize (float): Largest size in points. Default: 11.0
    """
    ax.set_axis_off()
    texts = []
    for word in words:
        label = ax.text(0, 0, "", va="center", ha="left", color=ink(word.background))
        set_legible(label, word.text)
        label.set_transform(ax.transAxes)
        if word.framed or word.background[3] > 0.0:
            label.set_bbox(
                {
                    "boxstyle": "round,pad=0.2",
                    "facecolor": word.background,
                    "edgecolor": "black" if word.framed else "none",
                    "linewidth": 1.2,
                }
            )
        texts.append(label)
    paragraph = _Paragraph(ax, list(words), texts, fontsize)
    paragraph(ax, None)
    ax.set_axes_locator(paragraph)
    return figure_of(ax)


class _Paragraph:
    """Breaks the lines of words to the size of their axes, before each drawing of the axes."""

    def __init__(
        self, ax: Axes, words: list[StyledWord], texts: list[Text], fontsize: float
    ) -> None:
        self.words, self.texts, self.fontsize = words, texts, fontsize
        self.before = ax.get_axes_locator()
        self.size: tuple[float, float] | None = None
        self.leftwards = runs_leftwards("".join(word.text for word in words))
        renderer = renderer_of(ax)
        self.widths = []  # in font sizes
        for label in texts:
            label.set_fontsize(20.0)
            pixels = label.get_window_extent(renderer).width if label.get_text() else 0.0
            self.widths.append(pixels * 72.0 / ax.figure.dpi / 20.0)

    def __call__(self, ax: Any, renderer: Any) -> Any:
        place = ax.get_position(original=True)
        if self.before is not None:
            place = self.before(ax, renderer)
        figure = ax.get_figure(root=False)
        assert figure is not None
        box = place.transformed(figure.transSubfigure)
        points = 72.0 / figure.dpi
        size = (box.width * points, box.height * points)
        if size != self.size:
            self.size = size
            self._break_lines(*size)
        return place

    def _break_lines(self, width: float, height: float) -> None:
        fontsize = self.fontsize
        lines = self._lines(width / fontsize)
        longest = max(self.widths, default=0.0) + 0.4
        while fontsize > _SMALLEST and (
            len(lines) * _LINE * fontsize > height or longest * fontsize > width
        ):
            fontsize = max(0.95 * fontsize, _SMALLEST)
            lines = self._lines(width / fontsize)
        for row, line in enumerate(lines):
            for index, left in line:
                x = left * fontsize / width
                if self.leftwards:
                    x = 1.0 - x - self.widths[index] * fontsize / width
                self.texts[index].set_fontsize(fontsize)
                self.texts[index].set_position((x, 1.0 - (row + 0.5) * _LINE * fontsize / height))

    def _lines(self, width: float) -> list[list[tuple[int, float]]]:
        """(word, its distance from the start) of each line; all lengths are in font sizes."""
        lines: list[list[tuple[int, float]]] = [[]]
        x = margin = 0.2
        for index, (word, extent) in enumerate(zip(self.words, self.widths, strict=True)):
            gap = 0.0 if not lines[-1] else 0.05 if word.glued else 0.55
            if lines[-1] and x + gap + extent > width - margin:
                lines.append([])
                x, gap = margin, 0.0
            lines[-1].append((index, x + gap))
            x += gap + extent
        return lines
