"""Second-order integrated gradients along paths of the text other than the straight line.

Any path of the text gives a complete map: its factors are integrals of the encoder's Jacobian along
the path, so they sum to ``h(b) - h(r_b)``. Here a path is a chain of straight segments between
hidden states at the layer, whose factors are added. The path of the image stays straight.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_interactions.attr import SecondOrderIntegratedGradients
from captum_interactions.attr._utils.inputs import paths_of_pairs
from captum_interactions.attr._utils.layer_inputs import repeat_rows
from captum_interactions.attr._utils.path import Path
from captum_interactions.attr._utils.products import Products
from captum_interactions.attr._utils.steps import products_along
from captum_interactions.axes import TextAxis
from captum_interactions.datasets import Record
from captum_interactions.datasets.scenes import CAPTION_WORDS
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.evaluation.phrases import (
    counted,
    covered,
    image_axis,
    phrase_spans,
    readable,
)
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import (
    bootstrap_interval,
    mean,
    median,
    proportion,
)
from captum_interactions.evaluation.summary import Table
from captum_interactions.functional import Decomposition
from captum_interactions.maps.interaction_map import InteractionMap

OPTIONS = ("layers", "n_steps", "method", "normalization", "baselines")
"""The options that :func:`explain_along` takes."""
_N_ORDERS = 8
_N_WORDS = 3
"""Words of the vocabulary between the baseline and a word."""
_N_SEGMENTS = 8
"""Straight segments of a curve."""
_MIN_STEPS = 4
"""Nodes of a segment, at least."""


def _ends(path: Path) -> tuple[Tensor, Tensor]:
    """Hidden states of the baseline and of the text, (T, F) each."""
    return path.baselines[0][0], path.features[0]


def _moving(path: Path) -> list[int]:
    """The tokens whose hidden states differ from the baseline's, in reading order."""
    return path.active.tolist()


def _straight(path: Path) -> Tensor:
    return torch.stack(_ends(path)).unsqueeze(0)


def _in_order(path: Path, tokens: Sequence[int]) -> Tensor:
    """One token after the other: those that have moved are at the text, others at the baseline."""
    start, end = _ends(path)
    points = [start]
    for token in tokens:
        point = points[-1].clone()
        point[token] = end[token]
        points.append(point)
    return torch.stack(points)


def _random_orders(path: Path) -> Tensor:
    rng = np.random.default_rng(0)
    orders = [rng.permutation(_moving(path)).tolist() for _ in range(_N_ORDERS)]
    return torch.stack([_in_order(path, order) for order in orders])


def _vocabulary(path: Path, monotone: bool = False) -> Tensor:
    """Through texts of the words that are nearest to points of the straight line."""
    start, end = _ends(path)
    points = [start]
    for point in _propagated(path, path.layer, _nearest_words(path)):
        if monotone:
            point = point.clamp(torch.minimum(points[-1], end), torch.maximum(points[-1], end))
        points.append(point)
    return torch.stack([*points, end]).unsqueeze(0)


def _nearest_words(path: Path) -> Tensor:
    """Token ids (3, T) of other words, whose embeddings are nearest to the straight line there."""
    words = _words(path.tower)
    ids, baseline = path.inputs, path.tower.baseline(path.inputs, *path.extras)
    moves = ids != baseline
    texts = words[:, None].where(moves, ids)
    start, end, *states = _propagated(path, 0, torch.cat([baseline, ids, texts]))
    others = torch.stack(states)
    chosen = []
    for step in range(1, _N_WORDS + 1):
        on_line = start + step / (_N_WORDS + 1) * (end - start)
        distances = (others - on_line).norm(dim=-1).masked_fill(texts == ids, math.inf)
        chosen.append(words[distances.argmin(0)].where(moves[0], ids[0]))
    return torch.stack(chosen)


