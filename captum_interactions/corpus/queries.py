"""Queries to an index: each is a matrix product of stored factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_interactions.corpus.index import FactorIndex, Id
from captum_interactions.corpus.items import Item
from captum_interactions.corpus.settings import Settings, check_compatible
from captum_interactions.corpus.shards import Shard
from captum_interactions.encoders import AudioAxis, ImageAxis, TextAxis, TokenAxis
from captum_interactions.functional import decompose
from captum_interactions.maps.interaction_map import InteractionMap


class Region(NamedTuple):
    """A part of an item, and its interaction with a query."""

    key: str
    token: int
    """Index on the item's axis; for several patches, that of the upper left one."""
    label: str
    """What the token stands for, in words."""
    place: tuple[float, ...] | None
    """The box (x0, y0, x1, y1) of patches in pixels of the original image, the half-open character
    span of a text token, the seconds (start, stop) of a sound token, or None if unknown."""
    attribution: float
    """Positive if the parts increase the score together, negative if they decrease it."""


def pair_map(first: Item, second: Item) -> InteractionMap:
    """The map of two items, one of each side, in either order.

    Returns:
        InteractionMap: the map that ``explain`` returns for this pair, up to the rounding of the
        storage; the convergence delta is that of the stored factors.

    Raises:
        ValueError: If the items are of the same side, or of different models, layers or
            normalizations.

    Examples::

        pair_map(images["beach.jpg"], captions[3]).plot("two dogs")
    """
    a, b = _sides(first, second)
    parts = decompose(
        a.values[None], b.values[None], a.embedding[None], b.embedding[None],
        a.baseline[None], b.baseline[None],
    )  # fmt: skip
    return InteractionMap(
        interactions=parts.interactions[0].float(),
        main_effects_a=parts.main_effects_a[0].float(),
        main_effects_b=parts.main_effects_b[0].float(),
        constant=float(parts.constant[0]),
        score=float(parts.score[0]),
        convergence_delta=float(parts.convergence_delta[0]),
        axis_a=a.axis,
        axis_b=b.axis,
        settings=_settings(a.settings, b.settings),
    )


def explain_hits(query: Item, index: FactorIndex, ids: Sequence[Id]) -> list[InteractionMap]:
    """The maps of a query with each hit of a retrieval result.

    Args:
        query (Item): An item of the other side, from another index or a :class:`FactorEncoder`.
        index (FactorIndex): The collection that was searched.
        ids (sequence): Keys, or row numbers as a vector index returns them for one query.

    Returns:
        list: an :class:`~captum_interactions.InteractionMap` for each id.

    Raises:
        ValueError: If query and index are of the same side, or of different models, layers or
            normalizations.
        KeyError: If an id is not in the index.
        TypeError: If an id is neither a key nor a number, such as a row of a two-dimensional array.
    """
    _check(query.settings, index.settings)
    if isinstance(ids, str):
        raise TypeError(f"ids are a sequence of keys or rows, but got the string {ids!r}")
    for key in ids:
        index.source(key)  # raises before anything is computed
    return [pair_map(query, index[key]) for key in ids]


def scores(first: FactorIndex, second: FactorIndex) -> Tensor:
    """Scores of all pairs of two indexes, from their embeddings: shape (len(first), len(second)).

    Raises:
        ValueError: If they are of the same side, or of different models, layers or normalizations.
    """
    _check(first.settings, second.settings)
    return first.embeddings @ second.embeddings.T


