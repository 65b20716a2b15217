"""Nodes and weights that turn a path integral over [0, 1] into a finite sum."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

METHODS = (
    "gausslegendre",
    "riemann_left",
    "riemann_right",
    "riemann_middle",
    "riemann_trapezoid",
)
"""Names of the supported rules; they are Captum's names."""
_MOST_STEPS = 100_000
_MOST_GAUSS_STEPS = 2000
"""Limit of Gauss-Legendre: its nodes are eigenvalues of an n_steps × n_steps matrix (10 s here)."""


class Quadrature(NamedTuple):
    """A rule ``∫₀¹ f(α) dα ≈ Σₙ weights[n] f(nodes[n])``; both fields have shape (n_steps,)."""

    nodes: Tensor
    weights: Tensor


def quadrature(
    method: str = "gausslegendre",
    n_steps: int = 20,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Quadrature:
    """Build a quadrature rule on [0, 1].

    Every rule's weights sum to one. Captum's trapezoid differs there: its weights sum to
    ``(n_steps - 1) / n_steps``, so it underestimates every integral by that factor.

    Args:
        method (str): One of :data:`METHODS`. Default: ``"gausslegendre"``
        n_steps (int): Number of nodes, at least 1 (2 for the trapezoid), and at most 2,000 for
            Gauss-Legendre, 100,000 for the others. Default: 20
        dtype (torch.dtype): Type of nodes and weights. They are computed in float64 on the CPU and
            rounded once, so no device needs float64. Default: ``torch.float32``
        device (torch.device or str, optional): Device of nodes and weights. Default: CPU

    Returns:
        Quadrature: nodes in [0, 1] and weights, each of shape (n_steps,).

    Raises:
        ValueError: If the method is unknown, or ``n_steps`` is too small or too large.

    Examples::

        >>> nodes, weights = quadrature("riemann_middle", 2)
        >>> nodes.tolist(), weights.tolist()
        ([0.25, 0.75], [0.5, 0.5])
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, but got {method!r}")
    minimum = 2 if method == "riemann_trapezoid" else 1
    if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < minimum:
        raise ValueError(
            f"n_steps must be an int of at least {minimum} for {method}, but got {n_steps!r}"
        )
    most = _MOST_GAUSS_STEPS if method == "gausslegendre" else _MOST_STEPS
    if n_steps > most:
        raise ValueError(f"n_steps must be at most {most} for {method}, but got {n_steps}")

    if method == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(n_steps)
        nodes, weights = (nodes + 1) / 2, weights / 2
    elif method == "riemann_trapezoid":
        nodes = np.linspace(0.0, 1.0, n_steps)
        weights = np.full(n_steps, 1.0 / (n_steps - 1))
        weights[[0, -1]] /= 2
    else:
        offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[method]
        nodes = (np.arange(n_steps) + offset) / n_steps
        weights = np.full(n_steps, 1.0 / n_steps)
    return Quadrature(
        torch.tensor(nodes, dtype=dtype).to(device), torch.tensor(weights, dtype=dtype).to(device)
    )
