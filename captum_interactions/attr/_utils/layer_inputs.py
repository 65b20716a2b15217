"""The inputs of one tower, propagated to a layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr._utils.arguments import Normalization
from captum_interactions.encoders import Layer, Tower
from captum_interactions.encoders.wrapper import unit, widen


@dataclass(frozen=True)
class LayerInputs:
    """B inputs of one tower, propagated to a layer, with the baselines of methods that have any."""

    name: str
    """``"a"`` or ``"b"``, for messages."""
    tower: Tower
    layer: Layer
    inputs: Tensor
    """The inputs as the tower takes them."""
    extras: tuple[Any, ...]
    """Further arguments of the tower."""
    features: Tensor
    """Features of the inputs at the layer, (B, *F), in the model's own type."""
    baselines: tuple[Tensor, ...]
    """Features of each baseline, (B, *F) or (1, *F)."""
    tower_context: tuple[Any, ...]
    """What the tower needs beside features; tensors have B rows."""
    token_mask: Tensor
    """1 for tokens that can influence the embedding, else 0, (B, T)."""
    raw_embedding: Tensor
    """Embeddings of the inputs as the tower gives them, (B, K)."""
    raw_baseline_embeddings: tuple[Tensor, ...]
    """Embeddings of each baseline in the inputs' context, (B, K)."""
    normalization: Normalization
    """Which score is explained."""

    @cached_property
    def norms(self) -> tuple[Tensor, ...]:
        """Norms (B, 1) of the inputs' embeddings, if the score takes them as constants."""
        if self.normalization != "frozen":
            return ()
        return (widen(self.raw_embedding).norm(dim=-1, keepdim=True),)

    @property
    def context(self) -> tuple[Any, ...]:
        """What :meth:`function` needs beside features; tensors have B rows."""
        return (*self.norms, *self.tower_context)

    def scale(self, embedding: Tensor, *norms: Tensor) -> Tensor:
        """Scale embeddings as the score needs them, in float32 or wider."""
        if self.normalization == "cosine":
            return unit(embedding)
        return embedding / norms[0] if norms else widen(embedding)

    def function(self, features: Tensor, *context: Any) -> Tensor:
        """Scaled embeddings (N, K) of features (N, *F), with N rows of :attr:`context`."""
        n_norms = len(self.norms)
        embedding = self.tower.embed(self.layer, features, *context[n_norms:])
        return self.scale(embedding, *context[:n_norms])

    def score(self, features: Tensor, other: Tensor, *context: Any) -> Tensor:
        """Scores (N,) of features with the other side's embeddings: a Captum ``forward_func``."""
        embedding = self.function(features.to(self.features.dtype), *context)
        return (embedding * other).sum(-1)

    @cached_property
    def embedding(self) -> Tensor:
        """Scaled embeddings of the inputs, (B, K)."""
        return self.scale(self.raw_embedding, *self.norms)

    @property
    def baseline_embeddings(self) -> list[Tensor]:
        """Scaled embeddings of each baseline, (B, K)."""
        return [self.scale(raw, *self.norms) for raw in self.raw_baseline_embeddings]

    @cached_property
    def baseline_embedding(self) -> Tensor:
        """Scaled embeddings of the baselines, averaged over them, (B, K)."""
        return torch.stack(self.baseline_embeddings).mean(0)

    @property
    def wide_features(self) -> Tensor:
        """Features in float32 or wider, to accumulate attributions in."""
        return widen(self.features).detach()

    @cached_property
    def content_mask(self) -> Tensor:
        """:attr:`token_mask` without special tokens, which stand for no part of the input."""
        special = self.special_tokens
        return self.token_mask if special is None else self.token_mask * ~special

    @cached_property
    def special_tokens(self) -> Tensor | None:
        """True for tokens that stand for no part of the input, (B, T); None if there are none."""
        if self.layer == "input":
            return None
        special = self.tower.special_tokens(self.inputs, *self.extras)
        matches = special is not None and special.shape == self.token_mask.shape
        return special if matches else None

    @cached_property
    def unmasked(self) -> Tensor:
        """Indices of tokens that can influence the embedding in any example."""
        return self.token_mask.any(0).nonzero().flatten()

    @property
    def active(self) -> Tensor:
        """Indices of tokens or groups whose attributions may differ from zero."""
        return self.unmasked

    @property
    def n_outputs(self) -> int:
        """Number of tokens or groups: the size of this side of the map."""
        return self.token_mask.shape[1]

    def fold(self, attribution: Tensor, rows: slice = slice(None)) -> Tensor:
        """Sum an attribution of features of some examples over tokens or groups: (rows, G)."""
        return self.grouped(self.tower.fold(self.layer, attribution), rows)

    def grouped(self, tokens: Tensor, rows: slice = slice(None)) -> Tensor:
        """Attributions of tokens of some examples as those of tokens or groups: (rows, G)."""
        return tokens * self.token_mask[rows]

    def padded(self, values: Tensor, dim: int = 1) -> Tensor:
        """Values of the :attr:`active` tokens along an axis as those of all tokens or groups."""
        shape = list(values.shape)
        shape[dim] = self.n_outputs
        return values.new_zeros(shape).index_copy(dim, self.active, values)


def repeat_rows(value: Any, count: int) -> Any:
    """Copies of all rows of a tensor, one copy after the other; anything else as it is."""
    if isinstance(value, Tensor) and value.dim():
        return torch.cat([value] * count)
    return value
