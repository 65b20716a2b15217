"""The quadrature of both sides: a number of nodes that is given, or found from a tolerance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from captum_interactions.attr._utils.path import Path
from captum_interactions.callers import warn_caller
from captum_interactions.functional import Quadrature, quadrature
from captum_interactions.functional.adaptive import MAX_STEPS, check_tolerance, choose_rule

_LOGGER = logging.getLogger(__name__)

Steps = int | tuple[int, int] | Literal["auto"]
"""A number of nodes, one for each side, or ``"auto"``."""


def check_steps(n_steps: Steps, method: str, tolerance: float) -> None:
    """See that there are such rules, before anything expensive is done.

    Raises:
        ValueError: If the method is unknown, or the number of nodes or the tolerance is too small.
    """
    if n_steps == "auto":
        if method != "gausslegendre":
            raise ValueError(
                f"n_steps='auto' chooses nodes of 'gausslegendre', but method is {method!r}"
            )
        check_tolerance(tolerance)
        return
    if isinstance(n_steps, str):
        raise ValueError(f"n_steps must be 'auto' or a number of nodes, but got {n_steps!r}")
    for number in _each(n_steps):
        quadrature(method, number)


def steps_of(
    paths: Sequence[Path],
    n_steps: Steps,
    method: str,
    tolerance: float,
    internal_batch_size: int | None,
) -> tuple[tuple[Quadrature, Quadrature], tuple[int, int]]:
    """The rules of both sides, and their numbers of nodes.

    Args:
        paths: The paths of one side or of both.
        n_steps, method, tolerance, internal_batch_size: See
            ``SecondOrderIntegratedGradients.attribute``. A path alone gets the smaller share of
            the tolerance too, so that its factors serve in any pair.
    """
    if n_steps == "auto":
        chosen = {path.name: _chosen(path, tolerance / 2, internal_batch_size) for path in paths}
        some = next(iter(chosen.values()))
        rule_a, rule_b = chosen.get("a", some), chosen.get("b", some)
    else:
        rule_a, rule_b = (
            quadrature(method, number, dtype=torch.float64) for number in _each(n_steps)
        )
    return (rule_a, rule_b), (len(rule_a.nodes), len(rule_b.nodes))


def _each(n_steps: int | tuple[int, int]) -> tuple[int, int]:
    if not isinstance(n_steps, tuple):
        return n_steps, n_steps
    if len(n_steps) != 2:
        raise ValueError(f"n_steps must be one number or one for each input, but got {n_steps!r}")
    return n_steps


def _chosen(path: Path, tolerance: float, internal_batch_size: int | None) -> Quadrature:
    def values(nodes: Tensor) -> Tensor:
        return path.values(nodes, internal_batch_size)

    chosen = choose_rule(values, tolerance, MAX_STEPS, path.end.dtype)
    _LOGGER.info("side %s: %d nodes for an error of %.1e", path.name, chosen.n_steps, chosen.error)
    if not chosen.is_enough:
        warn_caller(
            f"side {path.name} needs more than {MAX_STEPS} nodes for a tolerance of {tolerance:g}; "
            f"with {chosen.n_steps} the error is {chosen.error:.1e}: take another layer, or a "
            "larger tolerance"
        )
    return chosen.rule
