"""Jacobian products of a function, integrated along the straight path between two points.

With ``x(α) = start + α (end − start)`` and ``J(x)`` the Jacobian of a batched function
``f: (N, *F) -> (N, K)``, :func:`integrated_jvp` computes ``∫₀¹ J(x(α)) v dα`` and
:func:`integrated_vjp` computes ``∫₀¹ J(x(α))ᵀ c dα``, for several directions ``v`` or cotangents
``c`` at once. No Jacobian is ever formed. Both run the function forward once per node and share
that pass among all directions, so memory does not grow with their number.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_interactions.functional.quadrature import Quadrature

_LOGGER = logging.getLogger(__name__)

BatchFunction = Callable[..., Tensor]
"""``f(x, *args) -> (N, K)`` with x of shape (N, *F); tensors in args have N rows too."""

# Autograd's errors for operations with a first derivative but no second one.
_ONCE_ONLY = ("not implemented", "once_differentiable", "double backward")
# Tolerance of <Jᵀu, v> = <u, J v> due to rounding, relative to the norm of the terms.
_ROUNDING = 0.05


class NotTwiceDifferentiableError(RuntimeError):
    """The function cannot be differentiated twice, so it offers no Jacobian-vector products."""


def integrated_jvp(
    function: BatchFunction,
    start: Tensor,
    end: Tensor,
    masks: Tensor,
    rule: Quadrature,
    *,
    args: Sequence[Any] = (),
    direction: Tensor | None = None,
    internal_batch_size: int | None = None,
    on_product: Callable[[], object] | None = None,
    batched: bool = False,
) -> Tensor:
    """Integrate Jacobian-vector products ``∫₀¹ J(x(α)) (m_g ⊙ v) dα`` for G masks ``m_g``.

    With the default direction ``v = end − start`` and masks that partition the features, the
    products are the factors of second-order integrated gradients: they sum to
    ``f(end) − f(start)``.

    ``Jᵀu`` is linear in ``u``, so the derivative of ``<Jᵀu, v>`` with respect to ``u`` is ``J v``:
    one backward pass that keeps its graph per node, then one pass through that graph per direction.
    Fused attention kernels have no second derivative; the function runs temporarily under
    PyTorch's math attention. Other kernels may lack a second derivative without an error, so the
    products are checked against ``<u, J v> = <Jᵀu, v>``.

    Args:
        function: See :data:`BatchFunction`.
        start (Tensor): Start of the path, shape (B, *F) or (1, *F).
        end (Tensor): End of the path, shape (B, *F).
        masks (Tensor): G weights of the features, shape (G, 1 or B, *F), where each of F may be 1.
        rule (Quadrature): Nodes and weights.
        args: Further arguments of the function. Tensors have B rows; they are repeated per node.
        direction (Tensor, optional): The direction ``v``, of the shape of ``end``. Default:
            ``end − start``
        internal_batch_size (int, optional): Maximum number of rows of a call of the function.
            Default: all ``n_steps * B`` of them.
        on_product (Callable, optional): Called after each product, for a progress bar.
        batched (bool): Compute the products of all directions in one pass, by ``torch.vmap``, if it
            has rules for all operations of the function. This is faster for small operations, and
            needs the memory of all directions at once. Default: False

    Returns:
        Tensor: shape (G, B, K), in float32 or the function's own type if that is wider.

    Raises:
        NotTwiceDifferentiableError: If the function has no second derivative.
    """
    if direction is None:
        direction = end.detach() - start.detach()
    result: Tensor | None = None
    generator = torch.Generator(end.device).manual_seed(0)
    checks = []
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            for rows, points, weights, chunk_args in _path(
                start, end, rule, args, internal_batch_size
            ):
                output = _evaluate(function, points, chunk_args)
                wide = torch.randn(output.shape, generator=generator, device=end.device)
                cotangent = wide.to(output)
                cotangent.requires_grad_()
                pulled_back = _pull_back(output, points, cotangent)
                check = _AdjointCheck(cotangent, pulled_back)
                if result is None:
                    shape = (len(masks), end.shape[0], output.shape[1])
                    result = output.new_zeros(shape, dtype=_accumulator(output.dtype))
                own = masks[:, rows] if masks.shape[1] > 1 else masks
                tangents = (
                    _repeat((mask * direction[rows]).to(points.dtype), len(weights)) for mask in own
                )
                products = _products(pulled_back, cotangent, tangents, batched, _once_only)
                for index, (tangent, product) in enumerate(products):
                    check.add(tangent, product)
                    result[index, rows] += _weighted_sum(product, weights)
                    if on_product is not None:
                        on_product()
                checks.append(check.gap_and_size())
                # Free this chunk's graph before the next one is built.
                del output, cotangent, pulled_back, products, tangents, tangent, product, check
            _check_adjoint(checks)
    except (RuntimeError, NotImplementedError) as error:
        if any(phrase in str(error) for phrase in _ONCE_ONLY):
            raise NotTwiceDifferentiableError(
                f"Jacobian-vector products need a second derivative: {error}"
            ) from error
        raise
    assert result is not None
    _check_finite(result)
    return result


def integrated_vjp(
    function: BatchFunction,
    start: Tensor,
    end: Tensor,
    cotangents: Tensor,
    rule: Quadrature,
    *,
    args: Sequence[Any] = (),
    reduce: Callable[[Tensor, slice], Tensor] | None = None,
    internal_batch_size: int | None = None,
    on_product: Callable[[], object] | None = None,
    batched: bool = False,
) -> Tensor:
    """Integrate vector-Jacobian products ``∫₀¹ J(x(α))ᵀ c dα`` for C cotangents per example.

    Args:
        function: See :data:`BatchFunction`.
        start (Tensor): Start of the path, shape (B, *F) or (1, *F).
        end (Tensor): End of the path, shape (B, *F).
        cotangents (Tensor): shape (C, B, K) or (C, 1, K).
        rule (Quadrature): Nodes and weights.
        args: Further arguments of the function. Tensors have B rows; they are repeated per node.
        reduce (Callable, optional): A linear map ``(gradients, rows) -> (len(rows), *R)`` applied
            to the integrated gradients of a slice of the examples, of shape (len(rows), *F), before
            they are stored. Default: keep them as they are.
        internal_batch_size (int, optional): Maximum number of rows of a call of the function.
            Default: all ``n_steps * B`` of them.
        on_product (Callable, optional): Called after each product, for a progress bar.
        batched (bool): Compute the products of all cotangents in one pass, as in
            :func:`integrated_jvp`. Default: False

    Returns:
        Tensor: shape (C, B, *F), or (C, B, *R) with ``reduce``.
    """
    batch_size = end.shape[0]
    # Cotangents are scaled to unit length: small ones underflow in a half-precision backward pass.
    scales = cotangents.abs().amax(dim=-1, keepdim=True)
    units = (cotangents / scales.clamp_min(torch.finfo(scales.dtype).tiny)).expand(
        -1, batch_size, -1
    )
    result: Tensor | None = None
    with torch.enable_grad():
        for rows, points, weights, chunk_args in _path(start, end, rule, args, internal_batch_size):
            output = _evaluate(function, points, chunk_args)
            chosen = (_repeat(unit[rows].to(output.dtype), len(weights)) for unit in units)
            products = _products(output, points, chosen, batched, _independent)
            for index, (_, gradient) in enumerate(products):
                total = _weighted_sum(gradient, weights)
                if reduce is not None:
                    total = reduce(total, rows)
                if result is None:
                    result = total.new_zeros((len(cotangents), batch_size, *total.shape[1:]))
                result[index, rows] += total
                if on_product is not None:
                    on_product()
            # Free this chunk's graph before the next one is built.
            del output, products, chosen, gradient
    assert result is not None
    _check_finite(result)
    return result * scales.reshape(scales.shape[:2] + (1,) * (result.dim() - 2)).to(result.dtype)


def path_values(
    function: BatchFunction,
    start: Tensor,
    end: Tensor,
    nodes: Tensor,
    *,
    args: Sequence[Any] = (),
    internal_batch_size: int | None = None,
) -> Tensor:
    """Values ``f(x(α))`` along the path, without gradients.

    Args:
        function: See :data:`BatchFunction`.
        start (Tensor): Start of the path, shape (B, *F) or (1, *F).
        end (Tensor): End of the path, shape (B, *F).
        nodes (Tensor): The points α, shape (M,).
        args: Further arguments of the function. Tensors have B rows; they are repeated per node.
        internal_batch_size (int, optional): At most this many rows at once. Default: all of them

    Returns:
        Tensor: shape (M, B, K).
    """
    rule = Quadrature(nodes, torch.ones_like(nodes))
    pieces: dict[int, list[Tensor]] = {}
    with torch.no_grad():
        for rows, points, weights, chunk_args in _path(start, end, rule, args, internal_batch_size):
            output = _evaluate(function, points.detach(), chunk_args)
            own = pieces.setdefault(rows.start, [])
            own.append(output.unflatten(0, (len(weights), -1)))
    return torch.cat([torch.cat(own) for own in pieces.values()], 1)


def count_chunks(batch_size: int, n_steps: int, internal_batch_size: int | None) -> int:
    """Number of pieces in which a path of ``batch_size * n_steps`` rows is evaluated."""
    examples, steps = _chunk_sizes(batch_size, n_steps, internal_batch_size)
    return -(-batch_size // examples) * -(-n_steps // steps)


def _chunk_sizes(batch_size: int, n_steps: int, internal_batch_size: int | None) -> tuple[int, int]:
    if internal_batch_size is None:
        return batch_size, n_steps
    if internal_batch_size < 1:
        raise ValueError(f"internal_batch_size must be at least 1, but got {internal_batch_size}")
    examples = min(batch_size, internal_batch_size)
    return examples, min(n_steps, internal_batch_size // examples)


def _path(
    start: Tensor,
    end: Tensor,
    rule: Quadrature,
    args: Sequence[Any],
    internal_batch_size: int | None,
) -> Iterator[tuple[slice, Tensor, Tensor, tuple[Any, ...]]]:
    """Yield (examples, points, weights, args): points are node-major, (nodes * examples, *F)."""
    wide = _accumulator(end.dtype)
    start = start.expand(end.shape)
    examples, steps = _chunk_sizes(end.shape[0], len(rule.nodes), internal_batch_size)
    for first in range(0, end.shape[0], examples):
        rows = slice(first, first + examples)
        low = start[rows].detach().to(wide)
        difference = end[rows].detach().to(wide) - low
        for node in range(0, len(rule.nodes), steps):
            nodes = rule.nodes[node : node + steps].to(wide).to(low.device)
            weights = rule.weights[node : node + steps].to(wide).to(low.device)
            points = low + nodes.reshape(-1, *[1] * end.dim()) * difference
            points = points.flatten(0, 1).to(end.dtype).requires_grad_()
            chunk_args = tuple(
                _repeat(arg[rows], len(nodes)) if isinstance(arg, Tensor) and arg.dim() else arg
                for arg in args
            )
            yield rows, points, weights, chunk_args


def _evaluate(function: BatchFunction, points: Tensor, args: tuple[Any, ...]) -> Tensor:
    output = function(points, *args)
    if output.dim() != 2 or len(output) != len(points):
        raise ValueError(
            f"the function must map {tuple(points.shape)} to ({len(points)}, K), "
            f"but returned shape {tuple(output.shape)}"
        )
    return output


def _pull_back(output: Tensor, points: Tensor, cotangent: Tensor) -> Tensor:
    """``Jᵀu`` with its graph."""
    if output.requires_grad:
        (gradient,) = torch.autograd.grad(
            output, points, cotangent, create_graph=True, allow_unused=True
        )
        if gradient is not None:
            return gradient
    raise _independent()


def _products(
    output: Tensor,
    inputs: Tensor,
    vectors: Iterator[Tensor],
    batched: bool,
    missing: Callable[[], Exception],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each vector with its product; an error if the output does not depend on the inputs."""
    if not output.requires_grad:
        raise _independent()
    options: Any = {"retain_graph": True, "allow_unused": True}

    def product_of(vector: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(output, inputs, vector, **options)
        if product is None:
            raise missing()
        return product

    if batched:
        stacked = torch.stack(list(vectors))
        vectors = iter(stacked)
        try:
            with warnings.catch_warnings():
                # Without a rule for an operation, vmap warns and falls back to a loop.
                warnings.filterwarnings("error", ".*batching rule", UserWarning)
                # Not is_grads_batched, whose older rules copy shared tensors for every vector.
                products = torch.vmap(product_of)(stacked)
            yield from zip(stacked, products, strict=True)
            return
        except (RuntimeError, UserWarning) as error:
            _LOGGER.debug("products are taken one by one: %s", error)
    for vector in vectors:
        yield vector, product_of(vector)


def _once_only() -> NotTwiceDifferentiableError:
    return NotTwiceDifferentiableError("the backward pass has no path to what is passed back")


def _independent() -> ValueError:
    return ValueError(
        "the function's output does not depend differentiably on its input (is it detached?)"
    )


class _AdjointCheck:
    """Whether the products ``J v`` agree with ``Jᵀu`` for a random u: ``<u, J v> = <Jᵀu, v>``.

    If the backward pass of an operation is opaque to autograd (a custom kernel), its contribution
    to ``J v`` is missing without an error.
    """

    def __init__(self, cotangent: Tensor, pulled_back: Tensor) -> None:
        if not pulled_back.requires_grad:
            raise NotTwiceDifferentiableError("autograd cannot look into the backward pass at all")
        self.cotangent = cotangent.detach().to(_accumulator(cotangent.dtype))
        self.pulled_back = pulled_back.detach().to(self.cotangent.dtype)
        self.tangent = torch.zeros_like(self.pulled_back)
        self.product = torch.zeros_like(self.cotangent)

    def add(self, tangent: Tensor, product: Tensor) -> None:
        self.tangent += tangent
        self.product += product

    def gap_and_size(self) -> Tensor:
        """The largest difference and the largest norm of the terms, (2,), on their device."""
        left = (self.cotangent * self.product).flatten(1)
        right = (self.pulled_back * self.tangent).flatten(1)
        gap = (left.sum(1) - right.sum(1)).abs()
        size = (left.square().sum(1) + right.square().sum(1)).sqrt()
        return torch.stack([gap.max(), size.max()])


def _check_adjoint(gaps_and_sizes: list[Tensor]) -> None:
    """Once at the end, so that no chunk waits for the device."""
    for gap, size in torch.stack(gaps_and_sizes).tolist():
        if not gap <= _ROUNDING * size:
            raise NotTwiceDifferentiableError(
                "an operation hides its backward pass from autograd: <u, J v> differs from "
                f"<Jᵀu, v> by {gap:.2g}, for terms of norm {size:.2g}"
            )


def _check_finite(integral: Tensor) -> None:
    if not torch.isfinite(integral).all():
        raise ValueError(
            "the function's derivatives along the path hold NaN or infinite values: take another "
            "baseline or layer, or a wider type than half precision"
        )


def _repeat(tensor: Tensor, times: int) -> Tensor:
    return tensor.unsqueeze(0).expand(times, *tensor.shape).flatten(0, 1)


def _weighted_sum(rows: Tensor, weights: Tensor) -> Tensor:
    rows = rows.reshape(len(weights), -1, *rows.shape[1:])
    return cast(Tensor, torch.tensordot(weights, rows.to(weights.dtype), dims=1))


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
