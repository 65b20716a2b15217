"""Mixed second derivatives of any function of two inputs, integrated along their paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from captum.attr import Attribution, GradientAttribution
from captum.log import log_usage
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from captum_interactions.attr._utils.path import Baseline, Normalization, Path
from captum_interactions.attr.second_order.base import (
    Baselines,
    PairAttribution,
    check_pair,
    check_target,
    each_baseline,
)
from captum_interactions.encoders import CallableTower, DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.encoders.towers.base import take_rows
from captum_interactions.encoders.wrapper import widen
from captum_interactions.functional import Decomposition, Quadrature, integrated_vjp, quadrature

Score = Callable[..., Tensor]
PathKind = Literal["square", "diagonal"]


class IntegratedHessians(PairAttribution, GradientAttribution):
    r"""Interactions of two inputs of any function, which need not be a product of two encoders.

    For a function :math:`f(a, b)` with one output an example (a cross-encoder, a matching network,
    a similarity of any kind) and references :math:`r_a, r_b`, the interaction of feature i of a
    with feature j of b is

    .. math::
        A_{ij} = (a - r_a)_i \, (b - r_b)_j \int_0^1 \!\! \int_0^1
        \frac{\partial^2 f}{\partial a_i \, \partial b_j}
        \big(r_a + \alpha (a - r_a), \; r_b + \beta (b - r_b)\big) \, d\alpha \, d\beta ,

    summed over the features of each token. Both inputs go their paths independently of each other
    (``path="square"``), and therefore the map is complete:

    .. math::
        \sum_{ij} A_{ij} = f(a, b) - f(a, r_b) - f(r_a, b) + f(r_a, r_b) .

    For a dual encoder it is second-order integrated gradients, at ``n_steps`` times the price and
    more: take :class:`~captum_interactions.SecondOrderIntegratedGradients` there.

    In the publication both inputs go together: ``path="diagonal"`` gives the cross block of
    integrated Hessians of f as a function of the two inputs joined,

    .. math::
        A_{ij} = 2 \, (a - r_a)_i \, (b - r_b)_j \int_0^1 \!\! \int_0^1 \alpha \beta \;
        \frac{\partial^2 f}{\partial a_i \, \partial b_j}
        \big(r_a + \alpha \beta (a - r_a), \; r_b + \alpha \beta (b - r_b)\big)
        \, d\alpha \, d\beta ,

    where the factor 2 stands for the entries ij and ji. Those sum to ``f(a, b) - f(r_a, r_b)`` only
    with the blocks of interactions within a and within b. Of the product of a and b, half is in the
    cross block.

    The function must be twice differentiable, and curved: between the kinks of ReLUs there are no
    second derivatives, except through products such as those of attention.

    Source: Janizek, Sturmfels and Lee, "Explaining explanations: axiomatic feature interactions for
    deep networks", JMLR 22:104, 2021 (arXiv 2002.04138).

    Args:
        forward_func (Callable or DualEncoderWrapper): ``(a, b, *additional) -> (B,)`` of
            real-valued inputs (for a cross-encoder: embeddings of the tokens), or a wrapped dual
            encoder.
        layers (tuple, optional): For a dual encoder, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`; other functions are
            explained at their inputs. Default: None, ``wrapper.default_layers``
        normalization (str, optional): Likewise. Default: ``"cosine"``
        path (str, optional): ``"square"`` or ``"diagonal"``. Default: ``"square"``

    Raises:
        TypeError: If ``forward_func`` is not callable.
        ValueError: If a layer does not exist, an option is unknown, or layers are given for a
            function that is no dual encoder.

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
        forward_func: Score | DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        normalization: Normalization = "cosine",
        path: PathKind = "square",
    ) -> None:
        if path not in ("square", "diagonal"):
            raise ValueError(f"path must be 'square' or 'diagonal', but got {path!r}")
        self._pair = forward_func if isinstance(forward_func, DualEncoderWrapper) else None
        if self._pair is not None:
            PairAttribution.__init__(self, self._pair, layers, normalization)
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
            Attribution.__init__(self, forward_func)
            self.layers = ("input", "input")
            self.normalization = "none"
        GradientAttribution.__init__(self, forward_func)
        self.path = path
        owner = getattr(forward_func, "__self__", forward_func)
        self._module = owner if isinstance(owner, nn.Module) else nn.Module()

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
        return_convergence_delta: bool = False,
        *,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Interaction maps of B pairs.

        Args:
            inputs (tuple[Tensor, Tensor]): Input a and input b, B rows each.
            baselines (None, scalar, Tensor or tuple, optional): The references. A tuple gives one
                for each input; each is None (zero, or the wrapper's own), a constant, or a tensor
                of the input's shape or with one row. A bare scalar serves both inputs; a bare
                tensor serves input a alone. Default: None
            target: Must be None. Default: None
            additional_forward_args (optional): What the function takes beside both inputs. Tensors
                have B rows. Default: None
            n_steps (int, optional): Number of quadrature nodes of each input. Default: 20
            method (str, optional): Quadrature rule. Default: ``gausslegendre``
            internal_batch_size (int, optional): At most this many rows (pairs times pairs of nodes)
                are evaluated at once. Default: None, all of them
            return_convergence_delta (bool, optional): Whether to return the delta too, for
                ``path="square"``. Default: False
            show_progress (bool, optional): Show a progress bar. Default: False

        Returns:
            **attributions** or 2-element tuple of **attributions**, **delta**:

            - **attributions** (*Tensor*): shape (B, Ta, Tb). Inputs of shape (B, F) have F tokens,
              (B, T, D) are summed over D and ``(B, C, *S)`` over C. In float32 or wider.
            - **delta** (*Tensor*): the sum of each map minus the difference of the four corners,
              shape (B,).

        Raises:
            TypeError: If inputs are not a pair of tensors.
            ValueError: If shapes, values or options are not as described.
            RuntimeError: If an operation of the function has no second derivative.
        """
        check_target(target)
        if return_convergence_delta and self.path == "diagonal":
            raise ValueError(
                "the cross block along the diagonal path is not complete by itself, so it has no "
                "convergence delta"
            )
        rule = quadrature(method, n_steps, dtype=torch.float64)
        with explaining(self._module):
            sides = self._sides(inputs, baselines, additional_forward_args)
            attributions = self._integrate(sides, rule, internal_batch_size, show_progress)
            if not return_convergence_delta:
                return attributions
            both, a_alone, b_alone, none = sides.corners()
            return attributions, attributions.sum((1, 2)) - (both - a_alone - b_alone + none)

    def decompose(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        additional_forward_args: Any = None,
        n_steps: int = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        *,
        show_progress: bool = False,
    ) -> Decomposition:
        """Constant, main effects and interactions, which together are ``f(a, b)``.

        Main effects are integrated gradients of ``f(., r_b)`` and of ``f(r_a, .)``. Along the
        diagonal path the parts do not add up. The arguments are those of :meth:`attribute`.
        """
        rule = quadrature(method, n_steps, dtype=torch.float64)
        with explaining(self._module):
            sides = self._sides(inputs, baselines, additional_forward_args)
            score, _, _, constant = sides.corners()
            main_a, main_b = (
                sides.main_effects(side, rule, internal_batch_size) for side in (0, 1)
            )
            interactions = self._integrate(sides, rule, internal_batch_size, show_progress)
        return Decomposition(constant, main_a, main_b, interactions, score)

    def has_convergence_delta(self) -> bool:
        return self.path == "square"

    @property
    def multiplies_by_inputs(self) -> bool:
        return True

    def _sides(
        self, inputs: tuple[Tensor, Tensor], baselines: Baselines, additional_forward_args: Any
    ) -> _Sides:
        if self._pair is not None:
            path_a, path_b = self._open(inputs, baselines, additional_forward_args)
            for path in (path_a, path_b):
                if len(path.starts) > 1:
                    raise ValueError(f"baseline {path.name} must be a single one, but is a list")
            n_context = len(path_a.context)

            def score(x: Tensor, y: Tensor, *args: Any) -> Tensor:
                embedding_a = path_a.function(x, *args[:n_context])
                return (embedding_a * path_b.function(y, *args[n_context:])).sum(-1)

            return _Sides(score, (path_a, path_b), (*path_a.context, *path_b.context))
        check_pair(inputs)
        paths = tuple(
            _at_input(name, tensor, baseline)
            for name, tensor, baseline in zip("ab", inputs, each_baseline(baselines), strict=True)
        )
        args = additional_forward_args
        args = () if args is None else args if isinstance(args, tuple) else (args,)
        sides = _Sides(self.forward_func, (paths[0], paths[1]), args)
        sides.corners()  # to see that it is a function of this kind
        return sides

    def _integrate(
        self,
        sides: _Sides,
        rule: Quadrature,
        internal_batch_size: int | None,
        show_progress: bool,
    ) -> Tensor:
        """Maps (B, Ta, Tb): first derivatives of the shorter side, then one of these a token."""
        path_a, path_b = sides.paths
        a_is_short = path_a.n_products < path_b.n_products
        short, long = (path_a, path_b) if a_is_short else (path_b, path_a)
        differences = [widen(path.end) - widen(path.starts[0]) for path in (short, long)]
        totals = [torch.zeros_like(differences[1]) for _ in short.moving]
        chosen = torch.eye(short.n_outputs).to(differences[0])[short.moving].unsqueeze(1)
        masks = short.tower.spread(short.layer, chosen, short.end.shape)
        pairs = _square(rule) if self.path == "square" else _diagonal(rule)
        chunks = list(sides.chunks(pairs, internal_batch_size))
        with (
            torch.enable_grad(),
            sdpa_kernel(SDPBackend.MATH),
            tqdm(desc="Hessian products", total=len(chunks), disable=not show_progress) as progress,
        ):
            for examples, alphas, betas, weights in chunks:
                points_a, points_b = path_a_b = (
                    _points(path_a, examples, alphas),
                    _points(path_b, examples, betas),
                )
                points_short, points_long = path_a_b if a_is_short else path_a_b[::-1]
                output = sides.score(points_a, points_b, *take_rows(sides.args, examples))
                gradient = _gradient(output.sum(), points_short, create_graph=True)
                tangent = differences[0][examples].to(gradient.dtype)
                for total, mask in zip(totals, masks, strict=True):
                    product = (gradient * tangent * mask.to(gradient.dtype)).sum()
                    mixed = _gradient(product, points_long, retain_graph=True)
                    weighted = mixed.to(total) * _like(weights.to(total), total)
                    total.index_add_(0, examples, weighted)
                progress.update()
                # Or this chunk's graph would live on while the next one is built.
                del output, gradient, product
        columns = [long.fold(total * differences[1], slice(None)) for total in totals]
        own = torch.stack(columns, 1) * short.token_mask[:, short.moving].unsqueeze(-1)
        attributions = short.with_padding(own)
        if not torch.isfinite(attributions).all():
            raise ValueError("second derivatives along the path hold NaN or infinite values")
        return attributions if a_is_short else attributions.transpose(1, 2)


class _Nodes(NamedTuple):
    """Points of a square: ``∫∫ f(α, β) dα dβ ≈ Σ weights f(alphas, betas)``."""

    alphas: Tensor
    betas: Tensor
    weights: Tensor


def _square(rule: Quadrature) -> _Nodes:
    alphas, betas = torch.meshgrid(rule.nodes, rule.nodes, indexing="ij")
    weights = torch.outer(rule.weights, rule.weights)
    return _Nodes(alphas.flatten(), betas.flatten(), weights.flatten())


def _diagonal(rule: Quadrature) -> _Nodes:
    """Both inputs at αβ, weighed by 2αβ. The points of (α, β) and (β, α) are the same."""
    products = torch.outer(rule.nodes, rule.nodes)
    weights = 2 * products * torch.outer(rule.weights, rule.weights)
    i, j = torch.triu_indices(len(products), len(products))
    return _Nodes(products[i, j], products[i, j], weights[i, j] * (1 + (i != j)))


class _Sides(NamedTuple):
    """A score of two inputs, and their paths."""

    score: Score
    paths: tuple[Path, Path]
    args: tuple[Any, ...]

    def chunks(
        self, nodes: _Nodes, internal_batch_size: int | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Examples, nodes of both and weights of the rows that are evaluated together."""
        end = self.paths[0].end
        n_examples, n_rows = len(end), len(nodes.weights) * len(end)
        size = n_rows if internal_batch_size is None else internal_batch_size
        if size < 1:
            raise ValueError(
                f"internal_batch_size must be at least 1, but got {internal_batch_size}"
            )
        for first in range(0, n_rows, size):
            rows = torch.arange(first, min(first + size, n_rows))
            alphas, betas, weights = (
                value[rows // n_examples].to(widen(end).dtype).to(end.device) for value in nodes
            )
            yield (rows % n_examples).to(end.device), alphas, betas, weights

    def corners(self) -> tuple[Tensor, ...]:
        """Scores (B,) of both inputs, of a alone, of b alone, and of the references."""
        ends = [path.end for path in self.paths]
        starts = [path.starts[0].expand(path.end.shape) for path in self.paths]
        scores = []
        with torch.no_grad():
            for x in (ends[0], starts[0]):
                for y in (ends[1], starts[1]):
                    score = self.score(x, y, *self.args)
                    if not isinstance(score, Tensor) or score.shape != x.shape[:1]:
                        came = getattr(score, "shape", type(score).__name__)
                        raise ValueError(
                            f"the function must map two inputs of {len(x)} rows to scores of shape "
                            f"({len(x)},), but returned {came}"
                        )
                    scores.append(widen(score))
        return tuple(scores)

    def main_effects(self, side: int, rule: Quadrature, internal_batch_size: int | None) -> Tensor:
        """Integrated gradients (B, T) of one side with the other at its reference."""
        path, other = self.paths[side], self.paths[1 - side]

        def function(x: Tensor, y: Tensor, *args: Any) -> Tensor:
            return self.score(*((x, y) if side == 0 else (y, x)), *args).unsqueeze(1)

        difference = widen(path.end) - widen(path.starts[0])
        return integrated_vjp(
            function,
            path.starts[0],
            path.end,
            torch.ones(1, 1, 1).to(difference),
            rule,
            args=(other.starts[0].expand(other.end.shape), *self.args),
            reduce=lambda gradient, rows: path.fold(gradient * difference[rows], rows),
            internal_batch_size=internal_batch_size,
        )[0]


def _at_input(name: str, inputs: Tensor, baseline: Baseline) -> Path:
    """The path of an input of a function that is no encoder: tokens are as in any tower."""
    if not inputs.is_floating_point() or inputs.dim() < 2 or not inputs.numel():
        raise ValueError(
            f"input {name} must be real-valued with an axis of examples and others of features, "
            f"but is {inputs.dtype} of shape {tuple(inputs.shape)} (token ids? take embeddings)"
        )
    if baseline is None or isinstance(baseline, (int, float)):
        baseline = torch.full_like(inputs, baseline or 0)
    if not isinstance(baseline, Tensor) or baseline.shape not in (
        inputs.shape,
        (1, *inputs.shape[1:]),
    ):
        came = tuple(baseline.shape) if isinstance(baseline, Tensor) else type(baseline).__name__
        raise ValueError(
            f"baseline {name} must be None, a number, or a tensor of the input's shape "
            f"{tuple(inputs.shape)} or one row of it, but got {came}"
        )
    # Also tensors that were made in inference mode.
    end, start = inputs.detach().clone(), baseline.detach().to(inputs).clone()
    tower = CallableTower(nn.Identity())
    n_tokens = tower.fold("input", torch.empty_like(end, device="meta")).shape[1]
    nothing = end.new_zeros((len(end), 1))
    return Path(
        name=name,
        tower=tower,
        layer="input",
        scale=nn.Identity(),
        norms=(),
        starts=(start,),
        end=end,
        tower_context=(),
        token_mask=widen(end.new_ones((len(end), n_tokens))),
        groups=None,
        embedding=nothing,
        reference=nothing,
        multiply_by_inputs=True,
    )


def _points(path: Path, examples: Tensor, nodes: Tensor) -> Tensor:
    """Points of some examples on their path, (R, *F)."""
    low = widen(path.starts[0]).expand(path.end.shape)[examples]
    points = low + _like(nodes, low) * (widen(path.end)[examples] - low)
    return points.to(path.end.dtype).requires_grad_()


def _like(values: Tensor, features: Tensor) -> Tensor:
    """One value a row, ready to be multiplied with features (R, *F)."""
    return values.reshape(-1, *[1] * (features.dim() - 1))


def _gradient(output: Tensor, points: Tensor, **options: Any) -> Tensor:
    """The gradient at the points, zero where the output does not depend on them."""
    if not output.requires_grad:
        return torch.zeros_like(points)
    (gradient,) = torch.autograd.grad(output, points, materialize_grads=True, **options)
    return gradient
