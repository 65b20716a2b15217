"""Do maps lie on the objects that phrases name?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from captum_interactions.datasets import Record
from captum_interactions.evaluation.figures import boxplots
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import (
    bootstrap_interval,
    mean,
    median,
    numbers,
    quantile,
)
from captum_interactions.evaluation.studies.phrase_study import PhraseStudy
from captum_interactions.evaluation.summary import Summary, Table


@dataclass(frozen=True)
class Localization(PhraseStudy):
    """Point Game Energy and Point Game Accuracy of each method.

    Each phrase of a caption that has boxes is a case: the part of the map that belongs to its words
    should lie in its boxes. Chance is the share of the area that the model sees.

    Source: Möller, Tilli, Vu and Padó, TMLR 2025 (arXiv 2408.14153), section 4.2.
    """

    name: ClassVar[str] = "localization"
    title: ClassVar[str] = "Localisation: do maps lie on the objects that phrases name?"
    question: ClassVar[str] = "Point Game Energy and Accuracy of each method"

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        by_method = {method: phrases for method, phrases in self.phrases(rows).items() if phrases}
        cells = [
            [*_row(method, phrases), _delta(rows, method)] for method, phrases in by_method.items()
        ]
        cells.sort(key=lambda row: -1.0 if row[2] is None else row[2], reverse=True)
        columns = (
            "method", "phrases", "PGE median", "95 % from", "to", "PGE mean", "lower quartile",
            "upper quartile", "PGA", "chance median", "chance mean", "best mean", "undefined",
            "mean delta",
        )  # fmt: skip
        table = Table(
            columns, cells,
            "PGE: share of a map's mass in the phrase's region; PGA: how much of its strongest "
            "patch lies there, on average. Intervals are of the median, with records drawn anew. "
            "*best*: what a perfect map could reach on this grid. *undefined*: phrases without "
            "mass or without a visible region, which PGE and PGA leave out: where methods differ "
            "in it, they are not about the same phrases. *mean delta*: absolute convergence delta "
            "where the parts are meant to make the score.",
        )  # fmt: skip
        if not cells:
            return Summary({"by_method": table}, notes=["No phrase passed the filters."])
        energies = {row[0]: numbers(p["pge"] for p in by_method[row[0]]) for row in cells}
        all_levels = numbers(p["chance"] for p in by_method[cells[0][0]])
        figure = boxplots(
            {**energies, "chance": all_levels},
            "Point Game Energy",
            reference=float(cells[0][9] or 0.0),
        )
        return Summary({"by_method": table}, {"energy": figure}, self.notes(rows))


def _row(method: str, phrases: Sequence[Mapping[str, Any]]) -> list[Any]:
    energy = [phrase["pge"] for phrase in phrases]
    low, high = bootstrap_interval(energy, [phrase["record"] for phrase in phrases])
    chance = [phrase["chance"] for phrase in phrases]
    return [
        method, len(phrases), median(energy), low, high, mean(energy), quantile(energy, 0.25),
        quantile(energy, 0.75), mean(p["pga"] for p in phrases), median(chance), mean(chance),
        mean(p["best"] for p in phrases), len(phrases) - len(numbers(energy)),
    ]  # fmt: skip


def _delta(rows: Sequence[Row], method: str) -> float | None:
    deltas = (row.values.get("delta") for row in rows if row.variant == method)
    return mean(abs(delta) for delta in deltas if delta is not None)
