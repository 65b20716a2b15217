"""Captum's Integrated Gradients on the score of a pair, at a layer of each tower."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import GradientAttribution, IntegratedGradients
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr.first_order.base import FirstOrderAttribution, Side
from captum_interactions.attr.second_order.base import Baselines
from captum_interactions.encoders.model.modes import explaining


class FirstOrderIntegratedGradients(FirstOrderAttribution, GradientAttribution):
    r"""Integrated Gradients of the score, for each input with the other held fixed.

    Captum's :class:`~captum.attr.IntegratedGradients`, applied to what follows a layer:

    .. math::
        M_i = (a - r_a)_i \int_0^1 \frac{\partial s}{\partial a_i}
        \big(r_a + \alpha (a - r_a), b\big) \, d\alpha , \qquad
        \sum_i M_i = s(a, b) - s(r_a, b) ,

    summed over the features of each token, and likewise for b. Captum's
    :class:`~captum.attr.LayerIntegratedGradients` gives the same where each layer is a module that
    runs once; here an encoder may serve both sides.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): ``(layer_a, layer_b)``, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`. Default: None,
            ``wrapper.default_layers``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist.

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> inputs = torch.rand(2, 4), torch.rand(2, 5)
        >>> a, b = FirstOrderIntegratedGradients(wrapper).attribute(inputs)
        >>> a.shape, b.shape
        (torch.Size([2, 4]), torch.Size([2, 5]))
    """

    cost = "a forward pass of each input and its reference; per node, a pass and a backward pass"

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        target: None = None,
        additional_forward_args: Any = None,
        n_steps: int = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attributions of the tokens of both inputs.

        Args:
            inputs (tuple[Tensor, Tensor]): Aligned pairs as the towers take them, B rows each.
            baselines (optional): The references of a and b, as in
                :meth:`~captum_interactions.SecondOrderIntegratedGradients.attribute`. Default: None
            target: Must be None; a similarity has a single output. Default: None
            additional_forward_args (optional): What the towers take beside their inputs: those of
                a, then those of b, B rows each. Default: None
            n_steps (int, optional): Number of quadrature nodes. Default: 20
            method (str, optional): Quadrature rule of Captum. Default: ``gausslegendre``
            internal_batch_size (int, optional): About this many rows (pairs times nodes) at once,
                but at least one node of all pairs. Default: None, all

        Returns:
            tuple[Tensor, Tensor]: shapes (B, Ta) and (B, Tb), all tokens; padding is exactly zero.
            In float32 or wider.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If inputs, baselines or options are not as described.
        """
        if internal_batch_size is not None and internal_batch_size < 1:
            raise ValueError(
                f"internal_batch_size must be a positive number, but got {internal_batch_size}"
            )

        def integrate(side: Side, other: Side) -> Tensor:
            rows = len(side.features)
            parts = [
                IntegratedGradients(side.score).attribute(
                    side.wide,
                    baselines=start.expand_as(side.features).to(side.wide.dtype),
                    additional_forward_args=(other.embedding, *side.context),
                    n_steps=n_steps,
                    method=method,
                    internal_batch_size=internal_batch_size and max(rows, internal_batch_size),
                )
                for start in side.starts
            ]
            return side.fold(torch.stack(parts).mean(0))

        with explaining(self.wrapper):
            side_a, side_b = self._open(
                inputs, target, additional_forward_args, baselines, references=True
            )
            return integrate(side_a, side_b), integrate(side_b, side_a)
