"""Class activation maps of both towers with joint channel weights."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import GradientAttribution
from torch import Tensor

from captum_interactions.attr._utils.arguments import Inputs
from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr.second_order.base import BaselineFreeAttribution
from captum_interactions.encoders.wrapper import widen
from captum_interactions.functional import (
    NotTwiceDifferentiableError,
    Quadrature,
    contract,
    integrated_jvp,
    integrated_vjp,
)

_AT_INPUT = Quadrature(torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
"""A single node at the end of a path: derivatives are taken at the inputs."""


class InteractionCAM(BaselineFreeAttribution, GradientAttribution):
    r"""Activations of both towers, weighted by the joint effect of channels on the score.

    With the features F of the tokens at a layer, channels c of a and d of b have the joint weight

    .. math::
        w_{cd} = \frac{1}{T_a T_b} \sum_{t, u}
        \frac{\partial^2 s}{\partial F^a_{tc} \, \partial F^b_{ud}}
        = \langle \bar g_c, \bar h_d \rangle , \qquad
        \bar g_c = \frac{1}{T_a} \sum_t \frac{\partial g}{\partial F^a_{tc}} ,

    and the map is

    .. math::
        A_{ij} = \sum_{c d} F^a_{ic} \, w_{cd} \, F^b_{jd}
        = \Big\langle \sum_c F^a_{ic} \, \bar g_c , \; \sum_d F^b_{jd} \, \bar h_d \Big\rangle .

    This is Grad-CAM on both sides: a product of two vector-valued class activation maps, whose
    marginals are the maps of single inputs with weights set by the other input. There is no ReLU
    and no baseline, and the map is not complete.

    In the publication both inputs go through the same convolutional encoder, channel c of one is
    paired with channel c of the other with weight ``mean(F^a_c) mean(F^b_c)``, gradients go through
    a ReLU, and the result is one map per image. Encoders of different widths have no matching
    channels; mixed derivatives weigh every pair of channels and keep the sign.

    Source: Sammani, Joukovsky and Deligiannis, "Visualizing and understanding contrastive
    learning", IEEE TIP 2023 (arXiv 2206.09753); Selvaraju et al., "Grad-CAM", ICCV 2017.

    Args:
        layers (tuple, optional): ``(layer_a, layer_b)``, the layer of each tower whose features,
            (B, T, D), are weighted. The tokens of a feature map are its cells. Default: None,
            ``wrapper.default_layers``

    Examples::

        >>> from captum_interactions import wrap
        >>> a, b = torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)
        >>> wrapper = wrap((lambda x: a(x.tanh()).mean(1), lambda y: b(y.tanh()).mean(1)))
        >>> InteractionCAM(wrapper).attribute((torch.rand(2, 6, 4), torch.rand(2, 7, 5))).shape
        torch.Size([2, 6, 7])
    """

    needs = "two encoders; features that are tokens with channels"
    cost = "a forward pass of each input, then 2 S backward passes for S tokens on the shorter side"

    def _propagate(  # type: ignore[override]
        self, inputs: Inputs, baselines: None, additional_forward_args: Any, *_: Any
    ) -> tuple[LayerInputs, LayerInputs]:
        sides = super()._propagate(inputs, baselines, additional_forward_args)
        for side in sides:
            if side.features.dim() != 3:
                raise ValueError(
                    "InteractionCAM weighs the channels of tokens, so it needs features of shape "
                    f"(B, T, D), but at layer {side.layer!r} those of input {side.name} have shape "
                    f"{tuple(side.features.shape)}: choose a block with layers"
                )
        return sides

    def _interactions(self, sides: tuple[LayerInputs, LayerInputs], **options: Any) -> Tensor:
        """Products on the side with fewer tokens, then one per token on the other side."""
        size: int | None = options["internal_batch_size"]
        side_a, side_b = sides
        dimension = side_a.embedding.shape[1]
        if min(len(side_a.active), len(side_b.active)) > dimension:
            phi, psi = (_by_dimension(side, size) for side in sides)
            return contract(phi, psi)
        a_is_short = len(side_a.active) < len(side_b.active)
        short, long = sides if a_is_short else sides[::-1]
        try:
            factors = _by_token(short, size)
        except NotTwiceDifferentiableError:
            factors = _by_dimension(short, size)
        cotangents = factors[:, short.active].transpose(0, 1)
        attributions = short.padded(_pull_back(long, cotangents, size).movedim(0, 1))
        return attributions if a_is_short else attributions.transpose(1, 2)


def _by_token(side: LayerInputs, internal_batch_size: int | None) -> Tensor:
    """Factors (B, T, K): derivatives along the features of each token, put at every token."""
    end = widen(side.features)
    weights = (side.token_mask / side.token_mask.sum(1, keepdim=True)).unsqueeze(-1)
    own = end * side.token_mask.unsqueeze(-1)
    tangents = own[:, side.active].transpose(0, 1).unsqueeze(2) * weights
    products = integrated_jvp(
        side.function,
        side.features,
        side.features,
        tangents,
        _AT_INPUT,
        args=side.context,
        direction=torch.ones_like(end),
        internal_batch_size=internal_batch_size,
    )
    return side.padded(products.transpose(0, 1))


def _by_dimension(side: LayerInputs, internal_batch_size: int | None) -> Tensor:
    """The same factors from first derivatives only, one product per embedding dimension."""
    basis = torch.eye(side.embedding.shape[1]).to(side.embedding).unsqueeze(1)
    return _pull_back(side, basis, internal_batch_size).permute(1, 2, 0)


def _pull_back(side: LayerInputs, cotangents: Tensor, internal_batch_size: int | None) -> Tensor:
    """Class activation maps (C, B, T) of ``<cotangent, embedding>``."""

    def activate(gradient: Tensor, rows: slice) -> Tensor:
        mask = side.token_mask[rows]
        # The gradient at padding is zero; the mean excludes it.
        channels = gradient.sum(1) / mask.sum(1, keepdim=True)
        return (widen(side.features[rows]) @ channels.unsqueeze(-1)).squeeze(-1) * mask

    return integrated_vjp(
        side.function,
        side.features,
        side.features,
        cotangents,
        _AT_INPUT,
        args=side.context,
        reduce=activate,
        internal_batch_size=internal_batch_size,
    )
