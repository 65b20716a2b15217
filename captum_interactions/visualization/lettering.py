"""Text of any script in a figure: fonts that have its letters, and lines that fit.

Matplotlib's own font has no Chinese, Japanese or Devanagari letters. Where it lacks one, a font of
the system that has it is used, sans serif first. What no font has is drawn as an empty box, without
a warning. Arabic and Devanagari letters are joined and reordered by matplotlib 3.11 and later.
"""

from __future__ import annotations

import textwrap
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_MISSING = "□"
_LETTER = 0.56
"""Width of a letter of the default font, on average, in font sizes."""


def legible(text: str) -> tuple[str, list[str]]:
    """A text with what no font can draw replaced, and the font families that draw it."""
    from matplotlib import rcParams

    families = list(rcParams["font.family"])
    kept = []
    for character in " ".join(text.split()):
        family = _family(character, tuple(families))
        if family is None:
            # Joiners and variants without width are no letters that a reader would miss.
            kept.append("" if unicodedata.category(character) in ("Cf", "Mn", "Cc") else _MISSING)
            continue
        if family not in families:
            families.append(family)
        kept.append(character)
    return "".join(kept), families


def format_number(value: float, specification: str) -> str:
    """A number as ``format`` writes it, with the minus sign that axes and pages have."""
    return format(value, specification).replace("-", "−")


def set_legible(label: Text, text: str | None = None) -> None:
    """Let a text of a figure show any script, and take a dollar sign for a dollar sign."""
    shown, families = legible(label.get_text() if text is None else text)
    label.set(text=shown, fontfamily=families, parse_math=False)


def set_title(
    ax: Axes, title: str, fontsize: float = 9.0, width: float | None = None, lines: int = 2
) -> None:
    """Write a title over axes, in a few lines at most, that is about as wide as they are.

    Args:
        ax (Axes): Where to write.
        title (str): Of any length and script.
        fontsize (float): In points. Default: 9.0
        width (float, optional): Inches to fill. Default: those of the axes
        lines (int): How many there is room for. Default: 2
    """
    label = ax.set_title("", fontsize=fontsize)
    inches = size_of(ax)[0] if width is None and title else width or 1.0
    letters = max(int(inches * 72 / (fontsize * _LETTER)), 8)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in title)
    letters = max(int(letters * len(title) / (len(title) + 0.8 * wide)), 4) if title else letters
    shown, families = legible(title)
    wrapped = textwrap.wrap(shown, letters, max_lines=lines, placeholder=" …")
    label.set(text="\n".join(wrapped), fontfamily=families, parse_math=False)


def runs_leftwards(text: str) -> bool:
    """Whether most letters of a text are of a script that is written from right to left."""
    directions = [unicodedata.bidirectional(letter) for letter in text]
    return sum(d in ("R", "AL") for d in directions) > directions.count("L")


def figure_of(ax: Axes) -> Figure:
    """The figure that axes are in."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def size_of(ax: Axes) -> tuple[float, float]:
    """Width and height of axes in inches, where a layout engine puts them."""
    figure = figure_of(ax)
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
    box = ax.get_window_extent(renderer_of(ax))
    return box.width / figure.dpi, box.height / figure.dpi


def renderer_of(ax: Axes) -> Any:
    """What measures texts before they are drawn."""
    return figure_of(ax)._get_renderer()  # type: ignore[attr-defined]


@cache
def _family(character: str, families: tuple[str, ...]) -> str | None:
    """The first of the families that has a character, else one of the system, else None."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    for family in families:
        if ord(character) in _charmap(findfont(FontProperties(family=[family]))):
            return family
    upright = [
        font
        for font in fontManager.ttflist
        if font.style == "normal"
        and font.weight in (400, "normal", "regular", "book")
        # Boxes that stand for a letter, and coloured pictures that Agg cannot draw.
        and not any(part in font.name for part in ("Last Resort", "LastResort", "Color", "Symbols"))
    ]
    upright.sort(key=lambda font: ("Sans" not in font.name, "Mono" in font.name, font.name))
    for font in upright:
        if ord(character) in _charmap(font.fname):
            return font.name
    return _newly_installed(character)


def _newly_installed(character: str) -> str | None:
    """A family that came to the system after matplotlib had listed its fonts."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    listed = {font.fname for font in fontManager.ttflist}
    for path in sorted(findSystemFonts(), key=lambda path: ("Sans" not in path, path)):
        hidden = ("Bold", "Italic", "Oblique", "Color", "Symbols")
        if path in listed or any(part in path for part in hidden):
            continue
        if ord(character) in _charmap(path):
            fontManager.addfont(path)
            return next(font.name for font in fontManager.ttflist if font.fname == path)
    return None


@cache
def _charmap(path: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):  # a file that is gone or that FreeType cannot read
        return frozenset()
