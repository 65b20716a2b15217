"""Fine-tuning and domain shift: does grounding change as a model learns a domain?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.nn.functional import normalize

from captum_interactions.datasets import Record, load_dataset
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.wrapper import unit
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import bootstrap_interval, mean, median, numbers
from captum_interactions.evaluation.studies.phrase_study import PhraseStudy
from captum_interactions.evaluation.studies.training import FineTuning, fine_tune
from captum_interactions.evaluation.study import parse_method, view
from captum_interactions.evaluation.summary import Summary, Table

BEFORE, AFTER = "before", "after"
RETRIEVAL = "retrieval"
"""In the place of a method: the embeddings of the pair, for recall among all records."""


@dataclass(frozen=True)
class FineTuningStudy(PhraseStudy):
    """Grounding and retrieval of a model before and after it is fine-tuned.

    The model is fine-tuned on one dataset, with CLIP's loss, and explained on another: run the
    study once on records of the domain it was fine-tuned on and once on records of the old one.
    Variants are ``before METHOD`` and ``after METHOD``.

    Source: Möller, Tilli, Vu and Padó, TMLR 2025 (arXiv 2408.14153), section 4.3: CLIP's loss,
    batches of 64, weight decay 1e-4.
    """

    name: ClassVar[str] = "fine_tuning"
    title: ClassVar[str] = "Fine-tuning: does grounding change as a model learns a domain?"
    question: ClassVar[str] = "grounding and retrieval before and after fine-tuning on a domain"
    measures: ClassVar[str] = "fine_tuning"

    methods: tuple[str, ...] = ("second_order_integrated_gradients", "integrated_gradients")
    train: str = "scenes:n=4000,seed=77,domain=shifted"
    """The dataset to fine-tune on, as NAME:OPTION=VALUE,...; ``path`` and ``split`` are options
    too. Its records must not be those that are explained."""
    steps: int = FineTuning.steps
    train_batch: int = FineTuning.batch_size
    learning_rate: float = FineTuning.learning_rate
    weight_decay: float = FineTuning.weight_decay
    l2_penalty: float = FineTuning.l2_penalty
    checkpoint: str = view("")
    """File that keeps the state of training, so that it is done once. Default: none"""

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        of_methods = {**super().variants, RETRIEVAL: {}}
        return {
            f"{stage} {method}": what
            for method, what in of_methods.items()
            for stage in (BEFORE, AFTER)
        }

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        stage, method = variant.split(" ", 1)
        if stage == AFTER:
            setting = FineTuning(
                steps=self.steps,
                batch_size=self.train_batch,
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                warmup=max(1, self.steps // 10),
                l2_penalty=self.l2_penalty,
                seed=self.seed,
            )
            wrapper = _fine_tuned(wrapper, self.train, setting, self.checkpoint)
        if method == RETRIEVAL:
            return _embeddings(wrapper, records)
        return super().measure(wrapper, method, records)

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        grounding = [row for row in rows if not row.variant.endswith(f" {RETRIEVAL}")]
        by_variant = self.phrases(_complete(grounding))
        methods = list(dict.fromkeys(name.split(" ", 1)[1] for name in by_variant))
        cells = []
        for method in methods:
            stages = [by_variant.get(f"{stage} {method}", []) for stage in (BEFORE, AFTER)]
            change, low, high = _change(*stages)
            medians = [median(p["pge"] for p in stage) for stage in stages]
            accuracies = [mean(p["pga"] for p in stage) for stage in stages]
            cells.append([method, len(stages[0]), *medians, change, low, high, *accuracies])
        table = Table(
            (
                "method", "phrases", "PGE median before", "after", "mean change", "95 % from", "to",
                "PGA before", "after",
            ),
            cells,
            "Point Game Energy and Accuracy of the same phrases. The change is the mean of the "
            "differences of PGE, its interval is of records drawn anew.",
        )  # fmt: skip
        recall = Table(
            ("stage", "records", "image to caption", "caption to image"),
            [[stage, *_recall(rows, f"{stage} {RETRIEVAL}")] for stage in (BEFORE, AFTER)],
            "Recall@1 among all records that are explained.",
        )
        chance = [p["chance"] for phrases in by_variant.values() for p in phrases]
        note = f"Fine-tuned on {self.train}, {self.steps} steps of {self.train_batch} pairs. "
        note += f"Chance: median {median(chance) or 0.0:.3f}."
        figure = {"energy": _figure(methods, by_variant)} if methods else {}
        return Summary({"grounding": table, "retrieval": recall}, figure, [note, *self.notes(rows)])


@lru_cache(maxsize=1)  # a study asks for the same model again and again
def _fine_tuned(
    wrapper: DualEncoderWrapper, train: str, setting: FineTuning, checkpoint: str
) -> DualEncoderWrapper:
    name, options = parse_method(train)
    records = load_dataset(name, **options)
    path = Path(checkpoint) if checkpoint else None
    return fine_tune(wrapper, records, setting, checkpoint=path, show_progress=True)


def _embeddings(wrapper: DualEncoderWrapper, records: Sequence[Record]) -> list[Mapping[str, Any]]:
    batch = wrapper.prepare(
        [record.image for record in records], [record.caption for record in records],
        truncation=True,
    )  # fmt: skip
    extras_a, extras_b = wrapper.split_additional(batch.additional_forward_args)
    with torch.no_grad():
        a = unit(wrapper.encode_a(batch.inputs[0], *extras_a)).cpu()
        b = unit(wrapper.encode_b(batch.inputs[1], *extras_b)).cpu()
    return [
        {"a": [round(x, 5) for x in row_a], "b": [round(x, 5) for x in row_b]}
        for row_a, row_b in zip(a.tolist(), b.tolist(), strict=True)
    ]


def _complete(rows: Sequence[Row]) -> list[Row]:
    """Rows of the records that every variant has, so that stages compare the same phrases."""
    variants = {row.variant for row in rows}
    count = Counter(row.record for row in rows)
    return [row for row in rows if count[row.record] == len(variants)]


def _change(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> tuple[float | None, float | None, float | None]:
    """Mean difference of the PGE of phrases that both stages have, and its interval."""
    # A record's phrases come in the same order in both.
    pairs = zip(
        sorted(before, key=lambda p: p["record"]),
        sorted(after, key=lambda p: p["record"]),
        strict=True,
    )
    found = [
        (later["pge"] - earlier["pge"], later["record"])
        for earlier, later in pairs
        if earlier["pge"] is not None and later["pge"] is not None
    ]
    values, clusters = [value for value, _ in found], [record for _, record in found]
    low, high = bootstrap_interval(values, clusters, statistic=lambda x: float(x.mean()))
    return mean(values), low, high


def _recall(rows: Sequence[Row], variant: str) -> list[Any]:
    pairs = [row.values for row in rows if row.variant == variant]
    if not pairs:
        return [0, None, None]
    a, b = (normalize(torch.tensor([pair[side] for pair in pairs]), dim=-1) for side in "ab")
    scores, own = a @ b.T, torch.arange(len(pairs))
    found = (scores.argmax(1) == own, scores.argmax(0) == own)
    return [len(pairs), *(float(one.float().mean()) for one in found)]


def _figure(methods: Sequence[str], phrases: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    from captum_interactions.evaluation.figures import boxplots

    values = {
        f"{method}, {stage}": numbers(p["pge"] for p in phrases.get(f"{stage} {method}", ()))
        for method in methods
        for stage in (BEFORE, AFTER)
    }
    return boxplots(values, "Point Game Energy")
