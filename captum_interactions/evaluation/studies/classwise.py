"""Which classes of objects are found, and which are not?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from captum_interactions.datasets import Record
from captum_interactions.evaluation.figures import bars, matrix, scatter
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import (
    bootstrap_interval,
    holm,
    holm_note,
    mean,
    median,
    notes_of_few,
)
from captum_interactions.evaluation.studies.phrase_study import PhraseStudy
from captum_interactions.evaluation.study import view
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.metrics import spearman
from captum_interactions.visualization.charts import method_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_SHUFFLES = 499
"""Shuffles of labels."""
SHOWN = 12
"""Classes at either end of a figure."""
_COLUMNS = (
    "method", "class", "phrases", "PGE median", "95 % from", "to", "PGA", "chance median"
)  # fmt: skip


@dataclass(frozen=True)
class Classwise(PhraseStudy):
    """Point Game Energy of each class of objects, best and worst, and against how frequent it is.

    Classes are the labels of phrases. How much they differ is compared with shuffled labels: those
    of images, so that phrases of one image and class, which are not independent, count once.

    Source: Möller, Tilli, Vu and Padó, TMLR 2025 (arXiv 2408.14153), section 4.3.
    """

    name: ClassVar[str] = "classwise"
    title: ClassVar[str] = "Class-wise grounding: which objects are found?"
    question: ClassVar[str] = "Point Game Energy of each class of objects, best and worst"

    min_phrases: int = view(5)
    """Classes with fewer phrases are left out."""
    n_extremes: int = view(5)
    """How many of the best and of the worst classes are listed."""

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        phrases = self.phrases(rows)
        by_method = {
            method: found
            for method, own in phrases.items()
            if (found := self._classes(method, own))
        }
        few = f"Classes with fewer than {self.min_phrases} phrases are left out"
        if not by_method:
            return Summary(notes=[*self.notes(rows), f"{few}, and there is no other."])
        classes = [row for own in by_method.values() for row in own]
        extremes: list[list[Any]] = []
        for own in by_method.values():
            best, worst = own[: self.n_extremes], own[self.n_extremes :][-self.n_extremes :]
            extremes += [["best", *row] for row in best] + [["worst", *row] for row in worst]
        chances = [
            self._shuffled(phrases[method], {row[1] for row in own})
            for method, own in by_method.items()
        ]
        p_values = holm([p for *_, p in chances])
        trends = [
            _trend(method, own, actual, shuffled, p)
            for (method, own), (actual, shuffled, _), p in zip(
                by_method.items(), chances, p_values, strict=True
            )
        ]
        tables = {
            "extremes": Table(
                ("end", *_COLUMNS), extremes,
                "Classes with the highest and the lowest median PGE. Intervals: images drawn anew, "
                "for each class by itself; that a class is first or last is partly luck.",
            ),
            "trend": Table(
                ("method", "classes", "spread", "spread of shuffled labels", "p",
                 "with frequency", "with chance"), trends,
                "Spread of the classes' medians (highest minus lowest) beside its mean when labels "
                "are shuffled, which leaves luck alone; phrases of one image and class, which are "
                "not independent, count once, with their mean. *p*: how often that is as large, "
                f"{holm_note(p_values)}. Then the Spearman correlation of the medians of all "
                "phrases with the number of phrases and with the chance level (the size of the "
                "objects).",
            ),
            "classes": Table(_COLUMNS, classes, "All classes, the best first."),
        }  # fmt: skip
        small = {f"{method}, {row[1]}": row[2] for method, own in by_method.items() for row in own}
        notes = [*self.notes(rows), f"{few}.", *notes_of_few(small)]
        return Summary(tables, _figures(by_method), notes)

    def _shuffled(
        self, phrases: Sequence[Mapping[str, Any]], labels: set[str]
    ) -> tuple[float, float, float]:
        """Spread of medians, its mean with shuffled labels, and how often that is as large.

        Medians are of averages, one for each image and label.

        Args:
            phrases: Of one method.
            labels: The classes that count.
        """
        grouped: dict[tuple[str, str], list[float]] = {}
        for phrase in phrases:
            if phrase["label"] in labels:
                grouped.setdefault((phrase["label"], phrase["cluster"]), []).append(phrase["pge"])
        by_label = sorted(grouped.items(), key=lambda one: one[0][0])
        values = np.array([np.mean(own) for _, own in by_label])
        sizes = Counter(label for (label, _), _ in by_label)
        ends = np.cumsum([*sizes.values()])
        rng = np.random.default_rng(self.seed)

        def spread(ordered: NDArray[np.float64]) -> float:
            medians = [np.median(own) for own in np.split(ordered, ends[:-1])]
            return float(max(medians) - min(medians))

        actual = spread(values)
        shuffled = [spread(rng.permutation(values)) for _ in range(N_SHUFFLES)]
        as_large = sum(one >= actual - 1e-12 for one in shuffled)
        return actual, float(np.mean(shuffled)), (1 + as_large) / (1 + N_SHUFFLES)

    def _classes(self, method: str, phrases: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """One row per class, the best first; phrases without a class do not count."""
        by_class: dict[str, list[Mapping[str, Any]]] = {}
        for phrase in phrases:
            if phrase["label"] is not None:
                by_class.setdefault(phrase["label"], []).append(phrase)
        cells: list[list[Any]] = []
        for label, own in by_class.items():
            if len(own) < self.min_phrases:
                continue
            energy = [phrase["pge"] for phrase in own]
            low, high = bootstrap_interval(energy, [phrase["cluster"] for phrase in own])
            pga, chance = mean(p["pga"] for p in own), median(p["chance"] for p in own)
            cells.append([method, label, len(own), median(energy), low, high, pga, chance])
        return sorted(cells, key=lambda row: (-row[3], row[1]))


def _trend(
    method: str,
    classes: Sequence[Sequence[Any]],
    actual: float,
    shuffled: float,
    p: float | None,
) -> list[Any]:
    medians = [row[3] for row in classes]
    return [
        method, len(classes), actual, shuffled, p,
        _spearman(medians, [row[2] for row in classes]),
        _spearman(medians, [row[7] for row in classes]),
    ]  # fmt: skip


def _spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    if len(first) < 3:
        return None
    value = float(spearman(*(torch.tensor([list(map(float, row))]) for row in (first, second))))
    return None if math.isnan(value) else value


def _figures(by_method: Mapping[str, list[list[Any]]]) -> dict[str, Figure]:
    """All methods in one figure, and the one that grounds best in two more."""
    leader = max(by_method, key=lambda method: median(row[3] for row in by_method[method]) or 0.0)
    own = by_method[leader]
    figures = {
        "best_method": _bars(leader, own),
        "frequency": scatter(
            [row[2] for row in own],
            [row[3] for row in own],
            [row[1] for row in own],
            ("phrases of the class", "share of attribution in the region, median"),
            title=f"Localisation and frequency of classes, {method_label(leader)}",
            log_x=True,
        ),
    }
    if len(by_method) > 1:
        shown = [row[1] for row in _ends(own)]
        medians = [{row[1]: row[3] for row in classes} for classes in by_method.values()]
        values = [[of_method.get(label) for label in shown] for of_method in medians]
        figures["methods"] = matrix(
            values, list(map(method_label, by_method)), shown,
            "share of positive attribution in the region, median",
            title="Localisation of each class by each method",
        )  # fmt: skip
    return figures


def _ends(classes: list[list[Any]]) -> list[list[Any]]:
    """The classes that a figure has room for: all of them, or the first and the last."""
    return classes if len(classes) <= 2 * SHOWN else [*classes[:SHOWN], *classes[-SHOWN:]]


def _bars(method: str, classes: list[list[Any]]) -> Figure:
    shown = _ends(classes)
    return bars(
        [f"{row[1]} ({row[2]})" for row in shown],
        [row[3] for row in shown],
        "share of positive attribution in the region, median",
        title=f"Localisation of each class by {method_label(method)}, and number of phrases",
        intervals=[(row[4], row[5]) for row in shown],
        references=[row[7] for row in shown],
    )
