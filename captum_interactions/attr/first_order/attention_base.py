"""What attributions by attention share: both towers are run with their attention recorded."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from captum.attr import GradientAttribution
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr.first_order.base import (
    Attributions,
    FirstOrderAttribution,
    Side,
)
from captum_interactions.attr.second_order.base import Baselines
from captum_interactions.encoders import DualEncoderWrapper, Layer, Tower
from captum_interactions.encoders.model.attention import (
    Recording,
    UndefinedError,
    Weigh,
    record,
)
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.encoders.wrapper import unit, widen

_LOGGER = logging.getLogger(__name__)


class AttentionAttribution(FirstOrderAttribution, GradientAttribution):
    """Base class of attributions that look at the attention of each tower's last blocks.

    Attention is recorded for the time of a call, whatever implementation the model runs (see
    :mod:`captum_interactions.encoders.model.attention`); there is nothing to reload.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        n_blocks (int or pair of int, optional): How many of the last blocks count, in each tower;
            in a tower with fewer, all of them. Default: None, all

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a number of blocks is not positive.
    """

    needs = "transformer blocks whose attention goes through transformers' attention interface"

    undefined: dict[str, str]
    """After :meth:`attribute`: why side ``"a"`` or ``"b"`` has no attribution, if it has none."""
    _with_references: ClassVar[bool] = False

    def __init__(
        self, wrapper: DualEncoderWrapper, n_blocks: int | tuple[int, int] | None = None
    ) -> None:
        counts = n_blocks if isinstance(n_blocks, tuple) else (n_blocks, n_blocks)
        for count in counts:
            is_count = isinstance(count, int) and not isinstance(count, bool) and count > 0
            if len(counts) != 2 or not (count is None or is_count):
                raise ValueError(
                    f"n_blocks must be a positive number of blocks, or a pair of them, but got "
                    f"{n_blocks!r}"
                )
        is_wrapper = isinstance(wrapper, DualEncoderWrapper)
        towers = (wrapper.tower_a, wrapper.tower_b) if is_wrapper else ()
        first = [_first_layer(t, n) for t, n in zip(towers, counts, strict=False)]
        FirstOrderAttribution.__init__(self, wrapper, (first[0], first[1]) if first else None)
        self.undefined = {}

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        target: None = None,
        additional_forward_args: Any = None,
    ) -> Attributions:
        """Attributions of the tokens of both inputs.

        Args:
            inputs (tuple[Tensor, Tensor]): Aligned pairs as the towers take them, B rows each.
            target: Must be None; a similarity has a single output. Default: None
            additional_forward_args (optional): What the towers take beside their inputs: those of
                a, then those of b, B rows each. Default: None

        Returns:
            tuple[Tensor | None, Tensor | None]: shapes (B, Ta) and (B, Tb), over all tokens of the
            blocks; special tokens and padding are exactly zero. In float32 or wider. None for a
            side for which the method is not defined; :attr:`undefined` says why.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If inputs are not what the towers take, or the method is defined for neither
                side.
        """
        return self._attribute(inputs, target, additional_forward_args)

    def _attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        target: None,
        additional_forward_args: Any,
        baselines: Baselines = None,
        **options: Any,
    ) -> Attributions:
        with explaining(self.wrapper):
            sides = self._open(
                inputs, target, additional_forward_args, baselines, references=self._with_references
            )
            self.undefined = {}
            maps = tuple(
                self._defined(side, other, **options) for side, other in (sides, sides[::-1])
            )
            if len(self.undefined) == 2:
                raise ValueError(
                    f"{type(self).__name__} is not defined for this model. "
                    + "; ".join(f"input {name}: {why}" for name, why in self.undefined.items())
                )
        return maps[0], maps[1]

    def _defined(self, side: Side, other: Side, **options: Any) -> Tensor | None:
        try:
            if side.layer == "input":
                raise UndefinedError(
                    f"{type(side.tower).__name__} has no blocks that could be looked into"
                )
            recording = recorded(side)
            shown = shown_tokens(side, recording)
            tokens = widen(self._map(side, other, recording, shown, **options).detach())
        except UndefinedError as error:
            self.undefined[side.name] = str(error)
            _LOGGER.info("no attribution of input %s: %s", side.name, error)
            return None
        return with_padding(tokens * shown, side.token_mask.shape[1])

    @abstractmethod
    def _map(
        self, side: Side, other: Side, recording: Recording, shown: Tensor, **options: Any
    ) -> Tensor:
        """Attributions (B, T) of one side's tokens.

        Args:
            side, other (Side): The side to explain, and the one that is held fixed.
            recording (Recording): The blocks of the side; T is theirs.
            shown (Tensor): 1 for tokens that have an attribution, others are set to zero, (B, T).
            options: Further arguments of :meth:`attribute`.

        Raises:
            UndefinedError: If the method is not defined for the tower.
        """


def _first_layer(tower: Tower, count: int | None) -> Layer:
    """The layer that ``count`` last blocks start at."""
    if not tower.n_blocks:
        return "input"
    return 0 if count is None else max(0, tower.n_blocks - count)


def recorded(side: Side, replaced: dict[int, Weigh] | None = None) -> Recording:
    """Run a side from its layer on, with its attention recorded.

    Raises:
        UndefinedError: If the attention cannot be seen, or there is more to it than what was seen.
    """
    assert isinstance(side.layer, int)
    recording = record(side.tower, side.layer, side.features, *side.context, replaced=replaced)
    if not replaced:
        wide = side.features.dtype in (torch.float32, torch.float64)
        difference = (unit(recording.embedding.detach()) - side.embedding).norm(dim=-1).max()
        if difference > (1e-4 if wide else 5e-2):
            raise UndefinedError(
                "the blocks give another embedding with recorded attention than with their own "
                f"(relative difference {difference:.1e}), so it is more than a softmax of products"
            )
    return recording


def shown_tokens(side: Side, recording: Recording) -> Tensor:
    """1 for tokens that stand for a part of the input, and not for all of it, (B, T)."""
    shown = side.parts[:, : recording.blocks[-1].output.shape[1]]
    if recording.pooled is None:
        return shown
    return shown.scatter(1, recording.pooled.unsqueeze(1), 0.0)


def pooled_position(recording: Recording) -> Tensor:
    """Position (B,) of the class token, the end-of-text token, or whichever is pooled alone.

    Raises:
        UndefinedError: If several tokens are.
    """
    if recording.pooled is None:
        raise UndefinedError(
            "the embedding is pooled from several tokens: there is no class token whose attention "
            "could be followed"
        )
    return recording.pooled


def check_sees_all(recording: Recording) -> None:
    """Refuse towers whose tokens see only what comes before them.

    Raises:
        UndefinedError: If the attention is causal.
    """
    if recording.is_causal:
        raise UndefinedError(
            "its attention is causal, so a token stands for all that comes before it, and only the "
            "last one is trained as an embedding"
        )


def row_of(matrix: Tensor, position: Tensor) -> Tensor:
    """The row (B, ...) at each example's position of a matrix (B, T, ...)."""
    return matrix[torch.arange(len(matrix), device=matrix.device), position]


def token_embeddings(side: Side, states: Tensor) -> Tensor:
    """Unit embeddings (B, T, K) of final states (B, T, D), each of them pooled alone."""
    project = getattr(side.tower, "project")  # noqa: B009 - towers with blocks have it
    embeddings = project(states.flatten(0, 1), *side.context)
    tokens: Tensor = unit(embeddings).unflatten(0, states.shape[:2])
    return tokens


def with_padding(tokens: Tensor, length: int) -> Tensor:
    """Values (B, T) with zeros for the tokens that were left out at the end."""
    return torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]))
