"""Do words clash with what they do not name?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from captum_interactions.datasets import Box, Foil, Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.figures import grouped_bars
from captum_interactions.evaluation.phrases import (
    check_regions,
    covered,
    image_axis,
    is_read,
    readable,
    unread_notes,
)
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import bootstrap_interval, mean
from captum_interactions.evaluation.study import Map, MethodStudy, view
from captum_interactions.evaluation.summary import Summary, Table


class _Own(NamedTuple):
    """A phrase's sum over its own object, and over each other object that counts."""

    record: str
    value: float
    rivals: list[float]


@dataclass(frozen=True)
class Mismatches(MethodStudy):
    """The sign of matching and of cross attributions, and of false words.

    Where a caption names two objects that are annotated, the attribution of each phrase to its own
    object's boxes is matching, and that to the other object's boxes is cross. (As maps are
    additive, each of these is one number, from text to image and from image to text alike.) The
    paper finds matching ones positive in 94.1 % and cross ones negative in 68.4 % of cases.

    Where a record is a foil, its false words should turn negative on the boxes of what the true
    words name. The true caption is explained too.

    Source: Möller, Tilli, Vu and Padó, TMLR 2025 (arXiv 2408.14153), section 4.3.

    Raises:
        ValueError: If an option has no such value.
    """

    name: ClassVar[str] = "mismatches"
    title: ClassVar[str] = "Mismatches: do words clash with what they do not name?"
    question: ClassVar[str] = "signs of matching and cross attributions, and of false words"
    dataset_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {"scenes": {"foils": True}}

    regions: str = "boxes"
    """``"boxes"``, as in the paper, or ``"masks"`` where the dataset has them. Foils have boxes."""
    different_labels: bool = view(True)
    """Only pairs of objects of different classes."""
    max_overlap: float = view(0.2)
    """Only pairs of objects whose regions share at most this part of the smaller one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_regions(self.regions)
        if not 0 <= self.max_overlap <= 1:
            raise ValueError(f"max_overlap is a share from 0 to 1, but got {self.max_overlap}")

    def declines(self, record: Record) -> str | None:
        if record.foil is not None:
            if record.foil.span is None or not record.foil.boxes:
                return "it is not known which words are false, or of which boxes"
            return None
        if len(record.grounded) < 2:
            return "fewer than two phrases of the caption have boxes"
        return None

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        foils = [(record, record.foil) for record in records if record.foil is not None]
        true_maps = self.explain(
            wrapper,
            variant,
            [record for record, _ in foils],
            [foil.positive_caption for _, foil in foils],
        )
        truths = {record.key: imap for (record, _), imap in zip(foils, true_maps, strict=True)}
        maps = self.explain(wrapper, variant, records)
        return [
            self._signs(imap, record)
            if record.foil is None
            else _foil(imap, truths[record.key], record.foil)
            for imap, record in zip(maps, records, strict=True)
        ]

    def _signs(self, imap: Map, record: Record) -> Mapping[str, Any]:
        """Matching and cross attributions of all phrases whose objects are in sight."""
        axis = image_axis(imap)
        readables = readable(imap, record)
        seen = [(phrase, covered(axis, phrase, self.regions)) for phrase in readables]
        seen = [(phrase, region) for phrase, region in seen if region.any()]
        heats = [imap.heatmap(phrase.span) for phrase, _ in seen]
        own = [
            {"text": phrase.text, "value": _on(heat, region)}
            for heat, (phrase, region) in zip(heats, seen, strict=True)
        ]
        cross = [
            {
                "phrase": i,
                "other": j,
                "value": _on(heats[i], seen[j][1]),
                "same_label": seen[i][0].label is not None and seen[i][0].label == seen[j][0].label,
                "overlap": _overlap(seen[i][1], seen[j][1]),
            }
            for i, j in permutations(range(len(seen)), 2)
        ]
        unread = len(record.grounded) - len(readables)
        return {"score": imap.score, "own": own, "cross": cross, "unread": unread}

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        methods = list(dict.fromkeys(row.variant for row in rows))
        by_method = {method: [row for row in rows if row.variant == method] for method in methods}
        signs = [_signs_row(method, self._pairs(own)) for method, own in by_method.items()]
        foils = [_foils_row(method, own) for method, own in by_method.items()]
        signs = [row for row in signs if row[1]]
        foils = [row for row in foils if row[1]]
        tables, figures = {}, {}
        if signs:
            tables["signs"] = Table(
                ("method", "phrases", "own positive", "95 % from", "to", "pairs", "other negative",
                 "from", "to", "own above other", "chance of it"), signs,
                "Share of phrases with a positive sum over their own object, and of pairs of a "
                "phrase and another object with a negative one; signs drawn at random give one "
                "half. *own above other*: share of phrases with more over their own object than "
                "over every other one that counts; *chance of it*: of sums in random order. "
                "Intervals: records drawn anew. The paper, on COCO: .941 and .684.",
            )  # fmt: skip
            figures["signs"] = grouped_bars(
                [row[0] for row in signs],
                {"own positive": [r[2] for r in signs], "other negative": [r[6] for r in signs]},
                "share of cases",
            )
        if foils:
            tables["false_words"] = Table(
                ("method", "foils", "false negative", "95 % from", "to", "true positive",
                 "false below true", "caption scored lower"), foils,
                "Sums over the boxes of what the true words name: how often the false words' is "
                "negative, the true words' positive, and the former below the latter; and how "
                "often the model scores the false caption lower.",
            )  # fmt: skip
            figures["false_words"] = grouped_bars(
                [row[0] for row in foils],
                {
                    "false words negative": [row[2] for row in foils],
                    "true words positive": [row[5] for row in foils],
                },
                "share of foils",
            )
        which = "objects of different classes" if self.different_labels else "all objects"
        notes = [f"Pairs: {which} whose {self.regions} overlap by at most {self.max_overlap:g}."]
        return Summary(tables, figures, [*notes, *unread_notes(rows)])

    def _pairs(self, rows: Sequence[Row]) -> tuple[list[_Own], list[tuple[str, float]]]:
        """What passes the filters: phrases, and cross values with their record."""
        matching: list[_Own] = []
        cross: list[tuple[str, float]] = []
        for row in rows:
            kept = [
                pair
                for pair in row.values.get("cross", ())
                if pair["overlap"] <= self.max_overlap
                and not (self.different_labels and pair["same_label"])
            ]
            own = [phrase["value"] for phrase in row.values.get("own", ())]
            for i in sorted({pair["phrase"] for pair in kept}):
                rivals = [pair["value"] for pair in kept if pair["phrase"] == i]
                matching.append(_Own(row.record, own[i], rivals))
            cross += [(row.record, pair["value"]) for pair in kept]
        return matching, cross


def _on(heat: NDArray[np.float32], region: NDArray[np.float32]) -> float:
    return float((heat * region).sum())


def _overlap(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Part of the smaller region that the patches of the other cover too."""
    shared = float(np.minimum(first, second).sum())
    return shared / float(min(first.sum(), second.sum()))


