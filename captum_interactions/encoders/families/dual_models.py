"""Towers of the dual encoders of ``transformers``: images or sounds, and texts.

These models have two parts (``vision_model`` or ``audio_model``, and ``text_model``), and a getter
of projected embeddings for each. Tables list what individual families do differently.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from captum_interactions.encoders.families.trial import is_tested, try_out
from captum_interactions.encoders.model.hooks import find_blocks, find_embeddings
from captum_interactions.encoders.model.pooling import Pool
from captum_interactions.encoders.towers.audio_tower import AudioTower
from captum_interactions.encoders.towers.base import Tower
from captum_interactions.encoders.towers.block_tower import BlockTower
from captum_interactions.encoders.towers.image_tower import ImageTower
from captum_interactions.encoders.towers.naflex_tower import NaflexTower
from captum_interactions.encoders.towers.text_tower import TextTower, full_mask, shortest

LARGEST_ID_POOLING = ("clip_text_model", "clipseg_text_model", "groupvit_text_model")
"""Text models that pool at the largest id if their config's end-of-text id is 2. MetaCLIP 2 pools
at the end-of-text token too, and there 2 is the true id."""

_ALWAYS_LARGEST = ("owlvit_text_model", "owlv2_text_model")
"""Text models that pool at the largest id, regardless of their config."""

FIXED_LENGTH = ("siglip_text_model", "siglip2_text_model")
"""Text models trained on padded texts without a mask. They pool the last token."""

_HEADS = {
    "aimv2_vision_model": "rms_norm",
    "siglip_vision_model": "post_layernorm",
    "siglip2_vision_model": "post_layernorm",
}
"""Vision models with attention pooling, and the norm before it."""


def attention_pool(part: Any, name: str = "") -> Pool | None:
    """The attention pooling of a vision model, if it has one; ``name`` is its name in the model."""
    norm = _HEADS.get(part.config.model_type)
    if norm is None or getattr(part, "head", None) is None:
        return None
    return Pool(f"{name}.{norm}".lstrip("."), is_default=True)


def is_dual_model(model: Any) -> bool:
    """Whether a model has two parts and a getter for each."""
    if not (hasattr(model, "get_text_features") and hasattr(model, "text_model")):
        return False
    has_images = hasattr(model, "get_image_features") and hasattr(model, "vision_model")
    return has_images or (hasattr(model, "get_audio_features") and hasattr(model, "audio_model"))


def dual_towers(model: nn.Module, processor: Any = None) -> tuple[Tower, Tower]:
    """The towers of a model for which :func:`is_dual_model` holds.

    Args:
        model (nn.Module): The model.
        processor (optional): Its processor, for raw inputs, or a tuple of one for each side.
            Default: None

    Raises:
        TypeError: If the processor fits neither side, or the model is not supported.
    """
    own_a, own_b = _each(processor)
    if hasattr(model, "get_audio_features"):
        extractor = part_of(own_a, "feature_extractor", "nb_max_samples")
        tokenizer = part_of(own_b, "tokenizer", "convert_ids_to_tokens")
        _refuse_useless(processor, extractor, tokenizer)
        texts = _text_tower(model, tokenizer, _text_features, "text_model")
        towers: tuple[BlockTower, BlockTower] = _audio_tower(model, extractor), texts
    else:
        towers = image_text(model, processor, _image_features, _text_features)
    if not is_tested(model):
        for tower in towers:
            try_out(tower)
    return towers


def image_text(
    model: Any,
    processor: Any,
    images: Callable[..., Tensor],
    texts: Callable[..., Tensor],
    parts: tuple[str, str] = ("vision_model", "text_model"),
) -> tuple[ImageTower, TextTower]:
    """The towers of a model with a part for images and one for texts.

    Args:
        model: The model.
        processor: Its processor, or a tuple of one for each side, or None.
        images (Callable): From the model and pixel values (B, C, H, W) to embeddings (B, K).
        texts (Callable): From the model, token ids (B, T) and their mask (B, T), which may be None,
            to embeddings (B, K).
        parts (tuple): Names of the two parts in the model.
    """
    own_a, own_b = _each(processor)
    image_processor = part_of(own_a, "image_processor", "image_mean")
    tokenizer = part_of(own_b, "tokenizer", "convert_ids_to_tokens")
    _refuse_useless(processor, image_processor, tokenizer)
    return (
        _image_tower(model, image_processor, images, parts[0]),
        _text_tower(model, tokenizer, texts, parts[1]),
    )


def _each(processor: Any) -> tuple[Any, Any]:
    """The processor of each side; usually the same one."""
    if isinstance(processor, tuple) and len(processor) == 2:
        return processor
    return processor, processor


def _refuse_useless(processor: Any, *found: Any) -> None:
    """Raise an error if a processor, or one of a tuple, fits no side."""
    given = processor if isinstance(processor, tuple) else (processor,)
    useless = [one for one in given if one is not None]
    if len(useless) > sum(part is not None for part in found):
        kinds = ", ".join(type(one).__name__ for one in useless)
        raise TypeError(
            "the processor must be the model's own (or its parts, the first one for images or "
            f"sounds, the second for texts), but got {kinds}"
        )


def is_blip_retrieval(model: Any) -> bool:
    """Whether a model is ``BlipForImageTextRetrieval``."""
    return hasattr(model, "itm_head") and hasattr(model, "vision_proj")


def blip_retrieval_towers(model: nn.Module, processor: Any = None) -> tuple[Tower, Tower]:
    """The towers of BLIP's contrastive head (``use_itm_head=False``).

    The other head applies cross-attention to both inputs, so its score is not a product of two
    embeddings.
    """
    parts = ("vision_model", "text_encoder")
    return image_text(model, processor, _blip_image, _blip_text, parts)


def part_of(processor: Any, name: str, mark: str) -> Any:
    """The tokenizer or image processor of a processor; a bare one fits its own side only."""
    return getattr(processor, name, processor if hasattr(processor, mark) else None)


# Images


def _image_tower(
    model: Any, image_processor: Any, run: Callable[..., Tensor], part_name: str
) -> ImageTower:
    part = getattr(model, part_name)
    blocks, skipped = find_blocks(model, part_name), find_embeddings(model, part_name)
    channels = getattr(part.config, "num_channels", 3)
    size = image_size(part.config)
    family = part.config.model_type
    if family == "siglip2_vision_model":
        tower: ImageTower = NaflexTower(
            model,
            _naflex_features,
            blocks,
            skipped,
            patch=_pair(part.config.patch_size),
            channels=channels,
            image_processor=image_processor,
        )
        tower.pool = attention_pool(part, part_name)
        return tower
    if family == "align_vision_model":
        # The last block is the pooling of the last feature map.
        return ImageTower(
            model,
            run,
            [*blocks, f"{part_name}.pooler"],
            skipped,
            patch=(32, 32),
            channels=channels,
            image_size=size,
            image_processor=image_processor,
            convolutional=True,
        )
    answer = None
    if family == "groupvit_vision_model":
        # Before the last stage, group tokens bypass the blocks. After it they are the tokens, and
        # the grouping, which has no useful derivative, is done.
        *stages, last = (f"{part_name}.encoder.stages.{i}" for i in range(len(part.encoder.stages)))
        blocks, skipped = find_blocks(model, last), [*skipped, *stages]
        answer = _group_tokens
    tower = ImageTower(
        model,
        run,
        blocks,
        skipped,
        patch=_pair(part.config.patch_size),
        channels=channels,
        image_size=size,
        image_processor=image_processor,
        pools_first=has_class_token(part),
        answer=answer,
    )
    tower.pool = attention_pool(part, part_name)
    return tower


def has_class_token(part: nn.Module) -> bool:
    """Whether the embeddings of a vision model begin with a token for the class."""
    embeddings = getattr(part, "embeddings", None)
    return any(hasattr(embeddings, name) for name in ("class_embedding", "cls_token"))


def _image_features(model: Any, pixels: Tensor) -> Tensor:
    return _embedding(model.get_image_features(pixel_values=pixels, **resizing(model, pixels)))


def _naflex_features(
    model: Any, pixels: Tensor, mask: Tensor | None = None, shapes: Tensor | None = None
) -> Tensor:
    return _embedding(
        model.get_image_features(
            pixel_values=pixels, pixel_attention_mask=mask, spatial_shapes=shapes
        )
    )


def _blip_image(model: Any, pixels: Tensor) -> Tensor:
    states = model.vision_model(pixel_values=pixels, **resizing(model, pixels)).last_hidden_state
    return cast(Tensor, model.vision_proj(states[:, 0]))


def _group_tokens(states: Tensor) -> tuple[Tensor, None]:
    return states, None


def image_size(config: Any) -> tuple[int, int] | None:
    """(height, width) of the training images, if the config has it."""
    size = getattr(config, "image_size", None)
    return None if size is None else _pair(size)


def resizing(model: Any, pixels: Tensor) -> dict[str, bool]:
    """The option with which a model takes pixels (B, C, H, W) of another size than in training."""
    config = getattr(model.config, "vision_config", model.config)
    runs = getattr(model, "get_image_features", model.forward)
    is_trained = image_size(config) in (None, tuple(pixels.shape[-2:]))
    takes_it = "interpolate_pos_encoding" in inspect.signature(runs).parameters
    return {} if is_trained or not takes_it else {"interpolate_pos_encoding": True}


# Texts


def _text_tower(
    model: Any, tokenizer: Any, run: Callable[..., Tensor], part_name: str
) -> TextTower:
    part = getattr(model, part_name)
    family = part.config.model_type
    end_of_text: Any = getattr(part, "eos_token_id", None)
    if family in _ALWAYS_LARGEST or (end_of_text == 2 and family in LARGEST_ID_POOLING):
        end_of_text = "largest"
    elif family in FIXED_LENGTH:
        end_of_text = "last"
    elif end_of_text is None:
        end_of_text = "first"
    return TextTower(
        model,
        run,
        find_blocks(model, part_name),
        find_embeddings(model, part_name),
        config=part.config,
        tokenizer=tokenizer,
        context_length=context_length(part),
        end_of_text=end_of_text,
        fixed_length=family in FIXED_LENGTH,
    )


def _text_features(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    if model.config.model_type == "aimv2":
        mask = full_mask(ids, mask)  # without one, tokens attend to later ones
    return _embedding(model.get_text_features(input_ids=ids, attention_mask=mask))


def _blip_text(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    states = model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return cast(Tensor, model.text_proj(states[:, 0]))


def context_length(part: nn.Module) -> int | None:
    """Maximum number of tokens, special ones included; None if the config has no limit."""
    for name, module in part.named_modules():
        last = name.rpartition(".")[2]
        if last.startswith("position_embedding") and isinstance(module, nn.Embedding):
            # RoBERTa and related models count positions from their padding id on.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    return shortest(getattr(part.config, "max_position_embeddings", None))


# Sounds


def _audio_tower(model: Any, feature_extractor: Any) -> AudioTower:
    encoder, config = "audio_model.audio_encoder", model.config.audio_config
    return AudioTower(
        model,
        _audio_features,
        find_blocks(model, encoder),
        [f"{encoder}.patch_embed"],
        n_stretches=config.spec_size // config.num_mel_bins,
        mean_level=f"{encoder}.batch_norm.running_mean",
        feature_extractor=feature_extractor,
        channels=4 if config.enable_fusion else 1,
        answer=_swin_stage,
    )


def _audio_features(model: Any, features: Tensor, is_longer: Tensor | None = None) -> Tensor:
    return _embedding(model.get_audio_features(input_features=features, is_longer=is_longer))


def _swin_stage(states: Tensor) -> tuple[Any, ...]:
    return states, states, (0, 0)


def _embedding(output: Any) -> Tensor:
    """The projected embedding; older getters return the tensor itself."""
    return output if isinstance(output, Tensor) else cast(Tensor, output.pooler_output)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
