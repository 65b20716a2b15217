"""Models of the published sizes with random weights; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from captum_interactions import DualEncoderWrapper, load_demo, wrap

BEGIN, END = 49406, 49407
MODELS = ("B/32", "B/16", "L/14", "SigLIP", "MiniLM")
"""CLIP ViT-B/32, B/16 and L/14, SigLIP ViT-B/16, and a sentence encoder of the size of
all-MiniLM-L6-v2."""
_PADDING = 1

# (vision width, blocks, heads), (text width, heads), dimension of the embedding.
_SIZES = {
    14: ((1024, 24, 16), (768, 12), 768),
    16: ((768, 12, 12), (512, 8), 512),
    32: ((768, 12, 12), (512, 8), 512),
}


def clip(patch: int, image_size: int = 224, **tiny: Any) -> CLIPModel:
    """CLIP ViT-B with 16 or 32 pixels per patch, or ViT-L with 14, at 224 pixels.

    ``tiny`` changes both towers' config.
    """
    torch.manual_seed(0)
    (width, blocks, heads), (text_width, text_heads), dimension = _SIZES[patch]
    config = CLIPConfig(
        projection_dim=dimension,
        text_config={
            "vocab_size": 49408,
            "hidden_size": text_width,
            "intermediate_size": 4 * text_width,
            "num_hidden_layers": 12,
            "num_attention_heads": text_heads,
            "bos_token_id": BEGIN,
            "eos_token_id": END,
            "pad_token_id": 0,
            **tiny,
        },
        vision_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": blocks,
            "num_attention_heads": heads,
            "image_size": image_size,
            "patch_size": patch,
            **tiny,
        },
    )
    return CLIPModel(config).eval()


def siglip() -> SiglipModel:
    """SigLIP ViT-B/16 at 224 pixels, whose texts are padded to 64 tokens."""
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig()).eval()
    torch.nn.init.normal_(model.vision_model.head.probe)
    return model


def sentences() -> BertModel:
    """An encoder of the size of all-MiniLM-L6-v2."""
    torch.manual_seed(0)
    return BertModel(
        BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        )
    ).eval()


def wrapped(name: str) -> DualEncoderWrapper:
    """One of :data:`MODELS`, or ``"bundled"`` with its trained weights."""
    if name == "bundled":
        return load_demo(1)[0]
    if name == "MiniLM":
        return wrap(sentences(), pooling="mean")
    if name == "SigLIP":
        return wrap(siglip())
    return wrap(clip(int(name.partition("/")[2])))


def inputs_of(name: str, n_tokens: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Pairs for one of :data:`MODELS`; of a sentence encoder both have ``n_tokens`` tokens.

    The bundled model has one pair, with a caption of its own.
    """
    if name == "bundled":
        wrapper, (scene,) = load_demo(1)
        return wrapper.prepare(scene.image, scene.caption).inputs
    if name == "SigLIP":
        pixels, ids = pair(n_tokens, batch)
        ids[:, 0], ids[:, -1] = 2000, _PADDING  # no start, and padding ends a text
        padded = torch.nn.functional.pad(ids % 32000, (0, 64 - n_tokens), value=_PADDING)
        return pixels, padded
    if name != "MiniLM":
        return pair(n_tokens, batch)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2000, 30000, (2, batch, n_tokens), generator=generator)
    ids[..., 0], ids[..., -1] = 101, 102
    return ids[0], ids[1]


def pair(n_tokens: int, batch: int = 1, image_size: int = 224) -> tuple[Tensor, Tensor]:
    """Pixel values (B, 3, 224, 224) and token ids (B, n_tokens) with their special tokens."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(batch, 3, image_size, image_size, generator=generator)
    ids = torch.randint(1000, 40000, (batch, n_tokens), generator=generator)
    ids[:, 0], ids[:, -1] = BEGIN, END
    return pixels, ids
