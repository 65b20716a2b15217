"""A function of two inputs along the paths of both: values, gradients and mixed derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from captum_interactions.attr._utils.arguments import Baseline, check_batch_size
from captum_interactions.attr._utils.path import Path
from captum_interactions.encoders import CallableTower
from captum_interactions.encoders.towers.base import take_rows
from captum_interactions.encoders.wrapper import widen
from captum_interactions.functional import Quadrature, integrated_vjp


class SquareNodes(NamedTuple):
    """Nodes of a square: ``∫∫ f(α, β) dα dβ ≈ Σ weights f(alphas, betas)``."""

    alphas: Tensor
    betas: Tensor
    weights: Tensor


class JointFunction(NamedTuple):
    """A function of two inputs, and the paths of both from their baselines."""

    function: Callable[..., Tensor]
    """``(a, b, *args) -> (N,)``."""
    paths: tuple[Path, Path]
    args: tuple[Any, ...]
    """Further arguments of the function; tensors have B rows."""

    def corners(self) -> tuple[Tensor, ...]:
        """Values (B,) at both inputs, at a and r_b, at r_a and b, and at both baselines.

        Raises:
            ValueError: If the function does not return one number an example.
        """
        ends = [path.features for path in self.paths]
        starts = [path.baselines[0].expand(path.features.shape) for path in self.paths]
        values = []
        with torch.no_grad():
            for x in (ends[0], starts[0]):
                for y in (ends[1], starts[1]):
                    value = self.function(x, y, *self.args)
                    if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
                        came = getattr(value, "shape", type(value).__name__)
                        raise ValueError(
                            f"the function must map two inputs of {len(x)} rows to scores of shape "
                            f"({len(x)},), but returned {came}"
                        )
                    values.append(widen(value))
        return tuple(values)

    def main_effects(self, side: int, rule: Quadrature, internal_batch_size: int | None) -> Tensor:
        """Integrated gradients (B, T) of one side with the other at its baseline."""
        path, other = self.paths[side], self.paths[1 - side]

        def function(x: Tensor, y: Tensor, *args: Any) -> Tensor:
            return self.function(*((x, y) if side == 0 else (y, x)), *args).unsqueeze(1)

        difference = _difference(path)
        return integrated_vjp(
            function,
            path.baselines[0],
            path.features,
            torch.ones(1, 1, 1).to(difference),
            rule,
            args=(other.baselines[0].expand(other.features.shape), *self.args),
            reduce=lambda gradient, rows: path.fold(gradient * difference[rows], rows),
            internal_batch_size=internal_batch_size,
        )[0]

    def mixed_derivatives(
        self, nodes: SquareNodes, internal_batch_size: int | None, show_progress: bool
    ) -> Tensor:
        """Integrated mixed derivatives times both distances from the baselines, (B, Ta, Tb).

        Each evaluation takes the gradient of the side with fewer active tokens, then the gradient
        of the other side of one product per token.
        """
        path_a, path_b = self.paths
        a_is_short = len(path_a.active) < len(path_b.active)
        short, long = (path_a, path_b) if a_is_short else (path_b, path_a)
        differences = [_difference(path) for path in (short, long)]
        totals = [torch.zeros_like(differences[1]) for _ in short.active]
        chosen = torch.eye(short.n_outputs).to(differences[0])[short.active].unsqueeze(1)
        masks = short.tower.spread(short.layer, chosen, short.features.shape)
        chunks = list(self._chunks(nodes, internal_batch_size))
        with (
            torch.enable_grad(),
            sdpa_kernel(SDPBackend.MATH),
            tqdm(desc="Hessian products", total=len(chunks), disable=not show_progress) as progress,
        ):
            for examples, alphas, betas, weights in chunks:
                points = (_points(path_a, examples, alphas), _points(path_b, examples, betas))
                points_short, points_long = points if a_is_short else points[::-1]
                output = self.function(*points, *take_rows(self.args, examples))
                gradient = _gradient(output.sum(), points_short, create_graph=True)
                tangent = differences[0][examples].to(gradient.dtype)
                for total, mask in zip(totals, masks, strict=True):
                    product = (gradient * tangent * mask.to(gradient.dtype)).sum()
                    mixed = _gradient(product, points_long, retain_graph=True)
                    weighted = mixed.to(total) * _per_row(weights.to(total), total)
                    total.index_add_(0, examples, weighted)
                progress.update()
                # Free this chunk's graph before the next one is built.
                del output, gradient, product
        columns = torch.stack([long.fold(total * differences[1]) for total in totals], 1)
        maps = short.padded(columns * short.token_mask[:, short.active].unsqueeze(-1))
        if not torch.isfinite(maps).all():
            raise ValueError("second derivatives along the path hold NaN or infinite values")
        return maps if a_is_short else maps.transpose(1, 2)

    def _chunks(
        self, nodes: SquareNodes, internal_batch_size: int | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Examples, nodes of both sides and weights of the rows that are evaluated together."""
        check_batch_size(internal_batch_size)
        end = self.paths[0].features
        n_examples, n_rows = len(end), len(nodes.weights) * len(end)
        size = internal_batch_size or n_rows
        for first in range(0, n_rows, size):
            rows = torch.arange(first, min(first + size, n_rows))
            alphas, betas, weights = (
                value[rows // n_examples].to(widen(end).dtype).to(end.device) for value in nodes
            )
            yield (rows % n_examples).to(end.device), alphas, betas, weights


def path_at_input(name: str, inputs: Tensor, baseline: Baseline) -> Path:
    """The path of an input of a function that is not an encoder; tokens are as at a tower's input.

    Raises:
        ValueError: If the input is not real-valued, or the baseline does not fit.
    """
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
    # Clones may be differentiated even if the inputs were made in inference mode.
    end, start = inputs.detach().clone(), baseline.detach().to(inputs).clone()
    tower = CallableTower(nn.Identity())
    n_tokens = tower.fold("input", torch.empty_like(end, device="meta")).shape[1]
    unused = end.new_zeros((len(end), 1))
    return Path(
        name=name,
        tower=tower,
        layer="input",
        inputs=end,
        extras=(),
        features=end,
        baselines=(start,),
        tower_context=(),
        token_mask=widen(end.new_ones((len(end), n_tokens))),
        raw_embedding=unused,
        raw_baseline_embeddings=(unused,),
        normalization="none",
        groups=None,
        multiply_by_inputs=True,
    )


def _difference(path: Path) -> Tensor:
    return widen(path.features) - widen(path.baselines[0])


def _points(path: Path, examples: Tensor, nodes: Tensor) -> Tensor:
    """Points of some examples on their path, (R, *F)."""
    start = widen(path.baselines[0]).expand(path.features.shape)[examples]
    points = start + _per_row(nodes, start) * (widen(path.features)[examples] - start)
    return points.to(path.features.dtype).requires_grad_()


def _per_row(values: Tensor, features: Tensor) -> Tensor:
    """One value per row, with the dimensions of features (R, *F)."""
    return values.reshape(-1, *[1] * (features.dim() - 1))


def _gradient(output: Tensor, points: Tensor, **options: Any) -> Tensor:
    """The gradient at the points, zero where the output does not depend on them."""
    if not output.requires_grad:
        return torch.zeros_like(points)
    (gradient,) = torch.autograd.grad(output, points, materialize_grads=True, **options)
    return gradient
