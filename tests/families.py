"""Every family of models that is supported: small instances with random weights.

The table of supported models in the documents is made from this list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn

from tests import models


class Family(NamedTuple):
    """A kind of model, as users know it."""

    name: str
    kind: str
    """What the pair is: image–text, audio–text, text–text or image–image."""
    build: Callable[[], nn.Module]
    blocks: str
    """What an int layer counts, for each tower."""
    note: str = ""
    similarity: Callable[[Any, dict[str, Any]], Tensor] | None = None
    """The model's own score of aligned pairs, from its keyword arguments; None if it has none."""


def text_config(**changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": models.VOCABULARY,
        "hidden_size": 12,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "pad_token_id": 0,
        **changes,
    }


def roberta_config(**changes: Any) -> dict[str, Any]:
    return text_config(max_position_embeddings=18, pad_token_id=1, **changes)


def vision_config(**changes: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 12,
        "patch_size": 4,
        **changes,
    }


def _pair(
    model: str,
    config: str,
    text: dict[str, Any],
    vision: dict[str, Any],
    **changes: Any,
) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        configuration = getattr(transformers, config)(
            text_config=text, vision_config=vision, **changes
        )
        return _randomise(getattr(transformers, model)(configuration))

    return build


def _randomise(model: nn.Module) -> nn.Module:
    models.randomise(model)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (1, 1):
            module.weight.data *= 2  # else little is left after many of them
        if isinstance(module, nn.BatchNorm2d):
            size = module.running_mean.shape
            nn.init.ones_(module.weight)
            module.running_mean.copy_(0.1 * torch.randn(size, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(size, generator=generator))
    return model


def _two_encoders(vision: Any, text: Any) -> nn.Module:
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        vision, text, projection_dim=24
    )
    return _randomise(transformers.VisionTextDualEncoderModel(config=config))


def _clap() -> nn.Module:
    audio = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 8,
        "depths": [1, 2],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "window_size": 4,
        "enable_fusion": False,
    }
    config = transformers.ClapConfig(
        text_config=roberta_config(), audio_config=audio, projection_dim=24
    )
    return _randomise(transformers.ClapModel(config))


def _logits(model: Any, kwargs: dict[str, Any]) -> Tensor:
    """Cosines from logits that are scaled, and shifted by SigLIP."""
    output = model(**kwargs)
    logits = output.logits_per_image.diagonal()
    shift = getattr(model, "logit_bias", 0.0)
    return (logits - shift) / model.logit_scale.exp()


def _align(model: Any, kwargs: dict[str, Any]) -> Tensor:
    return model(**kwargs).logits_per_image.diagonal() * model.temperature


def _blip(model: Any, kwargs: dict[str, Any]) -> Tensor:
    return model(**kwargs, use_itm_head=False).itm_score.diagonal()


def _clap_logits(model: Any, kwargs: dict[str, Any]) -> Tensor:
    logits = model(**kwargs).logits_per_audio.diagonal()
    return logits / model.logit_scale_a.exp()


def plain_attention(model: nn.Module) -> nn.Module:
    model.set_attn_implementation("eager")
    return model


def _flava() -> nn.Module:
    image = vision_config()
    config = transformers.FlavaConfig(
        text_config=text_config(),
        image_config=image,
        multimodal_config=text_config(),
        image_codebook_config={"hidden_size": 8, "num_groups": 1, "num_blocks_per_group": 1},
        projection_dim=24,
    )
    return _randomise(transformers.FlavaModel(config))


def _flava_score(model: Any, kwargs: dict[str, Any]) -> Tensor:
    kwargs = dict(kwargs)
    image = model.get_image_features(kwargs.pop("pixel_values")).pooler_output[:, 0]
    text = model.get_text_features(**kwargs).pooler_output[:, 0]
    return torch.cosine_similarity(image, text)


def _tips(model: Any, kwargs: dict[str, Any]) -> Tensor:
    output = model(**kwargs)
    return torch.cosine_similarity(output.image_embeds, output.text_embeds)


def default_layers(wrapper: Any) -> list[str]:
    """The default layer of each encoder; marked where it has a way of its own along a path."""
    names = []
    towers = (wrapper.tower_a, wrapper.tower_b)
    for tower, layer in zip(towers, wrapper.default_layers, strict=True):
        inputs, extras, _ = tower.prepare(tower.sample())
        is_quick = False
        if layer != "input":
            layer = tower.resolve_layer(layer)
            with torch.no_grad():
                states, context = tower.prefix(layer, inputs, *extras)
                ends = (0 * states[:1], states)
                ways = (way(layer, *ends, *context) for way in (tower.along, tower.mean_along))
                is_quick = any(way is not None for way in ways)
        name = layer if isinstance(layer, str) else "last block"
        names.append(f"{name}{' (quick)' if is_quick else ''}")
    return names


_EOS = {"bos_token_id": models.BOS, "eos_token_id": models.EOS}
_IMAGE_TEXT = "image–text"

