"""Summaries of studies: tables, figures and notes, written as Markdown, CSV and PNG."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_interactions.maps.titles import TITLES
from captum_interactions.visualization.charts import method_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OF_METHODS = ("method", "other method", "ranked by", "variant")
"""Columns whose cells are methods, as studies are given them."""


@dataclass(frozen=True)
class Table:
    """Columns by name and rows of cells: text, numbers, or None for no value."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    """A description of the table in one or two sentences."""
    details: Sequence[str] = ()
    """Columns that only the CSV has."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"the table has {len(self.columns)} columns ({', '.join(self.columns)}), but a "
                    f"row has {len(row)} cells: {list(row)}"
                )

    def markdown(self) -> str:
        """The table in Markdown, as people read it; :meth:`csv` has everything.

        Numbers are rounded (:func:`cell_text`), methods have their titles, and an interval
        (columns that end in "from" and "to") stands in brackets behind its value, where no line is
        broken.
        """
        columns = [
            (index, self._has_interval(index))
            for index, name in enumerate(self.columns)
            if name not in self.details and not self._ends_interval(index)
        ]
        names = [
            _title(self.columns[i]) + (" [95\N{NO-BREAK SPACE}%]" if wide else "")
            for i, wide in columns
        ]
        rows = [[self._cell(row, index, wide) for index, wide in columns] for row in self.rows]
        return "\n".join([_line(names), "|" + "---|" * len(names), *map(_line, rows)]) + "\n"

    def _has_interval(self, index: int) -> bool:
        low, high = [*self.columns[index + 1 : index + 3], "", ""][:2]
        return low.endswith("from") and high.endswith("to")

    def _ends_interval(self, index: int) -> bool:
        return any(self._has_interval(one) for one in range(max(index - 2, 0), index))

    def _cell(self, row: Sequence[Any], index: int, has_interval: bool) -> str:
        if self.columns[index] in _OF_METHODS and isinstance(row[index], str):
            return method_label(row[index])
        text, low, high = (_typeset(value) for value in [*row[index : index + 3], None, None][:3])
        return f"{text} [{low},\N{NO-BREAK SPACE}{high}]" if has_interval and low and high else text

    def csv(self) -> str:
        """The table as comma-separated values in full precision."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


@dataclass(frozen=True)
class Summary:
    """Tables and figures by name; names become file names."""

    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """Sentences that a reader of the tables needs."""

    def markdown(self, title: str) -> str:
        """One page with all tables, figures and notes."""
        parts = [f"# {title}\n", *(f"{note}\n" for note in self.notes)]
        for name, table in self.tables.items():
            parts += [f"## {heading(name)}\n", *([table.caption + "\n"] if table.caption else [])]
            parts.append(table.markdown())
            if table.details:
                parts.append(f"{name}.csv has further columns: {', '.join(table.details)}.\n")
        parts += [
            f"## {heading(name)}\n\n![{heading(name)}]({name}.png)\n" for name in self.figures
        ]
        return "\n".join(parts)

    def write(self, folder: Path, title: str) -> list[Path]:
        """Write ``summary.md``, each table as CSV and Markdown, and each figure as PNG.

        Figures are then closed.

        Returns:
            list: paths of the files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"summary.md": self.markdown(title)}
        for name, table in self.tables.items():
            texts[f"{name}.csv"], texts[f"{name}.md"] = table.csv(), table.markdown()
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        for name, figure in self.figures.items():
            figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
        if self.figures:
            from matplotlib import pyplot as plt

            for figure in self.figures.values():
                plt.close(figure)
        return [folder / name for name in (*texts, *(f"{name}.png" for name in self.figures))]


def heading(name: str) -> str:
    """``"by_method"`` as ``"By method"``."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def cell_text(value: Any) -> str:
    """A cell of a table in one line; numbers have three digits after the point, from 100 on one."""
    if value is None:
        return ""
    if isinstance(value, float):
        digits = 3 if abs(value) < 100 else 1
        return "" if math.isnan(value) else f"{value:.{digits}f}"
    return str(value).replace("\n", " ")


def _typeset(value: Any) -> str:
    """A cell for pages; a terminal may have no minus sign but the hyphen."""
    text = cell_text(value)
    return text.replace("-", "−") if isinstance(value, float) else text


def _title(column: str) -> str:
    """A column's name; that of a method in a matrix of methods is its title."""
    return method_label(column) if column.partition(":")[0] in TITLES else column


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
