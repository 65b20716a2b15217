"""Builds the small CLIP models that the reference arrays in this folder were computed on.

Every weight is drawn from ``numpy.random.RandomState(crc32(name) + seed)``, so the model needs no
download and is the same everywhere. ``exclip_case_*.npz`` hold, for such a model, the interaction
attributions that the published program of the paper's authors returns (float32, CPU):

- ``pixel_values`` (1, 3, H, W) and ``input_ids`` (1, 77);
- ``attributions`` (tokens up to and with EOS, patch rows, patch columns), without the class token;
- ``similarity``: the cosines of (a, b), (reference image, text), (image, reference text) and of
  both references;
- ``spec_*``: arguments of :func:`tiny_clip`; N, the number of steps of the right Riemann sum;
  tlayer and vlayer, the blocks whose entering hidden states are explained.

That program's image reference is zero in normalised pixel space. Its text reference is BOS, one
id-0 token, EOS, then zeros, while every state on the path is pooled where the caption's EOS is. The
path runs through embeddings of any length; the result is divided by the norms of the pair's.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

CASES = tuple(sorted(Path(__file__).parent.glob("exclip_case_*.npz")))


def tiny_clip(tw=32, tl=3, vw=64, vl=4, patch=8, img=32, proj=40, seed=0) -> CLIPModel:
    """CLIPModel with text width and layers tw and tl, vision width and layers vw and vl."""
    config = CLIPConfig(
        projection_dim=proj,
        text_config={
            "vocab_size": 49408,
            "hidden_size": tw,
            "intermediate_size": 4 * tw,
            "num_hidden_layers": tl,
            "num_attention_heads": 1,
            "max_position_embeddings": 77,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
            "pad_token_id": 0,
            "projection_dim": proj,
            "hidden_act": "quick_gelu",
        },
        vision_config={
            "hidden_size": vw,
            "intermediate_size": 4 * vw,
            "num_hidden_layers": vl,
            "num_attention_heads": 1,
            "image_size": img,
            "patch_size": patch,
            "projection_dim": proj,
            "hidden_act": "quick_gelu",
        },
    )
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(_draw(name, tuple(parameter.shape), seed)))
    return model


def load_case(path: Path) -> tuple[CLIPModel, dict[str, np.ndarray]]:
    """The model and the arrays of one file."""
    with np.load(path) as file:
        case = dict(file)
    names = ("tw", "tl", "vw", "vl", "patch", "img", "proj", "seed")
    spec = {name: int(case[f"spec_{name}"]) for name in names if f"spec_{name}" in case}
    return tiny_clip(**spec), case


def _draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if name == "logit_scale":
        return np.array(2.6592, np.float32)
    random = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    values = random.standard_normal(shape)
    if "norm" in name or "layrnorm" in name:
        values = 1 + 0.1 * values if name.endswith("weight") else 0.1 * values
    elif len(shape) > 1 and "embedding" not in name:
        values = values / np.sqrt(shape[-1]) * 1.2
    elif "patch_embedding" in name:
        values = values / np.sqrt(np.prod(shape[1:]))
    elif "embedding" in name:
        values = values * 0.5
    else:
        values = 0.05 * values
    return values.astype(np.float32)
