"""Mixed differences of a score: what is lost by the meeting of two groups of parts alone."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_interactions.metrics.curves import Score


def mixed_difference(score: Score, removed_a: Tensor, removed_b: Tensor) -> Tensor:
    r"""What the score loses by the meeting of a group I of a and a group K of b alone.

    .. math::
        \Delta^2 s(I, K) = s(a, b) - s(a_{\setminus I}, b) - s(a, b_{\setminus K})
        + s(a_{\setminus I}, b_{\setminus K})

    Args:
        score (Callable): See :data:`~captum_interactions.metrics.Score`.
        removed_a (Tensor): The groups I that are taken away, bool, shape (B, M, Ta).
        removed_b (Tensor): The groups K that go along with them, bool, shape (B, M, Tb).

    Returns:
        Tensor: shape (B, M).
    """
    whole, without_a, without_b = (
        score(None, None),
        score(~removed_a, None),
        score(None, ~removed_b),
    )
    return (whole - without_a - without_b + score(~removed_a, ~removed_b)).detach()


def pair_differences(score: Score, n_a: int, n_b: int) -> Tensor:
    """Mixed difference of each part of a with each part of b, where all else is there.

    This is the interaction of a pair in its own context. The score of a dual encoder takes one
    encoder pass for each part of either input.

    Args:
        score (Callable): See :data:`~captum_interactions.metrics.Score`.
        n_a, n_b (int): Number of parts of a and of b.

    Returns:
        Tensor: shape (B, n_a, n_b).
    """
    n_pairs = len(score(None, None))
    index = torch.arange(n_a * n_b)
    removed_a = torch.arange(n_a) == (index // n_b).unsqueeze(1)
    removed_b = torch.arange(n_b) == (index % n_b).unsqueeze(1)
    differences = mixed_difference(
        score, removed_a.expand(n_pairs, -1, -1), removed_b.expand(n_pairs, -1, -1)
    )
    return differences.reshape(n_pairs, n_a, n_b)
