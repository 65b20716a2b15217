"""Averages of what was measured, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def numbers(values: Iterable[Any]) -> Floats:
    """The values that are numbers: None and NaN, which stand for undefined ones, are left out."""
    found = np.array([np.nan if value is None else float(value) for value in values], np.float64)
    return found[~np.isnan(found)]


def median(values: Iterable[Any]) -> float | None:
    """Median of the defined values; None if there is none."""
    found = numbers(values)
    return float(np.median(found)) if len(found) else None


def mean(values: Iterable[Any]) -> float | None:
    """Mean of the defined values; None if there is none."""
    found = numbers(values)
    return float(found.mean()) if len(found) else None


def quantile(values: Iterable[Any], q: float) -> float | None:
    """Quantile of the defined values; None if there is none."""
    found = numbers(values)
    return float(np.quantile(found, q)) if len(found) else None


def bootstrap_interval(
    values: Sequence[Any],
    clusters: Sequence[Any] | None = None,
    *,
    statistic: Callable[[Floats], float] = lambda x: float(np.median(x)),
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float | None, float | None]:
    """Percentile bootstrap interval of a statistic.

    Args:
        values: Measured values; None and NaN are left out.
        clusters: Which values came together, as those of one record do: whole clusters are drawn.
            Default: every value by itself
        statistic: Of an array. Default: the median
        level: Share of resamples within the interval. Default: 0.95
        n_resamples: Default: 1000
        seed: Default: 0

    Returns:
        tuple: lower and upper end; None, None if there are fewer than two clusters.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    names = list(range(len(values))) if clusters is None else list(clusters)
    grouped: dict[Any, list[Any]] = {}
    for name, value in zip(names, values, strict=True):
        grouped.setdefault(name, []).append(value)
    groups = [found for found in map(numbers, grouped.values()) if len(found)]
    if len(groups) < 2:
        return None, None
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(groups), size=(n_resamples, len(groups)))
    found = [statistic(np.concatenate([groups[i] for i in draw])) for draw in draws]
    tail = (1 - level) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)