FAMILIES = [
    Family(
        "CLIP",
        _IMAGE_TEXT,
        _pair("CLIPModel", "CLIPConfig", text_config(**_EOS), vision_config(), projection_dim=24),
        "transformer blocks",
        "the last block is computed for the pooled token only",
        _logits,
    ),
    Family(
        "MetaCLIP 2",
        _IMAGE_TEXT,
        _pair(
            "MetaClip2Model",
            "MetaClip2Config",
            text_config(**_EOS),
            vision_config(),
            projection_dim=24,
        ),
        "transformer blocks",
        "",
        _logits,
    ),
    Family(
        "Chinese-CLIP",
        _IMAGE_TEXT,
        _pair(
            "ChineseCLIPModel",
            "ChineseCLIPConfig",
            text_config(),
            vision_config(),
            projection_dim=24,
        ),
        "transformer blocks",
        "",
        _logits,
    ),
    Family(
        "AltCLIP",
        _IMAGE_TEXT,
        _pair(
            "AltCLIPModel",
            "AltCLIPConfig",
            roberta_config(project_dim=12),
            vision_config(),
            projection_dim=24,
        ),
        "transformer blocks",
        "",
        _logits,
    ),
    Family(
        "SigLIP, SigLIP 2 (fixed resolution)",
        _IMAGE_TEXT,
        _pair("SiglipModel", "SiglipConfig", text_config(projection_size=16), vision_config()),
        "transformer blocks",
        "texts are padded to the context, and padding takes part",
        _logits,
    ),
    Family(
        "SigLIP 2 (NaFlex)",
        _IMAGE_TEXT,
        _pair(
            "Siglip2Model",
            "Siglip2Config",
            text_config(projection_size=16),
            {k: v for k, v in vision_config(num_patches=16).items() if k != "image_size"},
        ),
        "transformer blocks",
        "images keep their aspect ratio",
        _logits,
    ),
    Family(
        "ALIGN",
        _IMAGE_TEXT,
        _pair(
            "AlignModel",
            "AlignConfig",
            text_config(),
            {
                "image_size": 64,
                "width_coefficient": 0.2,
                "depth_coefficient": 0.3,
                "hidden_dim": 64,
            },
            projection_dim=64,
        ),
        "convolutional blocks, and the last feature map",
        "the cells of a feature map are the patches",
        _align,
    ),
    Family(
        "BLIP",
        _IMAGE_TEXT,
        _pair("BlipModel", "BlipConfig", text_config(), vision_config(), projection_dim=24),
        "transformer blocks",
        "",
        _logits,
    ),
    Family(
        "BLIP image–text retrieval",
        _IMAGE_TEXT,
        _pair(
            "BlipForImageTextRetrieval",
            "BlipConfig",
            text_config(),
            vision_config(),
            image_text_hidden_size=24,
        ),
        "transformer blocks",
        "the contrastive head; the other one mixes both inputs by cross-attention",
        _blip,
    ),
    Family(
        "CLIPSeg",
        _IMAGE_TEXT,
        _pair(
            "CLIPSegModel",
            "CLIPSegConfig",
            text_config(**_EOS),
            vision_config(),
            projection_dim=24,
        ),
        "transformer blocks",
        "its CLIP, without the segmentation decoder",
        _logits,
    ),
    Family(
        "GroupViT",
        _IMAGE_TEXT,
        _pair(
            "GroupViTModel",
            "GroupViTConfig",
            text_config(**_EOS),
            vision_config(
                image_size=24,
                depths=[2, 1, 2],
                num_hidden_layers=5,
                num_group_tokens=[6, 3, 0],
                num_output_groups=[6, 3, 0],
            ),
            projection_dim=24,
            projection_intermediate_dim=24,
        ),
        "transformer blocks (text), those of the last stage (image)",
        "image tokens are the segments; before them lies a hard assignment",
        _logits,
    ),
    Family(
        "VisionTextDualEncoder (ViT, BERT)",
        _IMAGE_TEXT,
        lambda: _two_encoders(
            transformers.ViTConfig(**vision_config()), transformers.BertConfig(**text_config())
        ),
        "transformer blocks",
        "",
        _logits,
    ),
    Family(
        "VisionTextDualEncoder (DINOv2, RoBERTa)",
        _IMAGE_TEXT,
        lambda: _two_encoders(
            transformers.Dinov2Config(**vision_config()),
            transformers.RobertaConfig(**roberta_config()),
        ),
        "transformer blocks",
        "",
        _logits,
    ),
    Family(
        "AIMv2",
        _IMAGE_TEXT,
        lambda: plain_attention(
            _pair(
                "Aimv2Model",
                "Aimv2Config",
                text_config(eos_token_id=models.EOS),
                vision_config(use_head=True),
                projection_dim=24,
            )()
        ),
        "transformer blocks, and the pooled tokens of images",
        "with plain attention: otherwise padding changes a text",
        _logits,
    ),
    Family(
        "OWL-ViT",
        _IMAGE_TEXT,
        _pair(
            "OwlViTModel", "OwlViTConfig", text_config(**_EOS), vision_config(), projection_dim=24
        ),
        "transformer blocks",
        "its CLIP, without the detection heads",
        _logits,
    ),
    Family(
        "OWLv2",
        _IMAGE_TEXT,
        _pair("Owlv2Model", "Owlv2Config", text_config(**_EOS), vision_config(), projection_dim=24),
        "transformer blocks",
        "its CLIP, without the detection heads",
        _logits,
    ),
    Family(
        "TIPSv2",
        _IMAGE_TEXT,
        _pair("Tipsv2Model", "Tipsv2Config", text_config(hidden_size=16), vision_config()),
        "transformer blocks",
        "",
        _tips,
    ),
    Family(
        "FLAVA",
        _IMAGE_TEXT,
        _flava,
        "transformer blocks",
        "its contrastive score, without the multimodal encoder",
        _flava_score,
    ),
    Family(
        "CLAP",
        "audio–text",
        _clap,
        "stages (audio), transformer blocks (text)",
        "sound tokens are cells of time and frequency",
        _clap_logits,
    ),
]
