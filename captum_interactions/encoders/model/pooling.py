"""Pool the hidden states of an encoder to one embedding."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

Pooling = Literal["cls", "last", "mean", "pooler"]
"""The first token, the last one, or the mean of all tokens, each without padding; or the model's
own ``pooler_output``."""


def _itself(tokens: Any, *_: Any, **__: Any) -> Any:
    return tokens


def _hidden_states(output: Any) -> Tensor:
    return cast(Tensor, output.last_hidden_state)


def _of_hidden_states(tokens: Tensor, *_: Any, **__: Any) -> SimpleNamespace:
    return SimpleNamespace(last_hidden_state=tokens)


class Pool(NamedTuple):
    """Where an encoder pools its tokens: the layer ``"pool"``."""

    module: str
    """Name of the module whose output is pooled, usually the norm after the last block."""
    is_default: bool = False
    """Whether ``"pool"`` is the default layer, as for pooling by attention."""
    tokens: Callable[[Any], Tensor] = _itself
    """The tokens (B, T, D) in the module's output."""
    output: Callable[..., Any] = _itself
    """``(tokens, *args, **kwargs)``: an output of the module that contains these tokens."""


OUTPUT_STATES = Pool(
    "",
    tokens=_hidden_states,
    output=_of_hidden_states,
)
"""An encoder of ``transformers`` whose hidden states are pooled after it."""

POOLINGS: tuple[Pooling, ...] = ("cls", "last", "mean", "pooler")


def pooled(output: Any, pooling: Pooling, mask: Tensor | None = None) -> Tensor:
    """The embedding (B, K) of a model output of ``transformers``.

    Args:
        output: A model output with ``last_hidden_state`` (B, T, D) or (B, D, h, w).
        pooling (str): See :data:`Pooling`.
        mask (Tensor, optional): 1 for tokens that are not padding, (B, T). Default: all

    Raises:
        ValueError: If the output lacks what the pooling needs.
    """
    states = getattr(output, "last_hidden_state", None)
    if pooling == "pooler":
        if getattr(output, "pooler_output", None) is None:
            raise ValueError("pooling='pooler' needs a model that has a pooler, but this has none")
        return cast(Tensor, output.pooler_output).flatten(1)
    if states is None:
        raise ValueError(
            f"pooling={pooling!r} needs hidden states, but the model gives none beside its own "
            "embedding: take 'pooler'"
        )
    if states.dim() == 4:
        if pooling != "mean":
            raise ValueError(f"a feature map has no tokens for pooling={pooling!r}: take 'mean'")
        return cast(Tensor, states.mean((2, 3)))
    if mask is None:
        mask = torch.ones(states.shape[:2], device=states.device)
    if pooling == "mean":
        weights = mask.to(states.dtype).unsqueeze(-1)
        wide = torch.promote_types(states.dtype, torch.float32)
        return cast(Tensor, (states * weights).sum(1, dtype=wide) / weights.sum(1, dtype=wide))
    # Largest at the first token that is not padding ("cls"), or at the last one.
    places = mask.int() if pooling == "cls" else mask.int().cumsum(-1) * mask.int()
    return cast(Tensor, states[torch.arange(len(states), device=states.device), places.argmax(-1)])
