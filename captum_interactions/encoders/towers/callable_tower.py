"""A tower made from a callable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_interactions.axes import TokenAxis
from captum_interactions.encoders.towers.base import Tower, TowerInputs


class CallableTower(Tower):
    """A tower made from a callable ``(inputs, *extras) -> (B, K)``, explained at its input.

    Args:
        function (Callable): A function or module that maps a batch to embeddings.
        baseline (float, Tensor or Callable, optional): The default baseline: a constant, a tensor
            that broadcasts to the inputs, or a function of the inputs. Default: 0.0
        extra_names (sequence of str, optional): Names of its further arguments. Default: none
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        baseline: float | Tensor | Callable[..., Tensor] = 0.0,
        extra_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.function = function
        # The module of a bound method, so that it runs in evaluation mode.
        self.owner = getattr(function, "__self__", None)
        self.extra_names = tuple(extra_names)
        self._baseline = baseline

    def encode(self, inputs: Tensor, *extras: Any) -> Tensor:
        output = self.function(inputs, *extras)
        if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != len(inputs):
            came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"an encoder must map inputs of shape {tuple(inputs.shape)} to embeddings of shape "
                f"({len(inputs)}, K), but returned {came}"
            )
        return output

    def check(self, inputs: Tensor, *extras: Any) -> None:
        types = {parameter.dtype for parameter in self.parameters()}
        if types and inputs.is_floating_point() and inputs.dtype not in types:
            known = ", ".join(sorted(str(dtype) for dtype in types))
            raise TypeError(f"inputs are {inputs.dtype}, but the encoder's parameters are {known}")

    def baseline(self, inputs: Tensor, *extras: Any) -> Tensor:
        baseline = self._baseline
        if isinstance(baseline, (int, float)):
            return self.set_constant(inputs, baseline)
        if isinstance(baseline, Tensor):
            return baseline.to(inputs).expand_as(inputs)
        return baseline(inputs, *extras)

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        inputs, *extras = raw if isinstance(raw, tuple) else (raw,)
        if not isinstance(inputs, Tensor):
            raise TypeError(
                "a tower made of a callable takes ready tensors with the batch first, but got "
                f"{type(inputs).__name__} (raw inputs and token ids need a TextTower, an "
                "ImageTower or a Tower of your own)"
            )
        n_tokens = self.fold("input", torch.empty((1, *inputs.shape[1:]), device="meta")).shape[1]
        return TowerInputs(inputs, tuple(extras), (TokenAxis.numbered(n_tokens),) * len(inputs))
