"""The last block of a transformer, computed for the one token that is pooled.

A tower that pools one token reads one row of its last block. That row asks one question per head, so
keys and values of the other tokens need never be formed: the key projection is applied to the query
instead, and the value projection to the attention-weighted mean of the states. In exact arithmetic
this is the block itself; it costs a small fraction of it, and its derivatives of any order exist
under every attention implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def is_poolable(block: nn.Module) -> bool:
    """Whether a block is a plain pre-norm block whose parts :func:`pooled_row` may use directly.

    Blocks with replaced projections (adapters, quantisation) or with hooks are not: they have to run
    as they are.
    """
    attention = getattr(block, "self_attn", None)
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    if attention is None or not all(hasattr(block, n) for n in ("layer_norm1", "layer_norm2", "mlp")):
        return False
    parts = [block, attention, *(getattr(attention, name, None) for name in names)]
    return all(type(part) is nn.Linear for part in parts[2:]) and not any(
        part._forward_hooks or part._forward_pre_hooks for part in parts if part is not None
    )


def pooled_row(
    block: nn.Module, states: Tensor, position: Tensor, visible: Tensor | None = None
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
    logits = (question @ normed.transpose(1, 2)).float()
    if visible is not None:
        logits = logits.masked_fill(~visible.unsqueeze(1), float("-inf"))
    weights = logits.softmax(-1).to(normed.dtype)

    mean = weights @ normed
    value_weight = attention.v_proj.weight.unflatten(0, (heads, width))
    value = torch.einsum("bhd,hed->bhe", mean, value_weight).flatten(1)
    if attention.v_proj.bias is not None:
        value = value + attention.v_proj.bias
    row = states[examples, position] + attention.out_proj(value)
    return row + block.mlp(block.layer_norm2(row))
