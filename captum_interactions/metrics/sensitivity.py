"""Interaction sensitivity: how much does a map change when the inputs change a little?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def interaction_sensitivity(
    attribute: Callable[[Tensor, Tensor], Tensor],
    inputs: Pair,
    *,
    radius: float = 0.02,
    n_samples: int = 10,
    seed: int = 0,
    perturb: Callable[[Tensor, Tensor], Pair] | None = None,
) -> Tensor:
    r"""The largest relative change of a map under small changes of both inputs.

    .. math::
        \max_{\|a' - a\|_\infty \le r, \|b' - b\|_\infty \le r}
        \frac{\|A(a', b') - A(a, b)\|_F}{\|A(a, b)\|_F}

    estimated as the largest of ``n_samples`` draws. It is Captum's ``sensitivity_max`` with two
    inputs and one map of shape (B, Ta, Tb). Low is stable; a map that ignores its inputs has 0, so
    read it beside a metric that asks whether the map is right.

    Source: max-sensitivity of Yeh et al., "On the (In)fidelity and Sensitivity of Explanations",
    NeurIPS 2019 (arXiv 1901.09392).

    Args:
        attribute (Callable): ``attribute(a, b) -> (B, Ta, Tb)``, or first-order maps (B, T).
        inputs (tuple[Tensor, Tensor]): Input a and input b.
        radius (float): Each entry moves by at most this, uniformly drawn. Inputs that are not
            real-valued (token ids) stay as they are. Default: 0.02
        n_samples (int): How many changed inputs are explained. Default: 10
        seed (int): Seed; the global random numbers are left alone. Default: 0
        perturb (Callable, optional): ``perturb(a, b) -> (a, b)``, changed inputs to take instead.
            Default: None

    Returns:
        Tensor: float64, at least 0, shape (B,). NaN where the map is zero.

    Raises:
        ValueError: If no input is real-valued and ``perturb`` is None, or a number is out of range.
    """
    if n_samples < 1 or not radius > 0:
        raise ValueError(
            f"n_samples must be at least 1 and radius above 0, but got {n_samples} and {radius}"
        )
    if perturb is None and not any(x.is_floating_point() for x in inputs):
        raise ValueError(
            f"neither input is real-valued (they are {inputs[0].dtype} and {inputs[1].dtype}), so "
            "there is nothing that radius could change: give embeddings, or perturb"
        )
    generator = torch.Generator().manual_seed(seed)
    original = attribute(*inputs).detach().double().flatten(1)
    largest = original.new_zeros(len(original))
    for _ in range(n_samples):
        changed = _moved(inputs, radius, generator) if perturb is None else perturb(*inputs)
        difference = attribute(*changed).detach().double().flatten(1) - original
        largest = torch.maximum(largest, difference.norm(dim=1))
    sensitivity: Tensor = largest / original.norm(dim=1)
    return sensitivity


def _moved(inputs: Pair, radius: float, generator: torch.Generator) -> Pair:
    a, b = (
        x + ((2 * torch.rand(x.shape, generator=generator) - 1) * radius).to(x)
        if x.is_floating_point()
        else x
        for x in inputs
    )
    return a, b
