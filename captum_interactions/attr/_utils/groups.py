"""Groups of tokens, such as words, phrases and objects, as weights of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_interactions.attr._utils.arguments import Groups


def group_weights(name: str, groups: Groups | None, mask: Tensor) -> Tensor | None:
    """The weights (1 or B, G, T) of tokens in the user's groups; None if there are no groups.

    Args:
        name (str): ``"a"`` or ``"b"``, for messages.
        groups (optional): Lists of token indices, or weights (G, T) or (B, G, T).
        mask (Tensor): The token mask, shape (B, T).

    Raises:
        ValueError: If the groups are not as described, or there is none.
    """
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
