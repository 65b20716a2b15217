"""Captum's Occlusion on the score of a pair, one token at a time."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import Occlusion, PerturbationAttribution
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr.first_order.base import FirstOrderAttribution, Side, first_layers
from captum_interactions.attr.second_order.base import Baselines
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining


class FirstOrderOcclusion(FirstOrderAttribution, PerturbationAttribution):
    r"""How far the score falls when one token is replaced by its reference.

    Captum's :class:`~captum.attr.Occlusion` at a layer, with windows of one token (at
    ``"input"``, of one cell of the patch grid): :math:`M_i = s(a, b) - s(a_{-i}, b)`, where
    :math:`a_{-i}` has token i from the reference; and likewise for b.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): ``(layer_a, layer_b)``, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`. Default: None, the first:
            layer 0, where a token holds its own patch or word only, or ``"input"`` if a tower has
            no blocks

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist.

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> a, b = FirstOrderOcclusion(wrapper).attribute((torch.rand(2, 4), torch.rand(2, 5)))
        >>> a.shape, b.shape
        (torch.Size([2, 4]), torch.Size([2, 5]))
    """

    cost = "a forward pass of each input and its reference, and one for each token"

    def __init__(
        self, wrapper: DualEncoderWrapper, layers: tuple[Layer, Layer] | None = None
    ) -> None:
        super().__init__(wrapper, first_layers(wrapper) if layers is None else layers)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        target: None = None,
        additional_forward_args: Any = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Attributions of the tokens of both inputs.

        Args:
            inputs (tuple[Tensor, Tensor]): Aligned pairs as the towers take them, B rows each.
            baselines (optional): The references of a and b, as in
                :meth:`~captum_interactions.SecondOrderIntegratedGradients.attribute`. Default: None
            target: Must be None; a similarity has a single output. Default: None
            additional_forward_args (optional): What the towers take beside their inputs: those of
                a, then those of b, B rows each. Default: None
            perturbations_per_eval (int, optional): Tokens that are occluded in one forward pass,
                each in a copy of the pairs. Default: 1
            show_progress (bool, optional): Show a progress bar. Default: False

        Returns:
            tuple[Tensor, Tensor]: shapes (B, Ta) and (B, Tb), all tokens; padding is exactly zero.
            In float32 or wider.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If inputs or baselines are not as described.
        """

        def occlude(side: Side, other: Side) -> Tensor:
            features = side.wide
            window = _window(side)
            parts = [
                Occlusion(side.score).attribute(
                    features,
                    window,
                    strides=window,
                    baselines=start.expand_as(features).to(features.dtype),
                    additional_forward_args=(other.embedding, *side.context),
                    perturbations_per_eval=perturbations_per_eval,
                    show_progress=show_progress,
                )
                for start in side.starts
            ]
            # Each feature of a window has the window's difference.
            return side.fold(torch.stack(parts).mean(0)) / side.tower.fold(
                side.layer, torch.ones_like(features)
            )

        with explaining(self.wrapper), torch.no_grad():
            side_a, side_b = self._open(
                inputs, target, additional_forward_args, baselines, references=True
            )
            return occlude(side_a, side_b), occlude(side_b, side_a)


def _window(side: Side) -> tuple[int, ...]:
    """The shape of one token's features."""
    first = torch.zeros(1, side.token_mask.shape[1])
    first[:, 0] = 1
    weights = side.tower.spread(side.layer, first, side.features.shape)[0]
    shape = side.features.shape[1:]
    inside = weights.expand(*weights.shape[: weights.dim() - len(shape)], *shape).nonzero()
    return tuple((inside.amax(0) + 1).tolist())
