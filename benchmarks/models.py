"""Models of the published sizes with random weights; nothing is downloaded."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

BEGIN, END = 49406, 49407


def clip(patch: int) -> CLIPModel:
    """CLIP ViT-B with 16 or 32 pixels a patch, at 224 pixels."""
    torch.manual_seed(0)
    config = CLIPConfig(
        projection_dim=512,
        text_config={
            "vocab_size": 49408,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "bos_token_id": BEGIN,
            "eos_token_id": END,
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 224,
            "patch_size": patch,
        },
    )
    return CLIPModel(config).eval()


def pair(n_tokens: int) -> tuple[Tensor, Tensor]:
    """Pixel values (1, 3, 224, 224) and token ids (1, n_tokens) with their special tokens."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(1, 3, 224, 224, generator=generator)
    ids = torch.randint(1000, 40000, (1, n_tokens), generator=generator)
    ids[0, 0], ids[0, -1] = BEGIN, END
    return pixels, ids
