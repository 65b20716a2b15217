"""Towers of single encoders of ``transformers``: a text or vision backbone and a pooling."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from captum_interactions.encoders.families.dual_models import (
    FIXED_LENGTH,
    LARGEST_ID_POOLING,
    attention_pool,
    context_length,
    image_size,
    part_of,
    resizing,
)
from captum_interactions.encoders.families.trial import is_tested, try_out, without_blocks_if_wrong
from captum_interactions.encoders.model.hooks import find_blocks, find_embeddings
from captum_interactions.encoders.model.pooling import OUTPUT_STATES, POOLINGS, Pooling, pooled
from captum_interactions.encoders.towers.base import Tower
from captum_interactions.encoders.towers.image_tower import ImageTower
from captum_interactions.encoders.towers.naflex_tower import NaflexTower
from captum_interactions.encoders.towers.text_tower import TextTower, full_mask

_PROJECTED = ("image_embeds", "text_embeds")

_OTHER_INPUTS = ("input_ids", "pixel_values", "visual_embeds", "visual_feats", "input_features")
"""Inputs of a second modality, which are not supported."""

_OWN_EMBEDDING = ("dpr", "clip_text_model", "siglip_text_model", "siglip2_text_model")
"""Text models that were trained with ``pooler_output`` as their embedding."""

_TUPLES = ("deberta", "deberta-v2", "data2vec-vision")
"""Models whose blocks return hidden states and attention weights."""

_SHARED_BIAS = ("t5", "mt5")
"""Models whose first block computes a position bias for all blocks."""


def is_single_model(model: Any) -> bool:
    """Whether a model is an encoder of ``transformers`` for texts or images, without a head."""
    main = getattr(model, "main_input_name", None)
    if main not in ("input_ids", "pixel_values") or not hasattr(model, "config"):
        return False
    takes = inspect.signature(_bare(model).forward).parameters
    is_single = not any(name in takes for name in _OTHER_INPUTS if name != main)
    return is_single and not re.search("For[A-Z]|LMHead|DoubleHeads", type(_bare(model)).__name__)


def single_tower(model: Any, processor: Any = None, pooling: Pooling | None = None) -> Tower:
    """The tower of a model for which :func:`is_single_model` holds.

    A vision model whose blocks pass on more than hidden states is explained only at its input.

    Args:
        model: The encoder.
        processor (optional): Its tokenizer or image processor, for raw inputs. Default: None
        pooling (str, optional): See :data:`~.pooling.Pooling`. Default: the projected embedding if
            the model has one. Else for texts ``"mean"``, or ``"pooler"`` for a part of CLIP, SigLIP
            or DPR; for images ``"cls"`` if there is a class token, or else ``"pooler"`` if the
            model has one, or else ``"mean"``

    Raises:
        TypeError: If the model is not supported.
        ValueError: If the pooling is unknown.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, but got {pooling!r}")
    if model.main_input_name == "input_ids":
        return _text_tower(model, processor, pooling)
    return _image_tower(model, processor, pooling)


# Texts


def text_blocks(
    model: nn.Module, within: str = ""
) -> tuple[list[str], Callable[[Tensor], Any] | None]:
    """The blocks of a text encoder, and a function to a valid output of skipped blocks.

    Embeddings are not skipped: they are cheap, and a projection often follows them.

    Args:
        model (nn.Module): A model.
        within (str): Name of the encoder in it. Default: the whole model

    Returns:
        tuple: names of the blocks; and a function from states (B, T, D) to the output, or None if
        the states themselves are a valid output.

    Raises:
        TypeError: If a run of the encoder cannot start at its blocks.
    """
    encoder = _bare(model.get_submodule(within))
    name, takes = type(encoder).__name__, inspect.signature(encoder.forward).parameters
    if "decoder_input_ids" in takes:
        raise TypeError(
            f"{name} cannot be explained: the blocks of its decoder read its encoder's output "
            "too. Its encoder can be: model.get_encoder()"
        )
    if "attention_mask" not in takes:
        raise TypeError(
            f"{name} cannot be explained: it takes no attention mask, so padding, which baselines "
            "are made of, would be a part of the text"
        )
    blocks = find_blocks(model, within)
    kind = encoder.config.model_type
    if kind in _TUPLES:
        return blocks, _without_weights
    if kind in _SHARED_BIAS:
        first = model.get_submodule(f"{blocks[0]}.layer.0.SelfAttention")
        return blocks, partial(_with_bias, first)  # a copy of it has a copy of the module
    return blocks, None


