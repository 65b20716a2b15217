"""The last block of a transformer, computed for the one token that is pooled.

A tower that pools one token uses only one output row of its last block. That row has one query per
head, so the keys and values of the other tokens need not be computed: the key projection is applied
to the query instead, and the value projection to the attention-weighted mean of the states. In
exact arithmetic the result equals the block's output. It costs a small fraction of the block, and
has derivatives of any order under every attention implementation.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

_PARTS = {"self_attn", "layer_norm1", "layer_norm2", "mlp"}
_PROJECTIONS = {"q_proj", "k_proj", "v_proj", "out_proj"}
_TOKENWISE = ("torch.nn.", "transformers.", "peft.")
"""Packages whose MLP modules act on every token separately."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_poolable(block: nn.Module) -> bool:
    """Whether a block is a plain pre-norm block whose parts :func:`pooled_row` may use directly.

    Blocks that have replaced projections (adapters, quantisation), hooks, a custom attention
    function, unknown parts, or a forward pass other than that of ``transformers`` are not; they run
    in full.
    """
    attention = block._modules.get("self_attn")
    if attention is None or {*block._modules} != _PARTS or {*attention._modules} != _PROJECTIONS:
        return False
    projections = list(attention.children())
    return (
        all(type(projection) is nn.Linear for projection in projections)
        and all(is_plain(part, "transformers.models.") for part in (block, attention))
        and all(is_plain(projection, "torch.nn.") for projection in projections)
        and _has_known_function(attention)
        and all(_is_tokenwise(block.get_submodule(name)) for name in ("layer_norm2", "mlp"))
    )


def is_plain(module: Any, package: str) -> bool:
    """Whether a module has no hooks and runs the forward pass of its class in this package."""
    is_replaced = "forward" in vars(module)
    known = type(module).forward.__module__.startswith(package)
    return known and not is_replaced and not any(getattr(module, name) for name in _HOOKS)


def _has_known_function(attention: Any) -> bool:
    """Whether the attention function is one of ``transformers``, and not a registered custom one.

    All functions of ``transformers`` compute the same values.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = getattr(getattr(attention, "config", None), "_attn_implementation", None)
    function = ALL_ATTENTION_FUNCTIONS.get(name)
    return function is None or getattr(function, "__module__", "").startswith("transformers.")


def _is_tokenwise(part: nn.Module) -> bool:
    """Whether a module acts on every token separately, so that it can run on some rows only."""
    return "forward" not in vars(part) and all(
        type(module).forward.__module__.startswith(_TOKENWISE)
        and not any(getattr(module, name) for name in _HOOKS)
        for module in part.modules()
    )


def pooled_row(
    block: Any, states: Tensor, position: Tensor, visible: Tensor | None = None
) -> Tensor:
    """Output of a pre-norm transformer block at one position of each example.

    Args:
        block (nn.Module): A block for which :func:`is_poolable` holds.
        states (Tensor): Hidden states entering the block, shape (B, T, D).
        position (Tensor): Index of the pooled token, int64 of shape (B,).
        visible (Tensor, optional): True for tokens that the pooled one may attend to, shape (B, T).
            Default: all of them

    Returns:
        Tensor: shape (B, D).
    """
    attention = block.self_attn
    examples = torch.arange(len(states), device=states.device)
    normed = block.layer_norm1(states)
    heads, width = attention.num_heads, attention.head_dim

    query = attention.q_proj(normed[examples, position]).unflatten(-1, (heads, width))
    key_weight = attention.k_proj.weight.unflatten(0, (heads, width))
    # The key bias adds the same amount to all tokens of a head, which the softmax ignores.
    question = torch.einsum("bhe,hed->bhd", query * attention.scale, key_weight)
    logits = question @ normed.transpose(1, 2)
    if visible is not None:
        logits = logits.masked_fill(~visible.unsqueeze(1), float("-inf"))
    wide = torch.promote_types(logits.dtype, torch.float32)
    weights = logits.softmax(-1, dtype=wide).to(normed.dtype)

    mean = weights @ normed
    value_weight = attention.v_proj.weight.unflatten(0, (heads, width))
    value = torch.einsum("bhd,hed->bhe", mean, value_weight).flatten(1)
    if attention.v_proj.bias is not None:
        value = value + attention.v_proj.bias
    row = states[examples, position] + attention.out_proj(value)
    return cast(Tensor, row + block.mlp(block.layer_norm2(row)))
