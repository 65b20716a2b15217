"""Captum's Input×Gradient on the score of a pair, at a layer of each tower."""

from __future__ import annotations

from typing import Any

from captum.attr import GradientAttribution, InputXGradient
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr._utils.scale_invariance import check_scale_dependence
from captum_interactions.attr.first_order.base import FirstOrderAttribution, Side, first_layers
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.encoders.wrapper import unit


class FirstOrderInputXGradient(FirstOrderAttribution, GradientAttribution):
    r"""Features times the score's gradient, summed over each token.

    Captum's :class:`~captum.attr.InputXGradient`, applied to what follows a layer:
    :math:`M_i = \langle x_i, \partial s / \partial x_i\rangle`.

    At layers where each token is normalised before it is used, as at the last block of a pre-norm
    transformer that pools one token, all values but that token's are zero: ``attribute`` refuses
    them.

    Source: Shrikumar, Greenside, Shcherbina and Kundaje, "Not Just a Black Box: Learning Important
    Features Through Propagating Activation Differences" (arXiv 1605.01713).

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): ``(layer_a, layer_b)``, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`. Default: None, the
            embedding output of each tower, or the input of a tower without blocks

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist.

    Examples::

        >>> import torch
        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> a, b = FirstOrderInputXGradient(wrapper).attribute((torch.rand(2, 4), torch.rand(2, 5)))
        >>> a.shape, b.shape
        (torch.Size([2, 4]), torch.Size([2, 5]))
    """

    cost = "2 forward passes and a backward pass of each input"

    def __init__(
        self, wrapper: DualEncoderWrapper, layers: tuple[Layer, Layer] | None = None
    ) -> None:
        super().__init__(wrapper, first_layers(wrapper) if layers is None else layers)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        target: None = None,
        additional_forward_args: Any = None,
    ) -> tuple[Tensor, Tensor]:
        """Attributions of the tokens of both inputs.

        Args:
            inputs (tuple[Tensor, Tensor]): Aligned pairs as the towers take them, B rows each.
            target: Must be None; a similarity has a single output. Default: None
            additional_forward_args (optional): What the towers take beside their inputs: those of
                a, then those of b, B rows each. Default: None

        Returns:
            tuple[Tensor, Tensor]: shapes (B, Ta) and (B, Tb), all tokens; padding is exactly zero.
            In float32 or wider.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If inputs are not what the towers take, or all attributions of an input are
                zero at its layer.
        """

        def multiply(side: Side, other: Side) -> Tensor:
            return side.fold(
                InputXGradient(side.score).attribute(
                    side.wide.requires_grad_(),
                    additional_forward_args=(other.embedding, *side.context),
                )
            )

        with explaining(self.wrapper):
            side_a, side_b = self._open(inputs, target, additional_forward_args)
            for side in (side_a, side_b):
                _check(side)
            return multiply(side_a, side_b), multiply(side_b, side_a)


def _check(side: Side) -> None:
    def embed(features: Tensor) -> Tensor:
        return unit(side.tower.embed(side.layer, features, *side.context))

    check_scale_dependence(
        "InputXGradient", side.name, side.tower, side.layer, side.features, embed, side.parts
    )
