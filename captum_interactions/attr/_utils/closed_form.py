"""Factors of paths at a last block whose derivatives are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr._utils.path import Path
from captum_interactions.encoders.model.post_norm_path import MeanAlong
from captum_interactions.encoders.wrapper import widen
from captum_interactions.functional import Quadrature

_SAME = 1e-3
"""Largest difference from the model's own embedding, of its largest number."""


def factors_in_closed_form(
    path: Path, rule: Quadrature, on_example: Callable[[], object]
) -> Tensor | None:
    """Factors (B, G, K); None if the model does more than average the last block's outputs.

    Args:
        path (Path): The paths of B inputs.
        rule (Quadrature): Nodes and weights.
        on_example (Callable): Called after each example and baseline, for a progress bar.
    """
    total: Tensor | None = None
    for baseline in path.baselines:
        mean_of = path.tower.mean_along(path.layer, baseline, path.features, *path.tower_context)
        if mean_of is None:
            return None
        examples = []
        for row in range(len(path.features)):
            tokens, mean = mean_of(row)
            own = _factors_of(path, row, mean, rule)
            if own is None:
                return None
            full = own.new_zeros(path.token_mask.shape[1], own.shape[1])
            examples.append(full.index_copy(0, tokens, own))
            on_example()
        part = torch.stack(examples)
        total = part if total is None else total + part
    assert total is not None
    factors = total / len(path.baselines) * path.token_mask.unsqueeze(-1)
    return factors if path.groups is None else path.groups @ factors


def _factors_of(path: Path, row: int, mean: MeanAlong, rule: Quadrature) -> Tensor | None:
    """Factors of the tokens of one example, (T, K)."""
    tower: Any = path.tower  # one with ``project``
    norms = [norm[row : row + 1] for norm in path.norms]

    def head(states: Tensor) -> Tensor:
        return path.scale(tower.project(states, *path.tower_context), *norms)

    nodes, weights = (one.to(path.features) for one in rule)
    with torch.no_grad():
        # Another pooling, or a hook behind the block, shows in the embedding.
        end, expected = head(mean.mean(torch.ones_like(nodes[:1])))[0], path.embedding[row]
        if not (end - expected).abs().max() <= _SAME * expected.abs().max():
            return None
        means, derivatives = mean.derivatives(nodes)
    with torch.enable_grad():
        states = means.repeat_interleave(derivatives.shape[1], 0).requires_grad_()
        embeddings = head(states)
        cotangents = torch.zeros_like(embeddings, requires_grad=True)
        (back,) = torch.autograd.grad(embeddings, states, cotangents, create_graph=True)
        (products,) = torch.autograd.grad(back, cotangents, derivatives.flatten(0, 1))
    return torch.einsum("n,ntk->tk", weights, widen(products).unflatten(0, derivatives.shape[:2]))
