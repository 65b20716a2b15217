"""The worst cases, sorted by what went wrong, for a person to look through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from captum_interactions.datasets import Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.phrases import (
    covered,
    image_axis,
    phrase_spans,
    pointing,
    readable,
    unread_notes,
)
from captum_interactions.evaluation.pictures import Picture, pictures
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import proportion, quantile
from captum_interactions.evaluation.studies.phrase_study import no_ground_truth
from captum_interactions.evaluation.study import Map, MethodStudy, view
from captum_interactions.evaluation.summary import Summary, Table, heading
from captum_interactions.visualization.charts import method_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Case = Mapping[str, Any]
STRONG = 0.25
"""A patch is hit if it has at least this share of the strongest patch."""


@dataclass(frozen=True)
class Category:
    """A way to fail: which cases it is about, and what makes one of them bad."""

    description: str
    concerns: Callable[[Case, Case], bool]
    """Whether a case is one, given ``{"low_score": quantile of the scores}``."""
    badness: Callable[[Case], float]
    is_failure: Callable[[Case], bool]
    """Whether it is bad enough to be counted."""


CATEGORIES: Mapping[str, Category] = {
    "object_coverage": Category(
        "The strongest patch lies on the object, but only a part of the object is hit: patches "
        f"with at least {STRONG:g} of the strongest one cover the share that is given. Counted: "
        "less than a quarter.",
        lambda case, _: (case["pga"] or 0) >= 0.5,
        lambda case: -float(case["hit"]),
        lambda case: bool(case["hit"] < 0.25),
    ),
    "correlated_context": Category(
        "Mass lies on other objects that the caption names: the share that is given. Counted: more "
        "than on the phrase's own object.",
        lambda case, _: case["context"] is not None,
        lambda case: float(case["context"]),
        lambda case: bool(case["context"] > (case["pge"] or 0)),
    ),
    "unusual_scenes": Category(
        "The model scores the true caption low, in the lowest quarter of all, and the mass that is "
        "given lies on the object. Counted: less than twice chance.",
        lambda case, limits: bool(case["score"] <= limits["low_score"]),
        lambda case: -float(case["pge"]),
        lambda case: bool(case["pge"] < 2 * case["chance"]),
    ),
    "background": Category(
        "Mass lies on nothing that the caption names: the share that is given. Counted: more than "
        "a half.",
        lambda *_: True,
        lambda case: float(case["nowhere"]),
        lambda case: bool(case["nowhere"] > 0.5),
    ),
}
"""The paper's three categories, as far as they can be measured, and one more."""
_SHOWN = {"object_coverage": "hit", "correlated_context": "context", "unusual_scenes": "pge",
          "background": "nowhere"}  # fmt: skip


