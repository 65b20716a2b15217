"""The towers of FLAVA's contrastive score, which compares its two class tokens."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from captum_interactions.encoders.families.dual_models import image_text
from captum_interactions.encoders.towers.base import Tower


def is_flava(model: Any) -> bool:
    """Whether a model is ``FlavaModel``."""
    return hasattr(model, "image_model") and hasattr(model, "multimodal_model")


def flava_towers(model: nn.Module, processor: Any = None) -> tuple[Tower, Tower]:
    """The towers of a model for which :func:`is_flava` holds, without its multimodal encoder."""
    return image_text(model, processor, _image, _text, ("image_model", "text_model"))


def _image(model: Any, pixels: Tensor) -> Tensor:
    return cast(Tensor, model.get_image_features(pixel_values=pixels).pooler_output[:, 0])


def _text(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    output = model.get_text_features(input_ids=ids, attention_mask=mask)
    return cast(Tensor, output.pooler_output[:, 0])
