"""Patches and words, the units in which maps of all methods are compared with masked scores.

A map may come from any layer, with or without a class token, while inputs are masked at the
embeddings. Both have the same units of their axes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_interactions.attr import MaskedScore, masked_score
from captum_interactions.axes import TokenAxis
from captum_interactions.datasets import Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.study import Map
from captum_interactions.functional import Decomposition
from captum_interactions.maps.interaction_map import InteractionMap


@dataclass(frozen=True, eq=False)
class MaskedUnits:
    """The score of one pair with masked units: a :data:`~captum_interactions.metrics.Score`.

    Tokens that are not units (class token, start and end of a text) are never masked.
    """

    score: MaskedScore
    axes: tuple[TokenAxis, TokenAxis]
    """The axes of the tokens that are masked."""

    def __call__(self, present_a: Tensor | None, present_b: Tensor | None) -> Tensor:
        """Scores (1, M) of aligned coalitions, (1, M, units of a) and (1, M, units of b)."""
        return self.score(self._tokens(0, present_a), self._tokens(1, present_b))

    def grid(self, present_a: Tensor, present_b: Tensor) -> Tensor:
        """Scores (1, M, N) of every coalition of a with every coalition of b."""
        return self.score.grid(self._tokens(0, present_a), self._tokens(1, present_b))

    @property
    def players(self) -> tuple[Tensor, Tensor]:
        """Units that have an effect when they are masked, bool, (1, units) of each input."""
        tokens = (self.score.players_a, self.score.players_b)
        a, b = (
            (own.float() @ _members(axis).to(own.device).T) > 0
            for own, axis in zip(tokens, self.axes, strict=True)
        )
        return a, b

    def check(self, imap: Map) -> None:
        """Raise a ValueError if the units of a map are not those that can be masked."""
        for name, axis, own in zip("ab", self.axes, (imap.axis_a, imap.axis_b), strict=True):
            if _labels(axis) != _labels(own):
                raise ValueError(
                    f"the map has {len(own.units)} units of input {name}, but {len(axis.units)} "
                    "others can be masked: take a layer whose tokens are those of the embeddings"
                )

    def _tokens(self, side: int, present: Tensor | None) -> Tensor | None:
        if present is None:
            return None
        members = _members(self.axes[side]).to(present.device)
        return ((~present).float() @ members) == 0


def masked_units(wrapper: DualEncoderWrapper, record: Record) -> MaskedUnits:
    """The score of a record with masked patches and words, replaced at the embeddings."""
    batch = wrapper.prepare(record.image, record.caption, truncation=True)
    score = masked_score(wrapper, batch.inputs, None, batch.additional_forward_args)
    axis_a, axis_b = (
        path.tower.axis_at(path.layer, axis, path.n_outputs)
        for path, axis in zip(score.paths, (batch.axes_a[0], batch.axes_b[0]), strict=True)
    )
    return MaskedUnits(score, (axis_a, axis_b))


def by_unit(imap: Map) -> Decomposition:
    """The parts of a map by unit; the last entry of each input is the sum over all other tokens.

    A first-order map has no interactions, its constant is the score minus its values, and a side
    without a map is zero.

    Returns:
        Decomposition: of one pair, with units of a + 1 and units of b + 1 entries.
    """
    if isinstance(imap, InteractionMap):
        main_a, main_b, interactions = imap.main_effects_a, imap.main_effects_b, imap.interactions
        constant = imap.constant
    else:
        main_a, main_b = (
            torch.zeros(len(axis)) if values is None else values
            for values, axis in (
                (imap.attributions_a, imap.axis_a), (imap.attributions_b, imap.axis_b)
            )
        )  # fmt: skip
        interactions = torch.zeros(len(main_a), len(main_b))
        constant = imap.score - float(main_a.sum() + main_b.sum())
    return Decomposition(
        torch.tensor([constant], dtype=torch.float64),
        _summed(imap.axis_a, main_a).unsqueeze(0),
        _summed(imap.axis_b, main_b).unsqueeze(0),
        _summed(imap.axis_b, _summed(imap.axis_a, interactions.T).T).unsqueeze(0),
        torch.tensor([imap.score], dtype=torch.float64),
    )


def with_rest(present: Tensor) -> Tensor:
    """Coalitions of units (..., U) with the rest, which is always present, (..., U + 1)."""
    return F.pad(present, (0, 1), value=True)


def own_seed(seed: int, record: Record) -> int:
    """A seed for a record, which does not depend on the other records."""
    digest = hashlib.sha256(f"{seed} {record.key}".encode(errors="backslashreplace")).digest()
    return int.from_bytes(digest[:6], "big")


def _members(axis: TokenAxis) -> Tensor:
    """The tokens of each unit, as zeros and ones of shape (units, T)."""
    return torch.from_numpy(axis.sum_units(np.eye(len(axis), dtype=np.float32)).T)


def _summed(axis: TokenAxis, values: Tensor) -> Tensor:
    """Values of tokens (..., T) summed over units and over the rest, (..., units + 1)."""
    return torch.from_numpy(axis.sum_units(values.double().numpy(), rest=True))


def _labels(axis: TokenAxis) -> list[str]:
    return [unit.label for unit in axis.units]
