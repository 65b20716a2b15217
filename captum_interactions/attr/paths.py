"""The path of one tower, from its reference to its input, ready for Jacobian products."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from captum_interactions.attr.ways import Way, way_along
from captum_interactions.encoders import Layer, Tower
from captum_interactions.encoders.tower import take_rows
from captum_interactions.encoders.wrapper import unit, widen
from captum_interactions.functional import (
    NotTwiceDifferentiableError,
    Quadrature,
    integrated_jvp,
    integrated_vjp,
)
from captum_interactions.functional.integrated import count_chunks, path_values
from captum_interactions.functional.memory import memory_budget, rows_that_fit

_LOGGER = logging.getLogger(__name__)
_FEW_ROWS = 16
"""So many rows are evaluated at once without asking for memory."""
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
        if products.internal_batch_size is not None or n_rows <= _FEW_ROWS:
            return products.internal_batch_size
        if (n_rows, fold) not in self._rows:
            way = self._way(self.starts[0], fold)
            args = take_rows(way.args, slice(0, 1))
            row = way.end[:1].detach().clone().requires_grad_()
            budget = memory_budget(self.end.device)
            fit = rows_that_fit(lambda: way.function(row, *args), n_rows, budget)
            self._rows[n_rows, fold] = fit
        return self._rows[n_rows, fold]

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
                batched=way.is_batched(products.rule(self), len(cotangents)),
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
                batched=way.is_batched(products.rule(self), len(chosen)),
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
    def _rows(self) -> dict[tuple[int, bool], int]:
        """What :meth:`rows_at_once` has found."""
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


def open_path(
    name: str,
    tower: Tower,
    layer: Layer,
    inputs: Tensor,
    baseline: Baseline,
    extras: tuple[Any, ...],
    groups: Groups | None,
    *,
    normalization: Normalization,
    multiply_by_inputs: bool,
) -> Path:
    """Check one side's inputs and carry them and their references to the layer.

    The arguments are those of ``SecondOrderIntegratedGradients.attribute``, for one side. No
    gradient is taken yet.

    Raises:
        TypeError: If inputs are on another device than the tower.
        ValueError: If inputs, baselines or groups are not as described there.
    """
    inputs, extras = check_input(name, tower, inputs, extras)
    references = _references(name, tower, inputs, baseline, extras)
    with torch.no_grad():
        end, starts, context = _features(tower, layer, inputs, references, extras)
        embedding, *others = _embeddings(tower, layer, end, starts, context)
        _check_embedding(f"input {name}", embedding, may_vanish=normalization == "none")
        tokens = tower.fold(layer, torch.empty_like(end, device="meta"))
        mask = tower.token_mask(inputs, *extras) if layer != "input" else None
        if mask is None:
            mask = torch.ones(tokens.shape, device=end.device)
        mask = widen(mask.to(end.dtype))
        scale, norms = _scaling(normalization, embedding)
        ends = [scale(other, *norms) for other in others]
        for reference in ends:
            _check_embedding(f"baseline {name}", reference, may_vanish=normalization != "cosine")
    return Path(
        name=name,
        tower=tower,
        layer=layer,
        scale=scale,
        norms=norms,
        starts=starts,
        end=end,
        tower_context=context,
        token_mask=mask,
        groups=_group_weights(name, groups, mask),
        embedding=scale(embedding, *norms),
        reference=torch.stack(ends).mean(0),
        multiply_by_inputs=multiply_by_inputs,
    )


def check_input(
    name: str, tower: Tower, inputs: Tensor, extras: tuple[Any, ...]
) -> tuple[Tensor, tuple[Any, ...]]:
    """One side's inputs and extras, checked and detached.

    Raises:
        TypeError: If inputs are on another device than the tower.
        ValueError: If they are not what the tower takes.
    """
    extras = tuple(_ordinary(extra) for extra in extras)
    inputs = _ordinary(inputs)
    _check_tensor(f"input {name}", tower, inputs)
    _check_extras(name, tower, inputs, extras)
    tower.check(inputs, *extras)
    return inputs, extras


def _features(
    tower: Tower, layer: Layer, inputs: Tensor, references: list[Tensor], extras: tuple[Any, ...]
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Any, ...]]:
    """Features of inputs and references, (B, *F) or (1, *F) each, and the context of the inputs.

    All run together, which reads the model's weights once. A reference keeps its features only: it
    is masked and pooled as the input is.
    """
    if not any(isinstance(extra, Tensor) for extra in extras):
        # References are often the same for all examples: then one row is enough.
        references = [r[:1] if torch.equal(r, r[:1].expand_as(r)) else r for r in references]
    kept = tower.kept_references
    if kept is not None and not any(isinstance(extra, Tensor) for extra in extras):
        starts = tuple(kept.features(tower, layer, r, extras) for r in references if len(r) == 1)
        if len(starts) == len(references):
            end, context = tower.features(layer, inputs, *extras)
            return end, starts, context
    together = (inputs, *references)
    copies = len(together)
    repeated = (
        torch.cat([extra] * copies) if isinstance(extra, Tensor) and extra.dim() else extra
        for extra in extras
    )
    features, context = tower.features(layer, torch.cat(together), *repeated)
    end, *others = features.split([len(part) for part in together])
    own = tuple(
        value[: len(inputs)] if isinstance(value, Tensor) and value.dim() else value
        for value in context
    )
    return end, tuple(others), own


def _embeddings(
    tower: Tower, layer: Layer, end: Tensor, starts: tuple[Tensor, ...], context: tuple[Any, ...]
) -> list[Tensor]:
    """Embeddings of the inputs and of each reference in the inputs' context, (B, K) each.

    At blocks all run together, which reads the model's weights once.
    """
    if layer == "input":
        ends = [end, *(start.expand_as(end) for start in starts)]
        return [tower.embed(layer, one, *context) for one in ends]
    together = torch.cat([end, *(start.expand_as(end) for start in starts)])
    examples = torch.arange(len(end), device=end.device).repeat(1 + len(starts))
    embeddings = tower.embed(layer, together, *take_rows(context, examples))
    return list(embeddings.split(len(end)))


def _scaling(
    normalization: Normalization, embedding: Tensor
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """From embeddings to those that the score uses, and the norms that this needs."""
    if normalization == "cosine":
        return unit, ()
    if normalization == "none":
        return widen, ()
    # The norms of the actual inputs are constants of the path, one an example.
    return torch.div, (widen(embedding).norm(dim=-1, keepdim=True),)


def _references(
    name: str, tower: Tower, inputs: Tensor, baseline: Baseline, extras: tuple[Any, ...]
) -> list[Tensor]:
    if not isinstance(baseline, list):
        return [_reference(name, tower, inputs, baseline, extras)]
    if not baseline:
        raise ValueError(f"the list of baselines {name} is empty")
    return [_reference(name, tower, inputs, one, extras) for one in baseline]


def _reference(
    name: str, tower: Tower, inputs: Tensor, baseline: Any, extras: tuple[Any, ...]
) -> Tensor:
    if baseline is None:
        return tower.reference(inputs, *extras)
    if isinstance(baseline, (int, float)):
        return tower.set_constant(inputs, baseline, *extras)
    if not isinstance(baseline, Tensor):
        raise TypeError(
            f"baseline {name} must be None, a number, a tensor or a list of these, but got "
            f"{type(baseline).__name__}"
        )
    if baseline.shape not in (inputs.shape, (1, *inputs.shape[1:])):
        raise ValueError(
            f"baseline {name} must have the input's shape {tuple(inputs.shape)} or one row of it, "
            f"but got shape {tuple(baseline.shape)}"
        )
    floats = baseline.is_floating_point() and inputs.is_floating_point()
    if floats and baseline.dtype != inputs.dtype:
        raise TypeError(f"baseline {name} is {baseline.dtype}, but input {name} is {inputs.dtype}")
    baseline = _ordinary(baseline)
    _check_tensor(f"baseline {name}", tower, baseline)
    return cast(Tensor, baseline.expand_as(inputs))


def _check_tensor(what: str, tower: Tower, tensor: Tensor) -> None:
    parameter = next(tower.parameters(), None)
    if parameter is not None and parameter.device != tensor.device:
        raise TypeError(f"{what} is on {tensor.device}, but its encoder is on {parameter.device}")
    if tensor.dim() < 2 or not tensor.numel():
        raise ValueError(
            f"{what} must have an axis of examples and others of features, none of them empty, but "
            f"has shape {tuple(tensor.shape)}"
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ValueError(f"{what} holds NaN or infinite values")


def _check_extras(name: str, tower: Tower, inputs: Tensor, extras: tuple[Any, ...]) -> None:
    for extra_name, extra in zip(tower.extra_names, extras, strict=False):
        if not isinstance(extra, Tensor) or not extra.dim():
            continue
        if len(extra) != len(inputs) or extra.device != inputs.device:
            raise ValueError(
                f"{extra_name} of encoder {name} must have {len(inputs)} rows on {inputs.device}, "
                f"as its input has, but has shape {tuple(extra.shape)} on {extra.device}"
            )


def _check_embedding(what: str, embedding: Tensor, may_vanish: bool) -> None:
    if not torch.isfinite(embedding).all():
        raise ValueError(f"the embedding of {what} holds NaN or infinite values")
    if not may_vanish and not embedding.norm(dim=-1).all():
        raise ValueError(
            f"the embedding of {what} is zero, which has no cosine with anything: take another "
            f"{what.split()[0]}, or normalization='none'"
        )


def _group_weights(name: str, groups: Groups | None, mask: Tensor) -> Tensor | None:
    """Groups as weights (1 or B, G, T)."""
    if groups is None:
        return None
    n_tokens = mask.shape[1]
    if isinstance(groups, np.ndarray):
        groups = torch.from_numpy(groups)
    if isinstance(groups, Tensor):
        weights = (groups if groups.dim() == 3 else groups.unsqueeze(0)).to(mask)
        if weights.dim() != 3 or weights.shape[2] != n_tokens or len(weights) not in (1, len(mask)):
            raise ValueError(
                f"groups_{name} must have shape (G, {n_tokens}) or ({len(mask)}, G, {n_tokens}), "
                f"but got {tuple(groups.shape)}"
            )
    else:
        weights = mask.new_zeros((1, len(groups), n_tokens))
        for index, tokens in enumerate(groups):
            if not _are_indices(tokens, n_tokens):
                raise ValueError(
                    f"groups_{name}[{index}] must be a list of token indices below {n_tokens}, but "
                    f"is {tokens!r} (weights of tokens are one tensor of shape (G, {n_tokens}))"
                )
            weights[0, index, list(tokens)] = 1.0
    if not weights.shape[1]:
        raise ValueError(f"groups_{name} holds no group")
    if not torch.isfinite(weights).all():
        raise ValueError(f"groups_{name} holds NaN or infinite weights")
    return weights


def _are_indices(tokens: Any, n_tokens: int) -> bool:
    return isinstance(tokens, (Sequence, np.ndarray)) and all(
        isinstance(t, (int, np.integer)) and -n_tokens <= t < n_tokens for t in tokens
    )


def _ordinary(value: Any) -> Any:
    """A detached tensor that autograd may use, also if it was made in inference mode."""
    if not isinstance(value, Tensor):
        return value
    return value.clone() if value.is_inference() else value.detach()
