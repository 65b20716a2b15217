"""Checks of untested kinds of models: can a run start at their blocks?

A wrapped model runs from a block on, with other hidden states than those of the inputs it is called
with. The result is silently wrong if later blocks depend on more than the hidden states. Therefore
every model of a kind that the tests of this package do not cover is checked on a sample when it is
wrapped, which takes about eight forward passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_interactions.axes import ImageAxis, TokenAxis
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.encoders.towers.base import Tower, take_rows
from captum_interactions.encoders.towers.block_tower import BlockTower
from captum_interactions.encoders.towers.image_tower import ImageTower
from captum_interactions.encoders.towers.text_tower import TextTower
from captum_interactions.user_warnings import warn_caller

SINGLE = (
    *("albert", "bert", "clip_text_model", "deberta", "deberta-v2", "distilbert", "dpr", "electra"),
    *("llama", "mistral", "modernbert", "mpnet", "mt5", "qwen2", "qwen3", "roberta"),
    *("siglip_text_model", "t5", "xlm-roberta"),
    *("beit", "clip_vision_model", "convnext", "data2vec-vision", "deit", "dinov2"),
    *("dinov2_with_registers", "dinov3_convnext", "dinov3_vit", "resnet", "siglip_vision_model"),
    *("siglip2_vision_model", "vit"),
)
"""Kinds of single encoders that are tested."""

DUAL = (
    *("align", "altclip", "blip", "chinese_clip", "clap", "clip", "clipseg", "groupvit"),
    *("flava", "metaclip_2", "owlv2", "owlvit", "siglip", "siglip2", "tipsv2"),
)
"""Kinds of dual encoders that are tested."""


def is_tested(model: Any) -> bool:
    """Whether a model is an unmodified instance of a tested class of ``transformers``."""
    config = model.config
    kinds = {config.model_type}
    if config.model_type == "vision-text-dual-encoder":
        kinds = {config.vision_config.model_type, config.text_config.model_type}
    is_plain = type(model).__module__.startswith("transformers.models.")
    return is_plain and kinds <= {*SINGLE, *DUAL} and not hasattr(model, "get_base_model")


def try_out(tower: BlockTower) -> None:
    """Check a tower on a sample.

    Raises:
        TypeError: If a run cannot start at the blocks, or the output is random.
        ValueError: If the model lacks the pooling.

    Warns:
        UserWarning: If padding changes the embedding of a text. Padding is then kept.
    """
    problem = _what_is_wrong(tower)
    if problem is not None:
        raise TypeError(f"{type(tower.model).__name__} cannot be explained: {problem}")
    if isinstance(tower, TextTower) and _sees_padding(tower):
        tower.keeps_padding = True
        warn_caller(
            f"padding changes {type(tower.model).__name__}'s embeddings of texts: a text that is "
            "padded in a batch has another embedding, and so another map, than by itself, although "
            "the mask hides the padding"
        )


def without_blocks_if_wrong(tower: ImageTower) -> ImageTower:
    """The tower if it passes the check, else one without blocks.

    Raises:
        TypeError: If the output of the model is random.
    """
    if _what_is_wrong(tower) is None:
        return tower
    tower = tower.without_blocks()
    try_out(tower)
    return tower


def _what_is_wrong(tower: BlockTower) -> str | None:
    """The reason why a run cannot start at the blocks; None if it can."""
    try:
        inputs, extras, axes = tower.prepare(tower.sample())
        # One row, which cannot be mistaken for the outputs of several parts.
        inputs, axis, extras = inputs[-1:], axes[-1], take_rows(extras, slice(-1, None))
        with explaining(tower), torch.no_grad():
            if not is_close(tower.encode(inputs, *extras), tower.encode(inputs, *extras)):
                return "an input has another embedding each time"
            other = other_input(tower, inputs, *extras)
            expected = tower.encode(other, *extras)
            blocks = range(tower.n_blocks)
            for layer in sorted({*blocks[:1], *blocks[len(blocks) // 2 :][:1], *blocks[-1:]}):
                own, context = tower.prefix(layer, inputs, *extras)
                if not _are_tokens(tower.axis_at(layer, axis, own.shape[1]), axis):
                    return f"what enters its block {layer} are not the hidden states of its tokens"
                states, _ = tower.prefix(layer, other, *extras)
                if not is_close(tower.tail(layer, states, *context), expected):
                    return f"its block {layer} and those after it depend on more than hidden states"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # any error of the model is the reason
        if "pooling=" in str(error):
            raise
        return f"{type(error).__name__}: {error}"
    return None


def other_input(tower: Tower, inputs: Tensor, *extras: Any) -> Tensor:
    """An input of the shape of ``inputs``, (B, ...): a shade of grey, or one token of the text.

    Masks and pooling may depend on token ids, so the text keeps its special tokens.
    """
    value = 0.5 if inputs.is_floating_point() else int(inputs[0, min(1, inputs.shape[1] - 1)])
    return tower.set_constant(inputs, value, *extras)


def is_close(actual: Tensor, expected: Tensor, tolerance: float | None = None) -> bool:
    """Whether two tensors have one shape and nearly the same values.

    Args:
        actual (Tensor): Values of any shape.
        expected (Tensor): The values they should have, of the same shape.
        tolerance (float, optional): Largest difference, relative to the largest expected value.
            Default: the precision of their type
    """
    if actual.shape != expected.shape:
        return False
    if tolerance is None:
        tolerance = 3 * torch.finfo(expected.dtype).eps ** 0.5
    return bool((actual - expected).abs().max() <= tolerance * expected.abs().max() + 1e-12)


def _sees_padding(tower: TextTower) -> bool:
    """Whether the embedding of a text changes when it is padded in a batch."""
    if tower.fixed_length or not tower.extra_names:
        return False
    ids, (mask, *_), _ = tower.prepare(tower.sample())
    if mask is None:
        return False
    own = mask[0].bool()
    with explaining(tower), torch.no_grad():
        alone = tower.encode(ids[:1, own], mask[:1, own])
        return not is_close(tower.encode(ids, mask)[:1], alone)


def _are_tokens(at_layer: TokenAxis, axis: TokenAxis) -> bool:
    """Whether the axis at a layer is of the same kind, with few special tokens."""
    return type(at_layer) is type(axis) and (
        not isinstance(axis, ImageAxis) or sum(at_layer.special) < 9
    )
