"""Small models with the layout of OpenAI's ``clip`` and of ``open_clip``, and their tokenizers.

Written anew from what is known of these packages: the names, the order of axes and the pooling are
theirs, the rest is as short as it can be.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import regex
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests import models

CONTEXT = 77
WORDS = ("a", "red", "circle", "dog", "cir", "isn", "mile")
CELL = 4


# Tokenizers


class SimpleTokenizer:
    """CLIP's byte-pair tokenizer: whole words that it knows, and else single bytes."""

    def __init__(self, start: str = "<|startoftext|>", end: str = "<|endoftext|>") -> None:
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in plain]
        self.byte_encoder = {byte: chr(byte) for byte in plain}
        self.byte_encoder |= {byte: chr(256 + index) for index, byte in enumerate(others)}
        self.byte_decoder = {letter: byte for byte, letter in self.byte_encoder.items()}
        letters = list(self.byte_encoder.values())
        pieces = [*letters, *(f"{x}</w>" for x in letters), *(f"{x}</w>" for x in WORDS)]
        pieces = [*dict.fromkeys(pieces), start, end]
        self.encoder = {piece: index for index, piece in enumerate(pieces)}
        self.decoder = dict(enumerate(pieces))

    def encode(self, text: str) -> list[int]:
        text = " ".join(text.replace("’", "'").replace("&amp;", "&").split()).lower()
        found = []
        for word in regex.findall(r"'s|'t|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", text):
            *letters, last = (self.byte_encoder[byte] for byte in word.encode())
            whole = "".join([*letters, last, "</w>"])
            found += [whole] if whole in self.encoder else [*letters, f"{last}</w>"]
        return [self.encoder[piece] for piece in found]


_tokenizer = SimpleTokenizer()
VOCABULARY = len(_tokenizer.encoder)


def tokenize(texts: list[str], context_length: int = CONTEXT, truncate: bool = False) -> Tensor:
    """``clip.tokenize``."""
    ids = torch.zeros(len(texts), context_length, dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        tokens = [VOCABULARY - 2, *_tokenizer.encode(text), VOCABULARY - 1]
        if len(tokens) > context_length:
            assert truncate
            tokens = [*tokens[: context_length - 1], VOCABULARY - 1]
        row[: len(tokens)] = torch.tensor(tokens)
    return ids


class HFTokenizer:
    """A tokenizer of ``transformers`` behind a cleaning of texts, as in ``open_clip``."""

    def __init__(self, tokenizer: Any, clean: Any, mode: str = "", strip: bool = False) -> None:
        self.tokenizer = tokenizer
        self.clean_fn = clean
        self.context_length = 16
        self.tokenizer_mode = mode
        self.strip_sep_token = strip

    def __call__(self, texts: list[str]) -> Tensor:
        ids = self.tokenizer(
            [self.clean_fn(text) for text in texts],
            return_tensors="pt",
            max_length=self.context_length,
            padding="max_length",
            truncation=True,
        ).input_ids
        separator = self.tokenizer.sep_token_id
        return ids.where(ids != separator, 0) if self.strip_sep_token else ids


def preprocess(size: int) -> Any:
    """Resize the shorter side and crop the centre, as torchvision's transforms do it."""

    def transform(image: Image.Image) -> Tensor:
        scale = size / min(image.size)
        width, height = (int(scale * length) for length in image.size)
        left, top = round((width - size) / 2), round((height - size) / 2)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32)
        return torch.from_numpy((pixels / 255 - 0.45) / 0.27).permute(2, 0, 1)

    return transform


# Blocks


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width: int, mask: Tensor | None, batch_first: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=batch_first)
        self.mlp = nn.Sequential(nn.Linear(width, 24), QuickGELU(), nn.Linear(24, width))
        self.attn_mask = mask

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        mask = self.attn_mask if attn_mask is None else attn_mask
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Blocks that take (T, B, D) in OpenAI's package, (B, T, D) in ``open_clip``."""

    def __init__(self, width: int, mask: Tensor | None = None, batch_first: bool = False) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, mask, batch_first) for _ in range(3)))
        if batch_first:
            self.batch_first = True
            self.grad_checkpointing = False

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        if not hasattr(self, "batch_first"):
            return self.resblocks(x.transpose(0, 1)).transpose(0, 1)
        for block in self.resblocks:
            if self.grad_checkpointing:
                x = checkpoint(block, x, attn_mask, use_reentrant=False)
            else:
                x = block(x, attn_mask=attn_mask)
        return x


