"""Captum's Input×Gradient on the score of a pair, at a layer of each tower."""

from __future__ import annotations

from typing import Any

from captum.attr import GradientAttribution, InputXGradient
from torch import Tensor

from captum_interactions.attr._utils.arguments import first_layers
from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr._utils.scale_invariance import check_scale_dependence
from captum_interactions.attr.first_order.base import FirstOrderAttribution


class FirstOrderInputXGradient(FirstOrderAttribution[Tensor], GradientAttribution):
    r"""Features times the gradient of the score, summed over each token.

    Captum's :class:`~captum.attr.InputXGradient`, from a layer on:
    :math:`M_i = \langle x_i, \partial s / \partial x_i\rangle`.

    At layers where each token is normalised before it is used, as at the last block of a pre-norm
    transformer that pools one token, all values but that token's are zero: ``attribute`` refuses
    them. The default layers are the first ones.

    Source: Shrikumar, Greenside, Shcherbina and Kundaje, "Not Just a Black Box: Learning Important
    Features Through Propagating Activation Differences" (arXiv 1605.01713).

    Examples::

        >>> import torch
        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> a, b = FirstOrderInputXGradient(wrapper).attribute((torch.rand(2, 4), torch.rand(2, 5)))
        >>> a.shape, b.shape
        (torch.Size([2, 4]), torch.Size([2, 5]))
    """

    cost = "3 forward passes and a backward pass of each input"
    _default_layers = staticmethod(first_layers)

    def _check(self, side: LayerInputs) -> None:
        check_scale_dependence("InputXGradient", side)

    def _map(self, side: LayerInputs, other: LayerInputs, **_: Any) -> Tensor:
        attribution = InputXGradient(side.score).attribute(
            side.wide_features.requires_grad_(),
            additional_forward_args=(other.embedding, *side.context),
        )
        return side.fold(attribution)
