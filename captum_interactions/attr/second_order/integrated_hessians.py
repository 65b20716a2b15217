"""Mixed second derivatives of any function of two inputs, integrated along their paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from captum.attr import GradientAttribution
from torch import Tensor, nn

from captum_interactions.attr._utils.arguments import (
    Baselines,
    Inputs,
    Normalization,
    check_pair,
    check_target,
    each_baseline,
)
from captum_interactions.attr._utils.joint_function import (
    JointFunction,
    SquareNodes,
    path_at_input,
)
from captum_interactions.attr.second_order.base import SecondOrderAttribution
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.functional import Decomposition, Quadrature, quadrature

PathKind = Literal["square", "diagonal"]


class IntegratedHessians(SecondOrderAttribution, GradientAttribution):
    r"""Interactions of two inputs of any function, which need not be a product of two encoders.

    For a function :math:`f(a, b)` with one output per example (a cross-encoder, a matching network,
    a similarity of any kind) and baselines :math:`r_a, r_b`, the interaction of feature i of a
    with feature j of b is

    .. math::
        A_{ij} = (a - r_a)_i \, (b - r_b)_j \int_0^1 \!\! \int_0^1
        \frac{\partial^2 f}{\partial a_i \, \partial b_j}
        \big(r_a + \alpha (a - r_a), \; r_b + \beta (b - r_b)\big) \, d\alpha \, d\beta ,

    summed over the features of each token. Both inputs move along their paths independently
    (``path="square"``), so the map is complete:

    .. math::
        \sum_{ij} A_{ij} = f(a, b) - f(a, r_b) - f(r_a, b) + f(r_a, r_b) .

    For a dual encoder the result is that of second-order integrated gradients, at more than
    ``n_steps`` times the cost: use :class:`~captum_interactions.SecondOrderIntegratedGradients`
    there.

    In the publication both inputs move together: ``path="diagonal"`` gives the cross block of
    integrated Hessians of f as a function of both inputs joined,

    .. math::
        A_{ij} = 2 \, (a - r_a)_i \, (b - r_b)_j \int_0^1 \!\! \int_0^1 \alpha \beta \;
        \frac{\partial^2 f}{\partial a_i \, \partial b_j}
        \big(r_a + \alpha \beta (a - r_a), \; r_b + \alpha \beta (b - r_b)\big)
        \, d\alpha \, d\beta ,

    where the factor 2 accounts for the entries ij and ji. Only together with the blocks of
    interactions within a and within b do they sum to ``f(a, b) - f(r_a, r_b)``. Of the product of a
    and b, half is in the cross block.

    The function must be twice differentiable, and not piecewise linear: between the kinks of ReLUs
    second derivatives are zero, except through products such as those of attention.

    Source: Janizek, Sturmfels and Lee, "Explaining explanations: axiomatic feature interactions for
    deep networks", JMLR 22:104, 2021 (arXiv 2002.04138).

    Args:
        forward_func (Callable or DualEncoderWrapper): ``(a, b, *additional) -> (B,)`` of
            real-valued inputs (for a cross-encoder: embeddings of the tokens), or a wrapped dual
            encoder.
        layers (tuple, optional): ``(layer_a, layer_b)`` of a dual encoder, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`; other functions are
            explained at their inputs. Default: None, ``wrapper.default_layers``
        normalization (str, optional): The score of a dual encoder, see there. Default: ``"cosine"``
        path (str, optional): ``"square"`` or ``"diagonal"``. Default: ``"square"``

    Raises:
        TypeError: If ``forward_func`` is not callable.
        ValueError: If a layer does not exist, an option is not as described, or layers are given
            for a function that is no dual encoder.

    Examples::

        >>> def f(a, b):
        ...     return (a[:, 0] * b[:, 1] + b[:, 0]).tanh()
        >>> hessians = IntegratedHessians(f)
        >>> inputs = torch.rand(2, 2), torch.rand(2, 3)
        >>> attributions, delta = hessians.attribute(inputs, return_convergence_delta=True)
        >>> attributions.shape, bool(delta.abs().max() < 1e-5)
        (torch.Size([2, 2, 3]), True)
    """

    needs = "any function of two real-valued inputs, or two encoders"
    cost = (
        "for n_steps² pairs of nodes (half as many for the diagonal path): a forward pass of both "
        "inputs, and S + 1 backward passes for S tokens on the shorter side"
    )

    def __init__(
        self,
        forward_func: Callable[..., Tensor] | DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        normalization: Normalization = "cosine",
        path: PathKind = "square",
    ) -> None:
        if path not in ("square", "diagonal"):
            raise ValueError(f"path must be 'square' or 'diagonal', but got {path!r}")
        self._is_pair = isinstance(forward_func, DualEncoderWrapper)
        if isinstance(forward_func, DualEncoderWrapper):
            super().__init__(forward_func, layers, normalization=normalization)
        elif not callable(forward_func):
            raise TypeError(
                "IntegratedHessians takes a function of two inputs or a DualEncoderWrapper, but "
                f"got {type(forward_func).__name__}"
            )
        elif layers not in (None, ("input", "input")):
            raise ValueError(
                f"layers {layers!r} are those of a dual encoder (see wrap); another function is "
                "explained at its inputs"
            )
        else:
            GradientAttribution.__init__(self, forward_func)
            self.layers = ("input", "input")
            self.normalization = "none"
        self.path = path
        owner = getattr(forward_func, "__self__", forward_func)
        self._module = owner if isinstance(owner, nn.Module) else nn.Module()

    @overload
    def attribute(
        self, inputs: Inputs, baselines: Baselines = ..., target: None = ...,
        additional_forward_args: Any = ..., n_steps: int = ..., method: str = ...,
        internal_batch_size: int | None = ..., return_convergence_delta: Literal[False] = ..., *,
        show_progress: bool = ...,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def attribute(
        self, inputs: Inputs, baselines: Baselines = ..., target: None = ...,
        additional_forward_args: Any = ..., n_steps: int = ..., method: str = ...,
        internal_batch_size: int | None = ..., *, return_convergence_delta: Literal[True],
        show_progress: bool = ...,
    ) -> tuple[Tensor, Tensor]: ...  # fmt: skip

    def attribute(
        self, inputs: Inputs, baselines: Baselines = None, target: None = None,
        additional_forward_args: Any = None, n_steps: int = 20, method: str = "gausslegendre",
        internal_batch_size: int | None = None, return_convergence_delta: bool = False, *,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        """Interaction maps of B pairs.

        Args:
            baselines (None, scalar, Tensor or tuple, optional): The baselines. A tuple gives one
                for each input; each is None (zero, or the wrapper's own), a constant, or a tensor
                of the input's shape or with one row. A bare scalar serves both inputs; a bare
                tensor serves input a only. Default: None
            additional_forward_args (optional): Further arguments of the function. Tensors have B
                rows. Default: None
            n_steps (int, optional): Number of quadrature nodes of each input. Default: 20
            method (str, optional): Quadrature rule. Default: ``gausslegendre``
            internal_batch_size (int, optional): Maximum number of rows (pairs times pairs of nodes)
                that are evaluated at once. Default: None, all of them
            return_convergence_delta (bool, optional): Whether to return the delta too, for
                ``path="square"``. Default: False

        Returns:
            **attributions** or 2-element tuple of **attributions**, **delta**:

            - **attributions** (*Tensor*): shape (B, Ta, Tb). Inputs of shape (B, F) have F tokens,
              (B, T, D) are summed over D and ``(B, C, *S)`` over C. In float32 or wider.
            - **delta** (*Tensor*): the sum of each map minus the difference of the four corners,
              shape (B,).

        Raises:
            RuntimeError: If an operation of the function has no second derivative.
        """
        check_target(target)
        if return_convergence_delta and self.path == "diagonal":
            raise ValueError(
                "the cross block along the diagonal path is not complete by itself, so it has no "
                "convergence delta"
            )
        nodes = self._nodes(quadrature(method, n_steps, dtype=torch.float64))
        with explaining(self._module):
            joint = self._joint(inputs, baselines, additional_forward_args)
            attributions = joint.mixed_derivatives(nodes, internal_batch_size, show_progress)
            if not return_convergence_delta:
                return attributions
            both, a_alone, b_alone, none = joint.corners()
            return attributions, attributions.sum((1, 2)) - (both - a_alone - b_alone + none)

    def decompose(
        self, inputs: Inputs, baselines: Baselines = None, additional_forward_args: Any = None,
        n_steps: int = 20, method: str = "gausslegendre", internal_batch_size: int | None = None, *,
        show_progress: bool = False,
    ) -> Decomposition:  # fmt: skip
        """Constant, main effects and interactions, which together are ``f(a, b)``.

        Main effects are integrated gradients of ``f(., r_b)`` and of ``f(r_a, .)``. Along the
        diagonal path the parts do not add up.
        """
        rule = quadrature(method, n_steps, dtype=torch.float64)
        nodes = self._nodes(rule)
        with explaining(self._module):
            joint = self._joint(inputs, baselines, additional_forward_args)
            score, _, _, constant = joint.corners()
            main_a, main_b = (joint.main_effects(i, rule, internal_batch_size) for i in (0, 1))
            interactions = joint.mixed_derivatives(nodes, internal_batch_size, show_progress)
        return Decomposition(constant, main_a, main_b, interactions, score)

    def has_convergence_delta(self) -> bool:
        return self.path == "square"

    @property
    def multiplies_by_inputs(self) -> bool:
        return True

    def _joint(
        self, inputs: Inputs, baselines: Baselines, additional_forward_args: Any
    ) -> JointFunction:
        if not self._is_pair:
            check_pair(inputs)
            a, b = zip("ab", inputs, each_baseline(baselines), strict=True)
            args = additional_forward_args
            args = () if args is None else args if isinstance(args, tuple) else (args,)
            joint = JointFunction(self.forward_func, (path_at_input(*a), path_at_input(*b)), args)
            joint.corners()  # raises an error for a function of another kind
            return joint
        paths = self._propagate(inputs, baselines, additional_forward_args)
        for path in paths:
            if len(path.baselines) > 1:
                raise ValueError(f"baseline {path.name} must be a single one, but is a list")
        path_a, path_b = paths
        n_context = len(path_a.context)

        def score(x: Tensor, y: Tensor, *args: Any) -> Tensor:
            embedding_a = path_a.function(x, *args[:n_context])
            return (embedding_a * path_b.function(y, *args[n_context:])).sum(-1)

        return JointFunction(score, paths, (*path_a.context, *path_b.context))

    def _nodes(self, rule: Quadrature) -> SquareNodes:
        """The nodes of both paths."""
        if self.path == "square":
            alphas, betas = torch.meshgrid(rule.nodes, rule.nodes, indexing="ij")
            weights = torch.outer(rule.weights, rule.weights)
            return SquareNodes(alphas.flatten(), betas.flatten(), weights.flatten())
        # Both inputs at αβ with weight 2αβ. The points of (α, β) and (β, α) are the same.
        products = torch.outer(rule.nodes, rule.nodes)
        weights = 2 * products * torch.outer(rule.weights, rule.weights)
        i, j = torch.triu_indices(len(products), len(products))
        return SquareNodes(products[i, j], products[i, j], weights[i, j] * (1 + (i != j)))
