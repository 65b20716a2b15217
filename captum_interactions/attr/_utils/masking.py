"""Embeddings of inputs with some of their tokens or groups replaced by baselines."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_interactions.attr._utils.arguments import check_batch_size
from captum_interactions.attr._utils.path import Path
from captum_interactions.encoders.towers.base import take_rows
from captum_interactions.encoders.wrapper import widen


def removable(path: Path) -> Tensor:
    """Which tokens or groups can influence the embedding, bool of shape (B, G).

    Raises:
        ValueError: If groups share tokens, so that removing one removes a part of another.
    """
    mask = path.token_mask > 0
    if path.groups is None:
        return mask
    weights = path.groups
    if weights.min() < 0 or weights.sum(1).max() > 1 + 1e-4:
        raise ValueError(
            f"groups_{path.name} are removed one by one, so they must not share tokens, and their "
            "weights must be from 0 to 1"
        )
    return (weights * mask.unsqueeze(1)).sum(-1) > 0


def masked_embeddings(
    path: Path,
    present: Tensor,
    internal_batch_size: int | None = None,
    show_progress: bool = False,
) -> Tensor:
    """Embeddings with tokens or groups at their baseline where ``present`` is 0.

    Features are replaced by those of the baseline at the path's layer; features of no token or
    group stay. With several baselines, embeddings are averaged over them.

    Args:
        path (Path): B inputs of one tower, with their baselines.
        present (Tensor): 1 for what stays, shape (M, B, G).
        internal_batch_size (int, optional): Maximum number of rows that go through the tower at
            once. Default: all ``M * B`` of them
        show_progress (bool): Show a progress bar of these calls. Default: False

    Returns:
        Tensor: scaled embeddings, shape (M, B, K).

    Raises:
        ValueError: If ``internal_batch_size`` is less than 1.
    """
    check_batch_size(internal_batch_size)
    n_masks, n_examples = present.shape[:2]
    n_rows = n_masks * n_examples
    size = internal_batch_size or n_rows
    absent = (1 - present).to(path.token_mask)
    if path.groups is not None:
        absent = (absent.unsqueeze(-2) @ path.groups).squeeze(-2)
    absent = absent.flatten(0, 1)
    features = widen(path.features)
    differences = [features - widen(baseline) for baseline in path.baselines]
    chunks = []
    with torch.no_grad():
        starts = range(0, n_rows, size)
        for first in tqdm(starts, f"Encoder {path.name}", disable=not show_progress):
            rows = torch.arange(first, min(first + size, n_rows), device=features.device)
            examples = rows % n_examples
            context = take_rows(path.context, examples)
            weights = path.tower.spread(path.layer, absent[rows], path.features.shape)
            total = torch.zeros((), device=features.device)
            for difference in differences:
                masked = features[examples] - weights * difference[examples]
                total = total + path.function(masked.to(path.features.dtype), *context)
            chunks.append(total / len(differences))
    return torch.cat(chunks).reshape(n_masks, n_examples, -1)
