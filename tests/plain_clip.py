"""A CLIP tower written out, head by head and query by query: what recorded attention is held to."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class PlainTower:
    """One tower of a ``CLIPModel`` for one example, as lists of what each block did."""

    model: object
    side: str
    """``"vision"`` or ``"text"``."""
    end: int = 0
    """Position of the pooled token."""
    states: list[Tensor] = field(default_factory=list)
    """What enters each block, and at last what leaves them, (T, D)."""
    weights: list[list[Tensor]] = field(default_factory=list)
    """Per block and head, (T, T)."""
    mixed: list[list[Tensor]] = field(default_factory=list)
    """Per block and head, (T, d)."""
    heads: list[list[tuple[Tensor, Tensor, Tensor]]] = field(default_factory=list)
    """Query, key and value per block and head, (T, d)."""

    def __post_init__(self):
        self.part = getattr(self.model, f"{self.side}_model")
        self.layers = self.part.encoder.layers

    def run(self, states: Tensor) -> PlainTower:
        """Run all blocks from embeddings (T, D)."""
        self.states = [states]
        for layer in self.layers:
            self.states.append(self.block(layer, self.states[-1]))
        return self

    def block(self, layer, states: Tensor) -> Tensor:
        heads = self.project(layer, states)
        weights = [self.softmax(layer, query, key) for query, key, _ in heads]
        mixed = [w @ value for w, (_, _, value) in zip(weights, heads, strict=True)]
        self.heads.append(heads)
        self.weights.append(weights)
        self.mixed.append(mixed)
        return self.rest(layer, states, mixed)

    def project(self, layer, states: Tensor):
        attention, normed = layer.self_attn, layer.layer_norm1(states)
        width = attention.head_dim
        parts = [p(normed) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
        return [
            tuple(part[:, h * width : (h + 1) * width] for part in parts)
            for h in range(attention.num_heads)
        ]

    def softmax(self, layer, query: Tensor, key: Tensor) -> Tensor:
        rows = []
        for i in range(len(query)):
            last = i + 1 if self.side == "text" else len(key)
            logits = (key[:last] @ query[i]) * layer.self_attn.head_dim**-0.5
            rows.append(F.pad(logits.softmax(0), (0, len(key) - last)))
        return torch.stack(rows)

    def attended(self, layer, mixed: list[Tensor]) -> Tensor:
        return layer.self_attn.out_proj(torch.cat(mixed, 1))

    def rest(self, layer, states: Tensor, mixed: list[Tensor]) -> Tensor:
        middle = states + self.attended(layer, mixed)
        return middle + layer.mlp(layer.layer_norm2(middle))

    def head(self, state: Tensor) -> Tensor:
        """Unit embedding of one final state."""
        if self.side == "vision":
            embedding = self.model.visual_projection(self.part.post_layernorm(state))
        else:
            embedding = self.model.text_projection(self.part.final_layer_norm(state))
        return embedding / embedding.norm()

    @property
    def embedding(self) -> Tensor:
        return self.head(self.states[-1][self.end])


def plain_image(model, pixels: Tensor) -> PlainTower:
    """The image tower of one image (1, C, H, W)."""
    part = model.vision_model
    with torch.enable_grad():
        return PlainTower(model, "vision").run(part.pre_layrnorm(part.embeddings(pixels))[0])


def plain_text(model, ids: Tensor) -> PlainTower:
    """The text tower of one text (1, T) without padding."""
    with torch.enable_grad():
        states = model.text_model.embeddings(input_ids=ids)[0]
        return PlainTower(model, "text", end=ids.shape[1] - 1).run(states)
