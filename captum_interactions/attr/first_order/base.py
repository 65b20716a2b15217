"""The base class of first-order attributions: the score as a function of one input."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Generic, TypeVar, cast

from torch import Tensor

from captum_interactions.attr._utils.arguments import Baselines, Inputs, check_target
from captum_interactions.attr._utils.base import DualEncoderAttribution
from captum_interactions.attr._utils.inputs import propagate_pairs
from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.encoders.model.modes import explaining

Map = TypeVar("Map", bound=Tensor | None)
"""The attribution of one input: a tensor, or None too if a method may be undefined for a tower."""


class FirstOrderAttribution(DualEncoderAttribution, Generic[Map]):
    """Base class of attributions of the tokens of each input, with the other input held fixed.

    A method implements :meth:`_map`, the attribution of one side. A method with further arguments
    also writes its ``attribute``, which passes them to :meth:`_attribute`.
    """

    order = 1
    uses_baselines: ClassVar[bool] = False
    """Whether :meth:`_map` needs the baselines of its inputs."""

    def attribute(
        self, inputs: Inputs, target: None = None, additional_forward_args: Any = None
    ) -> tuple[Map, Map]:
        """Attributions of the tokens of both inputs.

        Args:
            inputs (tuple[Tensor, Tensor]): Input a and input b of aligned pairs, as the towers take
                them, B rows each (for CLIP: pixel values and token ids).
            baselines (None, scalar, Tensor or tuple, optional): The baselines. A tuple gives one
                for each input; each is

                - None: the wrapper's own baseline,
                - an int or float: a constant; for token ids, this id wherever no special token is,
                - a tensor of the input's shape, or with one row for all pairs,
                - a list of these: the attributions are averaged over them.

                A bare scalar serves both inputs; a bare tensor or list serves input a only.
                Default: None
            target: Must be None; a similarity has a single output. Default: None
            additional_forward_args (optional): Further arguments of the towers: those of a, then
                those of b (for CLIP: the attention mask), B rows each. Default: None
            show_progress (bool, optional): Show a progress bar. Default: False

        Returns:
            tuple[Tensor, Tensor]: shapes (B, Ta) and (B, Tb), over all tokens; padding is exactly
            zero. In float32 or wider.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If inputs or options are not as described.
        """
        return self._attribute(inputs, target, additional_forward_args)

    def _attribute(
        self,
        inputs: Inputs,
        target: None,
        additional_forward_args: Any,
        baselines: Baselines = None,
        **options: Any,
    ) -> tuple[Map, Map]:
        """Propagate both inputs to their layers, and attribute the score to each of them."""
        check_target(target)
        with explaining(self.wrapper):
            a, b = propagate_pairs(
                self.wrapper, self.layers, inputs, baselines, additional_forward_args,
                with_baselines=self.uses_baselines,
                normalization=self.wrapper.normalizations[0],
            )  # fmt: skip
            for side in (a, b):
                self._check(side)
            return self._maps(a, b, **options)

    def _maps(self, a: LayerInputs, b: LayerInputs, **options: Any) -> tuple[Map, Map]:
        of_a, of_b = (self._map(*pair, **options) for pair in ((a, b), (b, a)))
        return _detached(of_a), _detached(of_b)

    def _check(self, side: LayerInputs) -> None:
        """Raise a ValueError if the method cannot explain a side; nothing expensive is done yet."""

    @abstractmethod
    def _map(self, side: LayerInputs, other: LayerInputs, **options: Any) -> Map:
        """Attributions (B, T) of the tokens of one side.

        Args:
            side (LayerInputs): The input to explain.
            other (LayerInputs): The input that is held fixed.
            options: Further arguments of :meth:`attribute`.
        """


def _detached(attribution: Map) -> Map:
    return cast(Map, None if attribution is None else attribution.detach())
