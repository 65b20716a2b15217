"""Any first-order explainer of Captum as a second-order one."""

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
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr._utils.captum_explainer import Explainer, ExplainerCall
from captum_interactions.attr._utils.path import (
    Groups,
    Normalization,
    Path,
    Products,
    taking_products,
)
from captum_interactions.attr._utils.scale_invariance import check_scale_dependence
from captum_interactions.attr.second_order.base import (
    Baselines,
    PairAttribution,
    Side,
    check_target,
)
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.functional import Decomposition, quadrature


class LiftedAttribution(PairAttribution):
    r"""The second-order twin of a first-order explainer of Captum.

    A first-order explainer attributes a scalar function of one input. Here the function is the part
    of the score that token j of the other input accounts for: with ``side="a"``,

    .. math::
        A_{ij} = \mathrm{explainer}_i \big( a \mapsto \langle g(a), \psi_j \rangle \big) , \qquad
        \sum_j \psi_j = h(b) - h(r_b) ,

    where :math:`\psi_j` are the factors of b by
    :class:`~captum_interactions.SecondOrderIntegratedGradients`; with ``side="b"``, a and b swap.
    If the explainer's attributions sum to the difference that it explains (``IntegratedGradients``
    with enough nodes, ``ShapleyValueSampling`` always), the map sums to
    ``s(a, b) - s(a, r_b) - s(r_a, b) + s(r_a, r_b)``. With ``IntegratedGradients`` it is the map of
    second-order integrated gradients.

    What explainers see are the features at the layer: hidden states (B, T, D) or raw inputs.

    - Methods with baselines get the reference of the explained input; ``GradientShap`` and
      ``DeepLiftShap`` get all of them, if a list is given.
    - Methods that perturb (``FeatureAblation``, ``ShapleyValueSampling``, ``KernelShap``,
      ``Occlusion``) take whole tokens or groups away, not single features, unless ``options`` hold
      another ``feature_mask`` or window: a token's attribution is the mean over its features. One
      evaluation of the encoder serves all tokens j.
    - ``Layer...`` methods, such as ``LayerGradCam``, are given the features as the output of their
      layer, channels first: (B, D, T). ``LayerGradCam`` takes no ReLU unless ``options`` say so,
      and its means are over tokens that are not padding.
    - ``DeepLift`` hooks modules. Its attributions sum up if all that is not linear, from the layer
      on, is a module that runs once (``nn.ReLU``, not ``F.relu``; attention and layer norm are
      not), and ``normalization`` is ``"frozen"`` or ``"none"``: a cosine is no module either.
    - Features times gradient (``InputXGradient``, ``LayerGradientXActivation``) is zero at layers
      where each token is normalised before it is used, as at the last block of a pre-norm
      transformer that pools one token: it is refused there.
    - ``Saliency`` takes absolute values, and the absolute values of parts say nothing of their sum:
      it is refused without ``options={"abs": False}``.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): Where features live, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`. Default: None,
            ``wrapper.default_layers``
        explainer (type or Callable, optional): A class of Captum, or a function that takes an
            ``nn.Module`` (features and further arguments to one number an example) and returns an
            ``Attribution`` of it, such as ``lambda f: NoiseTunnel(InputXGradient(f))``. The
            module's ``features`` is the layer for ``Layer...`` methods. Default:
            ``InputXGradient``
        side (str, optional): The input that the explainer explains; the other one has the factors.
            Default: ``"a"``
        normalization (str, optional): The score that is explained, see there. Default:
            ``"cosine"``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper or ``explainer`` not callable.
        ValueError: If a layer does not exist, another option is unknown, or the explainer has no
            second-order twin.

    Examples::

        >>> from captum.attr import ShapleyValueSampling
        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> lifted = LiftedAttribution(wrapper, explainer=ShapleyValueSampling)
        >>> lifted.attribute((torch.rand(2, 4), torch.rand(2, 5)), options={"n_samples": 3}).shape
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
        PairAttribution.__init__(self, wrapper, layers, normalization)
        if side not in ("a", "b"):
            raise ValueError(f"side must be 'a' or 'b', but got {side!r}")
        if not callable(explainer):
            raise TypeError(
                "explainer must be a class of captum.attr, or a function from a module to an "
                f"Attribution, but got {explainer!r}"
            )
        if isinstance(explainer, type) and issubclass(explainer, NeuronAttribution):
            raise ValueError(
                f"{explainer.__name__} explains a neuron, not a score: there is nothing to pair"
            )
        if isinstance(explainer, type) and issubclass(explainer, FeaturePermutation):
            raise ValueError(
                f"{explainer.__name__} exchanges features between the examples of a batch, but a "
                "pair is explained by itself: take FeatureAblation"
            )
        if isinstance(explainer, type) and issubclass(explainer, LayerFeatureAblation):
            raise ValueError(
                f"{explainer.__name__} takes single features away, and not to the reference: take "
                "FeatureAblation, which sees the same features"
            )
        self.explainer = explainer
        self.side: Side = side

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
        *,
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
        options: dict[str, Any] | None = None,
        show_progress: bool = False,
    ) -> Tensor:
        """Attributions of the explained input for every token of the other.

        Args:
            inputs (tuple[Tensor, Tensor]): Input a and input b, B rows each.
            baselines (None, scalar, Tensor or tuple, optional): The references, as in
                :meth:`SecondOrderIntegratedGradients.attribute
                <captum_interactions.SecondOrderIntegratedGradients.attribute>`. A list of them is
                averaged over. Default: None
            target: Must be None. Default: None
            additional_forward_args (optional): What the towers take beside their inputs. Default:
                None
            n_steps (int, optional): Number of nodes of the factors, and of the explainer if it has
                nodes. Default: 20
            method (str, optional): Quadrature rule of the factors and of the explainer. Default:
                ``gausslegendre``
            internal_batch_size (int, optional): At most this many rows are evaluated at once, as
                far as the explainer lets us choose: as many tokens are explained in one call of it
                as there is room for (one at least). Default: None, all
            groups_a, groups_b (optional): Groups of tokens instead of tokens. For methods that
                perturb, those of the explained side are the same in all examples, of whole tokens,
                and share none. Default: None
            options (dict, optional): What the explainer's ``attribute`` takes beyond this, such as
                ``n_samples`` or ``perturbations_per_eval``. Default: None
            show_progress (bool, optional): Show progress bars, the explainer's too if it has one.
                Default: False

        Returns:
            Tensor: shape (B, Ta, Tb), or (B, Ga, Gb) with groups. Padding is exactly zero.

        Raises:
            TypeError: If inputs are not a pair of tensors, or an option is not the explainer's.
            ValueError: If shapes, values or options are not as described.
        """
        check_target(target)
        rule = quadrature(method, n_steps, dtype=torch.float64)
        with explaining(self.wrapper):
            explained, other = self._ordered(
                self._open(inputs, baselines, additional_forward_args, groups_a, groups_b)
            )
            call = ExplainerCall(self.explainer, explained, options, n_steps, method, show_progress)
            self._check(call, inputs, additional_forward_args)
            with taking_products(rule, internal_batch_size, show_progress) as products:
                rows, _ = self._rows(call, explained, other, products)
        return self._as_map(rows)

    def decompose(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        additional_forward_args: Any = None,
        n_steps: int = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        *,
        options: dict[str, Any] | None = None,
        show_progress: bool = False,
    ) -> Decomposition:
        """Constant, main effects of both sides, and interactions.

        The main effects of the explained input are the explainer's, of its score with the other
        input's reference. Together the parts are the score if the explainer is complete. The
        arguments are those of :meth:`attribute`.
        """
        rule = quadrature(method, n_steps, dtype=torch.float64)
        with explaining(self.wrapper):
            paths = self._open(inputs, baselines, additional_forward_args)
            explained, other = self._ordered(paths)
            call = ExplainerCall(self.explainer, explained, options, n_steps, method, show_progress)
            self._check(call, inputs, additional_forward_args)
            with taking_products(rule, internal_batch_size, show_progress) as products:
                rows, factors = self._rows(call, explained, other, products, main_effects=True)
        main = (rows[-1], (factors @ explained.reference.unsqueeze(-1)).squeeze(-1))
        main_a, main_b = self._ordered(main)
        return Decomposition(
            constant=(paths[0].reference * paths[1].reference).sum(-1),
            main_effects_a=main_a,
            main_effects_b=main_b,
            interactions=self._as_map(rows[:-1]),
            score=(paths[0].embedding * paths[1].embedding).sum(-1),
        )

    def _check(
        self, call: ExplainerCall, inputs: tuple[Tensor, Tensor], additional_forward_args: Any
    ) -> None:
        """Refuse features times gradient at layers where all of these products are zero."""
        if not isinstance(call.inner, (InputXGradient, LayerGradientXActivation)):
            return
        path, side = call.path, "ab".index(self.side)
        extras = self.wrapper.split_additional(additional_forward_args)[side]
        special = None
        if path.layer != "input":
            special = path.tower.special_tokens(inputs[side], *extras)
        mask = path.token_mask
        if special is not None and special.shape == mask.shape:
            mask = mask * ~special
        check_scale_dependence(
            type(call.inner).__name__,
            path.name,
            path.tower,
            path.layer,
            path.end,
            lambda features: path.function(features, *path.context),
            mask,
        )

    def _ordered(self, pair: tuple[Any, Any]) -> tuple[Any, Any]:
        """What is of a and what is of b, as what is of the explained side and what is not."""
        return pair if self.side == "a" else pair[::-1]

    def _as_map(self, rows: Tensor) -> Tensor:
        """Attributions for each token of the other side, (T', B, T), as maps (B, Ta, Tb)."""
        return rows.permute(1, 2, 0) if self.side == "a" else rows.transpose(0, 1)

    def _rows(
        self,
        call: ExplainerCall,
        explained: Path,
        other: Path,
        products: Products,
        main_effects: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Attributions (T', B, T) for each token of the other side, and its factors (B, T', K).

        With main effects, a last row is for the other side's reference.
        """
        n_products = min(other.n_products, other.embedding.shape[1])
        products.progress.total = other.cost(n_products, products)
        factors = other.factors(products)
        cotangents = factors[:, other.moving].transpose(0, 1)
        if main_effects:
            cotangents = torch.cat([cotangents, other.reference.unsqueeze(0)])
        size = products.internal_batch_size
        n_at_once = len(cotangents) if size is None else max(1, size // len(explained.end))
        rows = torch.cat([call(chunk, size) for chunk in cotangents.split(n_at_once)])
        n_live = len(other.moving)
        padded = other.with_padding(rows[:n_live], dim=0)
        return torch.cat([padded, rows[n_live:]]), factors
