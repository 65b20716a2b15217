"""Captum's Occlusion on the score of a pair, one token at a time."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import Occlusion, PerturbationAttribution
from torch import Tensor

from captum_interactions.attr._utils.arguments import Baselines, Inputs, first_layers
from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr.first_order.base import FirstOrderAttribution


class FirstOrderOcclusion(FirstOrderAttribution[Tensor], PerturbationAttribution):
    r"""The drop of the score when one token is replaced by its baseline.

    Captum's :class:`~captum.attr.Occlusion` at a layer, with windows of one token (at
    ``"input"``, of one cell of the patch grid): :math:`M_i = s(a, b) - s(a_{-i}, b)`, where
    :math:`a_{-i}` has token i from the baseline; and likewise for b.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.

    Args:
        layers (tuple, optional): ``(layer_a, layer_b)``, the layer of each tower whose tokens are
            replaced. Default: None, layer 0, where a token depends on its own patch or word only,
            or ``"input"`` if a tower has no blocks

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> a, b = FirstOrderOcclusion(wrapper).attribute((torch.rand(2, 4), torch.rand(2, 5)))
        >>> a.shape, b.shape
        (torch.Size([2, 4]), torch.Size([2, 5]))
    """

    cost = "a forward pass of each input and its baseline, and one for each token"
    uses_baselines = True
    _default_layers = staticmethod(first_layers)

    def attribute(  # type: ignore[override]  # Captum's order: baselines come second
        self, inputs: Inputs, baselines: Baselines = None, target: None = None,
        additional_forward_args: Any = None, perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Attributions of the tokens of both inputs.

        Args:
            perturbations_per_eval (int, optional): Tokens that are occluded in one forward pass,
                each in a copy of the pairs. Default: 1
        """
        options = {"perturbations_per_eval": perturbations_per_eval, "show_progress": show_progress}
        return self._attribute(inputs, target, additional_forward_args, baselines, **options)

    @torch.no_grad()
    def _map(self, side: LayerInputs, other: LayerInputs, **options: Any) -> Tensor:
        features, window = side.wide_features, _window(side)
        parts = [
            Occlusion(side.score).attribute(
                features,
                window,
                strides=window,
                baselines=baseline.expand_as(features).to(features.dtype),
                additional_forward_args=(other.embedding, *side.context),
                **options,
            )
            for baseline in side.baselines
        ]
        # Captum gives every feature of a window the whole difference.
        sizes = side.tower.fold(side.layer, torch.ones_like(features))
        return side.fold(torch.stack(parts).mean(0)) / sizes


def _window(side: LayerInputs) -> tuple[int, ...]:
    """The shape of one token's features."""
    first = torch.zeros(1, side.token_mask.shape[1])
    first[:, 0] = 1
    weights = side.tower.spread(side.layer, first, side.features.shape)[0]
    shape = side.features.shape[1:]
    inside = weights.expand(*weights.shape[: weights.dim() - len(shape)], *shape).nonzero()
    return tuple((inside.amax(0) + 1).tolist())
