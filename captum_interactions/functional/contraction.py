"""Compute the parts of a score from the factors of both inputs.

A factor matrix holds one vector of R^K per token: ``phi_i`` for input a, ``psi_j`` for input b,
with ``Σᵢ phi_i = g(a) − g(r_a)`` and ``Σⱼ psi_j = h(b) − h(r_b)``. The score ``<g(a), h(b)>`` is
bilinear, so it splits exactly into a constant, main effects of both inputs and pairwise
interactions (Möller et al., TMLR 2025, Eq. 2 and 10, completed by the terms with one baseline).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Decomposition(NamedTuple):
    """The four parts of the scores of B pairs, and the scores.

    The parts sum to ``score + convergence_delta``.
    """

    constant: Tensor
    """``s(r_a, r_b)``, shape (B,)."""
    main_effects_a: Tensor
    """Effect of each token of a against the baseline of b, shape (B, Ta)."""
    main_effects_b: Tensor
    """Effect of each token of b against the baseline of a, shape (B, Tb)."""
    interactions: Tensor
    """Interaction of each token of a with each token of b, shape (B, Ta, Tb)."""
    score: Tensor
    """The score that was explained, computed by the model itself, shape (B,)."""

    @property
    def convergence_delta(self) -> Tensor:
        """Sum of all four parts minus the score, shape (B,)."""
        parts = self.main_effects_a.sum(1) + self.main_effects_b.sum(1)
        return self.constant + parts + self.interactions.sum((1, 2)) - self.score


def contract(phi: Tensor, psi: Tensor) -> Tensor:
    """Interaction maps ``A[i, j] = <phi_i, psi_j>`` of aligned pairs.

    Args:
        phi (Tensor): Factors of a, shape (B, Ta, K).
        psi (Tensor): Factors of b, shape (B, Tb, K).

    Returns:
        Tensor: shape (B, Ta, Tb).
    """
    return phi @ psi.transpose(-1, -2)


def contract_all(phi: Tensor, psi: Tensor) -> Tensor:
    """Interaction maps of every a with every b, as one matrix product.

    Args:
        phi (Tensor): Factors of N inputs a, shape (N, Ta, K).
        psi (Tensor): Factors of M inputs b, shape (M, Tb, K).

    Returns:
        Tensor: shape (N, M, Ta, Tb), a view of contiguous memory (N, Ta, M, Tb).
    """
    with torch.autocast(phi.device.type, enabled=False):
        flat = phi.flatten(0, 1) @ psi.flatten(0, 1).T
    return flat.reshape(*phi.shape[:2], *psi.shape[:2]).transpose(1, 2)


def corner_difference(
    embedding_a: Tensor, embedding_b: Tensor, baseline_a: Tensor, baseline_b: Tensor
) -> Tensor:
    """``s(a, b) − s(a, r_b) − s(r_a, b) + s(r_a, r_b)``: what a complete map sums to.

    Args:
        embedding_a, embedding_b (Tensor): Embeddings of the inputs, shape (B, K).
        baseline_a, baseline_b (Tensor): Embeddings of the baselines, shape (B, K) or (1, K).

    Returns:
        Tensor: shape (B,).
    """
    return ((embedding_a - baseline_a) * (embedding_b - baseline_b)).sum(-1)


def decompose(
    phi: Tensor,
    psi: Tensor,
    embedding_a: Tensor,
    embedding_b: Tensor,
    baseline_a: Tensor,
    baseline_b: Tensor,
) -> Decomposition:
    """All four parts of the scores of aligned pairs, from their factors.

    Args:
        phi (Tensor): Factors of a, shape (B, Ta, K).
        psi (Tensor): Factors of b, shape (B, Tb, K).
        embedding_a, embedding_b (Tensor): Embeddings of the inputs, shape (B, K).
        baseline_a, baseline_b (Tensor): Embeddings of the baselines, shape (B, K) or (1, K).
    """
    return Decomposition(
        constant=(baseline_a * baseline_b).sum(-1).expand(len(phi)),
        main_effects_a=torch.einsum("bik,bk->bi", phi, baseline_b.expand(len(phi), -1)),
        main_effects_b=torch.einsum("bjk,bk->bj", psi, baseline_a.expand(len(phi), -1)),
        interactions=contract(phi, psi),
        score=(embedding_a * embedding_b).sum(-1),
    )
