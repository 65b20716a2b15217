"""Reusable factors: the factors of N + M inputs give all N·M interaction maps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_interactions.functional.contraction import contract_all

_BLOCK_BYTES = 64 * 2**20
"""Default size of a block of maps in bytes: large enough for a fast matrix product."""


@dataclass(frozen=True, eq=False)
class Factors:
    """Factor matrices of N inputs of one tower. ``factors_a @ factors_b`` maps every pair."""

    values: Tensor
    """One vector of R^K per token, shape (N, T, K); padding tokens are zero."""
    embedding: Tensor
    """Embeddings of the inputs as the score uses them, shape (N, K)."""
    baseline: Tensor
    """Embeddings of their baselines, likewise, shape (N, K)."""

    @classmethod
    def cat(cls, parts: Sequence[Factors]) -> Factors:
        """Concatenate the factors of several batches; shorter ones are padded with zeros.

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
            torch.cat([part.baseline for part in parts]),
        )

    def __getitem__(self, rows: slice | Tensor) -> Factors:
        """Factors of some of the inputs."""
        return Factors(self.values[rows], self.embedding[rows], self.baseline[rows])

    def __len__(self) -> int:
        return len(self.values)

    def __matmul__(self, other: Factors) -> Tensor:
        """Interaction maps of every pair, shape (N, M, Ta, Tb)."""
        return contract_all(self.values, other.values)

    def map_blocks(
        self, other: Factors, *, rows: int | None = None, out: Tensor | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Interaction maps of every pair in blocks, for more pairs than fit in memory.

        All blocks are computed in the same buffer: use or copy a block before requesting the next.

        Args:
            other (Factors): Factors of M inputs of the other tower.
            rows (int, optional): Number of inputs per block. Default: as many as fit into 64 MB of
                maps, at least one
            out (Tensor, optional): The buffer, contiguous, of shape (rows, Ta, M, Tb) and of the
                type of the factors. Default: a new one

        Yields:
            tuple: a slice of the N inputs, and their maps, a view of shape (n, M, Ta, Tb).

        Raises:
            ValueError: If the factors differ in dimension or type, or the buffer does not fit.
        """
        if self.values.shape[2] != other.values.shape[2] or self.values.dtype != other.values.dtype:
            raise ValueError(
                "factors of both sides must have one dimension and type, but are "
                f"{self.values.shape[2]} of {self.values.dtype} and {other.values.shape[2]} of "
                f"{other.values.dtype}"
            )
        each = (self.values.shape[1], *other.values.shape[:2])
        if rows is None:
            size = self.values.element_size() * max(math.prod(each), 1)
            rows = max(_BLOCK_BYTES // size, 1) if out is None else len(out)
        if rows < 1:
            raise ValueError(f"rows must be at least 1, but got {rows}")
        if out is None:
            out = self.values.new_empty((min(rows, len(self)), *each))
        elif out.shape != (rows, *each) or out.dtype != self.values.dtype:
            raise ValueError(
                f"the buffer must be {self.values.dtype} of shape {(rows, *each)}, but is "
                f"{out.dtype} of shape {tuple(out.shape)}"
            )
        elif not out.is_contiguous():
            raise ValueError(f"the buffer must be contiguous, but has strides {out.stride()}")
        columns = other.values.flatten(0, 1).T
        for start in range(0, len(self), rows):
            chosen = slice(start, min(start + rows, len(self)))
            block = out[: chosen.stop - start]
            with torch.no_grad(), torch.autocast(out.device.type, enabled=False):
                flat = block.flatten(0, 1).flatten(1)
                torch.mm(self.values[chosen].flatten(0, 1), columns, out=flat)
            yield chosen, block.transpose(1, 2)

    def convergence_delta(self, other: Factors) -> Tensor:
        """Convergence delta of each pair's map, shape (N, M)."""
        total = self.values.sum(1) @ other.values.sum(1).T
        return total - (self.embedding - self.baseline) @ (other.embedding - other.baseline).T
