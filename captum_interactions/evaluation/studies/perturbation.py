"""What becomes of the score as the strongest patches and words come or go?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_interactions.datasets import Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.studies.perturbation_tables import (
    CURVES,
    GRID,
    JOINT,
    PAIRS,
    RANDOM,
    READOUTS,
    summary_of_curves,
)
from captum_interactions.evaluation.study import Map, MethodStudy
from captum_interactions.evaluation.summary import Summary
from captum_interactions.evaluation.units import MaskedUnits, by_unit, masked_units, own_seed
from captum_interactions.functional import Decomposition
from captum_interactions.maps.interaction_map import InteractionMap
from captum_interactions.metrics import (
    Curve,
    Mode,
    conditional_curve,
    first_order_pairs,
    insertion_deletion_area,
    joint_curves,
    pair_deletion_curve,
    simultaneous_curve,
)


class Ranking(NamedTuple):
    """Values of the units of a pair; None where a method has none."""

    a: Tensor | None
    """(1, units of a)"""
    b: Tensor | None
    """(1, units of b)"""
    pairs: Tensor | None
    """(1, units of a, units of b)"""
    parts: Decomposition | None = None
    """What coalitions of both inputs are worth: units and, behind them, what is no unit."""


@dataclass(frozen=True)
class Perturbation(MethodStudy):
    """Insertion and deletion: patches while the caption is whole, words while the image is, both.

    A part's value is the sum of its interactions with all of the other input (read as *map*). It
    leaves out what the part does by itself, so methods with main effects are also read *with main
    effects*, which is what the whole score changes by. Chance is a random order, which is a variant
    of its own.

    Two measures are no mean scores and have tables of their own. *Joint insertion/deletion* is the
    area between the best and the worst coalitions of patches and words together, as published
    tables have it, see :func:`~captum_interactions.metrics.joint_curves`; read as *map*, an
    interaction map has no main effects there. *Pairs subtracted* is what is left of the score when
    the interactions of pairs, not their parts, are taken from it in the order of the map;
    first-order maps rank pairs by the product of both parts' values.

    Patches and words are replaced by the model's baselines at the embeddings, whatever layer a map
    comes from.

    Source: Sammani et al., TIP 2023 (arXiv 2206.09753); Petsiuk et al., BMVC 2018 (arXiv
    1806.07421); Baniecki et al. (arXiv 2508.05430) for joint insertion/deletion.

    Raises:
        ValueError: If ``n_steps`` is less than 1.
    """

    name: ClassVar[str] = "perturbation"
    title: ClassVar[str] = "Perturbation: what becomes of the score as the strongest parts go?"
    question: ClassVar[str] = "insertion and deletion of patches, words and pairs by each method"
    needs: ClassVar[str] = "nothing"

    n_steps: int = 16
    """In how many steps patches, and pairs, come or go; words do so one by one."""
    pairs: bool = True
    """Whether to subtract pairs too, which takes a masked image for every patch."""

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
        return summary_of_curves(rows)


def rankings_of(imap: Map) -> dict[str, Ranking]:
    """How a map ranks units, by the way that it is read."""
    parts = by_unit(imap)
    main_a, main_b = parts.main_effects_a[:, :-1], parts.main_effects_b[:, :-1]
    if not isinstance(imap, InteractionMap):
        a = main_a if imap.attributions_a is not None else None
        b = main_b if imap.attributions_b is not None else None
        both = None if a is None or b is None else first_order_pairs(a, b)
        return {READOUTS[0]: Ranking(a, b, both, parts)}
    # What is no unit stays where it is, so interactions with it count as those with units do.
    own_a, own_b = parts.interactions[:, :-1].sum(2), parts.interactions[:, :, :-1].sum(1)
    alone = parts._replace(
        main_effects_a=torch.zeros_like(parts.main_effects_a),
        main_effects_b=torch.zeros_like(parts.main_effects_b),
    )
    found = {READOUTS[0]: Ranking(own_a, own_b, parts.interactions[:, :-1, :-1], alone)}
    if main_a.any() or main_b.any():
        found[READOUTS[1]] = Ranking(own_a + main_a, own_b + main_b, None, parts)
    return found


def random_ranking(score: MaskedUnits, seed: int) -> Ranking:
    """Values that know nothing."""
    generator = torch.Generator().manual_seed(seed)
    n_a, n_b = (len(axis.units) for axis in score.axes)
    a, b, pairs = (torch.rand((1, *n), generator=generator) for n in ((n_a,), (n_b,), (n_a, n_b)))
    none = torch.zeros(1)
    nothing = torch.zeros(1, n_a + 1, n_b + 1)
    parts = Decomposition(none, F.pad(a, (0, 1)), F.pad(b, (0, 1)), nothing, none)
    return Ranking(a, b, pairs, parts)


def curves(
    score: MaskedUnits, ranking: Ranking, n_steps: int, with_pairs: bool
) -> dict[str, Mapping[str, Any]]:
    """All curves that a ranking has: area, normalised area, and the score on :data:`GRID`.

    Of :data:`JOINT`, it is the area alone.
    """
    a, b, pairs, parts = ranking
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
        made[PAIRS] = partial(pair_deletion_curve, score, pairs, *players, n_steps)
    found = {name: _row(made[name]()) for name in (*CURVES, PAIRS) if name in made}
    if parts is not None:
        found[JOINT] = {"area": _joint_area(score, parts, n_steps)}
    return found


def _joint_area(score: MaskedUnits, parts: Decomposition, n_steps: int) -> float:
    def of_units(present_a: Tensor | None, present_b: Tensor | None) -> Tensor:
        # The last of either is what is no unit, which is always there.
        assert present_a is not None
        assert present_b is not None
        return score(present_a[..., :-1], present_b[..., :-1])

    a, b = (F.pad(own, (0, 1), value=False) for own in score.players)
    best, worst = joint_curves(of_units, parts, a, b, n_steps)
    return float(insertion_deletion_area(best, worst))


def _row(curve: Curve) -> Mapping[str, Any]:
    moved = (curve.present[0] - curve.present[0, 0]).abs().double().cpu().numpy()
    scores = curve.scores[0].double().cpu().numpy()
    return {
        "area": float(curve.area),
        "normalized": float(curve.normalized_area),
        "scores": np.interp(GRID, moved, scores),
    }