@dataclass(frozen=True)
class FailureCases(MethodStudy):
    """The worst phrases in each of the categories that the paper names.

    *Object coverage*: only a part of the object is hit. *Unusual scenes*: the model does not expect
    what it sees. *Correlated context*: other objects get the credit. How they are measured is our
    choice and stands in the table; whether a case is one is for a person to say.

    Source: Möller, Tilli, Vu and Padó, TMLR 2025 (arXiv 2408.14153), which shows such cases.

    Raises:
        ValueError: If ``n_cases`` is less than 1.
    """

    name: ClassVar[str] = "failures"
    title: ClassVar[str] = "Failure cases: what went wrong?"
    question: ClassVar[str] = "the worst cases of each kind, as lists and pictures"

    methods: tuple[str, ...] = ("second_order_integrated_gradients",)
    n_cases: int = view(8)
    """How many of each category are listed and shown."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_cases < 1:
            raise ValueError(f"n_cases must be at least 1, but got {self.n_cases}")

    def declines(self, record: Record) -> str | None:
        return no_ground_truth(record)

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        maps = self.explain(wrapper, variant, records, spans=phrase_spans(records))
        return [_cases(imap, record) for imap, record in zip(maps, records, strict=True)]

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        counts: list[list[Any]] = []
        listed: list[list[Any]] = []
        figures: dict[str, Figure] = {}
        for number, method in enumerate(dict.fromkeys(row.variant for row in rows)):
            own = [row for row in rows if row.variant == method]
            cases = [
                {**case, "row": row, "score": row.values["score"]}
                for row in own
                for case in row.values["phrases"]
                if case["pge"] is not None
            ]
            limits = {"low_score": quantile((row.values["score"] for row in own), 0.25)}
            for name, category in CATEGORIES.items():
                concerned = [case for case in cases if category.concerns(case, limits)]
                failed = [category.is_failure(case) for case in concerned]
                share = proportion(failed, [case["row"].cluster for case in concerned])
                counts.append([method, name, len(concerned), sum(failed), *share])
                bad = sorted(concerned, key=category.badness, reverse=True)
                worst = [case for case in bad if category.is_failure(case)][: self.n_cases]
                listed += [_listed(method, name, case, records) for case in worst]
                if worst:
                    suffix = "" if not number else f"_{number + 1}"
                    figures[name + suffix] = pictures(
                        [_picture(name, case, records) for case in worst],
                        f"{heading(name)}: {method_label(method)}",
                    )
        tables = {
            "counts": Table(
                ("method", "category", "phrases", "failures", "share", "95 % from", "to"), counts,
                "Of the phrases that a category is about and on which the map is defined, those "
                "that fail. Intervals: Wilson's, for as many phrases as the images are worth.",
            ),
            "worst": Table(
                ("method", "category", "record", "phrase", "value", "PGE", "chance", "score",
                 "caption", "source"), listed, "The worst first.",
            ),
        }  # fmt: skip
        notes = [f"*{name}*: {category.description}" for name, category in CATEGORIES.items()]
        return Summary(tables, figures, [*notes, *unread_notes(rows)])


def _cases(imap: Map, record: Record) -> Mapping[str, Any]:
    """The pointing game of each phrase, what it hits beside its object, and the map to draw."""
    axis = image_axis(imap)
    readables = readable(imap, record)
    regions = [covered(axis, phrase) for phrase in readables]
    everything = axis.coverage(*(box for phrase in record.grounded for box in phrase.boxes))
    phrases = []
    for place, (phrase, found) in enumerate(zip(readables, pointing(imap, record), strict=True)):
        heat = imap.heatmap(phrase.span)
        mass, region = heat.clip(0), regions[place]
        total = float(mass.sum())
        others = [one for k, one in enumerate(regions) if k != place]
        hit = (mass >= STRONG * mass.max()) & (mass > 0)
        seen = float(region.sum())
        context = np.clip(np.max(others, axis=0) - region, 0, 1) if others else None
        phrases.append(
            {
                **found,
                "boxes": phrase.boxes,
                "hit": float((hit * region).sum()) / seen if seen else None,
                "context": float((mass * context).sum()) / total
                if context is not None and total
                else None,
                "nowhere": float((mass * (1 - everything)).sum()) / total if total else None,
                "heat": [[float(f"{value:.3g}") for value in row] for row in heat],
            }
        )
    return {
        "score": imap.score,
        "extent": axis.extent(),
        "phrases": phrases,
        "unread": len(record.grounded) - len(readables),
    }


def _listed(method: str, name: str, case: Case, records: Sequence[Record]) -> list[Any]:
    row: Row = case["row"]
    record = row.of(records)
    return [
        method, name, row.record, case["text"], case[_SHOWN[name]], case["pge"], case["chance"],
        case["score"], record.caption, record.source,
    ]  # fmt: skip


def _picture(name: str, case: Case, records: Sequence[Record]) -> Picture:
    row: Row = case["row"]
    record = row.of(records)
    return Picture(
        image=record.image,
        heat=np.array(case["heat"], np.float32),
        extent=tuple(row.values["extent"]),
        boxes=[tuple(box) for box in case["boxes"]],
        title=f"{case['text']}\n{name.replace('_', ' ')} {case[_SHOWN[name]]:.2f}",
        below=f"{row.record}: {record.caption}",
    )
