"""Choose the number and the positions of quadrature nodes from values of the function.

Integrated gradients along a path sum to the integral of ``F'(α)`` for ``F(α) = f(x(α))``, which is
``F(1) − F(0)``. F is cheap: it needs forward passes without gradients. Its values at Leja points of
an interval determine an interpolating polynomial, and the polynomial determines the error of the
sum for any number of Gauss-Legendre nodes. So the rule is chosen before the first product is
computed.

A path that turns sharply somewhere, for example near a baseline whose embedding is almost zero,
needs very many nodes with a single rule. Such a path is bisected into panels until a few nodes are
enough for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import chebyshev, legendre
from numpy.typing import NDArray
from torch import Tensor

from captum_interactions.functional.quadrature import Quadrature, quadrature

MAX_STEPS = 200
"""Maximum number of nodes."""

_WHOLE = (16, 24, 32, 64)
"""Numbers of intervals between Leja points on the whole path."""
_PANEL = (8, 16)
"""Numbers of intervals between Leja points on a panel."""
_FINER = 2
"""Factor of the number of intervals by whose values a rule is checked."""
_NARROWEST = 2.0**-20
"""Minimum width of a panel."""
_SMALLEST_SHARE = 2.0**-8
"""Minimum share of the tolerance for a panel."""
_LARGEST_ERROR = 1e12
"""Relative error that no panel exceeds, unless its values are not finite."""


class ChosenRule(NamedTuple):
    """A rule with its expected error."""

    rule: Quadrature
    """Nodes in increasing order and their weights, in float64: Gauss-Legendre rules on one panel or
    on several."""
    error: float
    """Largest expected error of the examples, relative to the length of ``F(1) − F(0)``, beyond the
    rounding of the values."""
    is_enough: bool
    """Whether the error is below the requested tolerance."""

    @property
    def n_steps(self) -> int:
        """Number of nodes."""
        return len(self.rule.nodes)


class _Panel(NamedTuple):
    start: float
    stop: float
    n_steps: int
    intervals: int
    """Number of intervals between the Leja points by which the rule was chosen."""


def choose_rule(
    values: Callable[[Tensor], Tensor],
    tolerance: float,
    max_steps: int = MAX_STEPS,
    dtype: torch.dtype | None = None,
) -> ChosenRule:
    """The rule with fewest nodes, on one panel or on several, for ``∫ F'`` to be ``F(1) − F(0)``.

    Args:
        values (Callable): From points in [0, 1], float64 of shape (M,), to the values of F there
            for B examples, shape (M, B, K).
        tolerance (float): Bound of the error, relative to the length of ``F(1) − F(0)``, for every
            example. It holds up to the rounding of the values.
        max_steps (int): Maximum number of nodes. Default: :data:`MAX_STEPS`
        dtype (torch.dtype, optional): The type in which values are computed. Default: their own

    Returns:
        ChosenRule: the rule with its expected error.

    Raises:
        ValueError: If ``tolerance`` is not positive.

    Examples::

        >>> choose_rule(lambda x: x.exp().reshape(-1, 1, 1), tolerance=1e-6).n_steps
        3
        >>> choose_rule(lambda x: (999 * (x - 0.2)).tanh().reshape(-1, 1, 1), 1e-3).n_steps
        23
    """
    check_tolerance(tolerance)
    path = _Sampled(values, dtype)
    tried = (path.panel(0.0, 1.0, intervals, tolerance, max_steps) for intervals in _WHOLE)
    whole = next((panel for panel in tried if panel is not None), None)
    if whole is not None and whole.intervals < _WHOLE[-1]:
        return _chosen(path, [whole], tolerance, 1)
    # Errors of panels have different directions, so their sum is shorter than the sum of norms.
    share = 4.0
    panels = _divided(path, share * tolerance, max_steps)
    while panels is None and share * tolerance < _LARGEST_ERROR:
        share *= 4
        panels = _divided(path, share * tolerance, max_steps)
    panels = panels or [_Panel(0.0, 1.0, 1, _PANEL[-1])]
    while not path.passes(panels, tolerance) and share > _SMALLEST_SHARE:
        share /= 2
        finer = _divided(path, share * tolerance, max_steps)
        if finer is None:
            break
        panels = finer
    if whole is not None and whole.n_steps <= _n_steps(panels):
        panels = [whole]
    return _chosen(path, panels, tolerance)


def check_tolerance(tolerance: float) -> None:
    """Raise a ValueError if a tolerance is not a positive number."""
    if not isinstance(tolerance, (int, float)) or not tolerance > 0:
        raise ValueError(f"tolerance must be a positive number, but got {tolerance!r}")


class _Sampled:
    """Cached values of F, and the length by which errors are measured."""

    def __init__(self, values: Callable[[Tensor], Tensor], dtype: torch.dtype | None) -> None:
        self._values = values
        self._known: dict[float, Tensor] = {}
        self._errors: dict[tuple[float, float, int], list[float]] = {}
        ends = self(_points(_WHOLE[0]))[[0, -1]]  # in one run with the points that come next
        dtype = dtype or self._known[0.0].dtype
        self._noise = 8 * torch.finfo(dtype).eps * ends.norm(dim=-1).amax(0)
        self._size = (ends[1] - ends[0]).norm(dim=-1).maximum(self._noise).clamp_min(1e-300)

    def __call__(self, points: NDArray[np.float64]) -> Tensor:
        """The values (M, B, K) at some points, in float64."""
        new = [point for point in points.tolist() if point not in self._known]
        if new:
            rows = self._values(torch.tensor(new, dtype=torch.float64)).cpu()
            self._known.update(zip(new, rows, strict=True))
        return torch.stack([self._known[point] for point in points.tolist()]).double()

    def relative(self, error: Tensor) -> float:
        """The largest error (B, K) of the examples, beyond the rounding of the values."""
        beyond = (error.norm(dim=-1) - self._noise).clamp_min(0)
        return float((beyond / self._size).max())

    def panel(
        self, start: float, stop: float, intervals: int, tolerance: float, max_steps: int
    ) -> _Panel | None:
        """The panel with fewest nodes for a tolerance, from values at these intervals, or None."""
        largest = min(3 * intervals // 8, max_steps)
        errors = self._errors_on(start, stop, intervals)
        # The error of one number may be small by chance, and between powers of two, where
        # interpolation is less stable, those of several.
        is_power = intervals & (intervals - 1) == 0
        for n_steps in range(1, largest + 1):
            last = n_steps + 1 if is_power else None
            if max(errors[n_steps - 1 : last]) <= tolerance:
                return _Panel(start, stop, n_steps, intervals)
        return None

    def _errors_on(self, start: float, stop: float, intervals: int) -> list[float]:
        """Relative errors of 1, 2, ... nodes on a panel, from values at these intervals."""
        key = (start, stop, intervals)
        if key not in self._errors:
            values = self(start + (stop - start) * _points(intervals))
            numbers = range(1, 3 * intervals // 8 + 2)
            weights = torch.stack([_weights_of_values(intervals, number) for number in numbers])
            gaps = torch.einsum("nm,mbk->nbk", weights, values) - (values[-1] - values[0])
            self._errors[key] = [self.relative(gap) for gap in gaps]
        return self._errors[key]

    def passes(self, panels: Sequence[_Panel], tolerance: float) -> bool:
        """Whether the error is below a tolerance, by the known values and by further ones.

        A number of nodes may be sufficient for the interpolating polynomial, and not for a function
        with a kink.
        """
        finer = (1, _FINER)
        return all(self.relative(self.error(panels, factor)) <= tolerance for factor in finer)

    def error(self, panels: Sequence[_Panel], finer: int) -> Tensor:
        """The error (B, K) of the sum of panels, on intervals that are finer by a factor."""
        total: Tensor | None = None
        for panel in panels:
            intervals = finer * panel.intervals
            points = panel.start + (panel.stop - panel.start) * _points(intervals)
            values = self(points)
            weights = _weights_of_values(intervals, panel.n_steps)
            error = torch.einsum("m,mbk->bk", weights, values) - (values[-1] - values[0])
            total = error if total is None else total + error
        assert total is not None
        return total


def _divided(path: _Sampled, tolerance: float, max_steps: int) -> list[_Panel] | None:
    """Panels by bisection, until the error of each is below a tolerance or it is too narrow.

    None if they need more nodes than ``max_steps``, which is noticed as soon as possible: where
    rounding exceeds the tolerance, bisection would go on everywhere.
    """
    panels: list[_Panel] = []
    open_intervals = [(0.0, 1.0)]
    while open_intervals:
        start, stop = open_intervals.pop()
        tried = (path.panel(start, stop, n, tolerance, max_steps) for n in _PANEL)
        panel = next((panel for panel in tried if panel is not None), None)
        if panel is None and stop - start > _NARROWEST:
            middle = (start + stop) / 2
            open_intervals += [(middle, stop), (start, middle)]
        else:
            panels.append(panel or _Panel(start, stop, 1, _PANEL[-1]))
        if _n_steps(panels) + len(open_intervals) > max_steps:
            return None
    return panels


def _n_steps(panels: Sequence[_Panel]) -> int:
    return sum(panel.n_steps for panel in panels)


def _chosen(
    path: _Sampled, panels: Sequence[_Panel], tolerance: float, finer: int = _FINER
) -> ChosenRule:
    rules = [quadrature("gausslegendre", p.n_steps, dtype=torch.float64) for p in panels]
    widths = [panel.stop - panel.start for panel in panels]
    rule = Quadrature(
        torch.cat([p.start + w * r.nodes for p, w, r in zip(panels, widths, rules, strict=True)]),
        torch.cat([w * r.weights for w, r in zip(widths, rules, strict=True)]),
    )
    error = path.relative(path.error(panels, finer))
    return ChosenRule(rule, error, error <= tolerance)


@lru_cache(maxsize=16)
def _points(intervals: int) -> NDArray[np.float64]:
    """Leja points in [0, 1] in increasing order, a superset of those of fewer intervals.

    For powers of two, they are the Chebyshev points of the second kind. With half of the points
    that the next power adds, the Lebesgue constant is 10 for 24 intervals, instead of 3 (Calvi and
    Phung Van Manh, "Lagrange interpolation at real projections of Leja sequences for the unit
    disk", 2012).
    """
    turns = [0.0, 0.5]  # of the unit circle; each block bisects arcs of it
    n_new = 1
    while len(turns) <= intervals:
        block = range(2 * n_new, 3 * n_new)
        turns += [int(f"{number:b}"[::-1], 2) / (4 * n_new) for number in block]
        n_new *= 2
    return np.sort((1 - np.cos(2 * np.pi * np.array(turns[: intervals + 1]))) / 2)


@lru_cache(maxsize=128)
def _weights_of_values(intervals: int, n_steps: int) -> Tensor:
    """Weights (M,) of the values at the points in the Gauss-Legendre sum of derivatives."""
    slopes = chebyshev.chebder(np.eye(intervals + 1))
    nodes, weights = legendre.leggauss(n_steps)
    integrals = weights @ chebyshev.chebvander(nodes, intervals - 1) @ slopes
    values = chebyshev.chebvander(2 * _points(intervals) - 1, intervals)
    return torch.from_numpy(np.linalg.solve(values.T, integrals))