def _words(tower: Any) -> Tensor:
    """Ids (W,) of the words of captions that are single tokens."""
    prepared = tower.prepare(list(CAPTION_WORDS))
    tokens = [[token for unit in axis.units for token in unit.tokens] for axis in prepared.axes]
    single = [
        row[own[0]] for row, own in zip(prepared.inputs, tokens, strict=True) if len(own) == 1
    ]
    if not single:
        raise ValueError(
            f"none of the words {', '.join(CAPTION_WORDS[:3])}, ... is a single token of the model"
        )
    return torch.stack(single)


def _propagated(path: Path, layer: Any, ids: Tensor) -> Tensor:
    """Hidden states (N, T, F) at a layer of N texts, given by token ids (N, T)."""
    extras = (repeat_rows(extra, len(ids)) for extra in path.extras)
    return path.tower.features(layer, ids, *extras)[0]


def _speeds(path: Path) -> Tensor:
    """Each word goes a power of time of its way, from ``t**(1/3)`` (first) to ``t**3`` (last)."""
    start, end = _ends(path)
    powers = start.new_ones(len(start), 1)
    powers[_moving(path), 0] = 3.0 ** torch.linspace(-1, 1, len(_moving(path))).to(start)
    times = torch.linspace(0, 1, _N_SEGMENTS + 1).tolist()
    return torch.stack([start + time**powers * (end - start) for time in times]).unsqueeze(0)


def _arc(path: Path) -> Tensor:
    """Half a circle over each token's straight line, in a random direction of its space."""
    start, end = _ends(path)
    half = (end - start) / 2
    along = F.normalize(half, dim=-1)
    away = torch.randn(half.shape, generator=torch.Generator().manual_seed(0)).to(half)
    away = F.normalize(away - (away * along).sum(-1, keepdim=True) * along, dim=-1)
    away = away * half.norm(dim=-1, keepdim=True)
    angles = torch.linspace(0, math.pi, _N_SEGMENTS + 1).tolist()
    points = [start + (1 - math.cos(a)) * half + math.sin(a) * away for a in angles[:-1]]
    return torch.stack([*points, end]).unsqueeze(0)


PATHS: Mapping[str, Callable[[Path], Tensor]] = {
    "straight": _straight,
    "left_to_right": lambda path: _in_order(path, _moving(path)).unsqueeze(0),
    "right_to_left": lambda path: _in_order(path, _moving(path)[::-1]).unsqueeze(0),
    "random_orders": _random_orders,
    "vocabulary": _vocabulary,
    "monotone_vocabulary": lambda path: _vocabulary(path, monotone=True),
    "speeds": _speeds,
    "arc": _arc,
}
"""From the straight path of a text to the points of other ones, (R, M + 1, T, F): R paths of M
straight segments, over which factors are averaged.

- ``left_to_right``, ``right_to_left``, ``random_orders``: one token, here a word, goes at a
  time from the baseline to its place, while the others stay where they are. Its factor is the
  difference of the embeddings before and after, so no gradient is taken. Random: the mean of 8
  orders, which estimates the Shapley values of the words in ``h``.
- ``vocabulary``: every word goes through three other words: those that captions of generated
  scenes are made of (``datasets.scenes.CAPTION_WORDS``) whose embeddings are nearest to the points
  at 1/4, 1/2 and 3/4 of the straight line; only words of a single token are taken. At later
  layers, the points are the hidden states of the texts of these words.
- ``monotone_vocabulary``: the same words, with every coordinate that leaves the range between the
  previous point and the text set to the nearest value in it. Source: discretised integrated
  gradients, Sanyal and Ren, EMNLP 2021 (arXiv 2108.13654), which takes monotone paths near words
  too, but chooses the words otherwise.
- ``speeds``: all words go straight, but at different speeds: a word has gone the share
  :math:`t^p` of its way at time t, with p from 1/3 for the first word to 3 for the last one.
- ``arc``: each token leaves its straight line by half a circle, in a random direction.

Curves are taken as 8 segments."""


