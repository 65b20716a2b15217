"""Products with one matrix per head, which ``torch.vmap`` does not copy."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def per_head(rows: Tensor, weights: Tensor) -> Tensor:
    """Multiply the rows of every head by this head's matrix.

    The matrices are constants: they get no gradient.

    Args:
        rows (Tensor): shape (..., H, E), with one dimension or more before H.
        weights (Tensor): shape (H, E, D).

    Returns:
        Tensor: shape (..., H, D).
    """
    product = _multiplied(rows.flatten(0, -3).transpose(0, 1), weights)
    return product.transpose(0, 1).reshape(*rows.shape[:-1], -1)


def _multiplied(rows: Tensor, weights: Tensor) -> Tensor:
    """``(H, N, E) @ (H, E, D)``."""
    return cast(Tensor, _PerHead.apply(rows, weights))  # type: ignore[no-untyped-call]


class _PerHead(torch.autograd.Function):
    """A product whose batching rule adds rows; that of ``torch.vmap`` copies the matrices."""

    @staticmethod
    def forward(rows: Tensor, weights: Tensor) -> Tensor:
        return torch.bmm(rows, weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], _: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weights,) = ctx.saved_tensors
        return _multiplied(gradients[0], weights.transpose(1, 2)), None

    @staticmethod
    def vmap(
        _: Any, in_dims: tuple[int, None], rows: Tensor, weights: Tensor
    ) -> tuple[Tensor, int]:
        many = rows.movedim(in_dims[0], 1)
        product = _multiplied(many.flatten(1, 2), weights)
        return product.unflatten(1, many.shape[1:3]), 1
