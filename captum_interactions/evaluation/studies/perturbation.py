"""What becomes of the score as the strongest patches and words come or go?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_interactions.datasets import Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.lines import Line, panels
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import bootstrap_interval, mean, median
from captum_interactions.evaluation.study import Map, MethodStudy
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.evaluation.units import MaskedUnits, by_unit, masked_units, own_seed
from captum_interactions.maps.interaction_map import InteractionMap
from captum_interactions.metrics import (
    Curve,
    Mode,
    conditional_curve,
    first_order_pairs,
    pair_deletion_curve,
    simultaneous_curve,
)
from captum_interactions.visualization.charts import method_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDOM = "random order"
"""The variant that shows the chance level."""
GRID = np.linspace(0.0, 1.0, 21)
"""Shares of the parts that have come or gone, where curves of all records are read."""
CURVES = (
    "patches inserted", "patches deleted", "words inserted", "words deleted",
    "both inserted", "both deleted", "pairs deleted",
)  # fmt: skip
READOUTS = ("map", "with main effects")
"""What ranks the parts of one input, see :class:`Perturbation`."""


class Ranking(NamedTuple):
    """Values of the units of a pair; None where a method has none."""

    a: Tensor | None
    """(1, units of a)"""
    b: Tensor | None
    """(1, units of b)"""
    pairs: Tensor | None
    """(1, units of a, units of b)"""


@dataclass(frozen=True)
class Perturbation(MethodStudy):
    """Insertion and deletion: patches while the caption is whole, words while the image is, both.

    A part's value is the sum of its interactions with all of the other input (read as *map*). It
    leaves out what the part does by itself, so methods with main effects are also read *with main
    effects*, which is what the whole score changes by. Pairs are deleted in the order of their
    interactions; first-order maps rank them by the product of both parts' values. Chance is a
    random order, which is a variant of its own.

    Patches and words are replaced by the model's references at the embeddings, whatever layer a map
    comes from.

    Source: Sammani et al., TIP 2023 (arXiv 2206.09753); Petsiuk et al., BMVC 2018 (arXiv
    1806.07421); for pairs, see :func:`~captum_interactions.metrics.pair_deletion_curve`.

    Raises:
        ValueError: If ``n_steps`` is less than 1.
    """

    name: ClassVar[str] = "perturbation"
    title: ClassVar[str] = "Perturbation: what becomes of the score as the strongest parts go?"
    question: ClassVar[str] = "insertion and deletion of patches, words and pairs by each method"

    n_steps: int = 16
    """In how many steps patches, and pairs, come or go; words do so one by one."""
    pairs: bool = True
    """Whether to delete pairs too, which takes a masked image for every patch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, but got {self.n_steps}")

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        return {**super().variants, RANDOM: {"attribution": None}}

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        if variant == RANDOM:
            maps: Sequence[Map | None] = [None] * len(records)
        else:
            maps = self.explain(wrapper, variant, records)
        found: list[Mapping[str, Any]] = []
        for imap, record in zip(maps, records, strict=True):
            score = masked_units(wrapper, record)
            if imap is None:
                rankings = {READOUTS[0]: random_ranking(score, own_seed(self.seed, record))}
            else:
                score.check(imap)
                rankings = rankings_of(imap)
            found.append(
                {
                    readout: curves(score, ranking, self.n_steps, self.pairs)
                    for readout, ranking in rankings.items()
                }
            )
        return found

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        ranked = list(
            dict.fromkeys((row.variant, readout) for row in rows for readout in row.values)
        )
        ranked.sort(key=lambda one: one[0] == RANDOM)
        areas: list[list[Any]] = []
        for curve in CURVES:
            found = [cells for one in ranked if (cells := _areas(rows, curve, *one))]
            areas += sorted(found, key=lambda cells: cells[4], reverse="inserted" in curve)
        overview = [[*one, *(_mean(rows, curve, *one) for curve in CURVES)] for one in ranked]
        return Summary(
            {
                "by_method": Table(
                    ("ranked by", "read as", *CURVES), overview,
                    "Area under the curve: the mean score while the strongest parts come or go. "
                    "High is good for insertion, low for deletion; random order is chance.",
                ),
                "areas": Table(
                    (
                        "curve", "ranked by", "read as", "records", "mean score", "95 % from", "to",
                        "normalised median", "median from", "median to", "reversed",
                    ),
                    areas,
                    "Each curve, the best ranking first. *normalised*: the score of nothing is 0, "
                    "of everything 1. *reversed*: records where nothing scores as high as "
                    "everything, or higher: there normalised areas mean the opposite, so where "
                    "there are many, only the mean score tells rankings apart. Intervals: records "
                    "drawn anew.",
                ),
            },
            {"curves": _figure(rows, ranked)},
        )  # fmt: skip


