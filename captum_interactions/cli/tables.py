"""Tables of studies in a terminal, as wide as it is."""

from __future__ import annotations

import re
import shutil
import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captum_interactions.evaluation.summary import Summary, Table

_GAP = "  "


def summary_text(title: str, summary: Summary) -> str:
    """The notes and tables of a summary."""
    width = shutil.get_terminal_size((10_000, 24)).columns  # a pipe has room for everything
    sentences = min(width, 100)
    parts = [textwrap.fill(text, sentences) for text in (title, *summary.notes)]
    for table in summary.tables.values():
        caption = re.sub(r"\*(.+?)\*", r"\1", table.caption)  # emphasis in Markdown
        parts += [textwrap.fill(caption, sentences)] if caption else []
        parts.append(table_text(table, width))
    return "\n\n".join(parts)


def table_text(table: Table, width: int) -> str:
    """A table as lines of at most so many letters, if its widest two columns have room there.

    Columns that have no room follow below, beside the first one again.
    """
    from captum_interactions.evaluation.summary import cell_text

    columns = [
        [str(name), *(cell_text(row[index]) for row in table.rows)]
        for index, name in enumerate(table.columns)
    ]
    sizes = [_size(column, max(width // 2 - len(_GAP), 1)) for column in columns]
    is_text = [any(isinstance(row[i], str) for row in table.rows) for i in range(len(columns))]
    blocks = [[0]]
    room = width - sizes[0]
    for index, size in enumerate(sizes[1:], 1):
        room -= len(_GAP) + size
        if room < 0 and len(blocks[-1]) > 1:
            blocks.append([0])
            room = width - sizes[0] - len(_GAP) - size
        blocks[-1].append(index)
    return "\n\n".join(
        _block([columns[i] for i in one], [sizes[i] for i in one], [is_text[i] for i in one])
        for one in blocks
    )


def _size(column: list[str], widest: int) -> int:
    """Letters of a column: its name may take two lines and more, a cell one if there is room."""
    name, *cells = column
    needed = max([(len(name) + 1) // 2, *map(len, [*name.split(), *cells])])
    return max(min(needed, widest), 1)


def _block(columns: list[list[str]], sizes: list[int], is_text: list[bool]) -> str:
    lines = []
    for number, row in enumerate(zip(*columns, strict=True)):
        wrapped = [textwrap.wrap(text, size) for text, size in zip(row, sizes, strict=True)]
        for pieces in zip_longest(*wrapped, fillvalue=""):
            aligned = [
                piece.ljust(size) if text else piece.rjust(size)
                for piece, size, text in zip(pieces, sizes, is_text, strict=True)
            ]
            lines.append(_GAP.join(aligned).rstrip())
        if number == 0:
            lines.append(_GAP.join("-" * size for size in sizes))
    return "\n".join(lines)
