"""The path of one tower, from its reference to its input, ready for Jacobian products."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from captum_interactions.encoders import Layer, Tower
from captum_interactions.encoders.model.activations import tabulated_activations
from captum_interactions.encoders.towers.base import AlongPath, take_rows
from captum_interactions.encoders.wrapper import widen
from captum_interactions.functional import (
    NotTwiceDifferentiableError,
    Quadrature,
    integrated_jvp,
    integrated_vjp,
)
from captum_interactions.functional.integrated import count_chunks, path_values
from captum_interactions.functional.memory import memory_budget, rows_that_fit

_LOGGER = logging.getLogger(__name__)
FEW_ROWS = 16
"""So many rows of little work run without asking for memory; and on a CPU, products of them were
quicker taken at once than one after the other."""
_AT_ONCE_ON_GPU = 2**15
"""So many rows of products are taken at once on a GPU."""
_FEW_ROWS_OF_PRODUCTS = 256
"""So many are taken at once without asking for memory."""
_ROWS_WITHOUT_GRADIENTS = 64
"""So many rows are evaluated at once where nothing is kept of them."""

Normalization = Literal["cosine", "frozen", "none"]
Baseline = None | int | float | Tensor | list[int | float | Tensor | None]
Groups = Tensor | NDArray[Any] | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Products:
    """How Jacobian products along paths are taken."""

    rules: tuple[Quadrature, Quadrature]
    """The rules of both sides."""
    internal_batch_size: int | None
    progress: tqdm[Any]

    def rule(self, path: Path) -> Quadrature:
        """The rule of one side."""
        return self.rules["ab".index(path.name)]


@contextmanager
def taking_products(
    rules: Quadrature | tuple[Quadrature, Quadrature],
    internal_batch_size: int | None,
    show_progress: bool,
) -> Iterator[Products]:
    """Jacobian products by one rule, or one a side, with a progress bar, if it is wanted."""
    both = (rules, rules) if isinstance(rules, Quadrature) else rules
    with tqdm(desc="Jacobian products", total=0, disable=not show_progress) as progress:
        yield Products(both, internal_batch_size, progress)


@dataclass(frozen=True)
class Path:
    """The straight paths of B inputs of one tower, at one layer.

    Tokens are what the map shows: groups of features. With the user's groups, groups of tokens.
    """

    name: str
    """``"a"`` or ``"b"``, for messages."""
    tower: Tower
    layer: Layer
    scale: Callable[..., Tensor]
    """``(embeddings, *norms)`` to embeddings scaled as the score wants them."""
    norms: tuple[Tensor, ...]
    """The inputs' own norms (B, 1), if the score takes them as constants; else nothing."""
    starts: tuple[Tensor, ...]
    """Features of each reference, (B, *F) or (1, *F); products are averaged over them."""
    end: Tensor
    """Features of the inputs, (B, *F)."""
    tower_context: tuple[Any, ...]
    """What the tower needs beside features."""
    token_mask: Tensor
    """1 for tokens that can reach the embedding, else 0, (B, T)."""
    groups: Tensor | None
    """Weights of tokens in groups, (1 or B, G, T); None for every token by itself."""
    embedding: Tensor
    """Scaled embeddings of the inputs, (B, K)."""
    reference: Tensor
    """Scaled embeddings of the references, averaged over them, (B, K)."""
    multiply_by_inputs: bool

    @property
    def context(self) -> tuple[Any, ...]:
        """What :meth:`function` needs beside features; tensors have B rows."""
        return (*self.norms, *self.tower_context)

    def function(self, features: Tensor, *context: Any) -> Tensor:
        """Features and context to embeddings, scaled as the score wants them."""
        own = len(self.norms)
        embedding = self.tower.embed(self.layer, features, *context[own:])
        return self.scale(embedding, *context[:own])

    @cached_property
    def live(self) -> Tensor:
        """Indices of tokens that can reach the embedding in any example, or of all groups."""
        if self.groups is None:
            return self.token_mask.any(0).nonzero().flatten()
        return torch.arange(self.groups.shape[1], device=self.groups.device)

    @cached_property
    def moving(self) -> Tensor:
        """Those of :attr:`live` whose factors may differ from zero, one at least.

        A token that is the same as in all references has none, if features are multiplied by their
        distance.
        """
        if self.groups is not None or not self.multiply_by_inputs:
            return self.live
        moves = torch.stack([self._moves(start) for start in self.starts]).any(0)
        moving = (moves & (self.token_mask > 0)).any(0).nonzero().flatten()
        return moving if len(moving) else self.live[:1]

    @property
    def n_products(self) -> int:
        """Number of Jacobian-vector products that give the factors."""
        return len(self.moving)

    @property
    def n_outputs(self) -> int:
        """Number of tokens, or of groups: the size of this side of the map."""
        return self.token_mask.shape[1] if self.groups is None else self.groups.shape[1]

    @property
    def is_partition(self) -> bool:
        """Whether the groups hold every live token exactly once."""
        if self.groups is None:
            return True
        covered = self.groups.sum(1) * self.token_mask
        return torch.allclose(covered, self.token_mask.expand_as(covered))

    def cost(self, n_products: int, products: Products) -> int:
        """Number of backward passes that ``n_products`` products take."""
        n_steps = len(products.rule(self).nodes)
        size = self.rows_at_once(products)
        return n_products * count_chunks(len(self.end), n_steps, size) * len(self.starts)

    def rows_at_once(self, products: Products, fold: bool = True) -> int | None:
        """How many rows are evaluated with gradients at once; None for all of them."""
        n_rows = len(self.end) * len(products.rule(self).nodes)
        if products.internal_batch_size is not None:
            return products.internal_batch_size
        if n_rows <= FEW_ROWS and self._way(self.starts[0], fold).is_small:
            return None
        return min(n_rows, self._rows_that_fit(fold))

    def _rows_that_fit(self, fold: bool) -> int:
        """How many rows there is memory for."""
        if fold not in self._fitting:
            way = self._way(self.starts[0], fold)
            args = take_rows(way.args, slice(0, 1))
            row = way.end[:1].detach().clone().requires_grad_()
            budget = memory_budget(self.end.device)
            self._fitting[fold] = rows_that_fit(lambda: way.function(row, *args), budget)
        return self._fitting[fold]

    def _takes_at_once(self, way: Way, products: Products, n_products: int) -> bool:
        """Whether the products of all directions are taken in one pass."""
        n_rows = len(self.end) * len(products.rule(self).nodes)
        if not way.is_batched(n_rows, n_products):
            return False
        n_rows *= n_products
        if products.internal_batch_size is not None:
            return n_rows <= products.internal_batch_size
        # A row of a product holds no more than a row of the graph does.
        return n_rows <= _FEW_ROWS_OF_PRODUCTS or n_rows <= self._rows_that_fit(True)

    def values(self, nodes: Tensor, internal_batch_size: int | None = None) -> Tensor:
        """Embeddings along the paths from all S starts, without gradients: (M, S · B, K)."""
        parts = []
        for start in self.starts:
            way = self._way(start)
            parts.append(
                path_values(
                    way.function,
                    way.start,
                    way.end,
                    nodes,
                    args=way.args,
                    internal_batch_size=internal_batch_size or _ROWS_WITHOUT_GRADIENTS,
                )
            )
        return torch.cat(parts, 1)

    def factors(self, products: Products) -> Tensor:
        """Factors of tokens or groups by as few products as possible, (B, G, K)."""
        dimension = self.embedding.shape[1]
        if self.n_products <= dimension:
            before = products.progress.n
            try:
                return self._push_forward(products)
            except NotTwiceDifferentiableError as error:
                # One product a dimension needs first derivatives only.
                taken = products.progress.n - before
                more = self.cost(dimension - self.n_products, products) + taken
                products.progress.total = (products.progress.total or 0) + more
                _LOGGER.info(
                    "%d products a node instead of %d: %s", dimension, self.n_products, error
                )
        basis = torch.eye(dimension).to(self.embedding).unsqueeze(1)
        return self.pull_back(basis, products).permute(1, 2, 0)

    def pull_back(self, cotangents: Tensor, products: Products, fold: bool = True) -> Tensor:
        """First-order attributions of ``<cotangent, embedding>`` for C cotangents.

        Args:
            cotangents (Tensor): shape (C, B, K) or (C, 1, K).
            products (Products): How products are taken.
            fold (bool): Sum features over tokens or groups. Default: True

        Returns:
            Tensor: shape (C, B, G), or (C, B, *F) without folding.
        """
        total: Tensor | None = None
        size = self.rows_at_once(products, fold)
        for start in self.starts:
            way = self._way(start, fold)
            part = integrated_vjp(
                way.function,
                way.start,
                way.end,
                cotangents,
                products.rule(self),
                args=way.args,
                reduce=way.reduce,
                batched=self._takes_at_once(way, products, len(cotangents)),
                internal_batch_size=size,
                on_product=products.progress.update,
            )
            total = part if total is None else total + part
        assert total is not None
        return total / len(self.starts)

    def _push_forward(self, products: Products) -> Tensor:
        if self.groups is None:
            chosen = torch.eye(self.n_outputs).to(self.token_mask)[self.moving].unsqueeze(1)
        else:
            chosen = self.groups.transpose(0, 1)
        # (G, B, T) token weights; padding has none.
        if not self.token_mask.all():
            chosen = chosen * self.token_mask
        total: Tensor | None = None
        size = self.rows_at_once(products)
        for start in self.starts:
            way = self._way(start)
            part = integrated_jvp(
                way.function,
                way.start,
                way.end,
                way.spread(chosen),
                products.rule(self),
                args=way.args,
                direction=way.direction,
                batched=self._takes_at_once(way, products, len(chosen)),
                internal_batch_size=size,
                on_product=products.progress.update,
            )
            total = part if total is None else total + part
        assert total is not None
        return self.with_padding(total.transpose(0, 1) / len(self.starts))

    def with_padding(self, rows: Tensor, dim: int = 1, tokens: Tensor | None = None) -> Tensor:
        """Values of some tokens along an axis, as values of all tokens: others are zero.

        These tokens are those that move, unless others are given.
        """
        shape = list(rows.shape)
        shape[dim] = self.n_outputs
        tokens = self.moving if tokens is None else tokens
        return rows.new_zeros(shape).index_copy(dim, tokens, rows)

    def _moves(self, start: Tensor) -> Tensor:
        """Which tokens differ between a start and the end, (B, T)."""
        differs = (self.end != start).to(self.token_mask)
        return self.tower.fold(self.layer, differs) > 0

    @cached_property
    def _fitting(self) -> dict[bool, int]:
        """What :meth:`_rows_that_fit` has found."""
        return {}

    @cached_property
    def _ways(self) -> dict[tuple[int, bool], Way]:
        """What :meth:`_way` has made, by the start's place and ``fold``."""
        return {}

    def _way(self, start: Tensor, fold: bool = True) -> Way:
        """How Jacobian products from one start are taken."""
        place = next(index for index, own in enumerate(self.starts) if own is start)
        if (place, fold) not in self._ways:
            self._ways[place, fold] = way_along(self, start, fold)
        return self._ways[place, fold]

    def fold(self, attribution: Tensor, rows: slice) -> Tensor:
        """Sum an attribution of features of some examples over tokens or groups: (rows, G)."""
        return self.grouped(self.tower.fold(self.layer, attribution), rows)

    def grouped(self, tokens: Tensor, rows: slice) -> Tensor:
        """Attributions of tokens of some examples as those of tokens or groups: (rows, G)."""
        tokens = tokens * self.token_mask[rows]
        if self.groups is None:
            return tokens
        groups = self.groups[rows] if len(self.groups) > 1 else self.groups
        return (groups @ tokens.unsqueeze(-1)).squeeze(-1)


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
