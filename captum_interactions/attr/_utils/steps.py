"""Quadrature along paths: a given number of nodes, or one chosen for a tolerance."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from captum_interactions.attr._utils.arguments import each_option
from captum_interactions.attr._utils.path import Path
from captum_interactions.attr._utils.products import Products, jacobian_products
from captum_interactions.functional import Quadrature, quadrature
from captum_interactions.functional.adaptive import MAX_STEPS, check_tolerance, choose_rule
from captum_interactions.user_warnings import warn_caller

_LOGGER = logging.getLogger(__name__)

Steps = int | tuple[int, int] | Literal["auto"]
"""A number of nodes, one for each side, or ``"auto"``."""


def check_steps(n_steps: Steps, method: str, tolerance: float) -> None:
    """Check the rules before anything expensive is done.

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
    for number in each_option("n_steps", n_steps):
        quadrature(method, number)


@contextmanager
def products_along(
    paths: Sequence[Path],
    n_steps: Steps,
    method: str,
    tolerance: float,
    internal_batch_size: int | None,
    show_progress: bool,
) -> Iterator[Products]:
    """Jacobian products along paths, by rules with a given or chosen number of nodes.

    Args:
        paths: The paths of one side or of both.
        n_steps, method, tolerance, internal_batch_size, show_progress: See
            ``SecondOrderIntegratedGradients.attribute``. A single path gets half of the tolerance
            too, so that its factors can be used in any pair.
    """
    if n_steps == "auto":
        chosen = {path.name: _chosen(path, tolerance / 2, internal_batch_size) for path in paths}
        some = next(iter(chosen.values()))
        rule_a, rule_b = chosen.get("a", some), chosen.get("b", some)
    else:
        rule_a, rule_b = (
            quadrature(method, number, dtype=torch.float64)
            for number in each_option("n_steps", n_steps)
        )
    with jacobian_products((rule_a, rule_b), internal_batch_size, show_progress) as products:
        yield products


def _chosen(path: Path, tolerance: float, internal_batch_size: int | None) -> Quadrature:
    def values(nodes: Tensor) -> Tensor:
        return path.values(nodes, internal_batch_size)

    chosen = choose_rule(values, tolerance, MAX_STEPS, path.features.dtype)
    _LOGGER.info("side %s: %d nodes for an error of %.1e", path.name, chosen.n_steps, chosen.error)
    if not chosen.is_enough:
        warn_caller(
            f"side {path.name} needs more than {MAX_STEPS} nodes for a tolerance of {tolerance:g}; "
            f"with {chosen.n_steps} the error is {chosen.error:.1e}: take another layer, or a "
            "larger tolerance"
        )
    return chosen.rule
