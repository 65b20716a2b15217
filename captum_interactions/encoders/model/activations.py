"""Activations that are cheap to evaluate and to differentiate many times at one point.

An activation that is composed of several operations, such as QuickGELU, costs autograd several
passes over its input in every backward pass, and memory for several tensors. Its derivative is one
number per element. If the derivative is computed once, in the forward pass, every backward pass is
a single multiplication. Without gradients, one new tensor is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_interactions.encoders.model.hooks import replaced_forward
from captum_interactions.encoders.model.pooled_block import is_plain

_QUICK_GELU = {"QuickGELU", "QuickGELUActivation"}
_NAMES = _QUICK_GELU | {
    "GELU",
    "GELUActivation",
    "GELUTanh",
    "NewGELUActivation",
    "FastGELUActivation",
    "PytorchGELUTanh",
    "SiLU",
    "SiLUActivation",
}
_PACKAGES = ("torch.nn.", "transformers.activations", "open_clip.")


@contextmanager
def tabulated_activations(module: nn.Module) -> Iterator[None]:
    """Context manager in which smooth activations have first derivatives only, and fast ones.

    Values and first derivatives are unchanged. Second derivatives lack those of the activations, so
    this is for Jacobian products, which are linear in the cotangent. Without gradients, QuickGELU
    allocates one tensor instead of three. Activations that have hooks or a replaced forward pass,
    or that work in place, are left unchanged.
    """
    with ExitStack() as stack:
        for part in module.modules():
            known = type(part).__name__ in _NAMES and not getattr(part, "inplace", False)
            if known and any(is_plain(part, name) for name in _PACKAGES):
                is_quick_gelu = type(part).__name__ in _QUICK_GELU
                quick = partial(_tabulated, part.forward, is_quick_gelu)
                stack.enter_context(replaced_forward(part, quick))
        yield


def _tabulated(function: Callable[[Tensor], Tensor], is_quick_gelu: bool, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled() or not x.requires_grad:
        # The same numbers, with one new tensor instead of three.
        return (1.702 * x).sigmoid_().mul_(x) if is_quick_gelu else function(x)
    return cast(Tensor, _Tabulated.apply(x, function))  # type: ignore[no-untyped-call]


class _Tabulated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Any) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y: Tensor = function(x)
            (slope,) = torch.autograd.grad(y, x, torch.ones_like(y))
        ctx.save_for_backward(slope)
        return y.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return cast(Tensor, gradients[0] * ctx.saved_tensors[0]), None
