"""Check the inputs, baselines and embeddings of one tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from captum_interactions.attr._utils.arguments import Baseline
from captum_interactions.encoders import Tower
from captum_interactions.encoders.wrapper import widen
from captum_interactions.user_warnings import warn_caller

_NEARLY_ZERO = 0.01
"""The embedding of a baseline that is shorter than this share of its input's has no direction."""


def check_input(
    name: str, tower: Tower, inputs: Tensor, extras: tuple[Any, ...]
) -> tuple[Tensor, tuple[Any, ...]]:
    """One side's inputs and extras, checked and detached.

    Raises:
        TypeError: If inputs are on another device than the tower.
        ValueError: If they are not what the tower takes.
    """
    extras = tuple(_detached(extra) for extra in extras)
    inputs = _detached(inputs)
    _check_tensor(f"input {name}", tower, inputs)
    _check_extras(name, tower, inputs, extras)
    tower.check(inputs, *extras)
    return inputs, extras


def baselines_of(
    name: str, tower: Tower, inputs: Tensor, baseline: Baseline, extras: tuple[Any, ...]
) -> list[Tensor]:
    """The tensors that a baseline stands for, each of the inputs' shape.

    Raises:
        TypeError: If the baseline is of a wrong type, or not of the inputs' own.
        ValueError: If its shape does not fit, or a list of baselines is empty.
    """
    if not isinstance(baseline, list):
        return [_baseline(name, tower, inputs, baseline, extras)]
    if not baseline:
        raise ValueError(f"the list of baselines {name} is empty")
    return [_baseline(name, tower, inputs, one, extras) for one in baseline]


def _baseline(
    name: str, tower: Tower, inputs: Tensor, baseline: Any, extras: tuple[Any, ...]
) -> Tensor:
    if baseline is None:
        return tower.baseline(inputs, *extras)
    if isinstance(baseline, (int, float)):
        return tower.set_constant(inputs, baseline, *extras)
    if not isinstance(baseline, Tensor):
        raise TypeError(
            f"baseline {name} must be None, a number, a tensor or a list of these, but got "
            f"{type(baseline).__name__}"
        )
    if baseline.shape not in (inputs.shape, (1, *inputs.shape[1:])):
        raise ValueError(
            f"baseline {name} must have the input's shape {tuple(inputs.shape)} or one row of it, "
            f"but got shape {tuple(baseline.shape)}"
        )
    floats = baseline.is_floating_point() and inputs.is_floating_point()
    if floats and baseline.dtype != inputs.dtype:
        raise TypeError(f"baseline {name} is {baseline.dtype}, but input {name} is {inputs.dtype}")
    baseline = _detached(baseline)
    _check_tensor(f"baseline {name}", tower, baseline)
    return cast(Tensor, baseline.expand_as(inputs))


def _check_tensor(what: str, tower: Tower, tensor: Tensor) -> None:
    parameter = next(tower.parameters(), None)
    if parameter is not None and parameter.device != tensor.device:
        raise TypeError(f"{what} is on {tensor.device}, but its encoder is on {parameter.device}")
    if tensor.dim() < 2 or not tensor.numel():
        raise ValueError(
            f"{what} must have an axis of examples and others of features, none of them empty, but "
            f"has shape {tuple(tensor.shape)}"
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ValueError(f"{what} holds NaN or infinite values")


def _check_extras(name: str, tower: Tower, inputs: Tensor, extras: tuple[Any, ...]) -> None:
    for extra_name, extra in zip(tower.extra_names, extras, strict=False):
        if not isinstance(extra, Tensor) or not extra.dim():
            continue
        if len(extra) != len(inputs) or extra.device != inputs.device:
            raise ValueError(
                f"{extra_name} of encoder {name} must have {len(inputs)} rows on {inputs.device}, "
                f"as its input has, but has shape {tuple(extra.shape)} on {extra.device}"
            )


def check_embedding(what: str, embedding: Tensor, may_vanish: bool) -> None:
    """Raise a ValueError if an embedding is not finite, or is zero and must not be."""
    if not torch.isfinite(embedding).all():
        raise ValueError(f"the embedding of {what} holds NaN or infinite values")
    if not may_vanish and not embedding.norm(dim=-1).all():
        raise ValueError(
            f"the embedding of {what} is zero, which has no cosine with anything: take another "
            f"{what.split()[0]}, or normalization='none'"
        )


def warn_of_nearly_zero_baselines(
    name: str, embedding: Tensor, baselines: Sequence[Tensor]
) -> None:
    """Warn if the embedding of a baseline is so short that its direction is meaningless."""
    own = widen(embedding).norm(dim=-1)
    for baseline in baselines:
        norms = widen(baseline).norm(dim=-1)
        worst = int((norms / own).argmin())
        if norms[worst] < _NEARLY_ZERO * own[worst]:
            warn_caller(
                f"the embedding of baseline {name} is nearly zero: its norm is "
                f"{float(norms[worst]):.2g}, that of the input's {float(own[worst]):.2g}. Under "
                "normalization='cosine' its direction, which is meaningless, enters the constant "
                "and the main effects, and the path turns sharply near it. Use "
                "normalization='frozen' or another baseline; if you need the cosine, "
                "n_steps='auto' places its nodes where the path turns"
            )
            return


def _detached(value: Any) -> Any:
    """A detached tensor that autograd may use, also if it was made in inference mode."""
    if not isinstance(value, Tensor):
        return value
    return value.clone() if value.is_inference() else value.detach()
