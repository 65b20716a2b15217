"""How many nodes a path integral needs, found from values of the function alone.

Integrated gradients along a path sum to the integral of ``F'(α)`` for ``F(α) = f(x(α))``, and
should sum to ``F(1) − F(0)``. F is cheap: it takes forward passes without gradients. From its
values at Chebyshev points follows its interpolating polynomial, and from that what the sum would be
with any number of Gauss-Legendre nodes. So the number is known before the first product is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import chebyshev, legendre
from numpy.typing import NDArray
from torch import Tensor

MAX_STEPS = 200
"""No more nodes than that are taken."""


class ChosenSteps(NamedTuple):
    """A number of Gauss-Legendre nodes, and what it is expected to bring."""

    n_steps: int
    error: float
    """Largest expected error of the examples, relative to the length of ``F(1) − F(0)``, beyond the
    rounding of the values."""
    is_enough: bool
    """Whether the error is below the tolerance that was asked for."""


def choose_steps(
    values: Callable[[Tensor], Tensor],
    tolerance: float,
    max_steps: int = MAX_STEPS,
    dtype: torch.dtype | None = None,
) -> ChosenSteps:
    """The smallest number of Gauss-Legendre nodes whose integral of ``F'`` is ``F(1) − F(0)``.

    The points double until the polynomial through them has much higher a degree than the rule
    integrates exactly; those that are there already are used again.

    Args:
        values (Callable): From points in [0, 1], float64 of shape (M,), to the values of F there
            for B examples, shape (M, B, K).
        tolerance (float): Bound of the error, relative to the length of ``F(1) − F(0)``, for every
            example. It is met up to the rounding of the values.
        max_steps (int): No more nodes than that. Default: :data:`MAX_STEPS`
        dtype (torch.dtype, optional): The type in which values are computed. Default: their own

    Returns:
        ChosenSteps: the number with its expected error.

    Raises:
        ValueError: If ``tolerance`` is not positive.

    Examples::

        >>> choose_steps(lambda x: x.exp().reshape(-1, 1, 1), tolerance=1e-6).n_steps
        3
    """
    check_tolerance(tolerance)
    known: Tensor | None = None
    error = np.inf
    for intervals in (2**power for power in range(4, 20)):
        points = _points(intervals)
        if known is None:
            known = values(torch.from_numpy(points))
        else:
            new = values(torch.from_numpy(points[1::2]))
            both = known.new_empty((intervals + 1, *known.shape[1:]))
            both[::2], both[1::2] = known, new
            known = both
        rounding = 8 * torch.finfo(dtype or known.dtype).eps
        largest = min(3 * intervals // 8, max_steps)
        errors = _errors(known.cpu().double(), largest + 1, rounding)
        for n_steps in range(1, largest + 1):
            # Two in a row: the error of one number may be small by chance.
            error = max(errors[n_steps - 1], errors[n_steps])
            if error <= tolerance:
                return ChosenSteps(n_steps, float(error), True)
        if largest == max_steps:
            break
    return ChosenSteps(max_steps, float(error), False)


def check_tolerance(tolerance: float) -> None:
    """Raise a ValueError if a tolerance is not a positive number."""
    if not isinstance(tolerance, (int, float)) or not tolerance > 0:
        raise ValueError(f"tolerance must be a positive number, but got {tolerance!r}")


def _errors(values: Tensor, max_steps: int, rounding: float) -> list[float]:
    """Errors of rules of 1 to ``max_steps`` nodes for the polynomial through these values.

    They are what is left beyond the rounding of the values, which is relative to their length.
    """
    sums = torch.einsum("mn,mbk->nbk", _weights_of_values(len(values) - 1, max_steps), values)
    difference = values[-1] - values[0]
    noise = rounding * values.norm(dim=-1).amax(0)
    size = torch.maximum(difference.norm(dim=-1), noise).clamp_min(1e-300)
    errors = ((sums - difference).norm(dim=-1) - noise).clamp_min(0) / size
    return errors.amax(1).tolist()  # type: ignore[no-any-return]


def _points(intervals: int) -> NDArray[np.float64]:
    """Chebyshev points of the second kind in [0, 1]; half as many are among them."""
    return (1 - np.cos(np.pi * np.arange(intervals + 1) / intervals)) / 2


@lru_cache(maxsize=16)
def _weights_of_values(intervals: int, max_steps: int) -> Tensor:
    """What values at the points weigh in the sums of rules of 1 to ``max_steps`` nodes, (M, N)."""
    slopes = chebyshev.chebder(np.eye(intervals + 1))
    integrals = np.stack(
        [
            chebyshev.chebvander(nodes, intervals - 1).T @ weights
            for nodes, weights in map(legendre.leggauss, range(1, max_steps + 1))
        ]
    )
    values = chebyshev.chebvander(2 * _points(intervals) - 1, intervals)
    return torch.from_numpy(np.linalg.solve(values.T, (integrals @ slopes).T))
