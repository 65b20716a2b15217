"""Do maps lie on the objects that phrases name?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from captum_interactions.datasets import Record
from captum_interactions.evaluation.configuration import rows_in
from captum_interactions.evaluation.figures import boxplots
from captum_interactions.evaluation.phrases import paired
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import (
    bootstrap_interval,
    holm,
    holm_note,
    matched_difference,
    mean,
    mean_estimate,
    median,
    notes_of_few,
    numbers,
    quantile,
)
from captum_interactions.evaluation.studies.phrase_study import PhraseStudy
from captum_interactions.evaluation.study import view
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.visualization.charts import method_label

Phrases = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Localization(PhraseStudy):
    """Point Game Energy and Point Game Accuracy of each method.

    Each phrase of a caption that has boxes is a case: the part of the map that belongs to its words
    should lie in its boxes. Chance is the share of the area that the model sees. A method that is
    undefined for a phrase has chance there. The first method is compared with each other one on the
    phrases that both have, also by how many objects the caption names.

    Source: Möller, Tilli, Vu and Padó, TMLR 2025 (arXiv 2408.14153), section 4.2.
    """

    name: ClassVar[str] = "localization"
    title: ClassVar[str] = "Localisation: do maps lie on the objects that phrases name?"
    question: ClassVar[str] = "Point Game Energy and Accuracy of each method"

    against: str = view("")
    """Folder with rows of this study on another dataset, such as another domain: the difference is
    then given at equal size of the objects too. Default: none"""

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        by_method = {method: phrases for method, phrases in self.phrases(rows).items() if phrases}
        if not by_method:
            return Summary(notes=["No phrase passed the filters."])
        first = next((name for name in self.methods if name in by_method), next(iter(by_method)))
        cells = [
            [*_row(method, phrases), _delta(rows, method)] for method, phrases in by_method.items()
        ]
        cells.sort(key=lambda row: -row[3])
        tables = {"by_method": Table(_COLUMNS, cells, _CAPTION, _DETAILS)}
        if len(by_method) > 1:
            tables["differences"] = _differences(first, by_method)
        tables |= _by_named(first, by_method)
        if self.against:
            tables["other_dataset"] = _at_equal_size(
                by_method, self.phrases(rows_in(self.against, self))
            )
        energies = {row[0]: numbers(p["pge"] for p in by_method[row[0]]) for row in cells}
        all_levels = numbers(p["chance"] for p in by_method[cells[0][0]])
        figure = boxplots(
            {**{method_label(name): own for name, own in energies.items()}, "chance": all_levels},
            "share of positive attribution in the region",
            title="How much of each method's attribution lies in the region that a phrase names",
            reference=median(all_levels),
        )
        few = notes_of_few({method: len(phrases) for method, phrases in by_method.items()})
        return Summary(tables, {"energy": figure}, [*self.notes(rows), *few])


_COLUMNS = (
    "method", "phrases", "images", "PGE median", "95 % from", "to", "PGE mean", "lower quartile",
    "upper quartile", "PGA", "PGA from", "PGA to", "chance median", "chance mean", "best mean",
    "defined", "mean delta",
)  # fmt: skip
_DETAILS = (
    "images", "lower quartile", "upper quartile", "chance mean", "best mean", "mean delta"
)  # fmt: skip
_CAPTION = (
    "PGE: share of a map's mass in the phrase's region; PGA: how much of its strongest patch lies "
    "there, on average. Intervals: images drawn anew. *best*: what a perfect map could reach on "
    "this grid. *defined*: share of phrases for which the map has mass; the others count as "
    "chance. *mean delta*: absolute convergence delta where the parts are meant to make the score."
)


def _row(method: str, phrases: Phrases) -> list[Any]:
    energy = [phrase["pge"] for phrase in phrases]
    clusters = [phrase["cluster"] for phrase in phrases]
    chance = [phrase["chance"] for phrase in phrases]
    return [
        method, len(phrases), len(set(clusters)), median(energy),
        *bootstrap_interval(energy, clusters), mean(energy), quantile(energy, 0.25),
        quantile(energy, 0.75), *mean_estimate([p["pga"] for p in phrases], clusters),
        median(chance), mean(chance), mean(p["best"] for p in phrases),
        mean(p["defined"] for p in phrases),
    ]  # fmt: skip


def _delta(rows: Sequence[Row], method: str) -> float | None:
    deltas = (row.values.get("delta") for row in rows if row.variant == method)
    return mean(abs(delta) for delta in deltas if delta is not None)


def _differences(first: str, by_method: Mapping[str, Phrases]) -> Table:
    """The first method minus each other one, on the phrases that both have."""
    others = [method for method in by_method if method != first]
    energy = [paired(by_method[first], by_method[method]) for method in others]
    accuracy = [paired(by_method[first], by_method[method], "pga") for method in others]
    p_values = holm([one.p for one in energy])
    cells = [
        [method, one.n, one.value, one.low, one.high, p, two.value, two.low, two.high]
        for method, one, two, p in zip(others, energy, accuracy, p_values, strict=True)
    ]
    return Table(
        ("method", "common phrases", "PGE difference", "95 % from", "to", "p", "PGA difference",
         "PGA from", "PGA to"), cells,
        f"{method_label(first)} minus the method, mean over the phrases that both have. Intervals: "
        f"images drawn anew. *p*: sign-flip test over images for PGE, {holm_note(p_values)}.",
    )  # fmt: skip


def _by_named(first: str, by_method: Mapping[str, Phrases]) -> dict[str, Table]:
    """How many objects the caption names; nothing if all captions name equally many."""
    numbers_named = sorted({phrase["named"] for own in by_method.values() for phrase in own})
    if len(numbers_named) < 2:
        return {}
    cells = []
    for named in numbers_named:
        kept = {m: [p for p in own if p["named"] == named] for m, own in by_method.items()}
        for method, own in kept.items():
            gap = paired(kept[first], own) if method != first else None
            cells.append(
                [
                    named, method, len(own), median(p["pge"] for p in own),
                    mean(p["pge"] for p in own), mean(p["pga"] for p in own),
                    mean(p["chance"] for p in own), *(gap[1:4] if gap else (None,) * 3),
                ]
            )  # fmt: skip
    table = Table(
        ("named", "method", "phrases", "PGE median", "PGE mean", "PGA", "chance mean",
         "PGE difference", "95 % from", "to"), cells,
        "By the number of objects that the caption names. The difference is "
        f"{method_label(first)} minus the method, as above. A map that is the same for "
        "all phrases can be right about one of them.",
    )  # fmt: skip
    return {"by_named": table}


def _at_equal_size(here: Mapping[str, Phrases], there: Mapping[str, Phrases]) -> Table:
    """PGE on this dataset minus that on another one, as it is and at equal size of the objects."""
    cells = []
    for method in (method for method in here if there.get(method)):
        both = there[method], here[method]
        energies, areas, clusters = (
            ([phrase[key] for phrase in both[0]], [phrase[key] for phrase in both[1]])
            for key in ("pge", "area", "cluster")
        )
        gaps = [
            matched_difference(energies[0], energies[1], areas, clusters, n_strata=n)
            for n in (1, 5)
        ]
        means = [mean(values) for values in energies]
        sizes = [median(values) for values in areas]
        cells.append(
            [method, len(energies[1]), len(energies[0]), *means[::-1], *sizes[::-1],
             *gaps[0], *gaps[1]]
        )  # fmt: skip
    return Table(
        ("method", "phrases here", "phrases there", "PGE mean here", "PGE mean there",
         "area median here", "area median there", "PGE difference", "95 % from", "to",
         "at equal size", "at equal size from", "at equal size to"), cells,
        "This dataset minus the other one. *at equal size*: averaged over fifths of all phrases by "
        "the area of their boxes. Intervals: images of both drawn anew.",
        details=("area median here", "area median there"),
    )  # fmt: skip
