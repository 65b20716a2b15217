"""Correlation of maps: Pearson's, and Spearman's with ties."""

from __future__ import annotations

import torch
from torch import Tensor


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation along the last axis.

    Args:
        x (Tensor): shape (..., n).
        y (Tensor): shape (..., n); leading axes broadcast with those of x.

    Returns:
        Tensor: float64 in [-1, 1], shape (...). NaN where x or y is constant, has fewer than two
        values, or holds a value that is not finite. Uncorrelated values have 0 on average.

    Raises:
        ValueError: If the last axes differ, or leading ones do not broadcast.
    """
    x, y = _together(x, y)
    defined = _varies(x) & _varies(y)
    x, y = (v - v.mean(-1, keepdim=True) for v in (x, y))
    norms = torch.linalg.vector_norm(x, dim=-1) * torch.linalg.vector_norm(y, dim=-1)
    correlation: Tensor = ((x * y).sum(-1) / norms).clamp(-1, 1)
    return correlation.masked_fill(~defined, torch.nan)


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Spearman's rank correlation along the last axis: Pearson's of the ranks.

    Equal values share the mean of their ranks. Any increasing function of x or y changes nothing.

    Args:
        x (Tensor): shape (..., n).
        y (Tensor): shape (..., n); leading axes broadcast with those of x.

    Returns:
        Tensor: float64 in [-1, 1], shape (...). NaN in the same cases as :func:`pearson`.

    Raises:
        ValueError: If the last axes differ, or leading ones do not broadcast.
    """
    x, y = _together(x, y)
    finite = torch.isfinite(x).all(-1) & torch.isfinite(y).all(-1)
    return pearson(average_ranks(x), average_ranks(y)).masked_fill(~finite, torch.nan)


def average_ranks(values: Tensor) -> Tensor:
    """Ranks along the last axis, from 1 for the smallest; equal values share their mean rank.

    Args:
        values (Tensor): shape (..., n), without NaN.

    Returns:
        Tensor: float64, shape (..., n).
    """
    values = values.detach().contiguous()
    ordered = values.sort(dim=-1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    return (below + up_to + 1).double() / 2


def _together(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if not x.dim() or not y.dim() or x.shape[-1] != y.shape[-1]:
        raise ValueError(
            "values to correlate lie along the last axis, which must be equally long, but got "
            f"shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    try:
        x, y = torch.broadcast_tensors(x.detach().double(), y.detach().double())
    except RuntimeError:
        raise ValueError(
            f"shapes {tuple(x.shape)} and {tuple(y.shape)} to correlate do not broadcast"
        ) from None
    return x, y


def _varies(values: Tensor) -> Tensor:
    """Whether there are two different values, all of them finite. Rounding makes no difference."""
    if values.shape[-1] < 2:
        return torch.zeros(values.shape[:-1], dtype=torch.bool, device=values.device)
    low, high = torch.aminmax(values, dim=-1)
    return (low < high) & torch.isfinite(low) & torch.isfinite(high)
