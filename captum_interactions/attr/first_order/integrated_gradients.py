"""Captum's Integrated Gradients on the score of a pair, at a layer of each tower."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import GradientAttribution, IntegratedGradients
from torch import Tensor

from captum_interactions.attr._utils.arguments import Baselines, Inputs, check_batch_size
from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr.first_order.base import FirstOrderAttribution


class FirstOrderIntegratedGradients(FirstOrderAttribution[Tensor], GradientAttribution):
    r"""Integrated Gradients of the score, for each input with the other held fixed.

    Captum's :class:`~captum.attr.IntegratedGradients`, from a layer on, with baseline :math:`r_a`:

    .. math::
        M_i = (a - r_a)_i \int_0^1 \frac{\partial s}{\partial a_i}
        \big(r_a + \alpha (a - r_a), b\big) \, d\alpha , \qquad
        \sum_i M_i = s(a, b) - s(r_a, b) ,

    summed over the features of each token, and likewise for b. Captum's
    :class:`~captum.attr.LayerIntegratedGradients` gives the same where each layer is a module that
    runs once; here one encoder may serve both sides.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017.

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> inputs = torch.rand(2, 4), torch.rand(2, 5)
        >>> a, b = FirstOrderIntegratedGradients(wrapper).attribute(inputs)
        >>> a.shape, b.shape
        (torch.Size([2, 4]), torch.Size([2, 5]))
    """

    cost = "a forward pass of each input and its baseline; per node, a pass and a backward pass"
    uses_baselines = True

    def attribute(  # type: ignore[override]  # Captum's order: baselines come second
        self, inputs: Inputs, baselines: Baselines = None, target: None = None,
        additional_forward_args: Any = None, n_steps: int = 20, method: str = "gausslegendre",
        internal_batch_size: int | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Attributions of the tokens of both inputs.

        Args:
            n_steps (int, optional): Number of quadrature nodes. Default: 20
            method (str, optional): Quadrature rule of Captum. Default: ``gausslegendre``
            internal_batch_size (int, optional): About this many rows (pairs times nodes) at once,
                but at least one node of all pairs. Default: None, all
        """
        check_batch_size(internal_batch_size)
        options = {"n_steps": n_steps, "method": method, "internal_batch_size": internal_batch_size}
        return self._attribute(inputs, target, additional_forward_args, baselines, **options)

    def _map(self, side: LayerInputs, other: LayerInputs, **options: Any) -> Tensor:
        features, size = side.wide_features, options.pop("internal_batch_size")
        parts = [
            IntegratedGradients(side.score).attribute(
                features,
                baselines=baseline.expand_as(features).to(features.dtype),
                additional_forward_args=(other.embedding, *side.context),
                internal_batch_size=size and max(len(features), size),
                **options,
            )
            for baseline in side.baselines
        ]
        return side.fold(torch.stack(parts).mean(0))
