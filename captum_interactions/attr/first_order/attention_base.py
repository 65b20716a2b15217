"""The base class of attributions by attention, which record the attention of both towers."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Any

from captum.attr import GradientAttribution
from torch import Tensor
from torch.nn import functional as F

from captum_interactions.attr._utils.arguments import Inputs
from captum_interactions.attr._utils.attention_run import AttentionRun, run_with_attention
from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr.first_order.base import FirstOrderAttribution
from captum_interactions.encoders import DualEncoderWrapper, Layer, Tower
from captum_interactions.encoders.attention import UndefinedError
from captum_interactions.encoders.wrapper import widen

_LOGGER = logging.getLogger(__name__)

Blocks = int | tuple[int, int] | None
"""A number of blocks of both towers or one of each; None for all."""
POOLED = "a class token or another token that is pooled alone"
"""What several methods need."""


class AttentionAttribution(FirstOrderAttribution[Tensor | None], GradientAttribution):
    """Base class of attributions that use the attention of the last blocks of each tower.

    Attention is recorded during a call, whatever implementation the model runs (see
    :mod:`captum_interactions.encoders.attention`); the model need not be reloaded. A method
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

    def __init__(self, wrapper: DualEncoderWrapper, n_blocks: Blocks = None) -> None:
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

    def _maps(
        self, a: LayerInputs, b: LayerInputs, **options: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        self.undefined = {}
        maps = super()._maps(a, b, **options)
        if len(self.undefined) == 2:
            raise ValueError(
                f"{type(self).__name__} is not defined for this model. "
                + "; ".join(f"input {name}: {why}" for name, why in self.undefined.items())
            )
        return maps

    def _map(self, side: LayerInputs, other: LayerInputs, **options: Any) -> Tensor | None:
        try:
            run = run_with_attention(side, other)
            tokens = widen(self._attention_map(run, **options).detach()) * run.shown
        except UndefinedError as error:
            self.undefined[side.name] = str(error)
            _LOGGER.info("no attribution of input %s: %s", side.name, error)
            return None
        return F.pad(tokens, (0, side.token_mask.shape[1] - tokens.shape[1]))

    @abstractmethod
    def _attention_map(self, run: AttentionRun, **options: Any) -> Tensor:
        """Attributions (B, T) of the tokens of one side; those of special tokens are not used.

        Args:
            run (AttentionRun): The side, with the attention of its last blocks.
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