def _text_tower(model: Any, processor: Any, pooling: Pooling | None) -> TextTower:
    blocks, answer = text_blocks(model)
    tokenizer = part_of(processor, "tokenizer", "convert_ids_to_tokens")
    part, kind = getattr(model, "text_model", model), model.config.model_type
    if pooling is None and not hasattr(model, "text_projection"):
        pooling = "pooler" if kind in _OWN_EMBEDDING else "mean"
    end_of_text = getattr(part, "eos_token_id", None) if pooling in (None, "pooler") else None
    if end_of_text == 2 and kind in LARGEST_ID_POOLING:
        end_of_text = "largest"
    elif kind in FIXED_LENGTH and pooling in (None, "pooler"):
        end_of_text = "last"
    elif pooling == "pooler" and end_of_text is None:
        end_of_text = "first"
    tower = TextTower(
        model,
        partial(_texts, pooling=pooling),
        blocks,
        config=model.config,
        tokenizer=tokenizer,
        context_length=context_length(part),
        end_of_text=end_of_text,
        fixed_length=kind in FIXED_LENGTH,
        answer=answer,
    )
    tower.pool = OUTPUT_STATES if pooling == "mean" else None
    if not is_tested(model):
        try_out(tower)
    return tower


def _texts(
    model: nn.Module, ids: Tensor, mask: Tensor | None = None, *, pooling: Pooling | None
) -> Tensor:
    mask = full_mask(ids, mask)  # without a mask, some models hide the padding of a baseline
    output = model(input_ids=ids, attention_mask=mask)
    return pooled(output, pooling, mask) if pooling else _projected(output)


def _without_weights(states: Tensor) -> tuple[Tensor, None]:
    return states, None


def _with_bias(attention: Any, states: Tensor) -> tuple[Tensor, Tensor, None]:
    length = states.shape[1]
    return states, attention.compute_bias(length, length, device=states.device).detach(), None


# Images


def _image_tower(model: Any, processor: Any, pooling: Pooling | None) -> ImageTower:
    config, kind = model.config, model.config.model_type
    takes = inspect.signature(model.forward).parameters
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    embeddings = (name for name, _ in model.named_parameters() if "embeddings" in name)
    tokens = {name.rpartition(".")[2] for name in embeddings}
    has_class = bool(tokens & {"cls_token", "class_embedding"})
    pooler = getattr(model, "pooler", None)
    convolutional = isinstance(pooler, (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d))
    convolutional = convolutional or not any(re.search("attention|attn", name) for name in names)
    if pooling == "last" or (pooling == "cls" and not has_class):
        raise ValueError(
            f"{type(model).__name__} has no token for pooling={pooling!r}: take 'mean' or 'pooler'"
        )
    if pooling is None and not hasattr(model, "visual_projection"):
        pools = convolutional or pooler is not None or getattr(model, "head", None) is not None
        pooling = "cls" if has_class else "pooler" if pools else "mean"
    size = getattr(config, "patch_size", 32)
    patch = (size, size) if isinstance(size, int) else (size[0], size[1])
    options: dict[str, Any] = {
        "patch": (32, 32) if convolutional else patch,
        "channels": getattr(config, "num_channels", 3),
        "image_size": image_size(config) or (224, 224),
        "image_processor": part_of(processor, "image_processor", "image_mean"),
    }
    blocks, skipped = find_blocks(model), find_embeddings(model)
    pool = attention_pool(model) if pooling in (None, "pooler") else None
    if pooling == "mean" and not convolutional:
        pool = OUTPUT_STATES
    if "spatial_shapes" in takes:
        run: Callable[..., Tensor] = partial(_patches, pooling=pooling)
        tower: ImageTower = NaflexTower(model, run, blocks, skipped, **options)
        tower.pool = pool
        return tower
    run = partial(_images, pooling=pooling)
    if kind in _TUPLES:
        options["answer"], skipped = _without_weights, []
    if "distillation_token" in tokens:
        options["special"] = ("[class]", "[distillation]")
    options.update(convolutional=convolutional, pools_first=has_class and pooling != "mean")
    tower = ImageTower(model, run, blocks, skipped, **options)
    tower.pool = pool
    return tower if is_tested(model) else without_blocks_if_wrong(tower)


def _images(model: nn.Module, pixels: Tensor, *, pooling: Pooling | None) -> Tensor:
    output = model(pixel_values=pixels, **resizing(model, pixels))
    return pooled(output, pooling) if pooling else _projected(output)


def _patches(
    model: nn.Module,
    pixels: Tensor,
    mask: Tensor | None = None,
    shapes: Tensor | None = None,
    *,
    pooling: Pooling | None,
) -> Tensor:
    output = model(pixel_values=pixels, pixel_attention_mask=mask, spatial_shapes=shapes)
    return pooled(output, pooling or "pooler", mask)


def _projected(output: Any) -> Tensor:
    return cast(Tensor, next(output[name] for name in _PROJECTED if name in output))


def _bare(model: Any) -> Any:
    """A part of a model without the wrappers of torch.compile and PEFT."""
    model = getattr(model, "_orig_mod", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model
