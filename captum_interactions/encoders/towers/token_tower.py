"""A tower whose embedding is that of some of its tokens: one side of a late interaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captum_interactions.axes import TokenAxis
from captum_interactions.encoders.towers.base import Layer, Tower, TowerInputs


class TokenTower(Tower):
    """Embeddings of some tokens of an input as one vector: (B, M · D) for M tokens.

    Which tokens these are is its last argument, ``token_indices`` (B, M), where -1 stands for none
    and gives zeros. A late interaction takes the query's own tokens on one side and their winners
    on the other, so that its score is a dot product.

    Args:
        encoder (Tower): A tower with an embedding for each token: it returns (B, T, D) where other
            towers return (B, K). All else is as in other towers.
        counts (Callable, optional): ``(inputs, *extras) -> (B, T)``, True for tokens that count in
            the score. Default: all but padding
        mean (bool): Divide embeddings by the number of tokens, for a score that is a mean. Default:
            False
    """

    def __init__(
        self,
        encoder: Tower,
        counts: Callable[..., Tensor] | None = None,
        mean: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.n_blocks = encoder.n_blocks
        self.extra_names = (*encoder.extra_names, "token_indices")
        self._counts = encoder.token_mask if counts is None else counts
        self.mean = mean

    @property
    def model(self) -> nn.Module:
        """The encoder's model."""
        model: nn.Module = getattr(self.encoder, "model", self.encoder)
        return model

    @property
    def default_layer(self) -> Layer:
        """The embeddings (0): behind the blocks, a map would repeat the raw similarities."""
        return 0 if self.n_blocks else "input"

    def tokens(self, inputs: Tensor, *extras: Any) -> Tensor:
        """Embeddings of all tokens, (B, T, D); ``extras`` may be the encoder's alone."""
        tokens = self.encoder.encode(inputs, *self._own(extras))
        if tokens.dim() != 3 or len(tokens) != len(inputs):
            raise ValueError(
                f"a late interaction needs embeddings of tokens, ({len(inputs)}, T, D), but "
                f"{type(self.encoder).__name__} gave {tuple(tokens.shape)}"
            )
        return tokens

    def counted(self, n_tokens: int, inputs: Tensor, *extras: Any) -> Tensor:
        """True for tokens that count in the score, (B, T); ``extras`` as in :meth:`tokens`.

        Raises:
            ValueError: If no token of an input counts.
        """
        found = self._counts(inputs, *self._own(extras))
        mask = torch.ones((len(inputs), n_tokens), device=inputs.device) if found is None else found
        mask = mask.bool()
        if not mask.any(1).all():
            row = int(mask.any(1).int().argmin())
            raise ValueError(f"no token of input {row} counts in the score")
        return mask

    def take(self, tokens: Tensor, indices: Tensor) -> Tensor:
        """Embeddings (B, M, D) of the tokens at ``indices`` (B, M); zeros where there is none."""
        index = indices.clamp(min=0).unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        return tokens.gather(1, index).masked_fill((indices < 0).unsqueeze(-1), 0.0)

    def encode(self, inputs: Tensor, *extras: Any) -> Tensor:
        self._check_indices(inputs, extras)
        return self._joined(self.tokens(inputs, *extras), extras[-1])

    def check(self, inputs: Tensor, *extras: Any) -> None:
        self._check_indices(inputs, extras)
        self.encoder.check(inputs, *self._own(extras))

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        """Ready inputs, with the tokens that count as ``token_indices``, whatever was given."""
        if isinstance(raw, tuple) and len(raw) == 1 + len(self.extra_names):
            raw = raw[:-1]
        inputs, extras, axes = self.encoder.prepare(raw, truncation=truncation)
        mask = self.counted(len(axes[0]), inputs, *extras)
        return TowerInputs(inputs, (*extras, indices_of(mask)), axes)

    def baseline(self, inputs: Tensor, *extras: Any) -> Tensor:
        return self.encoder.baseline(inputs, *self._own(extras))

    def set_constant(self, inputs: Tensor, value: float, *extras: Any) -> Tensor:
        return self.encoder.set_constant(inputs, value, *self._own(extras))

    def token_mask(self, inputs: Tensor, *extras: Any) -> Tensor | None:
        return self.encoder.token_mask(inputs, *self._own(extras))

    def special_tokens(self, inputs: Tensor, *extras: Any) -> Tensor | None:
        return self.encoder.special_tokens(inputs, *self._own(extras))

    def axis_at(self, layer: Layer, axis: TokenAxis, n_tokens: int) -> TokenAxis:
        return self.encoder.axis_at(layer, axis, n_tokens)

    def sample(self) -> Any:
        return self.encoder.sample()

    def features(
        self, layer: Layer, inputs: Tensor, *extras: Any
    ) -> tuple[Tensor, tuple[Any, ...]]:
        features, context = self.encoder.features(layer, inputs, *self._own(extras))
        return features, (*context, extras[-1])

    def embed(self, layer: Layer, features: Tensor, *context: Any) -> Tensor:
        return self._joined(self.encoder.embed(layer, features, *context[:-1]), context[-1])

    def prefix(self, layer: Layer, inputs: Tensor, *extras: Any) -> tuple[Tensor, tuple[Any, ...]]:
        return self.features(layer, inputs, *extras)

    def tail(self, layer: Layer, states: Tensor, *context: Any) -> Tensor:
        return self.embed(layer, states, *context)

    def embed_tokens(
        self, inputs: Tensor, *extras: Any, internal_batch_size: int | None = None
    ) -> Tensor:
        raise ValueError(
            "tokens of a late interaction have embeddings of their own, which its score compares: "
            "LateInteractionWrapper.match gives their similarities"
        )

    def fold(self, layer: Layer, attribution: Tensor) -> Tensor:
        return self.encoder.fold(layer, attribution)

    def spread(self, layer: Layer, weights: Tensor, shape: Sequence[int]) -> Tensor:
        return self.encoder.spread(layer, weights, shape)

    def _own(self, extras: Sequence[Any]) -> tuple[Any, ...]:
        """The encoder's arguments among those of this tower."""
        return tuple(extras[: len(self.encoder.extra_names)])

    def _check_indices(self, inputs: Tensor, extras: Sequence[Any]) -> None:
        """Raise a ValueError if ``token_indices`` are missing, or are no indices (B, M)."""
        indices = extras[-1] if len(extras) == len(self.extra_names) else None
        if indices is None:
            raise ValueError(
                f"a late interaction needs {', '.join(self.extra_names)} beside its inputs, but "
                f"got {len(extras)} of them: LateInteractionWrapper.prepare gives them all"
            )
        if indices.dim() != 2 or len(indices) != len(inputs) or indices.is_floating_point():
            raise ValueError(
                f"token_indices must be integers of shape ({len(inputs)}, M), but got "
                f"{indices.dtype} of shape {tuple(indices.shape)}"
            )

    def _joined(self, tokens: Tensor, indices: Tensor) -> Tensor:
        embedding = self.take(tokens, indices).flatten(1)
        return embedding / (indices >= 0).sum(1, keepdim=True) if self.mean else embedding


def indices_of(mask: Tensor) -> Tensor:
    """Indices of the True entries of each row of a mask (B, T), ascending; -1 behind the last."""
    numbers = mask.sum(1, keepdim=True)
    indices = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    indices = indices[:, : int(numbers.max())]
    return indices.masked_fill(torch.arange(indices.shape[1], device=mask.device) >= numbers, -1)
