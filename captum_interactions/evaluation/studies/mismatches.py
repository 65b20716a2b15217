"""Do words decrease the score together with what they do not name?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from captum_interactions.datasets import HardNegative, Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.figures import grouped_bars
from captum_interactions.evaluation.phrases import (
    check_regions,
    image_axis,
    is_read,
    phrase_spans,
    readable,
    unread_notes,
)
from captum_interactions.evaluation.rows import Row, by_variant
from captum_interactions.evaluation.signs import (
    OTHER,
    OWN,
    background,
    cross_cases,
    occupied,
    origins_table,
    own_cases,
    share_of,
    signs,
    signs_table,
    total,
)
from captum_interactions.evaluation.statistics import mean, paired_difference, proportion
from captum_interactions.evaluation.study import Map, MethodStudy, view
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.visualization.charts import method_label

Span = tuple[int, int]


@dataclass(frozen=True)
class Mismatches(MethodStudy):
    """The sign of matching and of cross attributions, and of false words.

    Where a caption names two objects that are annotated, the attribution of each phrase to its own
    object's boxes is matching, and that to the other object's boxes is cross. (As maps are
    additive, each of these is one number, from text to image and from image to text alike.) The
    paper finds matching ones positive in 94.1 % and cross ones negative in 68.4 % of cases. Beside
    each stands the share on background of the same size, which need not be a half; and cross ones
    are divided by what both objects have in common.

    Where a record's caption is false, its false words should turn negative on the boxes of what the
    true words name. The true caption is explained too.

    Source: Möller, Tilli, Vu and Padó, TMLR 2025 (arXiv 2408.14153), section 4.3.

    Raises:
        ValueError: If an option has no such value.
    """

    name: ClassVar[str] = "mismatches"
    title: ClassVar[str] = "Mismatches: do words decrease the score with what they do not name?"
    question: ClassVar[str] = "signs of matching and cross attributions, and of false words"
    needs: ClassVar[str] = (
        "boxes of two phrases of a caption, or hard negatives with boxes of the true words"
    )
    dataset_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "scenes": {"hard_negatives": True}
    }

    regions: str = "boxes"
    """``"boxes"``, as in the paper, or ``"masks"`` where the dataset has them. Of false captions,
    boxes are taken."""
    different_labels: bool = view(True)
    """Only pairs of objects of different classes, but for the table of origins."""
    max_overlap: float = view(0.2)
    """Only pairs of objects whose regions share at most this part of the smaller one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_regions(self.regions)
        if not 0 <= self.max_overlap <= 1:
            raise ValueError(f"max_overlap is a share from 0 to 1, but got {self.max_overlap}")

    def declines(self, record: Record) -> str | None:
        if record.hard_negative is not None:
            if record.hard_negative.span is None or not record.hard_negative.boxes:
                return "it is not known which words are false, or of which boxes"
            return None
        if len(record.grounded) < 2:
            return "fewer than two phrases of the caption have boxes"
        return None

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        false = [
            (record, record.hard_negative) for record in records if record.hard_negative is not None
        ]
        true_maps = self.explain(
            wrapper,
            variant,
            [record for record, _ in false],
            [negative.positive_caption for _, negative in false],
            [_known(_true_span(negative)) for _, negative in false],
        )
        truths = {record.key: imap for (record, _), imap in zip(false, true_maps, strict=True)}
        spans = [
            phrases if record.hard_negative is None else _known(record.hard_negative.span)
            for record, phrases in zip(records, phrase_spans(records), strict=True)
        ]
        maps = self.explain(wrapper, variant, records, spans=spans)
        return [
            self._signs(imap, record)
            if record.hard_negative is None
            else _false_words(imap, truths[record.key], record, record.hard_negative)
            for imap, record in zip(maps, records, strict=True)
        ]

    def _signs(self, imap: Map, record: Record) -> Mapping[str, Any]:
        unread = len(record.grounded) - len(readable(imap, record))
        return {"score": imap.score, **signs(imap, record, self.regions), "unread": unread}

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        by_method = by_variant(rows)
        tables, figures = {}, {}
        every = {m: cross_cases(own, self.max_overlap, different_classes=False)
                 for m, own in by_method.items()}  # fmt: skip
        cases = {}
        for method, own in by_method.items():
            cross = cross_cases(own, self.max_overlap, different_classes=self.different_labels)
            if cross:
                cases[method] = own_cases(own, cross), cross
        if cases:
            tables["signs"] = shares = signs_table(cases)
            tables["order"] = _order_table({method: own for method, (own, _) in cases.items()})
            figures["signs"] = grouped_bars(
                list(map(method_label, cases)),
                {what: [row[4] for row in shares.rows if row[1] == what] for what in (OWN, OTHER)},
                "share of cases",
                title="Sign of a phrase with its own region and with that of another phrase",
            )
        if any(every.values()):
            tables["origins"] = origins_table({m: own for m, own in every.items() if own})
        false = {m: found for m, own in by_method.items() if (found := _false_cases(own))}
        if false:
            tables["false_words"] = _false_table(false)
            figures["false_words"] = grouped_bars(
                list(map(method_label, false)),
                {
                    "false words negative": [row[3] for row in tables["false_words"].rows],
                    "true words positive": [row[10] for row in tables["false_words"].rows],
                },
                "share of false captions",
                title="Signs of the words that make a caption false, and of its other words",
            )
        which = "objects of different classes" if self.different_labels else "all objects"
        notes = [f"Pairs: {which} whose {self.regions} overlap by at most {self.max_overlap:g}."]
        return Summary(tables, figures, [*notes, *unread_notes(rows)])


