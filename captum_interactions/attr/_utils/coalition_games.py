"""Play the joint game of the players of two inputs, and collect its terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from captum_interactions.attr._utils.players import Players
from captum_interactions.functional import Quadrature
from captum_interactions.functional.games import (
    Design,
    Effects,
    all_coalitions,
    design,
    draw_coalitions,
    effects,
    enough_coalitions,
    pair_effects,
    products,
)
from captum_interactions.maps.shapiq import interaction_values

if TYPE_CHECKING:
    import shapiq

_BUDGET = 1024
"""Default number of coalitions of one input, at which up to ten players are enumerated."""

_Row = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""The fields of :class:`Terms` of one pair."""

Rule = Callable[[int, bool], Quadrature]
"""From the number of players, and whether all coalitions are encoded, to probabilities."""


@dataclass(frozen=True, eq=False)
class Terms:
    """Terms of first and second order of B joint games; zero where a token is no player."""

    main_effects_a: Tensor
    """Value of each token or group of a by itself, shape (B, Ga)."""
    main_effects_b: Tensor
    """Value of each token or group of b by itself, shape (B, Gb)."""
    interactions: Tensor
    """Interaction of each of a with each of b, shape (B, Ga, Gb)."""
    intra_a: Tensor | None
    """Interactions within a, shape (B, Ga, Ga), symmetric with zeros on the diagonal; None if they
    were not computed."""
    intra_b: Tensor | None
    """Interactions within b, shape (B, Gb, Gb)."""


@dataclass(frozen=True, eq=False, repr=False)
class Game(Terms):
    """The joint games of B pairs, in which the tokens or groups of both inputs are players."""

    index: str
    """Name of the interactions: ``"SII"``, ``"BII"``, or ``"weighted BII"`` if p is not 1/2."""
    standard_errors: Terms
    """Sampling errors of every term; zero if all coalitions of both inputs were encoded."""
    score: Tensor
    """The score with all players, shape (B,)."""
    baseline: Tensor
    """The score without any player, shape (B,)."""
    mean: Tensor
    """The expected score of random coalitions (for Shapley, averaged over p too), shape (B,)."""
    n_encoded: tuple[int, int]
    """Numbers of masked inputs a and b that were encoded."""

    def to_shapiq(self) -> list[shapiq.InteractionValues]:
        """One ``shapiq.InteractionValues`` per pair, which shapiq can plot (needs shapiq).

        Players are the tokens or groups of a, then those of b. The value of the empty set is the
        mean score of random coalitions, as in shapiq's own values of these indices, and the
        ``baseline_value`` is the score without any player.

        Raises:
            ImportError: If shapiq is not installed.
        """
        is_estimated = bool(self.standard_errors.interactions.any())
        return [
            interaction_values(
                self.index,
                float(self.mean[row]),
                torch.cat([self.main_effects_a[row], self.main_effects_b[row]]),
                _symmetric(self.interactions[row], self._within(row, "a"), self._within(row, "b")),
                baseline=float(self.baseline[row]),
                budget=sum(self.n_encoded),
                estimated=is_estimated,
            )
            for row in range(len(self.score))
        ]

    def _within(self, row: int, side: str) -> Tensor:
        """Interactions within an input, zero if they were not computed."""
        intra = self.intra_a if side == "a" else self.intra_b
        size = self.interactions.shape[1 if side == "a" else 2]
        return self.interactions.new_zeros(size, size) if intra is None else intra[row]

    def __repr__(self) -> str:
        shape, largest = tuple(self.interactions.shape), float(self.interactions.abs().max())
        return (
            f"Game(interactions of shape {shape} up to {largest:.1e},\n"
            f"     standard errors up to {float(self.standard_errors.interactions.max()):.1e},\n"
            f"     from {self.n_encoded[0]} + {self.n_encoded[1]} masked inputs)"
        )


class _Plan(NamedTuple):
    """Which coalitions of one input are encoded, and the design of their regression."""

    design: Design
    distinct: Tensor
    """Every coalition once, including the full and the empty one, (D, n)."""
    places: Tensor
    """Indices of the coalitions of the design in these, then of the full and the empty one,
    (m + 2,)."""


class _PairPlan(NamedTuple):
    a: _Plan
    b: _Plan
    weights: Tensor
    """Weight of each probability, (Q,)."""


def play(
    pairs: Sequence[tuple[Players, Players]],
    rule: Rule,
    index: str,
    *,
    n_samples: tuple[int | None, int | None],
    batch_size: int,
    seed: int,
    intra: bool,
    show_progress: bool,
) -> Game:
    """Encode coalitions of both inputs of each pair, and estimate the terms of their joint game.

    Args:
        pairs: The players of each pair.
        rule (Callable): See :data:`Rule`.
        index (str): Name of the interactions that the rule gives.
        n_samples (tuple): Maximum numbers of coalitions of a and of b; None for the default.
        batch_size (int): Maximum number of masked inputs that are encoded at once.
        seed (int): Seed of the coalitions of every pair.
        intra (bool): Whether to compute the interactions within each input too.
        show_progress (bool): Show a progress bar.

    Raises:
        ValueError: If the samples are too few for the players; nothing has been encoded then.
    """
    known: dict[Any, _Plan] = {}
    plans = [_plan_pair(pair, rule, n_samples, seed, known) for pair in pairs]
    n_encoded = (
        sum(len(plan.a.distinct) for plan in plans),
        sum(len(plan.b.distinct) for plan in plans),
    )
    with tqdm(desc="Masked inputs", total=sum(n_encoded), disable=not show_progress) as progress:
        games = [
            _play_pair(pair, plan, batch_size, intra, progress)
            for pair, plan in zip(pairs, plans, strict=True)
        ]
    values, errors, scores = zip(*games, strict=True)
    score, baseline, mean = torch.stack(scores, 1)
    return Game(
        **_joined(values),
        index=index,
        standard_errors=Terms(**_joined(errors)),
        score=score,
        baseline=baseline,
        mean=mean,
        n_encoded=n_encoded,
    )