def check_text_path(name: Any, options: Mapping[str, Any]) -> None:
    """Check the name of a path and the options of :func:`explain_along`.

    Raises:
        ValueError: If there is no such path, or it cannot be combined with an option.
    """
    if name not in PATHS:
        raise ValueError(f"text_path must be one of {', '.join(PATHS)}, but got {name!r}")
    others = sorted(options.keys() - set(OPTIONS))
    if others:
        raise ValueError(
            f"text_path can be combined with {', '.join(OPTIONS)}, but got {', '.join(others)}"
        )
    if not isinstance(options.get("n_steps", 1), int):
        raise ValueError(
            f"with a text_path, n_steps must be an int, but got {options['n_steps']!r}"
        )


def explain_along(
    wrapper: DualEncoderWrapper, record: Record, name: str, **options: Any
) -> tuple[InteractionMap, InteractionMap]:
    """The map of a record's phrases along a path of the text, and that along the straight path.

    Args:
        wrapper (DualEncoderWrapper): The model.
        record (Record): An image and its caption.
        name (str): One of :data:`~captum_interactions.evaluation.studies.text_paths.PATHS`.
        options: Of second-order integrated gradients: ``layers``, ``n_steps``, ``method``,
            ``normalization`` and ``baselines``. The straight paths have ``n_steps`` nodes; the
            segments of another path share them, and have at least 4.

    Returns:
        tuple: both maps; their tokens of the text are the phrases of the caption and what is left.

    Raises:
        ValueError: If the path leads along words of the vocabulary, and none is a single token.
    """
    n_steps = options.get("n_steps", wrapper.default_n_steps)
    method = options.get("method", "gausslegendre")
    normalization = options.get("normalization", wrapper.normalizations[0])
    layers = SecondOrderIntegratedGradients(
        wrapper, options.get("layers"), normalization=normalization
    ).layers
    pair = wrapper.prepare(record.image, record.caption, truncation=True)
    (axis_a,), (axis_b,) = pair.axes_a, pair.axes_b
    assert isinstance(axis_b, TextAxis)  # a caption has characters
    weights, merged = axis_b.merged(*phrase_spans([record]))
    rest: tuple[Any, ...] = (method, 1e-3, None, False)
    with explaining(wrapper):
        a, b = paths_of_pairs(
            wrapper, layers, pair.inputs, options.get("baselines"), pair.additional_forward_args,
            normalization=normalization,
        )  # fmt: skip
        with torch.no_grad():
            lines = PATHS[name](b)
        of_segment = max(math.ceil(n_steps / (lines.shape[1] - 1)), _MIN_STEPS)
        with products_along((b,), of_segment, *rest) as products:
            along = torch.stack([_factors(products, b, line) for line in lines]).mean(0)
        with products_along((a, b), n_steps, *rest) as products:
            groups = torch.from_numpy(weights).to(along)
            factors = groups @ torch.stack([along, products.factors(b)[0]])  # (2, G, K)
            cotangents = torch.cat([factors.flatten(0, 1), b.baseline_embedding]).unsqueeze(1)
            rows = products.pull_back(a, cotangents)
    main_a, interactions = rows[-1], rows[:-1, 0].unflatten(0, factors.shape[:2])
    n_tokens = interactions.shape[-1]
    settings = {"n_steps": n_steps, "method": method, "layers": list(layers)}
    found = []
    for own, values in zip(factors, interactions, strict=True):
        parts = Decomposition(
            (a.baseline_embedding * b.baseline_embedding).sum(-1),
            main_a,
            a.baseline_embedding @ own.T,
            values.T.unsqueeze(0),
            (a.embedding * b.embedding).sum(-1),
        )
        found.append(
            InteractionMap(
                interactions=parts.interactions[0].float().cpu(),
                main_effects_a=parts.main_effects_a[0].float().cpu(),
                main_effects_b=parts.main_effects_b[0].float().cpu(),
                constant=float(parts.constant[0]),
                score=float(parts.score[0]),
                convergence_delta=float(parts.convergence_delta[0]),
                axis_a=wrapper.tower_a.axis_at(layers[0], axis_a, n_tokens),
                axis_b=merged,
                settings=settings,
            )
        )
    return found[0], found[1]


