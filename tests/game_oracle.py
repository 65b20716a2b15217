"""The slow, obvious way to interaction indices: sums over all coalitions of one joint game.

Players of both inputs stand in one row, those of a first. A game is any function from a tuple of
the present players to a number; no use is made of its being a product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain, combinations
from math import factorial

import torch
from torch import Tensor

Value = Callable[[tuple[int, ...]], float]
Weight = Callable[[int, int], float]
"""From the size of a coalition and the number of other players to what it counts."""


def banzhaf(p: float) -> Weight:
    return lambda size, others: p**size * (1 - p) ** (others - size)


def shapley(size: int, others: int) -> float:
    return factorial(size) * factorial(others - size) / factorial(others + 1)


def index(value: Value, n_players: int, weight: Weight, *those: int) -> float:
    """Weighted sum of the discrete derivatives of ``those`` players."""
    others = [player for player in range(n_players) if player not in those]
    total = 0.0
    for coalition in subsets(others):
        for part in subsets(those):
            sign = (-1) ** (len(those) - len(part))
            total += sign * weight(len(coalition), len(others)) * value((*coalition, *part))
    return total


def terms(value: Value, n_a: int, n_b: int, weight: Weight) -> dict[str, Tensor]:
    """All terms of first and second order, of a game of n_a + n_b players."""
    value = remembered(value)
    n = n_a + n_b
    first = torch.tensor([index(value, n, weight, i) for i in range(n)], dtype=torch.float64)
    second = torch.zeros(n, n, dtype=torch.float64)
    for i, j in combinations(range(n), 2):
        second[i, j] = second[j, i] = index(value, n, weight, i, j)
    return {
        "main_effects_a": first[:n_a],
        "main_effects_b": first[n_a:],
        "interactions": second[:n_a, n_a:],
        "intra_a": second[:n_a, :n_a],
        "intra_b": second[n_a:, n_a:],
    }


def grid_fit(scores: Tensor, members_a: Tensor, members_b: Tensor, weights: Tensor) -> Tensor:
    """Weighted least squares of all m_a × m_b joint scores on 1, z_i, w_j and z_i w_j.

    Members are real numbers, centred if the coefficients are to be effects at the mean coalition.
    Returns the coefficients, (1 + n_a, 1 + n_b).
    """
    columns_a, columns_b = (
        torch.cat([torch.ones(len(members), 1, dtype=torch.float64), members], 1)
        for members in (members_a, members_b)
    )
    rows = torch.stack([torch.outer(a, b).flatten() for a in columns_a for b in columns_b])
    root = weights.flatten().sqrt().unsqueeze(1)
    fitted = torch.linalg.lstsq(rows * root, scores.flatten().unsqueeze(1) * root).solution
    return fitted.reshape(columns_a.shape[1], columns_b.shape[1])


def subsets(players: Iterable[int]) -> Iterator[tuple[int, ...]]:
    players = list(players)
    return chain.from_iterable(combinations(players, size) for size in range(len(players) + 1))


def remembered(value: Value) -> Value:
    recall = cache(value)
    return lambda coalition: recall(tuple(sorted(coalition)))
