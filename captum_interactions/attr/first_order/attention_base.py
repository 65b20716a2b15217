"""The base class of attributions by attention, which record the attention of both towers."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Any

import torch
from captum.attr import GradientAttribution
from torch import Tensor

from captum_interactions.attr._utils.arguments import Inputs
from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr.first_order.base import FirstOrderAttribution
from captum_interactions.encoders import DualEncoderWrapper, Layer, Tower
from captum_interactions.encoders.model.attention import (
    Recording,
    UndefinedError,
    Weigh,
    record,
    states_with_attention,
)
from captum_interactions.encoders.wrapper import unit, widen

_LOGGER = logging.getLogger(__name__)

POOLED = "a class token or another token that is pooled alone"
"""Part of what several methods need."""


class AttentionAttribution(FirstOrderAttribution[Tensor | None], GradientAttribution):
    """Base class of attributions that use the attention of the last blocks of each tower.

    Attention is recorded during a call, whatever implementation the model runs (see
    :mod:`captum_interactions.encoders.model.attention`); the model need not be reloaded. A method
    implements :meth:`_attention_map`.

    Args:
        n_blocks (int or pair of int, optional): Number of last blocks to use, in each tower; in a
            tower with fewer blocks, all of them. Default: None, all

    Raises:
        ValueError: If a number of blocks is not positive.
    """

    needs = "transformer blocks whose attention goes through transformers' attention interface"

    undefined: dict[str, str]
    """After :meth:`attribute`: why side ``"a"`` or ``"b"`` has no attribution, if it has none."""

    def __init__(
        self, wrapper: DualEncoderWrapper, n_blocks: int | tuple[int, int] | None = None
    ) -> None:
        self._n_blocks = n_blocks if isinstance(n_blocks, tuple) else (n_blocks, n_blocks)
        for count in self._n_blocks:
            is_count = isinstance(count, int) and not isinstance(count, bool) and count > 0
            if len(self._n_blocks) != 2 or not (count is None or is_count):
                raise ValueError(
                    f"n_blocks must be a positive number of blocks, or a pair of them, but got "
                    f"{n_blocks!r}"
                )
        super().__init__(wrapper)
        self.undefined = {}

    def attribute(
        self, inputs: Inputs, target: None = None, additional_forward_args: Any = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Attributions of the tokens of both inputs.

        Returns:
            tuple[Tensor | None, Tensor | None]: shapes (B, Ta) and (B, Tb), over all tokens of the
            blocks; special tokens and padding are exactly zero. In float32 or wider. None for a
            side for which the method is not defined; :attr:`undefined` says why.

        Raises:
            ValueError: If inputs or options are not as described, or the method is defined for
                neither side.
        """
        return self._attribute(inputs, target, additional_forward_args)

    def _attribute(
        self, inputs: Inputs, target: None, additional_forward_args: Any, *args: Any, **options: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        self.undefined = {}
        maps = super()._attribute(inputs, target, additional_forward_args, *args, **options)
        if len(self.undefined) == 2:
            raise ValueError(
                f"{type(self).__name__} is not defined for this model. "
                + "; ".join(f"input {name}: {why}" for name, why in self.undefined.items())
            )
        return maps

    def _map(self, side: LayerInputs, other: LayerInputs, **options: Any) -> Tensor | None:
        try:
            recording = recorded(side)
            tokens = self._attention_map(side, other, recording, **options).detach()
        except UndefinedError as error:
            self.undefined[side.name] = str(error)
            _LOGGER.info("no attribution of input %s: %s", side.name, error)
            return None
        padding = side.token_mask.shape[1] - tokens.shape[1]
        return torch.nn.functional.pad(widen(tokens) * shown_tokens(side, recording), (0, padding))

    @abstractmethod
    def _attention_map(
        self, side: LayerInputs, other: LayerInputs, recording: Recording, **options: Any
    ) -> Tensor:
        """Attributions (B, T) of the tokens of one side; those of special tokens are not used.

        Args:
            side, other (LayerInputs): The input to explain, and the one that is held fixed.
            recording (Recording): The blocks of the side; T is the number of their tokens.
            options: Further arguments of :meth:`attribute`.

        Raises:
            UndefinedError: If the method is not defined for the tower.
        """

    def _default_layers(self, wrapper: DualEncoderWrapper) -> tuple[Layer, Layer]:
        a, b = zip((wrapper.tower_a, wrapper.tower_b), self._n_blocks, strict=True)
        return _first_layer(*a), _first_layer(*b)


def _first_layer(tower: Tower, count: int | None) -> Layer:
    """The layer at which the last ``count`` blocks start."""
    if not tower.n_blocks:
        return "input"
    return 0 if count is None else max(0, tower.n_blocks - count)


def recorded(side: LayerInputs, replaced: dict[int, Weigh] | None = None) -> Recording:
    """Run a side from its layer on, and record its attention.

    Raises:
        UndefinedError: If the attention cannot be recorded, or is more than what was recorded.
    """
    first = 0 if side.layer == "input" else side.layer  # a tower without blocks is refused
    recording = record(side.tower, first, side.features, *side.context, replaced=replaced)
    if not replaced:
        wide = side.features.dtype in (torch.float32, torch.float64)
        difference = (unit(recording.embedding.detach()) - side.embedding).norm(dim=-1).max()
        if difference > (1e-4 if wide else 5e-2):
            raise UndefinedError(
                "the blocks give another embedding with recorded attention than with their own "
                f"(relative difference {difference:.1e}), so it is more than a softmax of products"
            )
    return recording


def shown_tokens(side: LayerInputs, recording: Recording) -> Tensor:
    """1 for tokens that stand for a part of the input and not for all of it, (B, T)."""
    shown = side.content_mask[:, : recording.blocks[-1].output.shape[1]]
    if recording.pooled is None:
        return shown
    return shown.scatter(1, recording.pooled.unsqueeze(1), 0.0)


def pooled_position(recording: Recording) -> Tensor:
    """Position (B,) of the class token, the end-of-text token, or whichever is pooled alone.

    Raises:
        UndefinedError: If several tokens are pooled.
    """
    if recording.pooled is None:
        raise UndefinedError(
            "the embedding is pooled from several tokens, so there is no class token whose "
            "attention could be followed"
        )
    return recording.pooled


def check_not_causal(recording: Recording) -> None:
    """Refuse towers whose tokens attend to earlier tokens only.

    Raises:
        UndefinedError: If the attention is causal.
    """
    if recording.is_causal:
        raise UndefinedError(
            "its attention is causal, so each token also stands for all tokens before it, and only "
            "the last one is trained as an embedding"
        )


def row_of(matrix: Tensor, position: Tensor) -> Tensor:
    """The row (B, ...) at each example's position of a matrix (B, T, ...)."""
    return matrix[torch.arange(len(matrix), device=matrix.device), position]


def token_embeddings(side: LayerInputs, states: Tensor) -> Tensor:
    """Unit embeddings (B, T, K) of final states (B, T, D), each of them pooled alone."""
    project = getattr(side.tower, "project")  # noqa: B009 - towers with blocks have it
    embeddings = project(states.flatten(0, 1), *side.context)
    tokens: Tensor = unit(embeddings).unflatten(0, states.shape[:2])
    return tokens


def second_path(side: LayerInputs, recording: Recording, weigh: Weigh) -> Tensor:
    """Final states (B, T, D) of a second residual path with other attention and without MLPs.

    The states of the model enter the path at the first recorded block. Each block adds to it what
    its attention adds to the model's own states with the weights of ``weigh``.

    Raises:
        UndefinedError: If the blocks do not normalise before their parts.
    """
    path = recording.blocks[0].states.detach()
    with torch.no_grad():
        for index, block in enumerate(recording.blocks, recording.first):
            if block.residual is None:
                raise UndefinedError(
                    "its blocks do not normalise before their parts, so there is no residual "
                    "stream for a second path"
                )
            states = block.states.detach()
            summed = states_with_attention(
                side.tower, index, states, *side.context, residual=block.residual, weigh=weigh
            )
            path = path + summed - states
    return path
