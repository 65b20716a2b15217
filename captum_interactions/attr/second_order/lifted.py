"""Any first-order explainer of Captum, or a function of the user, as a second-order one."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import (
    FeaturePermutation,
    InputXGradient,
    LayerFeatureAblation,
    LayerGradientXActivation,
    NeuronAttribution,
)
from torch import Tensor

from captum_interactions.attr._utils.arguments import (
    Baselines,
    Groups,
    Inputs,
    Normalization,
    Side,
    first_layers,
)
from captum_interactions.attr._utils.captum_explainer import Explainer, ExplainerCall
from captum_interactions.attr._utils.path import Path
from captum_interactions.attr._utils.products import along_vector, jacobian_products
from captum_interactions.attr._utils.scale_invariance import check_scale_dependence
from captum_interactions.attr.second_order.base import SecondOrderAttribution, pair_score
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.functional import Decomposition, quadrature

_REFUSED = {
    NeuronAttribution: "explains a neuron, not a score, so it has no pairs to explain",
    FeaturePermutation: "exchanges features between the examples of a batch, but each pair is "
    "explained by itself: take FeatureAblation",
    LayerFeatureAblation: "removes single features, and does not use the baseline: take "
    "FeatureAblation, which sees the same features",
}


class LiftedAttribution(SecondOrderAttribution):
    r"""The second-order counterpart of a first-order explainer.

    A first-order explainer attributes a scalar function of one input. Here the function is the part
    of the score that token j of the other input contributes: with ``side="a"``,

    .. math::
        A_{ij} = \mathrm{explainer}_i \big( a \mapsto \langle g(a), \psi_j \rangle \big) , \qquad
        \sum_j \psi_j = h(b) - h(r_b) ,

    where :math:`\psi_j` are the factors of b by
    :class:`~captum_interactions.SecondOrderIntegratedGradients`; with ``side="b"``, a and b swap.
    If the explainer's attributions sum to the difference that it explains (``IntegratedGradients``
    with enough nodes, ``ShapleyValueSampling`` always), the map sums to
    ``s(a, b) - s(a, r_b) - s(r_a, b) + s(r_a, r_b)``. With ``IntegratedGradients`` it is the map of
    second-order integrated gradients.

    Explainers get the features at the layer: hidden states (B, T, D) or raw inputs.

    - Methods with baselines get the baseline of the explained input; ``GradientShap`` and
      ``DeepLiftShap`` get all of them, if a list is given.
    - Methods that perturb (``FeatureAblation``, ``ShapleyValueSampling``, ``KernelShap``,
      ``Occlusion``) replace whole tokens or groups, not single features, unless ``options`` contain
      another ``feature_mask`` or window: a token's attribution is the mean over its features. All
      tokens j share one evaluation of the encoder.
    - ``Layer...`` methods, such as ``LayerGradCam``, get the features as the output of their layer,
      channels first: (B, D, T). ``LayerGradCam`` applies no ReLU unless ``options`` say so, and its
      means exclude padding.
    - ``DeepLift`` hooks modules. Its attributions are complete if every nonlinearity from the layer
      on is a module that runs once (``nn.ReLU``, not ``F.relu``; attention and layer norm are not),
      and ``normalization`` is ``"frozen"`` or ``"none"``: a cosine is not a module either.
    - Features times gradient (``InputXGradient``, ``LayerGradientXActivation``) is zero at layers
      where each token is normalised before it is used, as at the last block of a pre-norm
      transformer that pools one token: it is refused there.
    - ``Saliency`` takes absolute values, and the absolute values of parts say nothing about their
      sum: it needs ``options={"abs": False}``.

    Args:
        layers (tuple, optional): ``(layer_a, layer_b)``, where each tower is attributed: k for the
            hidden state entering block k, or ``"input"`` for the raw tensor. Default: None, layer 0
            of the explained input, and the wrapper's default layer of the other
        explainer (type or Callable, optional): One of

            - a class of Captum, such as ``ShapleyValueSampling``,
            - a function from an ``nn.Module`` (features and further arguments to one number an
              example) to an ``Attribution`` of it, such as ``lambda f:
              NoiseTunnel(InputXGradient(f))``. The module's ``features`` is the layer for
              ``Layer...`` methods,
            - your own attribution, a function ``(forward_func, inputs, baselines,
              additional_forward_args, **options)`` that returns attributions of the shape of
              ``inputs``, where ``forward_func(inputs, *additional_forward_args)`` gives one number
              per row.

            Default: ``InputXGradient``
        side (str, optional): The input that the explainer explains; the other one has the factors.
            Default: ``"a"``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper or ``explainer`` not callable.
        ValueError: If a layer does not exist, an option is not as described, or the explainer has
            no second-order counterpart.

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> def occlusion(forward_func, inputs, baselines, additional_forward_args):
        ...     columns = []
        ...     for i in range(inputs.shape[1]):
        ...         occluded = inputs.clone()
        ...         occluded[:, i] = baselines[:, i]
        ...         columns.append(
        ...             forward_func(inputs, *additional_forward_args)
        ...             - forward_func(occluded, *additional_forward_args)
        ...         )
        ...     return torch.stack(columns, 1)
        >>> lifted = LiftedAttribution(wrapper, explainer=occlusion)
        >>> lifted.attribute((torch.rand(2, 4), torch.rand(2, 5))).shape
        torch.Size([2, 4, 5])
    """

    cost = (
        "for S tokens that have factors, per node a pass of that input and S backward passes; then "
        "S times the explainer's own passes, or those of one score if it takes no gradients"
    )

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        explainer: Explainer = InputXGradient,
        side: Side = "a",
        normalization: Normalization = "cosine",
    ) -> None:
        if side not in ("a", "b"):
            raise ValueError(f"side must be 'a' or 'b', but got {side!r}")
        self.side: Side = side
        super().__init__(wrapper, layers, normalization=normalization)
        if not callable(explainer):
            raise TypeError(
                "explainer must be a class of captum.attr, a function from a module to an "
                f"Attribution, or an attribution function, but got {explainer!r}"
            )
        for refused, reason in _REFUSED.items():
            if isinstance(explainer, type) and issubclass(explainer, refused):
                raise ValueError(f"{explainer.__name__} {reason}")
        self.explainer = explainer

    def _default_layers(self, wrapper: DualEncoderWrapper) -> tuple[Layer, Layer]:
        first_a, first_b = first_layers(wrapper)
        layer_a, layer_b = wrapper.default_layers
        return (first_a, layer_b) if self.side == "a" else (layer_a, first_b)

    def attribute(
        self, inputs: Inputs, baselines: Baselines = None, target: None = None,
        additional_forward_args: Any = None, n_steps: int = 20, method: str = "gausslegendre",
        internal_batch_size: int | None = None, *, groups_a: Groups | None = None,
        groups_b: Groups | None = None, options: dict[str, Any] | None = None,
        show_progress: bool = False,
    ) -> Tensor:  # fmt: skip
        """Attributions of the explained input for every token of the other.

        Args:
            n_steps (int, optional): Number of nodes of the factors, and of the explainer if it has
                nodes. Default: 20
            method (str, optional): Quadrature rule of the factors and of the explainer. Default:
                ``gausslegendre``
            internal_batch_size (int, optional): Maximum number of rows that are evaluated at once,
                as far as the explainer has such an option: one call of it explains as many tokens
                as fit (at least one). Default: None, all
            groups_a, groups_b (optional): Explain groups of tokens instead of tokens: a list of
                lists of token indices, or weights of shape (G, T) or (B, G, T). For methods that
                perturb, the groups of the explained side must be the same in all examples, of whole
                tokens, and share none. Default: None, every token by itself
            options (dict, optional): Further arguments of the explainer's ``attribute``, such as
                ``n_samples`` or ``perturbations_per_eval``. Default: None
            show_progress (bool, optional): Show progress bars, the explainer's too if it has one.
                Default: False

        Raises:
            TypeError: If inputs are not a pair of tensors, or an option is not the explainer's.
        """
        quadrature(method, n_steps)
        return self._attribute(
            inputs, baselines, target, additional_forward_args, groups_a, groups_b, n_steps=n_steps,
            method=method, internal_batch_size=internal_batch_size, options=options,
            show_progress=show_progress,
        )  # fmt: skip

    def decompose(
        self, inputs: Inputs, baselines: Baselines = None, additional_forward_args: Any = None,
        n_steps: int = 20, method: str = "gausslegendre", internal_batch_size: int | None = None, *,
        options: dict[str, Any] | None = None, show_progress: bool = False,
    ) -> Decomposition:  # fmt: skip
        """Constant, main effects of both sides, and interactions.

        The main effects of the explained input are the explainer's, of its score with the other
        input's baseline. Together the parts are the score if the explainer is complete.
        """
        quadrature(method, n_steps)
        return self._decompose(
            inputs, baselines, additional_forward_args, n_steps=n_steps, method=method,
            internal_batch_size=internal_batch_size, options=options, show_progress=show_progress,
        )  # fmt: skip

    def _interactions(self, sides: tuple[Path, Path], **options: Any) -> Tensor:
        return self._as_map(self._rows(sides, **options)[0])

    def _parts(self, sides: tuple[Path, Path], **options: Any) -> Decomposition:
        rows, factors = self._rows(sides, main_effects=True, **options)
        explained, other = self._ordered(sides)
        main = (rows[-1], along_vector(factors, explained.baseline_embedding))
        main_a, main_b = self._ordered(main)
        return Decomposition(
            constant=(explained.baseline_embedding * other.baseline_embedding).sum(-1),
            main_effects_a=main_a,
            main_effects_b=main_b,
            interactions=self._as_map(rows[:-1]),
            score=pair_score(sides),
        )

    def _ordered(self, pair: tuple[Any, Any]) -> tuple[Any, Any]:
        """Values of a and b as values of the explained side and of the other, and back."""
        return pair if self.side == "a" else pair[::-1]

    def _as_map(self, rows: Tensor) -> Tensor:
        """Attributions for each token of the other side, (T', B, T), as maps (B, Ta, Tb)."""
        return rows.permute(1, 2, 0) if self.side == "a" else rows.transpose(0, 1)

    def _rows(
        self,
        sides: tuple[Path, Path],
        *,
        n_steps: int,
        method: str,
        internal_batch_size: int | None,
        options: dict[str, Any] | None,
        show_progress: bool,
        main_effects: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Attributions (T', B, T) for each token of the other side, and its factors (B, T', K).

        With main effects, the last row is that of the other side's baseline.
        """
        explained, other = self._ordered(sides)
        call = ExplainerCall(self.explainer, explained, options, n_steps, method, show_progress)
        if isinstance(call.inner, (InputXGradient, LayerGradientXActivation)):
            check_scale_dependence(type(call.inner).__name__, explained)
        rule = quadrature(method, n_steps, dtype=torch.float64)
        with jacobian_products(rule, internal_batch_size, show_progress) as products:
            n_products = min(len(other.active), other.embedding.shape[1])
            products.progress.total = products.cost(other, n_products)
            factors = products.factors(other)
            cotangents = factors[:, other.active].transpose(0, 1)
            if main_effects:
                cotangents = torch.cat([cotangents, other.baseline_embedding.unsqueeze(0)])
            size = internal_batch_size or len(cotangents) * len(explained.features)
            n_at_once = max(1, size // len(explained.features))
            rows = torch.cat(
                [call(chunk, internal_batch_size) for chunk in cotangents.split(n_at_once)]
            )
        n_active = len(other.active)
        return torch.cat([other.padded(rows[:n_active], dim=0), rows[n_active:]]), factors
