"""Attention pooling: one constant query attends to all tokens.

A pooling head (of SigLIP, AIMv2 and timm) has one query, which does not depend on the input. Along
a straight path of states, its keys and values move along straight paths too. So its output is a
function of one coordinate per token, with small constants: the logit and the value of each token
and head at both ends of the path. Heads differ in everything around their attention. That part is
run by the model itself; only the call of PyTorch's attention function is recorded and replaced.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from captum_interactions.encoders.model.per_head import per_head

_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class PoolingAttention(NamedTuple):
    """The arguments of attention with one query."""

    query: Tensor
    """Scaled, shape (B, H, 1, d)."""
    key: Tensor
    """shape (B, H, T, d)."""
    value: Tensor
    """shape (B, H, T, d)."""
    mask: Tensor | None
    """Added to the logits; broadcasts to (B, H, 1, T)."""


class _Attention(TorchFunctionMode):
    """Records calls of PyTorch's attention function in this thread, or replaces their results."""

    def __init__(self, answer: Tensor | None = None) -> None:
        super().__init__()
        self.answer = answer
        self.calls: list[PoolingAttention | None] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.calls.append(_of_scaled_dot_product(*args, **kwargs))
            if self.answer is not None:
                return self.answer
        elif func is F.multi_head_attention_forward:
            self.calls.append(_of_multi_head(args, kwargs))
            if self.answer is not None:
                own = _MULTI_HEAD.bind(*args, **kwargs).arguments
                tokens_first = self.answer.permute(2, 0, 1, 3).flatten(2)
                return F.linear(tokens_first, own["out_proj_weight"], own["out_proj_bias"]), None
        return func(*args, **kwargs)


def pooling_attention(run: Callable[[], Any]) -> PoolingAttention | None:
    """The pooling attention of a run; None unless exactly one attention pools."""
    with _Attention() as seen:
        run()
    return seen.calls[0] if len(seen.calls) == 1 else None


def answering(mixed: Tensor) -> _Attention:
    """Context manager in which attention returns these mixed values (B, H, 1, d)."""
    return _Attention(mixed)


def mixed_along(
    start: PoolingAttention, end: PoolingAttention
) -> Callable[[Tensor, slice], Tensor] | None:
    """Mixed values as a function of one path coordinate per token.

    Keys and values must be linear along the path; this is not checked.

    Args:
        start (PoolingAttention): The attention at the coordinate 0, B or 1 examples.
        end (PoolingAttention): The attention at the coordinate 1, B examples.

    Returns:
        Callable: ``(coordinates, examples) -> (N, H, 1, d)`` for coordinates (N, T) of these
        examples, node-major; differentiable in the coordinates. None if the query is not constant.
    """
    if not torch.equal(start.query.expand_as(end.query), end.query):
        return None
    wide = torch.promote_types(end.query.dtype, torch.float32)
    first = start.key.expand_as(end.key), start.value.expand_as(end.value)
    logits = [
        (end.query.to(wide) @ key.to(wide).transpose(2, 3)).squeeze(2)
        for key in (first[0], end.key)
    ]  # (B, H, T)
    step = logits[1] - logits[0]
    low = logits[0] if end.mask is None else logits[0] + end.mask.squeeze(2)
    values = torch.cat([first[1], end.value - first[1]], 2)  # (B, H, 2T, d)

    def mixed(coordinates: Tensor, rows: slice) -> Tensor:
        own = values[rows]
        z = coordinates.unflatten(0, (-1, len(own))).unsqueeze(2).to(wide)  # (n, B, 1, T)
        weights = (low[rows] + z * step[rows]).softmax(-1)
        both = torch.cat([weights, weights * z], -1).to(own.dtype)  # (n, B, H, 2T)
        result = per_head(both.flatten(1, 2), own.flatten(0, 1))
        return result.reshape(len(coordinates), own.shape[1], 1, -1)

    return mixed


def _of_scaled_dot_product(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> PoolingAttention | None:
    if query.dim() != 4 or query.shape[2] != 1 or key.shape[:2] != query.shape[:2]:
        return None
    if is_causal or dropout_p:
        return None
    mask = None
    if attn_mask is not None:
        mask = _additive(~attn_mask if attn_mask.dtype is torch.bool else attn_mask, query)
        mask = mask.reshape((1,) * (4 - mask.dim()) + mask.shape)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return PoolingAttention(query * scale, key, value, mask)


def _of_multi_head(args: Any, kwargs: Any) -> PoolingAttention | None:
    bound = _MULTI_HEAD.bind(*args, **kwargs)
    bound.apply_defaults()
    own = bound.arguments
    unknown = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")
    if any(own[name] is not None for name in unknown) or own["use_separate_proj_weight"]:
        return None
    if own["query"].dim() != 3 or len(own["query"]) != 1 or own["add_zero_attn"]:
        return None
    heads, bias = own["num_heads"], own["in_proj_bias"]
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    states = (own["query"], own["key"], own["value"])
    query, key, value = (
        F.linear(state, weight, part).unflatten(2, (heads, -1)).permute(1, 2, 0, 3)
        for state, weight, part in zip(states, own["in_proj_weight"].chunk(3), biases, strict=True)
    )
    mask = own["attn_mask"]
    if mask is not None:
        mask = _additive(mask, query)
        mask = mask.unflatten(0, (-1, heads)) if mask.dim() == 3 else mask[None, None]
    return PoolingAttention(query * query.shape[-1] ** -0.5, key, value, mask)


def _additive(mask: Tensor, query: Tensor) -> Tensor:
    """An additive mask, from one that is additive or that is True where a token is hidden."""
    if mask.dtype is not torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill(mask, float("-inf"))
