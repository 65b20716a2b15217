"""From the hidden states of a plain encoder to one embedding."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor

Pooling = Literal["cls", "last", "mean", "pooler"]
"""The first token, the last token that is not padding, the mean of all tokens that are not, or the
model's own ``pooler_output``."""

POOLINGS: tuple[Pooling, ...] = ("cls", "last", "mean", "pooler")


def pooled(output: Any, pooling: Pooling, mask: Tensor | None = None) -> Tensor:
    """The embedding (B, K) of a model output of ``transformers``.

    Args:
        output: A model output with ``last_hidden_state`` (B, T, D) or (B, D, h, w).
        pooling (str): See :data:`Pooling`.
        mask (Tensor, optional): 1 for tokens that are not padding, (B, T). Default: all

    Raises:
        ValueError: If the output has nothing of the kind.
    """
    if pooling == "pooler":
        if getattr(output, "pooler_output", None) is None:
            raise ValueError("pooling='pooler' needs a model that has a pooler, but this has none")
        return cast(Tensor, output.pooler_output).flatten(1)
    states: Tensor = output.last_hidden_state
    if states.dim() == 4:
        if pooling != "mean":
            raise ValueError(f"a feature map has no tokens for pooling={pooling!r}: take 'mean'")
        return states.mean((2, 3))
    if mask is None:
        mask = torch.ones(states.shape[:2], device=states.device)
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        places = torch.arange(1, states.shape[1] + 1, device=states.device)
        last = (mask * places).argmax(-1)
        return states[torch.arange(len(states), device=states.device), last]
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1)
