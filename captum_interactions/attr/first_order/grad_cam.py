"""Captum's GradCAM on the score of a pair, at a layer of each tower."""

from __future__ import annotations

from typing import Any

from captum.attr import GradientAttribution, LayerGradCam
from torch import Tensor, nn

from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr.first_order.base import FirstOrderAttribution
from captum_interactions.encoders import DualEncoderWrapper, Layer


class FirstOrderGradCam(FirstOrderAttribution[Tensor], GradientAttribution):
    r"""Hidden states, weighted by the mean gradient of each hidden unit.

    With :math:`h_j` the states that enter a block, and T tokens without padding,

    .. math::
        M_j = \max\Big(0, \Big\langle \frac 1 T \sum_i \frac{\partial s}{\partial h_i} , h_j
        \Big\rangle\Big) .

    Special tokens are zero. This is Captum's :class:`~captum.attr.LayerGradCam` with hidden units
    as channels and tokens as positions. At the blocks of a convolutional tower it is Captum's on
    the feature map; at the blocks of a transformer, Captum's own would take tokens for channels.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017.

    Args:
        relu_attributions (bool, optional): Take the positive part. Default: True

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> grad_cam = FirstOrderGradCam(wrapper)
        >>> a, b = grad_cam.attribute(batch.inputs, None, batch.additional_forward_args)
        >>> bool((a >= 0).all() and (b >= 0).all())
        True
    """

    needs = "hidden states of tokens (B, T, D) at the layers"
    cost = "2 forward passes and a backward pass of each input"

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        relu_attributions: bool = True,
    ) -> None:
        super().__init__(wrapper, layers)
        self.relu_attributions = relu_attributions

    def _check(self, side: LayerInputs) -> None:
        if side.features.dim() != 3:
            raise ValueError(
                f"GradCAM needs hidden states (B, T, D), but layer {side.layer!r} of encoder "
                f"{side.name} has features of shape {tuple(side.features.shape)}: take a block"
            )

    def _map(self, side: LayerInputs, other: LayerInputs, **_: Any) -> Tensor:
        layer = nn.Identity()

        def score(channels: Tensor, *rest: Any) -> Tensor:
            return side.score(layer(channels).transpose(1, 2), *rest)

        cam = LayerGradCam(score, layer).attribute(
            side.wide_features.transpose(1, 2).contiguous().requires_grad_(),
            additional_forward_args=(other.embedding, *side.context),
            relu_attributions=self.relu_attributions,
        )
        # Captum averages over padding too, where gradients are zero.
        mask = side.token_mask
        mean: Tensor = cam.squeeze(1) * mask.shape[1] / mask.sum(1, keepdim=True)
        return mean * side.content_mask
