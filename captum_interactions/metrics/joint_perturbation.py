"""Insertion and deletion over both inputs at once, in the order that a decomposition predicts."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_interactions.functional import Decomposition
from captum_interactions.metrics.curves import (
    Curve,
    Score,
    check_values,
    count_steps,
    gone_at,
    make_curve,
    removal_times,
)


def joint_curves(
    score: Score,
    parts: Decomposition,
    players_a: Tensor | None = None,
    players_b: Tensor | None = None,
    n_steps: int | None = None,
) -> tuple[Curve, Curve]:
    r"""Scores of the parts that a decomposition says are worth most, and least, of every number.

    The parts of both inputs are one set of players. A coalition (S, T) is worth
    :math:`\sum_{i \in S} \alpha_i + \sum_{j \in T} \beta_j + \sum_{i \in S, j \in T} A_{ij}`.
    Coalitions grow greedily, from every single player, by the player that adds most (or least); of
    each size, the best (worst) of them is taken. Without interactions, that is the order of the
    values. To keep the best is to delete the least important parts first, to keep the worst is to
    delete the most important ones first.

    Source: insertion and deletion of Baniecki et al., "Explaining Similarity in Vision–Language
    Encoders with Weighted Banzhaf Interactions", 2025 (arXiv 2508.05430), whose program starts from
    some of the players only where there are more than a hundred.

    Args:
        score (Callable): See :data:`~captum_interactions.metrics.Score`.
        parts (Decomposition): Main effects and interactions of B pairs; a first-order map has no
            interactions.
        players_a, players_b (Tensor, optional): Which parts come or go, bool, shapes (B, Ta) and
            (B, Tb); others are always there. Default: None, all of them
        n_steps (int, optional): Number of steps S, in which the same share of each pair's players
            comes. Default: None, one player at a time (of the pair with the most)

    Returns:
        tuple: the curves of the best and of the worst coalitions, from no player to all: shares of
        the players and scores, (B, S + 1) each.

    Raises:
        ValueError: If shapes do not fit, values are not finite, or a pair has no players.

    Examples::

        >>> weights = torch.tensor([3.0, 1.0])
        >>> def score(present_a, present_b):
        ...     return present_a.float() @ weights + 2 * present_b.float().sum(-1)
        >>> none = torch.zeros(1)
        >>> parts = Decomposition(none, weights[None], 2 + none[None], torch.zeros(1, 2, 1), none)
        >>> best, worst = joint_curves(score, parts)
        >>> best.scores.tolist(), worst.scores.tolist()
        ([[0.0, 3.0, 5.0, 6.0]], [[0.0, 1.0, 3.0, 6.0]])
    """
    main_a, players_a = check_values("main effects of a", parts.main_effects_a, players_a)
    main_b, players_b = check_values("main effects of b", parts.main_effects_b, players_b)
    n_a, shape = main_a.shape[1], (len(main_a), main_a.shape[1], main_b.shape[1])
    if parts.interactions.shape != shape:
        raise ValueError(
            f"interactions must be of shape {shape} beside these main effects, but got "
            f"{tuple(parts.interactions.shape)}"
        )
    players = torch.cat([players_a, players_b], 1)
    times = removal_times(torch.cat([main_a, main_b], 1), players)
    sizes = gone_at(times, count_steps(n_steps, times))
    shares = sizes / players.sum(1, keepdim=True)
    found = []
    for sign in (1.0, -1.0):
        present = torch.stack(
            [
                _greedy(sign * own_a, sign * own_b, sign * pairs.double(), *own)
                for own_a, own_b, pairs, *own in zip(
                    main_a, main_b, parts.interactions.detach(), players_a, players_b, sizes,
                    strict=True,
                )
            ]
        )  # fmt: skip
        found.append(make_curve(shares, score(present[..., :n_a], present[..., n_a:])))
    return found[0], found[1]


def insertion_deletion_area(best: Curve, worst: Curve) -> Tensor:
    """The area between both curves of :func:`joint_curves`, with the score of all players as 1.

    The score of no player counts as 0. High is good; a random order has 0 on average, and a
    reversed one the negative area.

    Returns:
        Tensor: shape (B,). NaN where the scores of no player and of all are equal; of little worth
        where they are close or in reversed order.
    """
    whole = best.scores[:, -1] - best.scores[:, 0]
    area = torch.trapezoid(best.scores - worst.scores, best.present)
    return (area / whole).masked_fill(whole == 0, torch.nan)


def _greedy(
    main_a: Tensor, main_b: Tensor, pairs: Tensor, players_a: Tensor, players_b: Tensor,
    sizes: Tensor,
) -> Tensor:  # fmt: skip
    """The coalitions of these sizes that are worth most, bool, (sizes, Ta + Tb)."""
    own = torch.cat([main_a, main_b])
    together = own.new_zeros(len(own), len(own))
    together[: len(main_a), len(main_a) :] = pairs
    together = together + together.T
    players = torch.cat([players_a, players_b])
    own = own + together[:, ~players].sum(1)  # with what is always there
    chosen = players.nonzero().flatten()
    own, together = own[chosen], together[chosen][:, chosen]
    n = len(chosen)
    rows, present = torch.arange(n), torch.eye(n, dtype=torch.bool, device=own.device)
    worth, gains = own, own + together  # of every player by itself, and of each other one then
    best = [torch.zeros_like(present[0]), present[own.argmax()].clone()]
    for _ in range(n - 1):
        added = gains.masked_fill(present, -torch.inf).argmax(1)
        worth = worth + gains[rows, added]
        gains = gains + together[added]
        present[rows, added] = True
        best.append(present[worth.argmax()].clone())
    there = (~players).repeat(len(sizes), 1)
    there[:, chosen] = torch.stack(best)[sizes]
    return there
