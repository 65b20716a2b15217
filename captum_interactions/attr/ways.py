"""What is differentiated along a path: a function of features, or of one coordinate a token."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from captum_interactions.encoders.model.activations import tabulated_activations
from captum_interactions.encoders.towers.base import AlongPath
from captum_interactions.encoders.wrapper import widen

if TYPE_CHECKING:
    from captum_interactions.attr._utils.path import Path

FEW_ROWS = 16
"""So many rows of little work run without asking for memory; and on a CPU, products of them were
quicker taken at once than one after the other."""
_AT_ONCE_ON_GPU = 2**15
"""So many rows of products are taken at once on a GPU."""


class Way(NamedTuple):
    """A function whose Jacobian products are factors."""

    function: Callable[..., Tensor]
    """From points and ``args`` to embeddings, scaled as the score wants them."""
    start: Tensor
    end: Tensor
    direction: Tensor
    """Along which products are taken, of the shape of ``end``."""
    args: tuple[Any, ...]
    spread: Callable[[Tensor], Tensor]
    """Weights of tokens, (G, 1 or B, T), as weights of what the function takes."""
    reduce: Callable[[Tensor, slice], Tensor]
    """Integrated gradients of some examples as attributions of tokens or groups."""
    is_small: bool
    """Whether a product is so little work that starting its operations takes most of the time."""

    def is_batched(self, n_rows: int, n_products: int) -> bool:
        """Whether all products at once are quicker than one after the other."""
        if self.direction.is_cuda:
            return self.is_small and n_rows * n_products <= _AT_ONCE_ON_GPU
        return self.is_small and n_rows <= FEW_ROWS


def way_along(path: Path, start: Tensor, fold: bool) -> Way:
    """The way from one of a path's starts to its end.

    Args:
        path (Path): The path.
        start (Tensor): Features of one of its references.
        fold (bool): Whether features are summed over tokens or groups.
    """
    if fold and path.multiply_by_inputs:
        with torch.no_grad():
            along = path.tower.along(path.layer, start, path.end, *path.tower_context)
        if along is not None:
            return _way_of_coordinates(path, along)
    return _way_of_features(path, start, fold)


def _way_of_features(path: Path, start: Tensor, fold: bool) -> Way:
    end = widen(path.end)
    direction = end - widen(start) if path.multiply_by_inputs else torch.ones_like(end)

    def function(features: Tensor, *context: Any) -> Tensor:
        with tabulated_activations(path.tower):
            return path.function(features, *context)

    def spread(weights: Tensor) -> Tensor:
        return path.tower.spread(path.layer, weights, path.end.shape)

    def reduce(gradient: Tensor, rows: slice) -> Tensor:
        attribution = gradient * direction[rows]
        return path.fold(attribution, rows) if fold else attribution

    return Way(function, start, path.end, direction, path.context, spread, reduce, False)


def _way_of_coordinates(path: Path, along: AlongPath) -> Way:
    """Every token goes from 0 to 1; a gradient in its coordinate is its attribution."""
    n_norms = len(path.norms)

    def function(coordinates: Tensor, examples: Tensor, *context: Any) -> Tensor:
        rows = slice(int(examples[0]), int(examples[-1]) + 1)
        embedding = along(coordinates, rows, *context[n_norms:])
        return path.scale(embedding, *context[:n_norms])

    end = torch.ones_like(path.token_mask)
    # On the CPU, so that to read an index waits for no device.
    args = (torch.arange(len(end)), *path.context)
    start = torch.zeros_like(end[:1])
    return Way(function, start, end, end, args, lambda weights: weights, path.grouped, True)