def top_regions(
    index: FactorIndex,
    factors: Tensor,
    k: int = 10,
    *,
    window: tuple[int, int] = (1, 1),
    per_item: bool = False,
    memory_mb: float = 256.0,
) -> list[list[Region]]:
    """Find the regions of a collection that have the largest interactions with a phrase.

    The factors of the index are read once, in pieces, for all phrases together. To find the most
    negative interactions, pass negated factors; attributions are then negated, too.

    Args:
        index (FactorIndex): The collection.
        factors (Tensor): Factors of P parts of inputs of the other side, shape (P, K), as
            ``item.factors("red bicycle")`` returns them; or of one part, shape (K,).
        k (int): How many regions to return. Default: 10
        window (tuple): Rows and columns of patches in a region of an image, whose attributions are
            summed. Regions may overlap. Default: (1, 1), single tokens
        per_item (bool): Return only the best region of each item. Default: False
        memory_mb (float): Maximum size of the factors and products that are in memory at once.
            Default: 256

    Returns:
        list: for each of the P factors its regions, best first, without special and padding tokens.
        There are fewer than k if the index has fewer.

    Raises:
        ValueError: If the factors have another shape, or k or the window is less than 1.
        TypeError: If there is a window, but the items are not images.
    """
    factors = torch.atleast_2d(factors).float()
    if min(k, *window) < 1:
        raise ValueError(f"k and window must be at least 1, but got {k} and {window}")
    if index.keys and factors.shape[1:] != index.embeddings.shape[1:]:
        raise ValueError(
            f"factors must have shape (P, {index.embeddings.shape[1]}), but got "
            f"{tuple(factors.shape)}"
        )
    n_phrases, dimension = factors.shape
    best: list[list[tuple[float, str, int]]] = [[] for _ in factors]
    for shard, rows, values, is_part in index.pieces(
        memory_mb * dimension / (dimension + n_phrases)
    ):
        lengths = shard.tensors["offsets"][rows.start : rows.stop + 1].diff()
        starts = (lengths.cumsum(0) - lengths).tolist()
        items = torch.arange(len(lengths)).repeat_interleave(lengths)
        attributions = (factors @ values.T).masked_fill(~is_part, -torch.inf)
        if window != (1, 1):
            attributions = _summed(attributions, shard, rows, window)
        for attribution, found in zip(attributions, best, strict=True):
            tokens = _best_of_each(attribution, items) if per_item else torch.arange(len(items))
            top = attribution[tokens].topk(min(k, len(tokens)))
            for value, token in zip(top.values.tolist(), tokens[top.indices].tolist(), strict=True):
                item = int(items[token])
                if value > -torch.inf:
                    found.append((value, shard.keys[rows.start + item], token - starts[item]))
            found.sort(key=lambda region: -region[0])
            del found[k:]
    return [[_region(index, window, *region) for region in found] for found in best]


def _summed(attributions: Tensor, shard: Shard, rows: slice, window: tuple[int, int]) -> Tensor:
    """The sum over a window of patches, (P, tokens), at the token of its upper left patch."""
    sums = torch.full_like(attributions, -torch.inf)
    offsets = shard.tensors["offsets"][rows] - shard.rows(rows.start, rows.start)[0]
    axes = shard.tensors["axis_of_item"][rows]
    for same in (axes == kind for kind in axes.unique()):
        axis = shard.axis(rows.start + int(same.int().argmax()))
        if not isinstance(axis, ImageAxis):
            raise TypeError(f"a window needs images, but the items have a {type(axis).__name__}")
        if window[0] > axis.grid[0] or window[1] > axis.grid[1]:
            continue
        grid = torch.arange(len(axis))[axis.patches].reshape(axis.grid)
        tokens = offsets[same][:, None, None] + grid
        means = F.avg_pool2d(attributions[:, tokens], window, stride=1)
        corners = tokens[:, : means.shape[-2], : means.shape[-1]]
        sums[:, corners] = means * (window[0] * window[1])
    return sums


def _best_of_each(attribution: Tensor, items: Tensor) -> Tensor:
    """The token of each item that is its best."""
    order = attribution.argsort(descending=True, stable=True)
    first = np.unique(items[order].numpy(), return_index=True)[1]
    return order[torch.from_numpy(first)]


def _region(
    index: FactorIndex, window: tuple[int, int], attribution: float, key: str, token: int
) -> Region:
    axis = index.axis(key)
    label, place = axis.labels[token], _place(axis, token)
    if isinstance(axis, ImageAxis) and window != (1, 1):
        last = token + (window[0] - 1) * axis.grid[1] + window[1] - 1
        upper_left, lower_right = axis.box(token), axis.box(last)
        assert upper_left is not None
        assert lower_right is not None
        label, place = f"{label} to {axis.labels[last]}", upper_left[:2] + lower_right[2:]
    return Region(key, token, label, place, attribution)


def _place(axis: TokenAxis, token: int) -> tuple[float, ...] | None:
    if isinstance(axis, ImageAxis):
        return axis.box(token)
    if isinstance(axis, TextAxis):
        return axis.spans[token]
    return axis.times[token] if isinstance(axis, AudioAxis) else None


def _sides(first: Item, second: Item) -> tuple[Item, Item]:
    _check(first.settings, second.settings)
    return (first, second) if first.settings.side == "a" else (second, first)


def _check(first: Settings, second: Settings) -> None:
    is_ordered = first.side == "a"
    check_compatible(*((first, second) if is_ordered else (second, first)))


def _settings(a: Settings, b: Settings) -> dict[str, object]:
    """How a map was computed, as ``explain`` says it; where the sides differ, for both."""

    def either(one: object, other: object) -> object:
        return one if one == other else [one, other]

    return {
        "attribution": "second_order_integrated_gradients",
        "model": a.model["name"],
        "normalization": a.normalization,
        "n_steps": either(a.n_steps, b.n_steps),
        "method": either(a.method, b.method),
        "layers": list(a.layers),
    }