def _factors(products: Products, path: Path, points: Tensor) -> Tensor:
    """Factors (T, K) along the segments between points (M + 1, T, F)."""
    with torch.no_grad():
        context = (repeat_rows(value, len(points)) for value in path.context)
        changes = path.function(points, *context).diff(dim=0)
    total = changes.new_zeros(points.shape[1], changes.shape[1])
    for (start, end), change in zip(itertools.pairwise(points), changes, strict=True):
        moving = (start != end).any(-1).nonzero().flatten()
        if len(moving) == 1:  # the whole change is its factor
            total[moving] += change
        else:
            segment = replace(path, features=end.unsqueeze(0), baselines=(start.unsqueeze(0),))
            total += products.factors(segment)[0]
    return total


def compared(
    along: InteractionMap, straight: InteractionMap, record: Record
) -> list[dict[str, Any]]:
    """How the maps of each readable phrase differ between two paths.

    Returns:
        list: one mapping per phrase: ``correlation`` of the patches' values (Pearson's; None if a
        map is constant); whether the strongest patch is another one (``moved``); and whether the
        sum over the phrase's own boxes has another sign (``flipped``).
    """
    axis = image_axis(along)
    found = []
    for phrase in readable(along, record):
        own, other = (np.asarray(one.heatmap(phrase.span), np.float64) for one in (along, straight))
        region = covered(axis, phrase)
        varies = own.std() > 0 and other.std() > 0
        found.append(
            {
                "correlation": float(np.corrcoef(own.flat, other.flat)[0, 1]) if varies else None,
                "moved": bool(own.argmax() != other.argmax()),
                "flipped": bool(((own * region).sum() > 0) != ((other * region).sum() > 0)),
            }
        )
    return found


_COLUMNS = (
    "setting", "records", "phrases", "PGE median", "PGE from", "PGE to", "PGA", "chance median",
    "correlation", "correlation from", "correlation to",
    "other strongest patch", "strongest from", "strongest to",
    "other sign", "sign from", "sign to", "error, thousandths", "seconds",
)  # fmt: skip


def table_of_paths(by_setting: Mapping[str, Sequence[Row]]) -> Table:
    """Localisation along each path, and how its maps differ from those along the straight path."""
    return Table(
        _COLUMNS,
        [_cells(setting, rows) for setting, rows in by_setting.items()],
        "Against the straight path of the same text, for the map of each phrase: correlation of "
        "the patches' values (median), share of phrases whose strongest patch is another one, and "
        "whose sum over their own boxes has another sign. Error: how much all parts of a map miss "
        "the score by (median, in thousandths). Phrases on which a map is undefined count as "
        "chance. Intervals: images drawn anew, Wilson's for shares.",
        details=("records", "phrases", "chance median", "seconds"),
    )


def _cells(setting: str, rows: Sequence[Row]) -> list[Any]:
    phrases = counted(rows)
    energy, images = [one["pge"] for one in phrases], [one["cluster"] for one in phrases]
    changes = [(one, row.cluster) for row in rows for one in row.values.get("changes", ())]
    clusters = [cluster for _, cluster in changes]
    correlations = [one["correlation"] for one, _ in changes]
    return [
        setting, len(rows), len(phrases), median(energy), *bootstrap_interval(energy, images),
        mean(one["pga"] for one in phrases), median(one["chance"] for one in phrases),
        median(correlations), *bootstrap_interval(correlations, clusters),
        *proportion([one["moved"] for one, _ in changes], clusters),
        *proportion([one["flipped"] for one, _ in changes], clusters),
        median(1000 * abs(row.values["delta"]) for row in rows),
        mean(row.seconds for row in rows),
    ]  # fmt: skip
