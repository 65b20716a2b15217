"""Small dual encoders with random weights, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedModel,
)

from captum_interactions.encoders import TextAxis, Tower, TowerInputs

BOS, EOS, PAD, VOCABULARY = 62, 63, 0, 64


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights large enough that every part of the model matters, and that no part is linear."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower():
                parameter.copy_(0.1 * noise + name.endswith("weight"))
            elif parameter.dim() > 1:
                fan_in = parameter[0].numel() if "embedding.weight" not in name else 2
                parameter.copy_(1.2 * noise / fan_in**0.5)
            else:
                parameter.copy_(0.1 * noise)
    return model.eval()


def clip_config(
    config_class: type[Any] = CLIPConfig,
    *,
    dimension: int = 24,
    layers: int = 3,
    image_size: int = 12,
    patch: int = 4,
    context: int = 16,
    vocabulary: int = VOCABULARY,
    eos: int = EOS,
    dropout: float = 0.0,
    **options: Any,
) -> Any:
    text = {
        "vocab_size": vocabulary,
        "hidden_size": 12,
        "intermediate_size": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "max_position_embeddings": context,
        "bos_token_id": BOS,
        "eos_token_id": eos,
        "pad_token_id": PAD,
        "attention_dropout": dropout,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "image_size": image_size,
        "patch_size": patch,
        "attention_dropout": dropout,
    }
    return config_class(projection_dim=dimension, text_config=text, vision_config=vision, **options)


def clip(seed: int = 0, attention: str = "sdpa", **options: Any) -> CLIPModel:
    """A CLIP of three blocks a tower, 3 × 3 patches, a context of 16 tokens and 24 dimensions."""
    return family(CLIPModel, seed, attention, **options)


def family(
    model_class: type[PreTrainedModel], seed: int = 0, attention: str = "sdpa", **options: Any
) -> Any:
    """A model of another class with CLIP's layout."""
    config = clip_config(model_class.config_class, **options)
    config._attn_implementation = attention
    return randomise(model_class(config), seed)


def classifier() -> PreTrainedModel:
    """A model that is no encoder."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=12,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )


def images(count: int = 1, size: tuple[int, int] = (12, 12), seed: int = 1) -> Tensor:
    return torch.randn((count, 3, *size), generator=torch.Generator().manual_seed(seed))


def caption(length: int, seed: int = 2) -> Tensor:
    """Ids (1, length) of a caption with its special tokens."""
    words = torch.randint(1, BOS, (1, length - 2), generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.tensor([[BOS]]), words, torch.tensor([[EOS]])], 1)


def captions(*lengths: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask of captions of these lengths, padded at the end."""
    ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        ids[row, :length] = caption(length, seed=10 + row)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids, mask.long()


class Sentences(Tower):
    """Ids to vectors, two residual blocks, and the mean over tokens that the mask lets through."""

    n_blocks = 2
    extra_names = ("mask",)

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head = nn.Linear(4, 5)
        randomise(self)

    def prefix(self, layer: int, inputs: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        states = self.embedding(inputs)
        for block in self.blocks[:layer]:
            states = states + block(states).tanh()
        return states, (mask,)

    def tail(self, layer: int, states: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks[layer:]:
            states = states + block(states).tanh()
        states = states * mask.unsqueeze(-1)
        return self.head(states.sum(1) / mask.sum(1, keepdim=True))

    def encode(self, inputs: Tensor, mask: Tensor) -> Tensor:
        return self.tail(0, self.prefix(0, inputs, mask)[0], mask)

    def baseline(self, inputs: Tensor, mask: Tensor) -> Tensor:
        return torch.zeros_like(inputs)

    def token_mask(self, inputs: Tensor, mask: Tensor) -> Tensor:
        return mask > 0

    def prepare(self, raw: tuple[Tensor, Tensor], *, truncation: bool = False) -> TowerInputs:
        inputs, mask = raw
        n_tokens = inputs.shape[1]
        labels, none = tuple(map(str, range(n_tokens))), (None,) * n_tokens
        axes = [
            TextAxis(labels, (False,) * n_tokens, tuple((row == 0).tolist()), "", none)
            for row in mask
        ]
        return TowerInputs(inputs, (mask,), tuple(axes))


class Attention(nn.Module):
    """An encoder with PyTorch's own fused attention: (B, T, D) -> (B, K)."""

    def __init__(self, width: int = 6, dimension: int = 5, seed: int = 0) -> None:
        super().__init__()
        self.project = nn.Linear(width, 3 * width)
        self.head = nn.Linear(width, dimension)
        randomise(self, seed)

    def forward(self, states: Tensor) -> Tensor:
        query, key, value = self.project(states).unflatten(-1, (3, 1, -1)).unbind(-3)
        mixed = nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        return self.head(states + mixed.squeeze(1)).tanh().mean(1)


class Recurrent(nn.Module):
    """An encoder of sequences of any length whose tokens all interact: (B, T, D) -> (B, K)."""

    def __init__(self, width: int = 4, dimension: int = 6, seed: int = 0) -> None:
        super().__init__()
        self.step = nn.Linear(width + dimension, dimension)
        randomise(self, seed)

    def forward(self, states: Tensor) -> Tensor:
        memory = states.new_zeros(len(states), self.step.out_features)
        for state in states.unbind(1):
            memory = self.step(torch.cat([state, memory], 1)).tanh()
        return memory


def mlp(features: int, dimension: int = 5, seed: int = 0) -> nn.Module:
    layers = (nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, 8), nn.Softplus())
    return randomise(nn.Sequential(*layers, nn.Linear(8, dimension)), seed)


def clip_tokenizer() -> CLIPTokenizer:
    """A tokenizer that knows ``a`` and ``red``, ``cir`` and ``cle``, and else single letters."""
    letters = sorted(ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "d</w>"), ("c", "i"), ("ci", "r"), ("c", "l"), ("cl", "e</w>")]
    pieces = [*letters, *(letter + "</w>" for letter in letters)]
    pieces += [left + right for left, right in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=merges,
        pad_token="<|endoftext|>",
    )


def clip_processor(**options: Any) -> CLIPProcessor:
    """A processor of images of 12 × 12 pixels; options are those of the image processor."""
    options = {"size": {"shortest_edge": 12}, "crop_size": 12} | options
    return CLIPProcessor(CLIPImageProcessorPil(**options), clip_tokenizer())


def clip_with_processor(**options: Any) -> tuple[CLIPModel, CLIPProcessor]:
    processor = clip_processor(**options)
    tokenizer = processor.tokenizer
    return clip(vocabulary=len(tokenizer), eos=tokenizer.eos_token_id), processor