def _known(span: Span | None) -> list[Span]:
    return [] if span is None else [span]


def _false_words(
    false: Map, true: Map, record: Record, negative: HardNegative
) -> Mapping[str, Any]:
    """What false and true words are worth on the boxes of what the true ones name.

    Nothing if the crop cut the boxes off.
    """
    assert negative.span is not None
    if not is_read(false, negative.span):
        return {"score": false.score, "unread": 1}
    region = image_axis(false).coverage(*negative.boxes)
    if not region.any():
        return {"score": false.score}
    true_span = _true_span(negative)
    if true_span is not None and not is_read(true, true_span):
        true_span = None
    heat = false.heatmap(negative.span)
    elsewhere = background(heat, region, occupied(false, record))
    return {
        "score": false.score,
        "false_words": {
            "true_score": true.score,
            "replaced": negative.replaced,
            "false": total(heat, region),
            "background": share_of(elsewhere, lambda sums: sums < 0),
            "true": None if true_span is None else total(true.heatmap(true_span), region),
        },
    }


def _true_span(negative: HardNegative) -> Span | None:
    """Where the true words stand in the true caption; None if that is not plain."""
    if negative.replaced is None or negative.span is None:
        return None
    words, caption = negative.replaced[0], negative.positive_caption
    start = negative.span[0]
    if caption[start : start + len(words)] != words:
        if caption.count(words) != 1:
            return None
        start = caption.index(words)
    return (start, start + len(words)) if words else None


def _order_table(by_method: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """How often a phrase has more over its own object than over every other one."""
    cells = []
    for method, cases in by_method.items():
        above = [case["value"] > max(case["rivals"]) for case in cases]
        chance = mean(1 / (1 + len(case["rivals"])) for case in cases)
        clusters = [case["cluster"] for case in cases]
        cells.append([method, len(cases), *proportion(above, clusters), chance])
    return Table(
        ("method", "phrases", "own above other", "95 % from", "to", "chance"), cells,
        "Share of phrases with more over their own object than over every other one that counts; "
        "*chance*: of sums in random order. Intervals: Wilson's, for as many phrases as the images "
        "are worth.",
    )  # fmt: skip


def _false_cases(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {**row.values["false_words"], "score": row.values["score"], "cluster": row.cluster}
        for row in rows
        if row.values.get("false_words")
    ]


def _false_table(by_method: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    cells = []
    for method, cases in by_method.items():
        clusters = [case["cluster"] for case in cases]
        negative = [float(case["false"] < 0) for case in cases]
        known = [case for case in cases if case["true"] is not None]
        of_known = [case["cluster"] for case in known]
        gap = paired_difference(negative, [case["background"] for case in cases], clusters)
        cells.append(
            [
                method, len(cases), len(set(clusters)), *proportion(negative, clusters),
                mean(case["background"] for case in cases), *gap[1:4],
                *proportion([case["true"] > 0 for case in known], of_known),
                *proportion([case["false"] < case["true"] for case in known], of_known),
                *proportion([case["score"] < case["true_score"] for case in cases], clusters),
            ]
        )  # fmt: skip
    return Table(
        ("method", "false captions", "images", "false negative", "95 % from", "to", "background",
         "difference", "difference from", "difference to", "true positive", "positive from",
         "positive to", "false below true", "below from", "below to", "caption scored lower",
         "lower from", "lower to"), cells,
        "Sums over the boxes of what the true words name: how often the false words' is negative, "
        "beside background of the same size, the true words' positive, and the former below the "
        "latter; and how often the model scores the false caption lower. Intervals: Wilson's, for "
        "as many captions as the images are worth; of the difference, images drawn anew.",
        details=("images",),
    )  # fmt: skip
