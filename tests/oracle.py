"""The slow, obvious way to second-order integrated gradients: the measure of everything else.

One gradient per output dimension and node, then the full matrix over all pairs of features, as the
method's definition says and the published programs do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def integrated_jacobian(
    function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, nodes: Tensor, weights: Tensor
) -> Tensor:
    """Jacobian (K, *F) of a function (N, *F) -> (N, K), integrated from start to end (*F)."""
    points = torch.stack([start + alpha * (end - start) for alpha in nodes]).requires_grad_()
    with torch.enable_grad():
        output = function(points)
        rows = []
        for k in range(output.shape[1]):
            (gradient,) = torch.autograd.grad(output[:, k].sum(), points, retain_graph=True)
            rows.append(torch.einsum("n,n...->...", weights, gradient))
    return torch.stack(rows)


def feature_map(
    function_a: Callable[[Tensor], Tensor],
    function_b: Callable[[Tensor], Tensor],
    path_a: tuple[Tensor, Tensor],
    path_b: tuple[Tensor, Tensor],
    nodes: Tensor,
    weights: Tensor,
    multiply_by_inputs: bool = True,
) -> Tensor:
    """Interactions of all pairs of features of one pair of inputs, (*Fa, *Fb)."""
    jacobian_a = integrated_jacobian(function_a, *path_a, nodes, weights)
    jacobian_b = integrated_jacobian(function_b, *path_b, nodes, weights)
    matrix = jacobian_a.flatten(1).T @ jacobian_b.flatten(1)
    if multiply_by_inputs:
        matrix = (path_a[1] - path_a[0]).flatten()[:, None] * matrix
        matrix = matrix * (path_b[1] - path_b[0]).flatten()[None, :]
    return matrix.reshape(*path_a[1].shape, *path_b[1].shape)


def token_map(*args: object, **kwargs: object) -> Tensor:
    """:func:`feature_map` of hidden states (Ta, Da) and (Tb, Db), summed over hidden units."""
    return feature_map(*args, **kwargs).sum((1, 3))  # type: ignore[arg-type]


@contextmanager
def replaced_input(block: nn.Module, states: Tensor):
    """While this holds, the block gets these hidden states instead of its own."""
    with block.register_forward_pre_hook(lambda _, args: (states, *args[1:])):
        yield


def entering(block: nn.Module, run: Callable[[], object]) -> Tensor:
    """The hidden states that enter a block while ``run()`` runs."""
    seen = []
    hook = block.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    return _last(seen, hook, run)


@contextmanager
def replaced_output(module: nn.Module, states: Tensor):
    """While this holds, what follows a module gets these hidden states instead of its own."""
    with module.register_forward_hook(lambda *_: states):
        yield


def leaving(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """The hidden states that leave a module while ``run()`` runs."""
    seen = []
    hook = module.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    return _last(seen, hook, run)


def _last(seen: list[Tensor], hook: RemovableHandle, run: Callable[[], object]) -> Tensor:
    """What a hook saw last while ``run()`` ran."""
    with hook, torch.no_grad():  # a handle removes its hook when it is left
        run()
    return seen[-1]
