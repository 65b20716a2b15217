"""Fine-tuning and domain shift: does grounding change as a model learns a domain?"""

from __future__ import annotations

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
from captum_interactions.evaluation.phrases import paired
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.signs import (
    changes_table,
    cross_cases,
    origins_table,
    own_cases,
    signs,
)
from captum_interactions.evaluation.statistics import (
    holm,
    holm_note,
    mean,
    median,
    notes_of_few,
    numbers,
    paired_difference,
    proportion,
)
from captum_interactions.evaluation.studies.mismatches import Mismatches
from captum_interactions.evaluation.studies.phrase_study import PhraseStudy
from captum_interactions.evaluation.studies.training import FineTuning, fine_tune
from captum_interactions.evaluation.study import Map, parse_method, view
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.visualization.charts import method_label

BEFORE, AFTER = "before", "after"
RETRIEVAL = "retrieval"
"""In the place of a method: the embeddings of the pair, for recall among all records."""
_DIGITS = 5
"""Decimals of embeddings of unit length that rows keep."""


@dataclass(frozen=True)
class FineTuningStudy(PhraseStudy):
    """Grounding, signs and retrieval of a model before and after it is fine-tuned.

    The model is fine-tuned on one dataset, with CLIP's loss, and explained on another: run the
    study once on records of the domain it was fine-tuned on and once on records of the old one.
    Signs are those of :class:`~captum_interactions.evaluation.studies.mismatches.Mismatches`, for
    all classes. Variants are ``before METHOD`` and ``after METHOD``.

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
    hard_negatives: bool = False
    """Whether images choose from false captions too; ``train`` must have some, as in
    ``scenes:n=4000,seed=77,hard_negatives=true``."""
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
                hard_negatives=self.hard_negatives,
                seed=self.seed,
            )
            wrapper = _fine_tuned(wrapper, self.train, setting, self.checkpoint)
        if method == RETRIEVAL:
            return _embeddings(wrapper, records)
        return super().measure(wrapper, method, records)

    def values(self, imap: Map, record: Record) -> dict[str, Any]:
        return {**super().values(imap, record), **signs(imap, record, self.regions)}

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        by_variant = self.phrases([row for row in rows if "phrases" in row.values])
        methods = list(dict.fromkeys(name.split(" ", 1)[1] for name in by_variant))
        changes: list[list[Any]] = []
        p_values = []
        for method in methods:
            old, new = (by_variant.get(f"{stage} {method}", []) for stage in (BEFORE, AFTER))
            energy, accuracy = paired(new, old), paired(new, old, "pga")
            p_values.append(energy.p)
            common = {phrase["key"] for phrase in old} & {phrase["key"] for phrase in new}
            kept = [[p for p in stage if p["key"] in common] for stage in (old, new)]
            medians = [median(p["pge"] for p in stage) for stage in kept]
            accuracies = [mean(p["pga"] for p in stage) for stage in kept]
            changes.append([method, energy.n, *medians, *energy[1:4], *accuracies, *accuracy[1:4]])
        tables = {
            "grounding": Table(
                (
                    "method", "phrases", "PGE median before", "PGE median after", "mean change",
                    "95 % from", "to", "PGA before", "PGA after", "PGA change", "PGA from",
                    "PGA to", "p",
                ),
                [[*own, p] for own, p in zip(changes, holm(p_values), strict=True)],
                "Point Game Energy and Accuracy of the same phrases. Changes are means of "
                "differences, their intervals are of images drawn anew; *p*: sign-flip test over "
                f"images for PGE, {holm_note(p_values)}.",
                details=("PGA before", "PGA after"),
            ),
            "retrieval": _retrieval(rows),
        }  # fmt: skip
        stages = {method: _cases(rows, method) for method in methods}
        stages = {m: found for m, found in stages.items() if all(cross for _, cross in found)}
        if stages:
            tables["signs"] = changes_table(stages)
            tables["origins"] = origins_table(
                {
                    f"{stage} {method}": cross
                    for method, found in stages.items()
                    for stage, (_, cross) in zip((BEFORE, AFTER), found, strict=True)
                }
            )
        chance = [p["chance"] for phrases in by_variant.values() for p in phrases]
        negatives = ", with hard negatives" if self.hard_negatives else ""
        note = f"Fine-tuned on {self.train}, {self.steps} steps of {self.train_batch} pairs"
        note += f"{negatives}. Chance: median {median(chance) or 0.0:.3f}."
        figure = {"energy": _figure(methods, by_variant)} if methods else {}
        few = notes_of_few({own[0]: own[1] for own in changes})
        return Summary(tables, figure, [note, *self.notes(rows), *few])


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
        {"a": [round(x, _DIGITS) for x in row_a], "b": [round(x, _DIGITS) for x in row_b]}
        for row_a, row_b in zip(a.tolist(), b.tolist(), strict=True)
    ]


def _cases(rows: Sequence[Row], method: str) -> tuple[tuple[Any, Any], ...]:
    """Own and cross cases of a method before and after."""
    found = []
    for stage in (BEFORE, AFTER):
        own = [row for row in rows if row.variant == f"{stage} {method}"]
        cross = cross_cases(own, Mismatches.max_overlap, different_classes=False)
        found.append((own_cases(own, cross), cross))
    return tuple(found)


def _retrieval(rows: Sequence[Row]) -> Table:
    """Recall before and after, with the difference on the same records."""
    found = {stage: _recalled(rows, f"{stage} {RETRIEVAL}") for stage in (BEFORE, AFTER)}
    cells: list[list[Any]] = []
    for stage, (clusters, recalled) in found.items():
        shares = [cell for flags in recalled for cell in proportion(flags, clusters)]
        cells.append([stage, len(clusters), *shares])
    (clusters, old), (others, new) = found.values()
    if clusters == others and clusters:
        gaps = [paired_difference(*both, clusters) for both in zip(new, old, strict=True)]
        cells.append(["difference", len(clusters), *(cell for gap in gaps for cell in gap[1:4])])
    return Table(
        ("stage", "records", "image to caption", "95 % from", "to", "caption to image",
         "caption from", "caption to"), cells,
        "Recall@1 among all records that are explained: the best match must belong to the same "
        "image, and matches that are equally good share one hit. Intervals: Wilson's, for as many "
        "records as the images are worth; of the difference, images drawn anew.",
    )  # fmt: skip


def _recalled(rows: Sequence[Row], variant: str) -> tuple[list[str], list[list[float]]]:
    """Clusters of all records, and the share of each one's best matches that are of its cluster.

    In both directions. Matches are equally good if their scores differ by no more than a unit of
    the last digit that rows keep, as those of captions that say the same, or of the image of
    several records.
    """
    own = [row for row in rows if row.variant == variant]
    if not own:
        return [], [[], []]
    a, b = (
        normalize(torch.tensor([row.values[side] for row in own], dtype=torch.float64), dim=-1)
        for side in "ab"
    )
    clusters = [row.cluster for row in own]
    is_own = torch.tensor([[one == other for other in clusters] for one in clusters])
    found = []
    for scores in (a @ b.T, b @ a.T):
        best = scores >= scores.amax(1, keepdim=True) - 10.0**-_DIGITS
        found.append(((best & is_own).sum(1) / best.sum(1)).tolist())
    return clusters, found


def _figure(methods: Sequence[str], phrases: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    from captum_interactions.evaluation.figures import boxplots

    values = {
        f"{method_label(method)}, {stage}": numbers(
            p["pge"] for p in phrases.get(f"{stage} {method}", ())
        )
        for method in methods
        for stage in (BEFORE, AFTER)
    }
    return boxplots(
        values, "share of positive attribution in the region",
        title="Localisation before and after fine-tuning",
    )  # fmt: skip
