"""Do methods agree with each other, and with the analytic answer where there is one?"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_interactions.attr import ATTRIBUTIONS
from captum_interactions.datasets import Record
from captum_interactions.encoders import CallableTower, DualEncoderWrapper, wrap
from captum_interactions.evaluation.figures import matrix
from captum_interactions.evaluation.phrases import phrase_spans, readable, unread_notes
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import mean, mean_estimate, numbers
from captum_interactions.evaluation.studies.phrase_study import no_ground_truth
from captum_interactions.evaluation.study import MethodStudy, parse_method
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.explanation import explain
from captum_interactions.maps.interaction_map import InteractionMap
from captum_interactions.metrics import pearson, spearman
from captum_interactions.visualization.charts import method_label

N_BILINEAR = 8
"""Random bilinear models that methods are held against."""


@dataclass(frozen=True)
class Agreement(MethodStudy):
    """Rank correlation of the maps of every two methods, phrase by phrase.

    A first-order method has the same map for every phrase. Beside it, second-order methods are held
    against the analytic answer on bilinear models ``s(a, b) = aᵀ W b`` with baselines of zero,
    where the interaction of token i with token j is ``a_iᵀ W_ij b_j`` and nothing else.
    """

    name: ClassVar[str] = "agreement"
    title: ClassVar[str] = "Agreement: do methods tell the same?"
    question: ClassVar[str] = "rank correlations between methods, and with analytic answers"

    def declines(self, record: Record) -> str | None:
        return no_ground_truth(record)

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        maps = self.explain(wrapper, variant, records, spans=phrase_spans(records))
        for imap, record in zip(maps, records, strict=True):
            phrases = readable(imap, record)
            heats = [imap.heatmap(phrase.span).ravel() for phrase in phrases]
            found.append(
                {
                    # Six digits are more than ranks need, and make the file smaller.
                    "maps": [[float(f"{x:.6g}") for x in heat] for heat in heats],
                    "unread": len(record.grounded) - len(phrases),
                }
            )
        return found

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        methods = list(dict.fromkeys(row.variant for row in rows))
        maps: dict[str, dict[str, Tensor]] = {method: {} for method in methods}
        clusters = {row.record: row.cluster for row in rows}
        for row in rows:
            if row.values["maps"]:
                maps[row.variant][row.record] = torch.tensor(row.values["maps"])
        pairs = {
            (a, b): _correlations(maps[a], maps[b], clusters)
            for a, b in combinations_with_replacement(methods, 2)
        }
        values = [[mean((pairs.get((a, b)) or pairs[b, a])[0]) for b in methods] for a in methods]
        table = Table(
            ("method", *methods),
            [[name, *line] for name, line in zip(methods, values, strict=True)],
            "Spearman's rank correlation of the maps of a phrase, averaged over phrases.",
        )
        intervals = Table(
            ("method", "other method", "common phrases", "defined", "mean", "95 % from", "to"),
            [
                [a, b, len(own), len(numbers(own)) / max(1, len(own)), *mean_estimate(own, images)]
                for (a, b), (own, images) in pairs.items()
                if a != b
            ],
            "The same with intervals: images drawn anew. *defined*: share of the phrases that both "
            "methods have for which neither map is constant; the others do not count.",
        )
        analytic = Table(
            ("method", "Pearson", "Spearman", "largest difference"),
            [[method, *_against_analytic(method, self.seed)] for method in methods],
            f"Interactions against the analytic ones of {N_BILINEAR} random bilinear models, of "
            "4 × 3 tokens; differences in units of the largest value. Empty where a method is of "
            "the first order or not defined without blocks.",
        )
        figures = {"correlations": _figure(methods, values)}
        tables = {"correlations": table, "bilinear": analytic}
        if intervals.rows:
            tables["intervals"] = intervals
        return Summary(tables, figures, unread_notes(rows))


def _correlations(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], clusters: Mapping[str, str]
) -> tuple[list[float], list[str]]:
    """Of each phrase that two methods have in common, with the phrase's cluster."""
    common = [record for record in a if record in b]
    values = {record: spearman(a[record], b[record]).tolist() for record in common}
    return (
        [value for record in common for value in values[record]],
        [clusters[record] for record in common for _ in values[record]],
    )


def _against_analytic(method: str, seed: int) -> tuple[float | None, float | None, float | None]:
    name, options = parse_method(method)
    kind = ATTRIBUTIONS[name]
    options.pop("layers", None)  # a function has its input alone
    if "normalization" in inspect.signature(kind).parameters:
        options["normalization"] = "none"  # a cosine is not bilinear
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(N_BILINEAR if kind.order == 2 else 0):
        a, b = (torch.randn(1, n, 2, generator=generator) for n in (4, 3))
        g, h = (torch.randn(n, 2, 5, generator=generator) for n in (4, 3))
        wrapper = wrap((CallableTower(_linear(g)), CallableTower(_linear(h))))
        try:
            imap = explain(wrapper, a, b, name, **options)
            assert isinstance(imap, InteractionMap)
        except (TypeError, ValueError):  # it needs what a function does not have
            return None, None, None
        factors = torch.einsum("btd,tdk->btk", a, g), torch.einsum("btd,tdk->btk", b, h)
        right = (factors[0] @ factors[1].transpose(1, 2)).flatten()
        ours = imap.interactions.flatten()
        difference = float((ours - right).abs().max() / right.abs().max())
        found.append((float(pearson(ours, right)), float(spearman(ours, right)), difference))
    if not found:
        return None, None, None
    columns = list(zip(*found, strict=True))
    return mean(columns[0]), mean(columns[1]), max(columns[2])


def _linear(weights: Tensor) -> Any:
    """A linear encoder (B, T, D) -> (B, K)."""
    return lambda x: torch.einsum("btd,tdk->bk", x, weights)


def _figure(methods: Sequence[str], values: Sequence[Sequence[float | None]]) -> Any:
    """Each pair of methods once; columns are numbered as the rows are."""
    names = [f"{number} {method_label(method)}" for number, method in enumerate(methods, 1)]
    below = [[*row[:place], *[None] * (len(row) - place)] for place, row in enumerate(values)]
    return matrix(
        below, names, [str(number) for number in range(1, len(methods) + 1)], "rank correlation",
        title="Agreement of methods: rank correlation of their maps of the image",
        limits=(-1.0, 1.0),
    )  # fmt: skip
