"""Scores of pairs with tokens taken away, one at a time: slow and obvious."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_interactions import DualEncoderWrapper


class Game:
    """A pair whose tokens may be absent: then their features at the layer are the baseline's."""

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple,
        inputs: tuple[Tensor, Tensor],
        extras: tuple = ((), ()),
        baselines: tuple | None = None,
        cosine: bool = True,
    ) -> None:
        self.cosine = cosine
        self.known: dict[tuple, Tensor] = {}
        self.sides = []
        for index, tower in enumerate((wrapper.tower_a, wrapper.tower_b)):
            layer = tower.resolve_layer(layers[index])
            own = inputs[index]
            baseline = tower.baseline(own, *extras[index])
            if baselines is not None:
                baseline = baselines[index]
            with torch.no_grad():
                end, context = tower.features(layer, own, *extras[index])
                start, _ = tower.features(layer, baseline, *extras[index])
            self.sides.append((tower, layer, start, end, context))

    def n_tokens(self, side: int) -> int:
        tower, layer, _, end, _ = self.sides[side]
        return tower.fold(layer, end).shape[1]

    def embedding(self, side: int, present: Tensor) -> Tensor:
        """Embedding (K) with the tokens that are present, (T); each is computed once."""
        key = (side, *present.tolist())
        if key not in self.known:
            self.known[key] = self._embedding(side, present)
        return self.known[key]

    def _embedding(self, side: int, present: Tensor) -> Tensor:
        tower, layer, start, end, context = self.sides[side]
        weights = tower.spread(layer, present.to(end), end.shape)
        with torch.no_grad():
            embedding = tower.embed(layer, start + weights * (end - start), *context)[0]
        return embedding / embedding.norm() if self.cosine else embedding

    def score(self, present_a: Tensor, present_b: Tensor) -> float:
        return float(self.embedding(0, present_a) @ self.embedding(1, present_b))
