"""Features of baselines, kept as long as their tower stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_interactions.encoders.model.hooks import structure

_AT_MOST = 64
"""So many baselines of one kind are kept."""


class CachedBaselines:
    """Features at layers of baselines of one row, the last ones of each layer and shape.

    Args:
        tower (nn.Module): Their tower. If its parameters, buffers or hooks change, all is dropped.
    """

    def __init__(self, tower: nn.Module) -> None:
        self._features: dict[Any, list[tuple[Tensor, Tensor]]] = {}
        self._state = _state(tower)
        self.users: list[None] = []
        """One entry for each context, in any thread, that wants them."""

    def features(self, tower: Any, layer: Any, baseline: Tensor, extras: tuple[Any, ...]) -> Tensor:
        """The features (1, *F) of a baseline (1, ...), which are computed the first time."""
        state = _state(tower)
        if state != self._state:
            self._features.clear()
            self._state = state
        key = (layer, baseline.shape, baseline.dtype, baseline.device, extras)
        known = self._features.setdefault(key, [])
        for seen, features in known:
            if torch.equal(seen, baseline):
                return features
        features = tower.features(layer, baseline, *extras)[0].detach()
        known.append((baseline.clone(), features))
        del known[:-_AT_MOST]
        return features  # type: ignore[no-any-return]


@contextmanager
def caching(tower: Any) -> Iterator[None]:
    """While this holds in any thread, features of a tower's baselines are kept."""
    shared = tower.cached_baselines = tower.cached_baselines or CachedBaselines(tower)
    shared.users.append(None)
    try:
        yield
    finally:
        shared.users.pop()
        if not shared.users and tower.cached_baselines is shared:
            tower.cached_baselines = None


def _state(tower: nn.Module) -> tuple[Any, ...]:
    tensors = [*tower.parameters(), *tower.buffers()]
    return structure(tower), tuple((t.data_ptr(), t._version) for t in tensors)
