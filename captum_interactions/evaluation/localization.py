"""Do maps lie on the objects that phrases name?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from captum_interactions.datasets import Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.figures import boxplots
from captum_interactions.evaluation.phrases import check_regions, pointing
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import (
    bootstrap_interval,
    mean,
    median,
    numbers,
    quantile,
)
from captum_interactions.evaluation.study import MethodStudy, view
from captum_interactions.evaluation.summary import Summary, Table

if TYPE_CHECKING:
    from captum_interactions.metrics import Sign


@dataclass(frozen=True)
class PhraseStudy(MethodStudy):
    """What the studies of grounding share: the pointing game of each phrase with boxes.

    The filters choose among phrases that were measured, so they may change at no cost.

    Raises:
        ValueError: If an option has no such value.
    """

    regions: str = "boxes"
    """``"boxes"``, as in the paper, or ``"masks"`` where the dataset has them."""
    sign: Sign = "positive"
    """What of a map counts as its mass, see :data:`~captum_interactions.metrics.Sign`."""
    single_instance: bool = view(False)
    """Only phrases with one box, no other box of the record bearing the same label."""
    min_area: float = view(0.0)
    """Only phrases whose boxes cover at least this share of the image."""
    max_area: float = view(1.0)
    """Only phrases whose boxes cover at most this share of the image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_regions(self.regions)
        if self.sign not in ("positive", "negative", "absolute"):
            raise ValueError(
                f"sign must be 'positive', 'negative' or 'absolute', but got {self.sign!r}"
            )
        if not 0 <= self.min_area <= self.max_area <= 1:
            raise ValueError(
                "min_area and max_area are shares of the image, from 0 to 1, but got "
                f"{self.min_area} and {self.max_area}"
            )

    def declines(self, record: Record) -> str | None:
        return None if record.grounded else "no phrase of the caption has a box"

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        maps = self.explain(wrapper, variant, records)
        return [
            {"phrases": pointing(imap, record, regions=self.regions, sign=self.sign)}
            for imap, record in zip(maps, records, strict=True)
        ]

    def phrases(self, rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
        """Phrases that pass the filters, with their ``record``, by variant."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            kept = found.setdefault(row.variant, [])
            kept += [
                {**phrase, "record": row.record}
                for phrase in row.values["phrases"]
                if self.min_area <= phrase["area"] <= self.max_area
                and (not self.single_instance or phrase["n_boxes"] == phrase["n_alike"] == 1)
            ]
        return found


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
        cells = [_row(method, phrases) for method, phrases in by_method.items()]
        cells.sort(key=lambda row: -1.0 if row[2] is None else row[2], reverse=True)
        columns = (
            "method", "phrases", "PGE median", "95 % from", "to", "PGE mean", "lower quartile",
            "upper quartile", "PGA", "chance median", "chance mean", "best mean", "undefined",
        )  # fmt: skip
        table = Table(
            columns, cells,
            "PGE: share of a map's mass in the phrase's boxes; PGA: how often its strongest patch "
            "lies there. Intervals are of the median, with records drawn anew. *best*: what a "
            "perfect map could reach on this grid. *undefined*: phrases without mass or without a "
            "visible box.",
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
        return Summary({"by_method": table}, {"energy": figure}, self._notes())

    def _notes(self) -> list[str]:
        filters = [f"boxes cover {self.min_area:g} to {self.max_area:g} of the image"]
        if self.single_instance:
            filters.append("one box a phrase, and no other of its label")
        return [f"Regions: {self.regions}; mass: {self.sign} values; {'; '.join(filters)}."]


def _row(method: str, phrases: Sequence[Mapping[str, Any]]) -> list[Any]:
    energy = [phrase["pge"] for phrase in phrases]
    low, high = bootstrap_interval(energy, [phrase["record"] for phrase in phrases])
    chance = [phrase["chance"] for phrase in phrases]
    return [
        method, len(phrases), median(energy), low, high, mean(energy), quantile(energy, 0.25),
        quantile(energy, 0.75), mean(p["pga"] for p in phrases), median(chance), mean(chance),
        mean(p["best"] for p in phrases), len(phrases) - len(numbers(energy)),
    ]  # fmt: skip
