"""The last block of a transformer, computed for the one token that is pooled.

A tower that pools one token uses only one output row of its last block. That row has one query per
head, so the keys and values of the other tokens need not be computed: the key projection is applied
to the query instead, and the value projection to the attention-weighted mean of the states. In
exact arithmetic the result equals the block's output. It costs a small fraction of the block, and
has derivatives of any order under every attention implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from captum_interactions.encoders.model.hooks import HOOKS

_TOKENWISE = ("torch.nn.", "transformers.", "peft.")
"""Packages whose MLP modules act on every token separately."""


class _Names(NamedTuple):
    """Names of the parts of a kind of pre-norm block."""

    attention: str
    projections: tuple[str, ...]
    """Of the query, the key and the value, or one for all three."""
    output: str
    norms: tuple[str, str]
    scales: tuple[str, ...] = ()
    """Of what the attention and the MLP add."""
    blocks: tuple[str, ...] = ()
    """Classes of tested blocks; any if empty."""


_QKV = ("q_proj", "k_proj", "v_proj")
_KINDS = (
    _Names("self_attn", _QKV, "out_proj", ("layer_norm1", "layer_norm2")),  # CLIP and its like
    _Names(
        "self_attn",
        ("qkv",),
        "projection",
        ("layer_norm1", "layer_norm2"),
        blocks=("BlipEncoderLayer",),
    ),
    _Names(
        "attention",
        _QKV,
        "o_proj",
        ("layernorm_before", "layernorm_after"),
        blocks=("ViTLayer", "DeiTLayer", "ViTMSNLayer"),
    ),
    _Names(
        "attention",
        _QKV,
        "o_proj",
        ("norm1", "norm2"),
        ("layer_scale1", "layer_scale2"),
        ("Dinov2Layer", "Dinov2WithRegistersLayer", "Tipsv2VisionLayer"),
    ),
)


class Projection(NamedTuple):
    """Weight (heads · width, D) and bias of a linear map."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, states: Tensor) -> Tensor:
        return linear(states, self.weight, self.bias)

    def per_head(self, n_heads: int) -> Tensor:
        """The weight, shape (heads, width, D)."""
        return cast(Tensor, self.weight.unflatten(0, (n_heads, -1)))


class PreNormBlock(NamedTuple):
    """The parts of a pre-norm transformer block."""

    norm: nn.Module
    """The norm before the attention."""
    query: Projection
    key: Projection
    value: Projection
    n_heads: int
    """Each projection has heads · width rows."""
    scale: float
    """Of the logits."""
    finish: Callable[[Tensor, Tensor], Tensor]
    """From states (..., D) and the heads' values (..., heads · width) to the block's output."""


def pre_norm_parts(block: nn.Module) -> PreNormBlock | None:
    """The parts of a plain pre-norm block, for :func:`pooled_row`.

    None for blocks that have replaced projections (adapters, quantisation), hooks, a custom
    attention function, positions in their attention, unknown parts or parameters, or a forward pass
    other than that of ``transformers``: they run in full.
    """
    for names in _KINDS:
        attention = block._modules.get(names.attention)
        if attention is None:
            continue
        linears = {*names.projections, names.output}
        after = {names.norms[1], "mlp", *names.scales}
        if (
            (not names.blocks or type(block).__name__ in names.blocks)
            and not any(_has_own_tensors(part) for part in (block, attention))
            and (hasattr(attention, "scale") or hasattr(attention, "scaling"))
            and _parts(block) == {names.attention, names.norms[0], *after}
            and _parts(attention) == linears
            and all(type(attention._modules[name]) is nn.Linear for name in linears)
            and all(is_plain(part, "torch.nn.") for part in attention.children())
            and all(is_plain(part, "transformers.models.") for part in (block, attention))
            and "position_embeddings" not in signature(type(attention).forward).parameters
            and has_known_function(attention)
            and all(_is_tokenwise(block.get_submodule(name)) for name in after)
        ):
            return _assembled(block, attention, names)
    return None


def _parts(module: nn.Module) -> set[str]:
    """Names of the parts that do something in evaluation mode."""
    idle = (nn.Dropout, nn.Identity)
    return {
        name
        for name, part in module.named_children()
        if not (type(part) in idle and is_plain(part, "torch.nn."))
    }


def _has_own_tensors(module: nn.Module) -> bool:
    """Whether a module has parameters or buffers that belong to none of its parts."""
    own = (*module._parameters.values(), *module._buffers.values())
    return any(tensor is not None for tensor in own)


def _assembled(block: Any, attention: Any, names: _Names) -> PreNormBlock:
    linears = [attention._modules[name] for name in names.projections]
    if len(linears) == 3:
        query, key, value = (Projection(each.weight, each.bias) for each in linears)
    else:
        (fused,) = linears
        biases = (None,) * 3 if fused.bias is None else fused.bias.chunk(3)
        query, key, value = map(Projection, fused.weight.chunk(3), biases)
    output = attention._modules[names.output]
    norm = block._modules[names.norms[1]]
    scales = [block._modules[name] for name in names.scales] or [nn.Identity(), nn.Identity()]

    def finish(states: Tensor, values: Tensor) -> Tensor:
        states = states + scales[0](output(values))
        return cast(Tensor, states + scales[1](block.mlp(norm(states))))

    return PreNormBlock(
        block._modules[names.norms[0]],
        query,
        key,
        value,
        n_heads=query.weight.shape[0] // attention.head_dim,
        scale=attention.scale if hasattr(attention, "scale") else attention.scaling,
        finish=finish,
    )


def is_plain(module: Any, package: str | tuple[str, ...]) -> bool:
    """Whether a module has no hooks and runs its class's forward pass, of such a package."""
    is_replaced = "forward" in vars(module)
    known = type(module).forward.__module__.startswith(package)
    return known and not is_replaced and not any(getattr(module, name) for name in HOOKS)


def has_known_function(attention: Any) -> bool:
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
        and not any(getattr(module, name) for name in HOOKS)
        for module in part.modules()
    )


def pooled_row(
    block: PreNormBlock, states: Tensor, position: Tensor, visible: Tensor | None = None
) -> Tensor:
    """Output of a pre-norm transformer block at one position of each example.

    Args:
        block (PreNormBlock): The block's parts.
        states (Tensor): Hidden states entering the block, shape (B, T, D).
        position (Tensor): Index of the pooled token, int64 of shape (B,).
        visible (Tensor, optional): True for tokens that the pooled one may attend to, shape (B, T).
            Default: all of them

    Returns:
        Tensor: shape (B, D).
    """
    examples = torch.arange(len(states), device=states.device)
    normed = block.norm(states)
    query = block.query(normed[examples, position]).unflatten(-1, (block.n_heads, -1))
    # The key bias adds the same amount to all tokens of a head, which the softmax ignores.
    question = torch.einsum("bhe,hed->bhd", query * block.scale, block.key.per_head(block.n_heads))
    logits = question @ normed.transpose(1, 2)
    if visible is not None:
        logits = logits.masked_fill(~visible.unsqueeze(1), float("-inf"))
    wide = torch.promote_types(logits.dtype, torch.float32)
    weights = logits.softmax(-1, dtype=wide).to(normed.dtype)

    mean = weights @ normed
    value = torch.einsum("bhd,hed->bhe", mean, block.value.per_head(block.n_heads)).flatten(1)
    if block.value.bias is not None:
        value = value + block.value.bias
    return block.finish(states[examples, position], value)
