"""Pairs of parts by rank: their own interactions removed, or their parts inserted together."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_interactions.metrics.curves import (
    Curve,
    Score,
    check_values,
    count_steps,
    cuts,
    gone_at,
    make_curve,
    present_at,
    removal_times,
)
from captum_interactions.metrics.mixed_difference import pair_differences


def pair_deletion_curve(
    score: Score,
    interactions: Tensor,
    players_a: Tensor | None = None,
    players_b: Tensor | None = None,
    n_steps: int | None = None,
) -> Curve:
    r"""Remove the interactions of pairs from the score, the strongest first; their parts stay.

    A pair's own interaction is what the score loses by the meeting of its parts, in the context of
    all others (:func:`~captum_interactions.metrics.pair_differences`). What is left when a set P of
    pairs is deleted is

    .. math::
        s(a, b) - \sum_{(i, j) \in P} \Delta^2 s(\{i\}, \{j\}) .

    No masked input has these scores, so areas are no mean scores, and not to be compared with those
    of other curves. To take both parts away instead would say little: an interaction is gone as
    soon as one of them is. Low area is good; the chance level is the mean of both ends. A ranking
    by interactions ought to beat that of first-order maps, :func:`first_order_pairs`.

    Args:
        score (Callable): See :data:`~captum_interactions.metrics.Score`.
        interactions (Tensor): One value per pair, shape (B, Ta, Tb): pairs with the highest values
            go first, and of equally strong ones the first.
        players_a, players_b (Tensor, optional): Which parts count, bool, shapes (B, Ta) and
            (B, Tb); pairs of the others stay. Default: None, all of them
        n_steps (int, optional): Number of steps S. Default: None, one pair at a time

    Returns:
        Curve: share of the pairs that is left, and the score then, (B, S + 1) each.

    Raises:
        ValueError: If shapes do not fit, interactions are not finite, a pair has no players, or
            ``n_steps`` is less than 1.

    Examples::

        >>> truth = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
        >>> def score(present_a, present_b):
        ...     all_of_it = torch.ones(1, 1, 2)
        ...     a = all_of_it if present_a is None else present_a.float()
        ...     b = all_of_it if present_b is None else present_b.float()
        ...     return ((a @ truth) * b).sum(-1)
        >>> pair_deletion_curve(score, truth).scores
        tensor([[4., 1., 0., 0., 0.]], dtype=torch.float64)
    """
    times = _pair_times(interactions, players_a, players_b).flatten(1)
    gone = gone_at(times, count_steps(n_steps, times))
    differences = pair_differences(score, *interactions.shape[1:]).double().flatten(1)
    lost = differences.gather(1, times.argsort(1).to(differences.device)).cumsum(1)
    lost = torch.nn.functional.pad(lost, (1, 0)).gather(1, gone.to(lost.device))
    return make_curve(1 - gone / gone[:, -1:], score(None, None).double() - lost)


def pair_insertion_curve(
    score: Score,
    interactions: Tensor,
    players_a: Tensor | None = None,
    players_b: Tensor | None = None,
    n_steps: int | None = None,
) -> Curve:
    """Insert pairs, the strongest first: both parts of a pair come together.

    A part comes with the first pair that it is in, so two parts that make much of the score
    together come together. Rankings are compared at the same share of parts, where each input
    counts half. High area is good; the chance level is that of random interactions.

    Args:
        score, interactions, players_a, players_b: As in :func:`pair_deletion_curve`; parts that are
            no players are there from the beginning.
        n_steps (int, optional): Number of steps S. Default: None, as many as both inputs have parts

    Returns:
        Curve: present shares (the mean of both inputs' shares) and scores, (B, S + 1) each.

    Raises:
        ValueError: In the same cases.
    """
    times = _pair_times(interactions, players_a, players_b)
    times_a, times_b = times.amin(2), times.amin(1)
    both = torch.cat([times_a, times_b], 1)
    at = cuts(both, count_steps(n_steps, both))
    present_a, shares_a = present_at(times_a, at, "insertion")
    present_b, shares_b = present_at(times_b, at, "insertion")
    return make_curve((shares_a + shares_b) / 2, score(present_a, present_b))


def first_order_pairs(maps_a: Tensor, maps_b: Tensor) -> Tensor:
    """Pairs as first-order maps rank them: the product of both parts' values.

    The product of two negative values is taken as negative, or parts that both speak against the
    score would rank first.

    Args:
        maps_a (Tensor): shape (B, Ta).
        maps_b (Tensor): shape (B, Tb).

    Returns:
        Tensor: shape (B, Ta, Tb).
    """
    a, b = maps_a.unsqueeze(2), maps_b.unsqueeze(1)
    product = a * b
    return torch.where((a < 0) & (b < 0), -product, product)


def _pair_times(interactions: Tensor, players_a: Tensor | None, players_b: Tensor | None) -> Tensor:
    """When each pair comes or goes, (B, Ta, Tb)."""
    if interactions.dim() != 3:
        raise ValueError(
            f"interactions must be of shape (B, Ta, Tb), but got {tuple(interactions.shape)}"
        )
    n_b = interactions.shape[2]
    rows, columns = interactions.detach()[:, :, 0], interactions.detach()[:, 0]
    _, players_a = check_values("interactions of a", torch.zeros_like(rows), players_a)
    _, players_b = check_values("interactions of b", torch.zeros_like(columns), players_b)
    pairs = players_a.unsqueeze(2) & players_b.unsqueeze(1)
    values, pairs = check_values("interactions", interactions.flatten(1), pairs.flatten(1))
    times: Tensor = removal_times(values, pairs).unflatten(1, (-1, n_b))
    return times
