"""Cache of the features of baselines, valid until their tower changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_interactions.encoders.model.hooks import structure

_AT_MOST = 64
"""Number of cached baselines for each layer and shape."""


class CachedBaselines:
    """Cached features of single-row baselines, the most recent ones of each layer and shape.

    Args:
        tower (nn.Module): Their tower. A change of its parameters, buffers or hooks clears the
            cache.
    """

    def __init__(self, tower: nn.Module) -> None:
        self._features: dict[Any, list[tuple[Tensor, Tensor]]] = {}
        self._state = _state(tower)
        self.users: list[None] = []
        """One entry for each active :func:`caching` context, in any thread. Lists grow and shrink
        without a lock, which a forked process could inherit locked."""

    def features(self, tower: Any, layer: Any, baseline: Tensor, extras: tuple[Any, ...]) -> Tensor:
        """The features (1, *F) of a baseline (1, ...), computed at the first call."""
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
    """Context manager in which the features of a tower's baselines are cached, in all threads."""
    # One cache also if two threads come here at once.
    shared = vars(tower).setdefault("cached_baselines", CachedBaselines(tower))
    shared.users.append(None)
    try:
        yield
    finally:
        shared.users.pop()
        if not shared.users:
            vars(tower).pop("cached_baselines", None)  # the class has None


def _state(tower: nn.Module) -> tuple[Any, ...]:
    tensors = [*tower.parameters(), *tower.buffers()]
    return structure(tower), tuple((t.data_ptr(), t._version) for t in tensors)
