"""Second-order integrated gradients of a dual encoder."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from captum.attr import GradientAttribution
from torch import Tensor

from captum_interactions.attr._utils.arguments import (
    Baseline,
    Baselines,
    Groups,
    Inputs,
    Normalization,
    Side,
    check_target,
)
from captum_interactions.attr._utils.inputs import path_of
from captum_interactions.attr._utils.products import check_complete, convergence_delta
from captum_interactions.attr._utils.steps import Steps, check_steps, products_along
from captum_interactions.attr.second_order.base import SecondOrderAttribution
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.functional import Decomposition, Factors


class SecondOrderIntegratedGradients(SecondOrderAttribution, GradientAttribution):
    r"""Second-order integrated gradients: the joint effect of each part of a with each part of b.

    For a dual encoder :math:`s(a, b) = \langle g(a), h(b)\rangle` with baselines
    :math:`r_a, r_b`, the interaction of feature i of a with feature j of b is

    .. math::
        A_{ij} = (a - r_a)_i \, \Big\langle \int_0^1 \frac{\partial g}{\partial a_i}
        \big(r_a + \alpha (a - r_a)\big) \, d\alpha , \;
        \int_0^1 \frac{\partial h}{\partial b_j} \big(r_b + \beta (b - r_b)\big) \, d\beta
        \Big\rangle \, (b - r_b)_j ,

    summed over the features of each token. The map is complete:

    .. math::
        \sum_{ij} A_{ij} = s(a, b) - s(a, r_b) - s(r_a, b) + s(r_a, r_b) .

    A is a product of two factor matrices with one row per token, so neither a Jacobian nor a matrix
    over all pairs of features is formed. The factors of the side with fewer tokens or groups are
    Jacobian-vector products; these are the cotangents of vector-Jacobian products on the other
    side. If both sides have more tokens than the embedding has dimensions, each side takes one
    vector-Jacobian product per dimension instead.

    Source: Möller, Tilli, Vu and Padó, "Explaining Caption-Image Interactions in CLIP Models with
    Second-Order Attributions", TMLR 2025 (arXiv 2408.14153), Eq. 9 and 10.

    Args:
        multiply_by_inputs (bool, optional): Whether features are multiplied by their distance from
            the baseline, as in the formula. If False, the map consists of the mixed derivatives
            only (local attributions). It is not complete then, and it is zero at the blocks of a
            pre-norm transformer, whose output does not change if all hidden units of a token
            increase by the same amount. Default: True

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> soig = SecondOrderIntegratedGradients(wrapper)
        >>> inputs = torch.rand(2, 4), torch.rand(2, 5)
        >>> attributions, delta = soig.attribute(inputs, return_convergence_delta=True)
        >>> attributions.shape, delta.shape
        (torch.Size([2, 4, 5]), torch.Size([2]))
    """

    cost = (
        "a forward pass of each input and its baseline up to the layers; per node, a pass of both "
        "and 2 S backward passes beyond them, for S tokens on the shorter side"
    )

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        multiply_by_inputs: bool = True,
        *,
        normalization: Normalization = "cosine",
    ) -> None:
        super().__init__(wrapper, layers, normalization=normalization)
        self._multiply_by_inputs = multiply_by_inputs
        self.n_steps_used: tuple[int, int] | None = None
        """Numbers of nodes (of a, of b) that the last call took; None before the first."""

    @overload
    def attribute(
        self, inputs: Inputs, baselines: Baselines = ..., target: None = ...,
        additional_forward_args: Any = ..., n_steps: Steps = ..., method: str = ...,
        internal_batch_size: int | None = ..., return_convergence_delta: Literal[False] = ..., *,
        groups_a: Groups | None = ..., groups_b: Groups | None = ...,
        full_resolution: Side | None = ..., tolerance: float = ..., show_progress: bool = ...,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def attribute(
        self, inputs: Inputs, baselines: Baselines = ..., target: None = ...,
        additional_forward_args: Any = ..., n_steps: Steps = ..., method: str = ...,
        internal_batch_size: int | None = ..., *, return_convergence_delta: Literal[True],
        groups_a: Groups | None = ..., groups_b: Groups | None = ...,
        full_resolution: Side | None = ..., tolerance: float = ..., show_progress: bool = ...,
    ) -> tuple[Tensor, Tensor]: ...  # fmt: skip

    def attribute(
        self, inputs: Inputs, baselines: Baselines = None, target: None = None,
        additional_forward_args: Any = None, n_steps: Steps = 20, method: str = "gausslegendre",
        internal_batch_size: int | None = None, return_convergence_delta: bool = False, *,
        groups_a: Groups | None = None, groups_b: Groups | None = None,
        full_resolution: Side | None = None, tolerance: float = 1e-3, show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        """Interaction maps of B aligned pairs.

        Args:
            n_steps (int, tuple or str, optional): Number of quadrature nodes, or one for each
                input, or ``"auto"``: on each side as few as bring the convergence delta below
                ``tolerance``, placed where the path turns. :attr:`n_steps_used` has the numbers
                that were taken. Default: 20
            method (str, optional): Quadrature rule, one of ``gausslegendre``, ``riemann_left``,
                ``riemann_right``, ``riemann_middle``, ``riemann_trapezoid``. Default:
                ``gausslegendre``
            internal_batch_size (int, optional): Maximum number of rows (pairs times nodes) that are
                evaluated with gradients at once. Products for different tokens share one
                evaluation and run one after the other, so they need no more memory. The blocks
                before the layer run once for all pairs, without gradients. Default: None, as many
                as fit into half of the GPU's free memory, or a quarter of the CPU's (1 GiB at
                most), estimated from the memory of one row
            return_convergence_delta (bool, optional): Whether to return the delta too. Default:
                False
            full_resolution (str, optional): ``"a"`` or ``"b"`` keeps that side's features (pixels,
                hidden units) apart instead of summing them over tokens. Default: None
            tolerance (float, optional): With ``n_steps="auto"``, a bound of the convergence delta,
                relative to ``|g(a) - g(r_a)| |h(b) - h(r_b)|``, the largest value that the sum of a
                map can have. The nodes are chosen from values of the encoders along their paths, by
                forward passes only; each side has its own, the same for all pairs. Where a path
                turns sharply it is divided, and each part has nodes of its own. It is limited by
                the model's precision. Default: 1e-3

        Returns:
            **attributions** or 2-element tuple of **attributions**, **delta**:

            - **attributions** (*Tensor*): shape (B, Ta, Tb) over all tokens; special tokens are
              included, and padding is exactly zero. With groups, (B, Ga, Gb). With
              ``full_resolution="a"``, (B, *features of a, Tb), and likewise for b. In float32 or
              wider.
            - **delta** (*Tensor*): shape (B,), see :meth:`compute_convergence_delta`.

        Warns:
            UserWarning: If ``n_steps="auto"`` would need more than 200 nodes; the best rule with
                fewer is taken then. Under ``normalization="cosine"`` also if the embedding of a
                baseline is nearly zero, less than a hundredth as long as its input's.
        """
        check_target(target)
        if full_resolution not in (None, "a", "b"):
            raise ValueError(
                f"full_resolution must be None, 'a' or 'b', but got {full_resolution!r}"
            )
        if full_resolution and (groups_a, groups_b)["ab".index(full_resolution)] is not None:
            raise ValueError(
                f"full_resolution={full_resolution!r} keeps features apart, so there can be no "
                f"groups_{full_resolution}"
            )
        options = (n_steps, method, tolerance, internal_batch_size, show_progress)
        check_steps(n_steps, method, tolerance)
        with explaining(self.wrapper):
            paths = self._propagate(inputs, baselines, additional_forward_args, groups_a, groups_b)
            if return_convergence_delta:
                check_complete(paths)
            with products_along(paths, *options) as products:
                self.n_steps_used = products.n_steps
                if full_resolution == "a":
                    attributions = products.rows_of(*paths).movedim(0, -1)
                elif full_resolution == "b":
                    attributions = products.rows_of(*paths[::-1]).movedim(0, 1)
                else:
                    attributions = products.interactions(paths)
            if return_convergence_delta:
                return attributions, convergence_delta(attributions, paths)
            return attributions

    def decompose(
        self, inputs: Inputs, baselines: Baselines = None, additional_forward_args: Any = None,
        n_steps: Steps = 20, method: str = "gausslegendre", internal_batch_size: int | None = None,
        *, groups_a: Groups | None = None, groups_b: Groups | None = None, tolerance: float = 1e-3,
        show_progress: bool = False,
    ) -> Decomposition:  # fmt: skip
        """Constant, main effects of both sides, and interactions: together the score.

        This costs one vector-Jacobian product more than the interactions alone. Groups must hold
        every token exactly once.
        """
        options = (n_steps, method, tolerance, internal_batch_size, show_progress)
        check_steps(n_steps, method, tolerance)
        with explaining(self.wrapper):
            paths = self._propagate(inputs, baselines, additional_forward_args, groups_a, groups_b)
            check_complete(paths)
            with products_along(paths, *options) as products:
                self.n_steps_used = products.n_steps
                return products.decompose(paths)

    def factors_a(
        self, inputs: Tensor, baselines: Baseline = None, additional_forward_args: Any = None,
        n_steps: Steps = 20, method: str = "gausslegendre", internal_batch_size: int | None = None,
        *, groups: Groups | None = None, tolerance: float = 1e-3, show_progress: bool = False,
    ) -> Factors:  # fmt: skip
        """Reusable factors of N inputs a; ``factors_a @ factors_b`` are the maps of all pairs.

        Each input costs the smaller of its number of tokens and the embedding's dimension, in
        Jacobian products.

        Args:
            inputs (Tensor): N inputs a as the tower takes them.
            baselines (optional): The baseline of a, as in :meth:`attribute`. Default: None
            additional_forward_args (optional): Further arguments of the tower. Default: None
            groups (optional): Groups of tokens, as in :meth:`attribute`. Default: None

        Returns:
            Factors: values (N, Ta, K) with the embeddings of inputs and baselines.
        """
        options = (n_steps, method, tolerance, internal_batch_size, show_progress)
        return self._factors("a", inputs, baselines, additional_forward_args, groups, options)

    def factors_b(
        self, inputs: Tensor, baselines: Baseline = None, additional_forward_args: Any = None,
        n_steps: Steps = 20, method: str = "gausslegendre", internal_batch_size: int | None = None,
        *, groups: Groups | None = None, tolerance: float = 1e-3, show_progress: bool = False,
    ) -> Factors:  # fmt: skip
        """Reusable factors of M inputs b; see :meth:`factors_a`.

        Args:
            inputs (Tensor): M inputs b as the tower takes them.
            baselines (optional): The baseline of b, as in :meth:`attribute`. Default: None
            additional_forward_args (optional): Further arguments of the tower. Default: None
            groups (optional): Groups of tokens, as in :meth:`attribute`. Default: None

        Returns:
            Factors: values (M, Tb, K) with the embeddings of inputs and baselines.
        """
        options = (n_steps, method, tolerance, internal_batch_size, show_progress)
        return self._factors("b", inputs, baselines, additional_forward_args, groups, options)

    def compute_convergence_delta(
        self, attributions: Tensor | tuple[Tensor, ...], start_point: Baselines, end_point: Inputs,
        target: None = None, additional_forward_args: Any = None,
    ) -> Tensor:  # fmt: skip
        """The error of completeness of a map, for the score that was explained.

        Args:
            attributions (Tensor): Maps of B pairs, shape (B, ...).
            start_point: The baselines that were used.
            end_point (tuple[Tensor, Tensor]): The inputs.
            target: Must be None.
            additional_forward_args (optional): As in :meth:`attribute`.

        Returns:
            Tensor: the sum of each map minus ``s(a, b) - s(a, r_b) - s(r_a, b) + s(r_a, r_b)``,
            shape (B,).
        """
        check_target(target)
        if isinstance(attributions, tuple):
            (attributions,) = attributions
        with explaining(self.wrapper), torch.no_grad():
            paths = self._propagate(end_point, start_point, additional_forward_args)
            check_complete(paths)
            return convergence_delta(attributions, paths)

    def has_convergence_delta(self) -> bool:
        return self.multiplies_by_inputs

    @property
    def multiplies_by_inputs(self) -> bool:
        return self._multiply_by_inputs

    def _factors(
        self, side: Side, inputs: Tensor, baseline: Baseline, extras: Any, groups: Any, options: Any
    ) -> Factors:
        check_steps(*options[:3])
        extras = () if extras is None else extras if isinstance(extras, tuple) else (extras,)
        index = "ab".index(side)
        with explaining(self.wrapper):
            path = path_of(
                side,
                (self.wrapper.tower_a, self.wrapper.tower_b)[index],
                self.layers[index],
                inputs,
                baseline,
                extras,
                groups=groups,
                normalization=self.normalization,
                multiply_by_inputs=self._multiply_by_inputs,
            )
            with products_along((path,), *options) as products:
                self.n_steps_used = products.n_steps
                n_products = min(len(path.active), path.embedding.shape[1])
                products.progress.total = products.cost(path, n_products)
                return Factors(products.factors(path), path.embedding, path.baseline_embedding)