def _plan_pair(
    pair: tuple[Players, Players],
    rule: Rule,
    n_samples: tuple[int | None, int | None],
    seed: int,
    known: dict[Any, _Plan],
) -> _PairPlan:
    """Draw the coalitions of a pair. Pairs with equal numbers of players share them (``known``)."""
    counts = [len(players.indices) for players in pair]
    exact = [2**n <= (limit or _BUDGET) for n, limit in zip(counts, n_samples, strict=True)]
    nodes, weights = rule(sum(counts), all(exact))
    plans = []
    for side, (count, limit) in enumerate(zip(counts, n_samples, strict=True)):
        key = (side, count, len(nodes))
        if key not in known:
            limit = limit or max(_BUDGET, enough_coalitions(count, len(nodes)))
            # Estimates of the two sides are independent, so they must not share random numbers.
            generator = torch.Generator().manual_seed(2 * seed + side)
            known[key] = _plan(count, nodes, limit, exact[side], generator)
        plans.append(known[key])
    return _PairPlan(plans[0], plans[1], weights)


def _plan(
    n_players: int, nodes: Tensor, n_samples: int, is_exact: bool, generator: torch.Generator
) -> _Plan:
    if is_exact:
        members = all_coalitions(n_players)
    else:
        members = draw_coalitions(n_players, nodes, n_samples, generator)
    full = torch.ones(1, n_players, dtype=torch.bool)
    # Coalitions may repeat. Without players, rows would be empty but for the first column.
    every = F.pad(torch.cat([members, full, ~full]), (1, 0), value=True)
    distinct, places = torch.unique(every, dim=0, return_inverse=True)
    return _Plan(design(members, nodes, is_exact=is_exact), distinct[:, 1:], places)


def _play_pair(
    pair: tuple[Players, Players],
    plan: _PairPlan,
    batch_size: int,
    intra: bool,
    progress: tqdm[Any],
) -> tuple[_Row, _Row, Tensor]:
    """Terms, their standard errors, and (score, baseline, mean) of one pair."""
    a, b = pair
    of_a, ends_a = _effects(a, plan.a, batch_size, progress)
    of_b, ends_b = _effects(b, plan.b, batch_size, progress)
    within_a: tuple[Tensor, Tensor] | tuple[None, None] = (None, None)
    within_b: tuple[Tensor, Tensor] | tuple[None, None] = (None, None)
    if intra:
        within_a = _within(a, plan.a.design, of_a, of_b, plan.weights)
        within_b = _within(b, plan.b.design, of_b, of_a, plan.weights)
    joint = products(of_a, of_b, plan.weights)
    values, errors = (
        # The first row and column, of the means, contain the effects of single players.
        (
            _placed(matrix[1:, 0], a),
            _placed(matrix[0, 1:], b),
            _placed(matrix[1:, 1:], a, b),
            within_a[index],
            within_b[index],
        )
        for index, matrix in enumerate(joint)
    )
    return values, errors, torch.cat([(ends_a * ends_b).sum(-1), joint[0][0, :1]])


def _effects(
    players: Players, plan: _Plan, batch_size: int, progress: tqdm[Any]
) -> tuple[Effects, Tensor]:
    """Effects of the players of one input; its embeddings with all and with none, (2, K)."""
    embeddings = players.embed(plan.distinct, batch_size, progress)
    embeddings = embeddings[plan.places.to(embeddings.device)]
    return effects(plan.design, embeddings[:-2]), embeddings[-2:]


def _within(
    players: Players, design: Design, own: Effects, other: Effects, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Interactions within one input and their standard errors, (G, G) each."""
    n_players = len(players.indices)
    mean = other._replace(values=other.values[:, :1], readout=other.readout[:, :1])
    values, errors = own.values.new_zeros(2, n_players, n_players)
    for player in range(n_players):
        column, error = products(pair_effects(design, own, player), mean, weights)
        values[:, player], errors[:, player] = column[:, 0], error[:, 0]
    return _placed(values, players, players), _placed(errors, players, players)


def _placed(values: Tensor, *players: Players) -> Tensor:
    """Values of players along each axis as values of all tokens or groups."""
    for axis, one in enumerate(players):
        shape = list(values.shape)
        shape[axis] = one.path.n_outputs
        values = values.new_zeros(shape).index_copy(axis, one.indices, values)
    return values


def _symmetric(across: Tensor, within_a: Tensor, within_b: Tensor) -> Tensor:
    """Interactions of all players of both inputs, (Ga + Gb, Ga + Gb)."""
    return torch.cat(
        [torch.cat([within_a, across], 1), torch.cat([across.T, within_b], 1)],
    )


def _joined(rows: Sequence[_Row]) -> dict[str, Any]:
    columns = zip(*rows, strict=True)
    stacked = (None if column[0] is None else torch.stack(column) for column in columns)
    return dict(zip((field.name for field in fields(Terms)), stacked, strict=True))
