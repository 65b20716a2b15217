"""Reusable factors: N + M factorisations give all N·M interaction maps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from captum_interactions.functional.contraction import contract_all


@dataclass(frozen=True, eq=False)
class Factors:
    """Factor matrices of N inputs of one tower. ``factors_a @ factors_b`` maps every pair."""

    values: Tensor
    """One vector of R^K per token, shape (N, T, K); padding tokens are zero."""
    embedding: Tensor
    """Embeddings of the inputs as the score uses them, shape (N, K)."""
    reference: Tensor
    """Embeddings of their references, likewise, shape (N, K)."""

    def __len__(self) -> int:
        return len(self.values)

    def __matmul__(self, other: Factors) -> Tensor:
        """Interaction maps of every pair, shape (N, M, Ta, Tb)."""
        return contract_all(self.values, other.values)

    def convergence_delta(self, other: Factors) -> Tensor:
        """Sum of each pair's map minus what it should be, shape (N, M)."""
        total = self.values.sum(1) @ other.values.sum(1).T
        return total - (self.embedding - self.reference) @ (other.embedding - other.reference).T
