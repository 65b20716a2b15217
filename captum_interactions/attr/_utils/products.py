"""Factors and interactions of paths, by as few Jacobian products as possible."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_interactions.attr._utils.closed_form import factors_in_closed_form
from captum_interactions.attr._utils.path import FEW_ROWS, Integrand, Path
from captum_interactions.encoders.towers.base import take_rows
from captum_interactions.functional import (
    Decomposition,
    NotTwiceDifferentiableError,
    Quadrature,
    contract,
    corner_difference,
    integrated_jvp,
    integrated_vjp,
)
from captum_interactions.functional.integrated import count_chunks
from captum_interactions.functional.memory import memory_budget, rows_that_fit

_LOGGER = logging.getLogger(__name__)
_FEW_ROWS_OF_PRODUCTS = 256
"""Rows of Jacobian products that are taken at once without a measurement of their memory."""


@dataclass(frozen=True)
class Products:
    """Jacobian products along the paths of one call, see :func:`jacobian_products`."""

    rules: tuple[Quadrature, Quadrature]
    """The quadrature rules of both sides."""
    internal_batch_size: int | None
    progress: tqdm[Any]
    _fitting: dict[tuple[str, bool], int] = field(default_factory=dict, init=False)
    """Known results of :meth:`_rows_that_fit`."""
    _not_closed: set[str] = field(default_factory=set, init=False)
    """Names of paths whose models do more than average the last block's outputs."""

    def interactions(self, paths: tuple[Path, Path]) -> Tensor:
        """The interactions of both sides, (B, Ga, Gb)."""
        return self._interactions(paths, main_effects=False)[0]

    def decompose(self, paths: tuple[Path, Path]) -> Decomposition:
        """Constant, main effects of both sides, and interactions."""
        a, b = paths
        interactions, main_a, main_b = self._interactions(paths, main_effects=True)
        constant = (a.baseline_embedding * b.baseline_embedding).sum(-1)
        score = (a.embedding * b.embedding).sum(-1)
        return Decomposition(constant, main_a, main_b, interactions, score)

    def _interactions(
        self, paths: tuple[Path, Path], main_effects: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Interactions (B, Ga, Gb) and, with ``main_effects``, the main effects of a and of b.

        The factors of the side with fewer active tokens are cotangents of the other side.
        """
        path_a, path_b = paths
        dimension = path_a.embedding.shape[1]
        a_is_short = len(path_a.active) < len(path_b.active)
        short, long = (path_a, path_b) if a_is_short else (path_b, path_a)
        if len(short.active) > dimension or self._is_closed(long):
            self.progress.total = sum(self.cost(path, dimension) for path in paths)
            phi, psi = self.factors(path_a), self.factors(path_b)
            main_a = along_vector(phi, path_b.baseline_embedding)
            main_b = along_vector(psi, path_a.baseline_embedding)
            return contract(phi, psi), main_a, main_b

        n_short = len(short.active)
        self.progress.total = self.cost(short, n_short) + self.cost(long, n_short + main_effects)
        factors = self.factors(short)
        cotangents = factors[:, short.active].transpose(0, 1)
        if main_effects:
            cotangents = torch.cat([cotangents, short.baseline_embedding.unsqueeze(0)])
        rows = self.pull_back(long, cotangents).movedim(0, 1)
        interactions, main_long = short.padded(rows[:, :n_short]), rows[:, n_short:].flatten(1)
        main_short = along_vector(factors, long.baseline_embedding)
        if a_is_short:
            return interactions, main_short, main_long
        return interactions.transpose(1, 2).contiguous(), main_long, main_short

    def rows_of(self, path: Path, other: Path) -> Tensor:
        """Attributions of single features of a path for each token of the other, (G, B, *F)."""
        n_other = min(len(other.active), other.embedding.shape[1])
        self.progress.total = self.cost(other, n_other) + self.cost(path, len(other.active))
        cotangents = self.factors(other)[:, other.active].transpose(0, 1)
        return other.padded(self.pull_back(path, cotangents, fold=False), dim=0)

    def factors(self, path: Path) -> Tensor:
        """Factors of tokens or groups, (B, G, K)."""
        if self._is_closed(path):
            found = factors_in_closed_form(path, self.rule(path), self.progress.update)
            if found is not None:
                return found
            _LOGGER.info("the last block of input %s runs as it is", path.name)
            self._not_closed.add(path.name)
            more = self.cost(path, min(len(path.active), path.embedding.shape[1]))
            self.progress.total = (self.progress.total or 0) + more
        dimension = path.embedding.shape[1]
        n_active = len(path.active)
        if n_active <= dimension:
            before = self.progress.n
            try:
                return self._push_forward(path)
            except NotTwiceDifferentiableError as error:
                # One vector-Jacobian product per dimension needs first derivatives only.
                taken = self.progress.n - before
                more = self.cost(path, dimension - n_active) + taken
                self.progress.total = (self.progress.total or 0) + more
                _LOGGER.info("%d products a node instead of %d: %s", dimension, n_active, error)
        basis = torch.eye(dimension).to(path.embedding).unsqueeze(1)
        return self.pull_back(path, basis).permute(1, 2, 0)

    def pull_back(self, path: Path, cotangents: Tensor, fold: bool = True) -> Tensor:
        """Integrated gradients of ``<cotangent, embedding>`` for C cotangents.

        Args:
            path (Path): The path.
            cotangents (Tensor): shape (C, B, K) or (C, 1, K).
            fold (bool): Sum features over tokens or groups. Default: True

        Returns:
            Tensor: shape (C, B, G), or (C, B, *F) without folding.
        """

        def product(integrand: Integrand, **options: Any) -> Tensor:
            return integrated_vjp(
                integrand.function, integrand.start, integrand.end, cotangents, self.rule(path),
                reduce=integrand.reduce, **options,
            )  # fmt: skip

        return self._mean(path, product, len(cotangents), fold)

    def _push_forward(self, path: Path) -> Tensor:
        if path.groups is None:
            chosen = torch.eye(path.n_outputs).to(path.token_mask)[path.active].unsqueeze(1)
        else:
            chosen = path.groups.transpose(0, 1)
        # (G, B, T) token weights; padding has none.
        if not path.token_mask.all():
            chosen = chosen * path.token_mask

        def product(integrand: Integrand, **options: Any) -> Tensor:
            return integrated_jvp(
                integrand.function, integrand.start, integrand.end, integrand.spread(chosen),
                self.rule(path), direction=integrand.direction, **options,
            )  # fmt: skip

        return path.padded(self._mean(path, product, len(chosen)).transpose(0, 1))

    def _mean(
        self, path: Path, product: Callable[..., Tensor], n_products: int, fold: bool = True
    ) -> Tensor:
        """Products along the paths from all baselines, averaged."""
        size = self.rows_at_once(path, fold)
        total: Tensor | None = None
        for index in range(len(path.baselines)):
            integrand = path.integrand(index, fold)
            part = product(
                integrand,
                args=integrand.args,
                batched=self.is_batched(path, integrand, n_products),
                internal_batch_size=size,
                on_product=self.progress.update,
            )
            total = part if total is None else total + part
        assert total is not None
        return total / len(path.baselines)

    @property
    def n_steps(self) -> tuple[int, int]:
        """Numbers of nodes of both sides."""
        return len(self.rules[0].nodes), len(self.rules[1].nodes)

    def rule(self, path: Path) -> Quadrature:
        """The quadrature rule of one side."""
        return self.rules["ab".index(path.name)]

    def cost(self, path: Path, n_products: int) -> int:
        """Number of backward passes that ``n_products`` products take.

        In closed form, each example counts as one.
        """
        if self._is_closed(path):
            return len(path.features) * len(path.baselines)
        n_chunks = count_chunks(
            len(path.features), len(self.rule(path).nodes), self.rows_at_once(path)
        )
        return n_products * n_chunks * len(path.baselines)

    def _is_closed(self, path: Path) -> bool:
        return path.has_closed_form and path.name not in self._not_closed

    def rows_at_once(self, path: Path, fold: bool = True) -> int | None:
        """How many rows are evaluated with gradients at once; None for all of them."""
        n_rows = len(path.features) * len(self.rule(path).nodes)
        if self.internal_batch_size is not None:
            return self.internal_batch_size
        if n_rows <= FEW_ROWS and path.integrand(fold=fold).is_cheap:
            return None
        return min(n_rows, self._rows_that_fit(path, fold))

    def is_batched(self, path: Path, integrand: Integrand, n_products: int) -> bool:
        """Whether the products of all directions are taken in one pass."""
        n_rows = len(path.features) * len(self.rule(path).nodes)
        if not integrand.is_faster_batched(n_rows, n_products):
            return False
        n_rows *= n_products
        if self.internal_batch_size is not None:
            return n_rows <= self.internal_batch_size
        # A row of a product needs no more memory than a row of the graph.
        return n_rows <= _FEW_ROWS_OF_PRODUCTS or n_rows <= self._rows_that_fit(path, True)

    def _rows_that_fit(self, path: Path, fold: bool) -> int:
        """How many rows there is memory for."""
        if (path.name, fold) not in self._fitting:
            integrand = path.integrand(fold=fold)
            args = take_rows(integrand.args, slice(0, 1))
            row = integrand.end[:1].detach().clone().requires_grad_()
            budget = memory_budget(path.features.device)
            n_rows = rows_that_fit(lambda: integrand.function(row, *args), budget)
            self._fitting[path.name, fold] = n_rows
        return self._fitting[path.name, fold]


@contextmanager
def jacobian_products(
    rules: Quadrature | tuple[Quadrature, Quadrature],
    internal_batch_size: int | None,
    show_progress: bool,
) -> Iterator[Products]:
    """Jacobian products by one quadrature rule, or one a side, with a progress bar if asked for."""
    both = (rules, rules) if isinstance(rules, Quadrature) else rules
    with tqdm(desc="Jacobian products", total=0, disable=not show_progress) as progress:
        yield Products(both, internal_batch_size, progress)


def check_complete(paths: Sequence[Path]) -> None:
    """Raise a ValueError if the maps of these paths are not complete."""
    for path in paths:
        if not path.multiply_by_inputs:
            raise ValueError(
                "attributions that are not multiplied by inputs (multiply_by_inputs=False) are not "
                "complete, so they have no convergence delta and no decomposition"
            )
        if not path.is_partition:
            raise ValueError(
                f"the convergence delta needs groups_{path.name} in which every token occurs "
                "exactly once; these leave some out or repeat some"
            )


def convergence_delta(attributions: Tensor, paths: tuple[Path, Path]) -> Tensor:
    """The sum of each map minus its value for a complete one, (B,)."""
    a, b = paths
    expected = corner_difference(
        a.embedding, b.embedding, a.baseline_embedding, b.baseline_embedding
    )
    return attributions.flatten(1).sum(1) - expected


def along_vector(factors: Tensor, vector: Tensor) -> Tensor:
    """Product of each factor (B, T, K) with its example's vector (B, K): shape (B, T)."""
    return (factors @ vector.unsqueeze(-1)).squeeze(-1)
