"""Reusable factors: N + M factorisations give all N·M interaction maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

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

    @classmethod
    def cat(cls, parts: Sequence[Factors]) -> Factors:
        """Factors of several batches as one; shorter ones get padding tokens, which are zero.

        Raises:
            ValueError: If there are none, or their embeddings differ in dimension.
        """
        dimensions = {part.values.shape[2] for part in parts}
        if len(dimensions) != 1:
            raise ValueError(f"factors to join must have one dimension, but have {dimensions}")
        longest = max(part.values.shape[1] for part in parts)
        return cls(
            torch.cat([F.pad(p.values, (0, 0, 0, longest - p.values.shape[1])) for p in parts]),
            torch.cat([part.embedding for part in parts]),
            torch.cat([part.reference for part in parts]),
        )

    def __getitem__(self, rows: slice | Tensor) -> Factors:
        """Factors of some of the inputs."""
        return Factors(self.values[rows], self.embedding[rows], self.reference[rows])

    def __len__(self) -> int:
        return len(self.values)

    def __matmul__(self, other: Factors) -> Tensor:
        """Interaction maps of every pair, shape (N, M, Ta, Tb)."""
        return contract_all(self.values, other.values)

    def convergence_delta(self, other: Factors) -> Tensor:
        """Sum of each pair's map minus what it should be, shape (N, M)."""
        total = self.values.sum(1) @ other.values.sum(1).T
        return total - (self.embedding - self.reference) @ (other.embedding - other.reference).T