def rankings_of(imap: Map) -> dict[str, Ranking]:
    """How a map ranks units, by the way that it is read."""
    parts = by_unit(imap)
    main_a, main_b = parts.main_effects_a[:, :-1], parts.main_effects_b[:, :-1]
    if not isinstance(imap, InteractionMap):
        a = main_a if imap.attributions_a is not None else None
        b = main_b if imap.attributions_b is not None else None
        both = None if a is None or b is None else first_order_pairs(a, b)
        return {READOUTS[0]: Ranking(a, b, both)}
    # What is no unit stays where it is, so interactions with it count as those with units do.
    own_a, own_b = parts.interactions[:, :-1].sum(2), parts.interactions[:, :, :-1].sum(1)
    found = {READOUTS[0]: Ranking(own_a, own_b, parts.interactions[:, :-1, :-1])}
    if main_a.any() or main_b.any():
        found[READOUTS[1]] = Ranking(own_a + main_a, own_b + main_b, None)
    return found


def random_ranking(score: MaskedUnits, seed: int) -> Ranking:
    """Values that know nothing."""
    generator = torch.Generator().manual_seed(seed)
    n_a, n_b = (len(axis.units) for axis in score.axes)
    a, b, pairs = (torch.rand((1, *n), generator=generator) for n in ((n_a,), (n_b,), (n_a, n_b)))
    return Ranking(a, b, pairs)


def curves(
    score: MaskedUnits, ranking: Ranking, n_steps: int, with_pairs: bool
) -> dict[str, Mapping[str, Any]]:
    """All curves that a ranking has: area, normalised area, and the score on :data:`GRID`."""
    a, b, pairs = ranking
    players = score.players
    made: dict[str, Callable[[], Curve]] = {}
    verbs: dict[Mode, str] = {"insertion": "inserted", "deletion": "deleted"}
    for mode, verb in verbs.items():
        if a is not None:
            made[f"patches {verb}"] = partial(
                conditional_curve, score, a, "a", mode, players[0], n_steps
            )
        if b is not None:
            made[f"words {verb}"] = partial(conditional_curve, score, b, "b", mode, players[1])
        if a is not None and b is not None:
            made[f"both {verb}"] = partial(simultaneous_curve, score, a, b, mode, *players, n_steps)
    if with_pairs and pairs is not None:
        made["pairs deleted"] = partial(pair_deletion_curve, score, pairs, *players, n_steps)
    return {name: _row(made[name]()) for name in CURVES if name in made}


def _row(curve: Curve) -> Mapping[str, Any]:
    moved = (curve.present[0] - curve.present[0, 0]).abs().double().cpu().numpy()
    scores = curve.scores[0].double().cpu().numpy()
    return {
        "area": float(curve.area),
        "normalized": float(curve.normalized_area),
        "scores": np.interp(GRID, moved, scores),
    }


def _values(
    rows: Sequence[Row], curve: str, variant: str, readout: str, key: str
) -> tuple[list[Any], list[str]]:
    found = [
        (row.values[readout][curve][key], row.record)
        for row in rows
        if row.variant == variant and curve in row.values.get(readout, {})
    ]
    return [value for value, _ in found], [record for _, record in found]


def _mean(rows: Sequence[Row], curve: str, variant: str, readout: str) -> float | None:
    return mean(_values(rows, curve, variant, readout, "area")[0])


def _areas(rows: Sequence[Row], curve: str, variant: str, readout: str) -> list[Any] | None:
    areas, names = _values(rows, curve, variant, readout, "area")
    if not areas:
        return None
    relative, _ = _values(rows, curve, variant, readout, "normalized")
    scores, _ = _values(rows, curve, variant, readout, "scores")
    whole, nothing = (0, -1) if "deleted" in curve else (-1, 0)
    return [
        curve, variant, readout, len(areas), mean(areas),
        *bootstrap_interval(areas, names, statistic=lambda x: float(x.mean())), median(relative),
        *bootstrap_interval(relative, names), sum(one[whole] <= one[nothing] for one in scores),
    ]  # fmt: skip


def _figure(rows: Sequence[Row], ranked: Sequence[tuple[str, str]]) -> Figure:
    shown = {}
    for curve in CURVES[:4]:
        lines = []
        for variant, readout in ranked:
            scores = _values(rows, curve, variant, readout, "scores")[0]
            if scores:
                name = method_label(variant)
                label = name if readout == READOUTS[0] else f"{name}, {readout}"
                lines.append(
                    Line(label, GRID, np.mean(scores, 0), variant, dashed=readout != READOUTS[0])
                )
        shown[curve] = lines
    return panels(
        shown, ("share of the patches or words", "mean score"), plain=RANDOM,
        title="Score while the parts that a method ranks highest are inserted or deleted first",
    )  # fmt: skip
