"""Towers of single encoders of ``transformers``: a text or vision backbone and a pooling."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from captum_interactions.encoders.cut import find_blocks, find_embeddings
from captum_interactions.encoders.dual_models import context_length, part_of, resizing
from captum_interactions.encoders.image_tower import ImageTower
from captum_interactions.encoders.pooling import POOLINGS, Pooling, pooled
from captum_interactions.encoders.text_tower import TextTower
from captum_interactions.encoders.tower import Tower

_PROJECTED = ("image_embeds", "text_embeds")


def is_single_model(model: Any) -> bool:
    """Whether a model is an encoder of ``transformers`` for texts or images, without a head."""
    known = getattr(model, "main_input_name", None) in ("input_ids", "pixel_values")
    has_head = re.search("For[A-Z]", type(model).__name__) is not None
    return known and hasattr(model, "config") and not has_head


def single_tower(model: Any, processor: Any = None, pooling: Pooling | None = None) -> Tower:
    """The tower of a model for which :func:`is_single_model` holds.

    Args:
        model: The encoder.
        processor (optional): Its tokenizer or image processor, for raw inputs. Default: None
        pooling (str, optional): See :data:`~.pooling.Pooling`. Default: the projected embedding if
            the model has one, else ``"mean"`` for texts and feature maps and ``"cls"`` for patches

    Raises:
        ValueError: If there is no such pooling.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, but got {pooling!r}")
    config, projected = model.config, hasattr(model, "visual_projection")
    projected = projected or hasattr(model, "text_projection")
    blocks, skipped = find_blocks(model), find_embeddings(model)
    if model.main_input_name == "input_ids":
        tokenizer = part_of(processor, "tokenizer", "convert_ids_to_tokens")
        part = getattr(model, "text_model", model)
        return TextTower(
            model,
            partial(_texts, pooling=pooling or (None if projected else "mean")),
            blocks,
            skipped,
            config=config,
            tokenizer=tokenizer,
            context_length=context_length(part, tokenizer),
            end_of_text=getattr(part, "eos_token_id", None) if projected else None,
        )
    pooler = getattr(model, "pooler", None)
    convolutional = isinstance(pooler, (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d))
    default: Pooling = "mean" if convolutional else "cls"
    patch = getattr(config, "patch_size", 32)
    return ImageTower(
        model,
        partial(_images, pooling=pooling or (None if projected else default)),
        blocks,
        skipped,
        patch=(patch, patch) if isinstance(patch, int) else (patch[0], patch[1]),
        channels=getattr(config, "num_channels", 3),
        image_processor=part_of(processor, "image_processor", "image_mean"),
        convolutional=convolutional,
    )


def _texts(
    model: nn.Module, ids: Tensor, mask: Tensor | None = None, *, pooling: Pooling | None
) -> Tensor:
    output = model(input_ids=ids, attention_mask=mask)
    return pooled(output, pooling, mask) if pooling else _projected(output)


def _images(model: nn.Module, pixels: Tensor, *, pooling: Pooling | None) -> Tensor:
    output = model(pixel_values=pixels, **resizing(model, pixels))
    return pooled(output, pooling) if pooling else _projected(output)


def _projected(output: Any) -> Tensor:
    return cast(Tensor, next(output[name] for name in _PROJECTED if name in output))