def _foil(false: Map, true: Map, foil: Foil) -> Mapping[str, Any]:
    """What false and true words are worth on the boxes of what the true ones name."""
    assert foil.span is not None
    if not is_read(false, foil.span):
        return {"score": false.score, "unread": 1}
    region = _region(false, foil.boxes)
    true_span = _true_span(foil)
    if true_span is not None and not is_read(true, true_span):
        true_span = None
    return {
        "score": false.score,
        "foil": {
            "true_score": true.score,
            "replaced": foil.replaced,
            "false": _on(false.heatmap(foil.span), region),
            "true": None if true_span is None else _on(true.heatmap(true_span), region),
        },
    }


def _region(imap: Map, boxes: Iterable[Box]) -> NDArray[np.float32]:
    return image_axis(imap).coverage(*boxes)


def _true_span(foil: Foil) -> tuple[int, int] | None:
    """Where the true words stand in the true caption; None if that is not plain."""
    if foil.replaced is None or foil.span is None:
        return None
    words, caption = foil.replaced[0], foil.positive_caption
    start = foil.span[0]
    if caption[start : start + len(words)] != words:
        if caption.count(words) != 1:
            return None
        start = caption.index(words)
    return (start, start + len(words)) if words else None


def _share(flags: Sequence[bool], records: Sequence[str]) -> tuple[Any, Any, Any]:
    """Share of true flags and its bootstrap interval."""
    values = [float(flag) for flag in flags]
    low, high = bootstrap_interval(values, records, statistic=lambda x: float(x.mean()))
    return mean(values), low, high


def _signs_row(method: str, pairs: tuple[list[_Own], list[tuple[str, float]]]) -> list[Any]:
    own, cross = pairs
    return [
        method,
        len(own),
        *_share([one.value > 0 for one in own], [one.record for one in own]),
        len(cross),
        *_share([value < 0 for _, value in cross], [record for record, _ in cross]),
        mean(one.value > max(one.rivals) for one in own),
        mean(1 / (1 + len(one.rivals)) for one in own),
    ]


def _foils_row(method: str, rows: Sequence[Row]) -> list[Any]:
    found = [(row.record, row.values) for row in rows if row.values.get("foil")]
    foils = [values["foil"] for _, values in found]
    known = [foil for foil in foils if foil["true"] is not None]
    return [
        method,
        len(foils),
        *_share([foil["false"] < 0 for foil in foils], [record for record, _ in found]),
        mean(foil["true"] > 0 for foil in known),
        mean(foil["false"] < foil["true"] for foil in known),
        mean(values["score"] < values["foil"]["true_score"] for _, values in found),
    ]
