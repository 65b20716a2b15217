"""Does a decomposition predict the scores of masked inputs?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_interactions.functional import Decomposition
from captum_interactions.metrics.correlation import pearson, spearman


class Faithfulness(NamedTuple):
    """How well predicted scores of B pairs fit the true ones, each of shape (B,)."""

    r_squared: Tensor
    """Share of the variance that is explained: 1 for perfect, 0 for the mean score, negative for
    worse than that. Offset and scale count."""
    pearson: Tensor
    """Correlation: offset and scale do not count. Predictions that know nothing have 0."""
    spearman: Tensor
    """Correlation of ranks: only the order counts. Predictions that know nothing have 0."""


def draw_present(players: Tensor, n_choices: int, p: float = 0.5, seed: int = 0) -> Tensor:
    """Draw which parts are there, each by itself with the same probability.

    Args:
        players (Tensor): Which parts may be missing, bool, shape (B, T); others are always there.
        n_choices (int): How many choices M are drawn for each pair.
        p (float): Probability that a part is there, from 0 to 1. Default: 0.5
        seed (int): Seed; the global random numbers are left alone. Default: 0

    Returns:
        Tensor: bool, shape (B, M, T).

    Raises:
        ValueError: If players are not bool of shape (B, T), or a number is out of range.
    """
    if players.dim() != 2 or players.dtype != torch.bool:
        raise ValueError(
            f"players must be bool of shape (B, T), but are {players.dtype} of shape "
            f"{tuple(players.shape)}"
        )
    if n_choices < 1 or not 0 <= p <= 1:
        raise ValueError(
            f"n_choices must be at least 1 and p from 0 to 1, but got {n_choices} and {p}"
        )
    shape = (len(players), n_choices, players.shape[1])
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < p
    return drawn.to(players.device) | ~players.unsqueeze(1)


def predicted_scores(parts: Decomposition, present_a: Tensor, present_b: Tensor) -> Tensor:
    r"""The scores that a decomposition predicts when only some tokens are there.

    .. math::
        \hat s(S, T) = c + \sum_{i \in S} \alpha_i + \sum_{j \in T} \beta_j
        + \sum_{i \in S, j \in T} A_{ij}

    With everything there, that is the score plus the convergence delta. A first-order map is a
    decomposition without interactions; its constant is the score minus its sum, if it has none.

    Args:
        parts (Decomposition): Constant, main effects and interactions of B pairs.
        present_a (Tensor): Which tokens of a are there, zeros and ones or bool, shape (B, M, Ta).
        present_b (Tensor): Which tokens of b are there, shape (B, N, Tb).

    Returns:
        Tensor: for every choice of a with every choice of b, shape (B, M, N).

    Raises:
        ValueError: If shapes do not fit.

    Examples::

        >>> one = torch.ones(1)
        >>> parts = Decomposition(one, one[None], one[None], 2 * one[None, None], 5 * one)
        >>> there = torch.tensor([[[0.0], [1.0]]])
        >>> predicted_scores(parts, there, there)
        tensor([[[1., 2.],
                 [2., 5.]]])
    """
    shape = parts.interactions.shape
    for name, present, n_tokens in (("a", present_a, shape[1]), ("b", present_b, shape[2])):
        if present.dim() != 3 or present.shape[::2] != (shape[0], n_tokens):
            raise ValueError(
                f"present_{name} must be of shape ({shape[0]}, choices, {n_tokens}) for "
                f"interactions of shape {tuple(shape)}, but got {tuple(present.shape)}"
            )
    there_a, there_b = present_a.to(parts.interactions), present_b.to(parts.interactions)
    of_a = there_a @ parts.main_effects_a.unsqueeze(2)
    of_b = there_b @ parts.main_effects_b.unsqueeze(2)
    together = there_a @ parts.interactions @ there_b.transpose(1, 2)
    return parts.constant[:, None, None] + of_a + of_b.transpose(1, 2) + together


def faithfulness(predicted: Tensor, scores: Tensor) -> Faithfulness:
    """How well predicted scores of masked inputs fit the model's own.

    Draw what is there with probability p (:func:`draw_present`), ask the model
    (:func:`captum_interactions.attr.masked_score`, whose ``grid`` gives M · N scores for M + N
    encoder calls) and the decomposition (:func:`predicted_scores`). Published tables draw joint
    coalitions, of both inputs at once: scores of aligned choices, and the diagonal of predicted
    ones. With enough choices, the weighted Banzhaf approximation for the same p has the highest R²
    of all decompositions.

    Source: p-faithfulness of Baniecki et al., "Explaining Similarity in Vision–Language Encoders
    with Weighted Banzhaf Interactions", 2025 (arXiv 2508.05430).

    Args:
        predicted (Tensor): shape (B, ...).
        scores (Tensor): What the model gives, of the same shape.

    Returns:
        Faithfulness: R², Pearson's and Spearman's correlation, (B,) each. NaN where the model's
        scores are all equal; correlations also where the predicted ones are.

    Raises:
        ValueError: If shapes differ.
    """
    if predicted.shape != scores.shape or predicted.dim() < 2:
        raise ValueError(
            "predicted and true scores must have the same shape (B, ...), but got "
            f"{tuple(predicted.shape)} and {tuple(scores.shape)}"
        )
    predicted, scores = predicted.detach().double().flatten(1), scores.detach().double().flatten(1)
    residual = (scores - predicted).square().sum(1)
    total = (scores - scores.mean(1, keepdim=True)).square().sum(1)
    low, high = scores.aminmax(dim=1)
    r_squared = (1 - residual / total).masked_fill(low == high, torch.nan)
    return Faithfulness(r_squared, pearson(predicted, scores), spearman(predicted, scores))
