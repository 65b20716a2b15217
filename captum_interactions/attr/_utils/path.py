"""The straight path of one tower's inputs from their baselines, and what is integrated along it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.encoders.model.activations import tabulated_activations
from captum_interactions.encoders.towers.base import AlongPath
from captum_interactions.encoders.wrapper import widen
from captum_interactions.functional.integrated import path_values

FEW_ROWS = 16
"""Up to this number of rows, a cheap evaluation starts without a measurement of its memory. On a
CPU, Jacobian products of this many rows were faster all at once than one after the other."""
_ROWS_AT_ONCE_ON_GPU = 2**15
"""Rows of Jacobian products that are taken at once on a GPU."""
_ROWS_WITHOUT_GRADIENTS = 64
"""Rows that are evaluated at once without gradients."""


@dataclass(frozen=True)
class Path(LayerInputs):
    """The straight paths from the baselines to B inputs of one tower, at one layer.

    Jacobian products along a path are averaged over its baselines.
    """

    groups: Tensor | None
    """Weights of tokens in the user's groups, (1 or B, G, T); None for every token by itself."""
    multiply_by_inputs: bool

    @cached_property
    def active(self) -> Tensor:
        """Indices of tokens or groups whose factors may differ from zero, at least one.

        If features are multiplied by their distance from the baseline, the factor of a token that
        equals all baselines is zero.
        """
        if self.groups is not None:
            return torch.arange(self.n_outputs, device=self.groups.device)
        if not self.multiply_by_inputs:
            return self.unmasked
        differs = torch.stack([self._differs(baseline) for baseline in self.baselines]).any(0)
        active = (differs & (self.token_mask > 0)).any(0).nonzero().flatten()
        return active if len(active) else self.unmasked[:1]

    @property
    def n_outputs(self) -> int:
        return self.token_mask.shape[1] if self.groups is None else self.groups.shape[1]

    @cached_property
    def has_closed_form(self) -> bool:
        """Whether the tower knows all derivatives of the last block in closed form."""
        if not self.multiply_by_inputs:
            return False
        known = self.tower.mean_along(
            self.layer, self.baselines[0], self.features, *self.tower_context
        )
        return known is not None

    @property
    def is_partition(self) -> bool:
        """Whether the groups contain every unmasked token exactly once."""
        if self.groups is None:
            return True
        covered = self.groups.sum(1) * self.token_mask
        return torch.allclose(covered, self.token_mask.expand_as(covered))

    def grouped(self, tokens: Tensor, rows: slice = slice(None)) -> Tensor:
        tokens = tokens * self.token_mask[rows]
        if self.groups is None:
            return tokens
        groups = self.groups[rows] if len(self.groups) > 1 else self.groups
        return (groups @ tokens.unsqueeze(-1)).squeeze(-1)

    def values(self, nodes: Tensor, internal_batch_size: int | None = None) -> Tensor:
        """Embeddings along the paths from all S baselines, without gradients: (M, S · B, K)."""
        integrands = [self.integrand(index) for index in range(len(self.baselines))]
        size = internal_batch_size or _ROWS_WITHOUT_GRADIENTS
        parts = [
            path_values(i.function, i.start, i.end, nodes, args=i.args, internal_batch_size=size)
            for i in integrands
        ]
        return torch.cat(parts, 1)

    def integrand(self, index: int = 0, fold: bool = True) -> Integrand:
        """The function whose Jacobian products along the path give factors.

        Args:
            index (int): Which of the baselines the path starts at. Default: 0
            fold (bool): Whether features are summed over tokens or groups. Default: True
        """
        if (index, fold) not in self._integrands:
            self._integrands[index, fold] = _integrand(self, self.baselines[index], fold)
        return self._integrands[index, fold]

    @cached_property
    def _integrands(self) -> dict[tuple[int, bool], Integrand]:
        return {}

    def _differs(self, baseline: Tensor) -> Tensor:
        """Which tokens of the inputs differ from a baseline, (B, T)."""
        differs = (self.features != baseline).to(self.token_mask)
        return self.tower.fold(self.layer, differs) > 0


class Integrand(NamedTuple):
    """A function whose Jacobian products along a straight path are factors."""

    function: Callable[..., Tensor]
    """From points and ``args`` to scaled embeddings."""
    start: Tensor
    end: Tensor
    direction: Tensor
    """The direction of the products, of the shape of ``end``."""
    args: tuple[Any, ...]
    spread: Callable[[Tensor], Tensor]
    """From weights of tokens, (G, 1 or B, T), to weights of the function's argument."""
    reduce: Callable[[Tensor, slice], Tensor]
    """From integrated gradients of some examples to attributions of tokens or groups."""
    is_cheap: bool
    """Whether a product takes less time than launching its operations."""

    def is_faster_batched(self, n_rows: int, n_products: int) -> bool:
        """Whether all products at once are faster than one after the other."""
        if self.direction.is_cuda:
            return self.is_cheap and n_rows * n_products <= _ROWS_AT_ONCE_ON_GPU
        return self.is_cheap and n_rows <= FEW_ROWS


def _integrand(path: Path, baseline: Tensor, fold: bool) -> Integrand:
    if fold and path.multiply_by_inputs:
        with torch.no_grad():
            along = path.tower.along(path.layer, baseline, path.features, *path.tower_context)
        if along is not None:
            return _integrand_of_coordinates(path, along)
    return _integrand_of_features(path, baseline, fold)


def _integrand_of_features(path: Path, baseline: Tensor, fold: bool) -> Integrand:
    end = widen(path.features)
    direction = end - widen(baseline) if path.multiply_by_inputs else torch.ones_like(end)

    def function(features: Tensor, *context: Any) -> Tensor:
        with tabulated_activations(path.tower):
            return path.function(features, *context)

    def spread(weights: Tensor) -> Tensor:
        return path.tower.spread(path.layer, weights, path.features.shape)

    def reduce(gradient: Tensor, rows: slice) -> Tensor:
        attribution = gradient * direction[rows]
        return path.fold(attribution, rows) if fold else attribution

    return Integrand(
        function, baseline, path.features, direction, path.context, spread, reduce, False
    )


def _integrand_of_coordinates(path: Path, along: AlongPath) -> Integrand:
    """One coordinate per token, from 0 at the baseline to 1 at the input.

    The integrated gradient in a token's coordinate is its attribution.
    """
    n_norms = len(path.norms)

    def function(coordinates: Tensor, examples: Tensor, *context: Any) -> Tensor:
        rows = slice(int(examples[0]), int(examples[-1]) + 1)
        return path.scale(along(coordinates, rows, *context[n_norms:]), *context[:n_norms])

    end = torch.ones_like(path.token_mask)
    start = torch.zeros_like(end[:1])
    # On the CPU, so that reading an index does not synchronise with a GPU.
    args = (torch.arange(len(end)), *path.context)
    return Integrand(function, start, end, end, args, lambda weights: weights, path.grouped, True)
