"""Second-order integrated gradients of a dual encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from captum.attr import GradientAttribution
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr._utils.path import (
    Baseline,
    Groups,
    Normalization,
    Path,
    Products,
    taking_products,
)
from captum_interactions.attr._utils.steps import Steps, check_steps, steps_of
from captum_interactions.attr.second_order.base import (
    Baselines,
    PairAttribution,
    Side,
    check_target,
)
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.functional import (
    Decomposition,
    Factors,
    Quadrature,
    contract,
    corner_difference,
)

_NOT_COMPLETE = (
    "attributions that are not multiplied by inputs (multiply_by_inputs=False) are not complete, "
    "so they have no convergence delta and no decomposition"
)


class SecondOrderIntegratedGradients(PairAttribution, GradientAttribution):
    r"""Which part of input a matched, or clashed with, which part of input b?

    For a dual encoder :math:`s(a, b) = \langle g(a), h(b)\rangle` with references
    :math:`r_a, r_b`, the interaction of feature i of a with feature j of b is

    .. math::
        A_{ij} = (a - r_a)_i \, \Big\langle \int_0^1 \frac{\partial g}{\partial a_i}
        \big(r_a + \alpha (a - r_a)\big) \, d\alpha , \;
        \int_0^1 \frac{\partial h}{\partial b_j} \big(r_b + \beta (b - r_b)\big) \, d\beta
        \Big\rangle \, (b - r_b)_j ,

    summed over the features of each token. The map is complete:

    .. math::
        \sum_{ij} A_{ij} = s(a, b) - s(a, r_b) - s(r_a, b) + s(r_a, r_b) .

    A is a product of two factor matrices with one row a token, so neither a Jacobian nor a matrix
    over all pairs of features is formed: the factors of one side are Jacobian-vector products, and
    these are the cotangents of vector-Jacobian products on the other side. The side with fewer
    tokens or groups is the first; when both have more than the embedding has dimensions, one
    vector-Jacobian product a dimension is taken on each side instead.

    Source: Möller, Tilli, Vu and Padó, "Explaining Caption-Image Interactions in CLIP Models with
    Second-Order Attributions", TMLR 2025 (arXiv 2408.14153), Eq. 9 and 10.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): ``(layer_a, layer_b)``, where features live in each tower: k for
            the hidden state entering block k (0 is the embedding output, -1 enters the last block)
            or ``"input"`` for the raw tensor. Inputs and baselines are carried to the layer and
            interpolated there. Default: None, ``wrapper.default_layers``
        multiply_by_inputs (bool, optional): Whether features are multiplied by their distance from
            the reference, as in the formula. If False, the map holds the mixed derivatives alone
            (local attributions); it is not complete then, and at the blocks of a pre-norm
            transformer it is zero, because there no derivative along all hidden units of a token
            at once is left. Default: True
        normalization (str, optional): The score that is explained. ``"cosine"``: embeddings have
            unit length everywhere on the path, which is the score the wrapper gives. ``"frozen"``:
            the dot product over the norms of the actual pair, taken as constants, as in the paper.
            ``"none"``: the dot product. Default: ``"cosine"``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist or the normalization is unknown.

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
        "a forward pass of each input and its reference up to the layers; per node, a pass of both "
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
        PairAttribution.__init__(self, wrapper, layers, normalization)
        GradientAttribution.__init__(self, wrapper)
        self._multiply_by_inputs = multiply_by_inputs
        self.n_steps_used: tuple[int, int] | None = None
        """Numbers of nodes (of a, of b) that the last call took; None before the first."""

    @overload
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        target: None = None,
        additional_forward_args: Any = None,
        n_steps: Steps = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: Literal[False] = False,
        *,
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
        full_resolution: Side | None = None,
        tolerance: float = 1e-3,
        show_progress: bool = False,
    ) -> Tensor: ...

    @overload
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        target: None = None,
        additional_forward_args: Any = None,
        n_steps: Steps = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        *,
        return_convergence_delta: Literal[True],
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
        full_resolution: Side | None = None,
        tolerance: float = 1e-3,
        show_progress: bool = False,
    ) -> tuple[Tensor, Tensor]: ...

    @log_usage()  # type: ignore[untyped-decorator]  # NoiseTunnel needs the __wrapped__ it sets
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        target: None = None,
        additional_forward_args: Any = None,
        n_steps: Steps = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        *,
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
        full_resolution: Side | None = None,
        tolerance: float = 1e-3,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Interaction maps of B aligned pairs.

        Args:
            inputs (tuple[Tensor, Tensor]): Input a and input b as the towers take them, B rows each
                (for CLIP: pixel values and token ids).
            baselines (None, scalar, Tensor or tuple, optional): The references. A tuple gives one
                for each input; each is

                - None: the wrapper's own reference,
                - an int or float: a constant; for token ids, this id wherever no special token is,
                - a tensor of the input's shape, or with one row for all pairs,
                - a list of these: the attributions are averaged over them (expected attributions).

                A bare scalar serves both inputs; a bare tensor or list serves input a alone.
                Default: None
            target: Must be None; a similarity has a single output. Default: None
            additional_forward_args (optional): What the towers take beside their inputs: those of
                a, then those of b (for CLIP: the attention mask), B rows each. Default: None
            n_steps (int, tuple or str, optional): Number of quadrature nodes, or one for each
                input, or ``"auto"``: as few on each side as bring the convergence delta below
                ``tolerance``, placed where the path turns, see there. :attr:`n_steps_used` tells
                what was taken. Default: 20
            method (str, optional): Quadrature rule, one of ``gausslegendre``, ``riemann_left``,
                ``riemann_right``, ``riemann_middle``, ``riemann_trapezoid``. Default:
                ``gausslegendre``
            internal_batch_size (int, optional): At most this many rows (pairs times nodes) are
                evaluated with gradients at once. Products for different tokens share one evaluation
                and follow each other, so they need no more memory. What comes before the layer runs
                once for all pairs, without gradients. Default: None, as many as fit into a half of
                the GPU's free memory, or a quarter of the CPU's (1 GiB at most), judged by what one
                row needs
            return_convergence_delta (bool, optional): Whether to return the delta too. Default:
                False
            groups_a, groups_b (optional): Explain groups of tokens (words, phrases, boxes, objects)
                instead of tokens: a list of lists of token indices, or weights of shape (G, T) or
                (B, G, T). Each costs as much as one token. Default: None, every token
            full_resolution (str, optional): ``"a"`` or ``"b"`` keeps that side's features (pixels,
                hidden units) apart instead of summing them over tokens. Default: None
            tolerance (float, optional): With ``n_steps="auto"``, a bound of the convergence delta,
                relative to ``|g(a) - g(r_a)| |h(b) - h(r_b)|``, the largest value that the sum of a
                map can have. The nodes follow from values of the encoders along their paths, which
                take forward passes alone; each side gets its own, the same for all pairs. Where a
                path turns sharply it is divided, and each part has nodes of its own. It cannot be
                finer than the model's precision. Default: 1e-3
            show_progress (bool, optional): Show a progress bar. Default: False

        Returns:
            **attributions** or 2-element tuple of **attributions**, **delta**:

            - **attributions** (*Tensor*): shape (B, Ta, Tb) over all tokens; special tokens are
              included, and padding is exactly zero. With groups, (B, Ga, Gb). With
              ``full_resolution="a"``, (B, *features of a, Tb), and likewise for b. In float32 or
              wider.
            - **delta** (*Tensor*): shape (B,), see :meth:`compute_convergence_delta`.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If shapes, values or options are not as described.

        Warns:
            UserWarning: If ``n_steps="auto"`` would need more than 200 nodes: it takes what does
                best with fewer. Under ``normalization="cosine"`` also if the embedding of a
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
        check_steps(n_steps, method, tolerance)
        with explaining(self.wrapper):
            paths = self._open(inputs, baselines, additional_forward_args, groups_a, groups_b)
            if return_convergence_delta:
                self._check_complete(paths)
            rules = self._rules(paths, n_steps, method, tolerance, internal_batch_size)
            with taking_products(rules, internal_batch_size, show_progress) as products:
                if full_resolution is not None:
                    attributions = self._full_resolution(paths, full_resolution, products)
                else:
                    attributions = self._interactions(paths, products)[0]
            if return_convergence_delta:
                return attributions, _delta(attributions, paths)
            return attributions

    def decompose(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        additional_forward_args: Any = None,
        n_steps: Steps = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        *,
        tolerance: float = 1e-3,
        show_progress: bool = False,
    ) -> Decomposition:
        """Constant, main effects of both sides, and interactions: together the score.

        This costs one vector-Jacobian product more than the interactions alone. The arguments are
        those of :meth:`attribute`.

        Returns:
            Decomposition: all parts, the score, and their difference as ``convergence_delta``.
        """
        check_steps(n_steps, method, tolerance)
        with explaining(self.wrapper):
            path_a, path_b = paths = self._open(inputs, baselines, additional_forward_args)
            self._check_complete(paths)
            rules = self._rules(paths, n_steps, method, tolerance, internal_batch_size)
            with taking_products(rules, internal_batch_size, show_progress) as products:
                interactions, main_a, main_b = self._interactions(paths, products, True)
            assert main_a is not None
            assert main_b is not None
            return Decomposition(
                constant=(path_a.reference * path_b.reference).sum(-1),
                main_effects_a=main_a,
                main_effects_b=main_b,
                interactions=interactions,
                score=(path_a.embedding * path_b.embedding).sum(-1),
            )

    def factors_a(
        self,
        inputs: Tensor,
        baselines: Baseline = None,
        additional_forward_args: Any = None,
        n_steps: Steps = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        *,
        groups: Groups | None = None,
        tolerance: float = 1e-3,
        show_progress: bool = False,
    ) -> Factors:
        """Reusable factors of N inputs a; ``factors_a @ factors_b`` are the maps of all pairs.

        Each input costs the smaller of its number of tokens and the embedding's dimension, in
        Jacobian products. The arguments are those of :meth:`attribute`, for one side.

        Returns:
            Factors: values (N, Ta, K) with the embeddings of inputs and references.
        """
        return self._factors("a", inputs, baselines, additional_forward_args, n_steps, method,
                             internal_batch_size, groups, tolerance, show_progress)  # fmt: skip

    def factors_b(
        self,
        inputs: Tensor,
        baselines: Baseline = None,
        additional_forward_args: Any = None,
        n_steps: Steps = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        *,
        groups: Groups | None = None,
        tolerance: float = 1e-3,
        show_progress: bool = False,
    ) -> Factors:
        """Reusable factors of M inputs b; see :meth:`factors_a`."""
        return self._factors("b", inputs, baselines, additional_forward_args, n_steps, method,
                             internal_batch_size, groups, tolerance, show_progress)  # fmt: skip

    def compute_convergence_delta(
        self,
        attributions: Tensor | tuple[Tensor, ...],
        start_point: Baselines,
        end_point: tuple[Tensor, Tensor],
        target: None = None,
        additional_forward_args: Any = None,
    ) -> Tensor:
        """How far a map is from completeness, for the score that was explained.

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
        if not self._multiply_by_inputs:
            raise ValueError(_NOT_COMPLETE)
        if isinstance(attributions, tuple):
            (attributions,) = attributions
        with explaining(self.wrapper), torch.no_grad():
            return _delta(attributions, self._open(end_point, start_point, additional_forward_args))

    def has_convergence_delta(self) -> bool:
        return self.multiplies_by_inputs

    @property
    def multiplies_by_inputs(self) -> bool:
        return self._multiply_by_inputs

    # The plan: which products are taken, and in which order.

    def _interactions(
        self, paths: tuple[Path, Path], products: Products, main_effects: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Map (B, Ga, Gb) and, if wanted, the main effects of both sides."""
        path_a, path_b = paths
        dimension = path_a.embedding.shape[1]
        if min(path_a.n_products, path_b.n_products) > dimension:
            products.progress.total = sum(path.cost(dimension, products) for path in paths)
            phi, psi = path_a.factors(products), path_b.factors(products)
            main_a, main_b = _along(phi, path_b.reference), _along(psi, path_a.reference)
            return contract(phi, psi), main_a, main_b

        a_is_short = path_a.n_products < path_b.n_products
        short, long = (path_a, path_b) if a_is_short else (path_b, path_a)
        n_short = short.n_products
        products.progress.total = short.cost(n_short, products) + long.cost(
            n_short + main_effects, products
        )
        factors = short.factors(products)
        cotangents = factors[:, short.moving].transpose(0, 1)
        if main_effects:
            cotangents = torch.cat([cotangents, short.reference.unsqueeze(0)])
        rows = long.pull_back(cotangents, products).movedim(0, 1)
        attributions = short.with_padding(rows[:, :n_short])
        main_short = _along(factors, long.reference) if main_effects else None
        main_long = rows[:, -1] if main_effects else None
        if a_is_short:
            return attributions, main_short, main_long
        return attributions.transpose(1, 2).contiguous(), main_long, main_short

    def _full_resolution(self, paths: tuple[Path, Path], side: Side, products: Products) -> Tensor:
        kept, other = paths if side == "a" else paths[::-1]
        n_other = min(other.n_products, other.embedding.shape[1])
        products.progress.total = other.cost(n_other, products) + kept.cost(
            other.n_products, products
        )
        cotangents = other.factors(products)[:, other.moving].transpose(0, 1)
        rows = other.with_padding(kept.pull_back(cotangents, products, fold=False), dim=0)
        return rows.movedim(0, -1) if side == "a" else rows.movedim(0, 1)

    def _factors(
        self,
        side: Side,
        inputs: Tensor,
        baselines: Baseline,
        additional_forward_args: Any,
        n_steps: Steps,
        method: str,
        internal_batch_size: int | None,
        groups: Groups | None,
        tolerance: float,
        show_progress: bool,
    ) -> Factors:
        check_steps(n_steps, method, tolerance)
        extras = additional_forward_args
        extras = () if extras is None else extras if isinstance(extras, tuple) else (extras,)
        with explaining(self.wrapper):
            path = self._open_side(side, inputs, baselines, extras, groups)
            rules = self._rules((path,), n_steps, method, tolerance, internal_batch_size)
            with taking_products(rules, internal_batch_size, show_progress) as products:
                n_products = min(path.n_products, path.embedding.shape[1])
                products.progress.total = path.cost(n_products, products)
                return Factors(path.factors(products), path.embedding, path.reference)

    def _rules(
        self,
        paths: Sequence[Path],
        n_steps: Steps,
        method: str,
        tolerance: float,
        internal_batch_size: int | None,
    ) -> tuple[Quadrature, Quadrature]:
        rules, self.n_steps_used = steps_of(paths, n_steps, method, tolerance, internal_batch_size)
        return rules

    def _check_complete(self, paths: Sequence[Path]) -> None:
        if not self._multiply_by_inputs:
            raise ValueError(_NOT_COMPLETE)
        for path in paths:
            if not path.is_partition:
                raise ValueError(
                    f"the convergence delta needs groups_{path.name} in which every token occurs "
                    "exactly once; these leave some out or repeat some"
                )


def _delta(attributions: Tensor, paths: tuple[Path, Path]) -> Tensor:
    path_a, path_b = paths
    expected = corner_difference(
        path_a.embedding, path_b.embedding, path_a.reference, path_b.reference
    )
    return attributions.flatten(1).sum(1) - expected


def _along(factors: Tensor, vector: Tensor) -> Tensor:
    """Product of each factor (B, T, K) with its example's vector (B, K): shape (B, T)."""
    return (factors @ vector.unsqueeze(-1)).squeeze(-1)
