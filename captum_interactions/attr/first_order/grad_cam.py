"""Captum's GradCAM on the score of a pair, at a layer of each tower."""

from __future__ import annotations

from typing import Any

from captum.attr import GradientAttribution, LayerGradCam
from captum.log import log_usage
from torch import Tensor, nn

from captum_interactions.attr.first_order.base import FirstOrderAttribution, Side
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining


class FirstOrderGradCam(FirstOrderAttribution, GradientAttribution):
    r"""Hidden states, weighted by the mean gradient of each hidden unit.

    With :math:`h_j` the states that enter a block, and T tokens that are not padding,

    .. math::
        M_j = \max\Big(0, \Big\langle \frac 1 T \sum_i \frac{\partial s}{\partial h_i} , h_j
        \Big\rangle\Big)

    for tokens that are not special. This is Captum's :class:`~captum.attr.LayerGradCam` with hidden
    units as channels and tokens as places. At a convolutional tower's blocks it is Captum's on the
    feature map; at a transformer's blocks, Captum's own would take tokens for channels.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): ``(layer_a, layer_b)``, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`. Features must be hidden
            states (B, T, D). Default: None, ``wrapper.default_layers``
        relu_attributions (bool, optional): Take the positive part. Default: True

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist.

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> a, b = FirstOrderGradCam(wrapper).attribute(
        ...     batch.inputs, additional_forward_args=batch.additional_forward_args
        ... )
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
            tuple[Tensor, Tensor]: shapes (B, Ta) and (B, Tb); special tokens and padding are
            exactly zero. In float32 or wider.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If inputs are not what the towers take, or a layer has no hidden states.
        """
        with explaining(self.wrapper):
            sides = self._open(inputs, target, additional_forward_args)
            for side in sides:
                if side.features.dim() != 3:
                    raise ValueError(
                        "GradCAM needs hidden states (B, T, D), but layer "
                        f"{side.layer!r} of encoder {side.name} has features of shape "
                        f"{tuple(side.features.shape)}: take a block"
                    )
            side_a, side_b = sides
            return self._map(side_a, side_b), self._map(side_b, side_a)

    def _map(self, side: Side, other: Side) -> Tensor:
        layer = nn.Identity()

        def score(channels: Tensor, *rest: Any) -> Tensor:
            return side.score(layer(channels).transpose(1, 2), *rest)

        cam = LayerGradCam(score, layer).attribute(
            side.wide.transpose(1, 2).contiguous().requires_grad_(),
            additional_forward_args=(other.embedding, *side.context),
            relu_attributions=self.relu_attributions,
        )
        # Captum's mean is over all places. Gradients of padding are zero, but it must not count.
        places = side.token_mask
        mean: Tensor = cam.detach().squeeze(1) * places.shape[1] / places.sum(1, keepdim=True)
        return mean * side.parts
