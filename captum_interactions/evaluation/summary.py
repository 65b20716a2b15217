"""Summaries of studies: tables, figures and notes, written as Markdown, CSV and PNG."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Columns by name and rows of cells: text, numbers, or None for no value."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    """A description of the table in one or two sentences."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"the table has {len(self.columns)} columns ({', '.join(self.columns)}), but a "
                    f"row has {len(row)} cells: {list(row)}"
                )

    def markdown(self) -> str:
        """The table in Markdown, with numbers to three digits."""
        lines = [_line(self.columns), "|" + "---|" * len(self.columns)]
        return "\n".join(lines + [_line(map(cell_text, row)) for row in self.rows]) + "\n"

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
    """A cell of a table in one line, with numbers to three digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}"
    return str(value).replace("\n", " ")


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