def causal(length: int) -> Tensor:
    return torch.full((length, length), float("-inf")).triu(1)


# Image encoders


class VisionTransformer(nn.Module):
    def __init__(self, batch_first: bool = False, pool_type: str = "tok") -> None:
        super().__init__()
        self.input_resolution = 3 * CELL
        self.conv1 = nn.Conv2d(3, 16, CELL, CELL, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(16))
        self.positional_embedding = nn.Parameter(torch.empty(10, 16))
        self.ln_pre, self.ln_post = nn.LayerNorm(16), nn.LayerNorm(16)
        self.transformer = Transformer(16, batch_first=batch_first)
        self.proj = nn.Parameter(torch.empty(16, 24))
        self.pool_type = pool_type

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1)
        x = self.transformer(self.ln_pre(x + self.positional_embedding))
        return self.ln_post(x[:, 0] if self.pool_type == "tok" else x[:, 1:].mean(1)) @ self.proj


class Bottleneck(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, 3, padding=1, bias=False)
        self.bn, self.relu = nn.BatchNorm2d(out), nn.ReLU(inplace=True)
        self.avgpool = nn.AvgPool2d(stride)
        self.downsample = nn.Conv2d(width, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.avgpool(self.bn(self.conv(x)))
        y += self.downsample(self.avgpool(x))
        return self.relu(y)


class AttentionPool(nn.Module):
    def __init__(self, cells: int, width: int, dimension: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(cells + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, dimension)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x]) + self.positional_embedding[:, None]
        parts = (self.q_proj, self.k_proj, self.v_proj)
        return F.multi_head_attention_forward(
            x[:1],
            x,
            x,
            embed_dim_to_check=x.shape[-1],
            num_heads=2,
            in_proj_weight=None,
            in_proj_bias=torch.cat([part.bias for part in parts]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=self.c_proj.weight,
            out_proj_bias=self.c_proj.bias,
            use_separate_proj_weight=True,
            q_proj_weight=parts[0].weight,
            k_proj_weight=parts[1].weight,
            v_proj_weight=parts[2].weight,
            training=self.training,
            need_weights=False,
        )[0][0]


class ModifiedResNet(nn.Module):
    """Three convolutions, four stages that end in cells of 32 pixels, and attention as pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.input_resolution = 64
        for index, (width, out) in enumerate(((3, 4), (4, 4), (4, 8)), 1):
            stride = 2 if index == 1 else 1
            setattr(self, f"conv{index}", nn.Conv2d(width, out, 3, stride, 1, bias=False))
            setattr(self, f"bn{index}", nn.BatchNorm2d(out))
            setattr(self, f"relu{index}", nn.ReLU(inplace=True))
        self.avgpool = nn.AvgPool2d(2)
        for index, stride in enumerate((1, 2, 2, 2), 1):
            setattr(self, f"layer{index}", nn.Sequential(Bottleneck(8, 8, stride)))
        self.attnpool = AttentionPool(4, 8, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = x.type(self.conv1.weight.dtype)
        for i in (1, 2, 3):
            x = getattr(self, f"relu{i}")(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.avgpool(x)))))
        return self.attnpool(x)


# Models


class CLIP(nn.Module):
    """OpenAI's model: the parts of the text encoder are its own."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.context_length, self.visual = CONTEXT, visual
        self.token_embedding = nn.Embedding(VOCABULARY, 12)
        self.positional_embedding = nn.Parameter(torch.empty(CONTEXT, 12))
        self.transformer = Transformer(12, causal(CONTEXT))
        self.ln_final = nn.LayerNorm(12)
        self.text_projection = nn.Parameter(torch.empty(12, 24))
        self.logit_scale = nn.Parameter(torch.ones([]))

    def encode_image(self, image: Tensor) -> Tensor:
        return self.visual(image)

    def encode_text(self, text: Tensor) -> Tensor:
        x = self.token_embedding(text) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        return x[torch.arange(len(x)), text.argmax(-1)] @ self.text_projection

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        a, b = (F.normalize(x) for x in (self.encode_image(image), self.encode_text(text)))
        logits = self.logit_scale.exp() * a @ b.T
        return logits, logits.T


class TextTransformer(nn.Module):
    """The text encoder of ``open_clip``, by itself."""

    def __init__(
        self, pool_type: str = "argmax", no_causal_mask: bool = False, embed_cls: bool = False
    ) -> None:
        super().__init__()
        self.context_length, self.pool_type = CONTEXT, pool_type
        self.pad_id, self.eos_id = 0, VOCABULARY - 1
        self.correct_cls_mask = False
        length = CONTEXT + embed_cls
        self.token_embedding = nn.Embedding(VOCABULARY, 12)
        self.cls_emb = nn.Parameter(torch.empty(12)) if embed_cls else None
        self.positional_embedding = nn.Parameter(torch.empty(length, 12))
        self.transformer = Transformer(12, batch_first=True)
        self.ln_final = nn.LayerNorm(12)
        self.register_buffer("attn_mask", None if no_causal_mask else causal(length))
        self.text_projection = nn.Linear(12, 24)

    def forward(self, text: Tensor) -> Any:
        x, mask = self.token_embedding(text), self.attn_mask
        if self.cls_emb is not None:
            x = torch.cat([x, self.cls_emb.expand(len(x), 1, -1)], 1)
            seen = (text != 0, torch.ones(len(text), 1, dtype=torch.bool))
            keys = torch.cat(seen if self.correct_cls_mask else seen[::-1], 1)
            hidden = torch.zeros(keys.shape).masked_fill(~keys, float("-inf"))
            mask = mask + hidden[:, None].repeat_interleave(2, 0)
        x = self.ln_final(self.transformer(x + self.positional_embedding, attn_mask=mask))
        if self.cls_emb is not None:
            return self.text_projection(x[:, -1]), x[:, :-1]
        ends = (text == self.eos_id).int() if self.pool_type == "eos" else text
        position = {"first": 0, "last": -1}.get(self.pool_type, ends.argmax(-1))
        return self.text_projection(x[torch.arange(len(x)), position])


class HFTextEncoder(nn.Module):
    """The text encoder of ``open_clip`` that is one of ``transformers``."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer, self.config = transformer, transformer.config
        self.pooler, self.proj = nn.Identity(), nn.Linear(12, 24)

    def forward(self, text: Tensor) -> Tensor:
        mask = (text != self.config.pad_token_id).long()
        states = self.transformer(input_ids=text, attention_mask=mask).last_hidden_state
        return self.proj((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


class CustomTextCLIP(nn.Module):
    """The model of ``open_clip`` with a text encoder by itself. CoCa normalises by default."""

    def __init__(self, visual: nn.Module, text: nn.Module, normalize: bool = False) -> None:
        super().__init__()
        self.visual, self.text, self.normalize = visual, text, normalize

    def encode_image(self, image: Tensor, normalize: bool | None = None) -> Tensor:
        return self._finish(self.visual(image), normalize)

    def encode_text(self, text: Tensor, normalize: bool | None = None) -> Tensor:
        return self._finish(self.text(text), normalize)

    def _finish(self, output: Any, normalize: bool | None) -> Tensor:
        embedding = output[0] if isinstance(output, tuple) else output
        normalize = self.normalize if normalize is None else normalize
        return F.normalize(embedding) if normalize else embedding


def randomise(model: nn.Module) -> Any:
    """Random weights, and statistics of normalisations that matter."""
    models.randomise(model)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)):
            noise = torch.randn(module.weight.shape, generator=generator)
            module.weight.data.copy_(1 + 0.1 * noise)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(0.1 * noise)
                module.running_var.copy_(0.5 + noise.abs())
    return model


def timm_model() -> nn.Module:
    """An image encoder of another kind."""
    model = CLIP(nn.Sequential(nn.Conv2d(3, 16, 4, 4)))
    model.visual.trunk = SimpleNamespace()
    return model
