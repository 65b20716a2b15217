"""Averages, proportions and differences of what was measured, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
FEW = 30
"""Medians of fewer values are reported as such."""


class Estimate(NamedTuple):
    """A value and its confidence interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """How two paired samples differ."""

    n: int
    """Pairs in which both values are defined."""
    value: float | None
    """Mean of the first minus the second."""
    low: float | None
    high: float | None
    p: float | None
    """Two-sided p-value of the hypothesis of no difference, not corrected."""


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
        clusters: Which values are not independent, as those of one image are: whole clusters are
            drawn. Default: every value by itself
        statistic: Of an array. Default: the median
        level: Share of resamples within the interval. Default: 0.95
        n_resamples: Default: 1000
        seed: Default: 0

    Returns:
        tuple: lower and upper end; None, None if there are fewer than two clusters.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    groups = _clustered(values, clusters)
    if len(groups) < 2:
        return None, None
    draws = _draws(len(groups), n_resamples, seed)
    return _percentiles(
        [statistic(np.concatenate([groups[i] for i in draw])) for draw in draws], level
    )


def mean_estimate(
    values: Sequence[Any],
    clusters: Sequence[Any] | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean of the defined values, with the interval that :func:`bootstrap_interval` gives it."""
    groups = _clustered(values, clusters)
    if len(groups) < 2:
        return Estimate(mean(values), None, None)
    sums, sizes = np.array([(group.sum(), len(group)) for group in groups]).T
    draws = _draws(len(groups), n_resamples, seed)
    found = sums[draws].sum(1) / sizes[draws].sum(1)
    return Estimate(float(sums.sum() / sizes.sum()), *_percentiles(found, level))


def proportion_interval(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a proportion, which has a width at 0 and 1 too.

    Args:
        successes: How many of the trials succeeded, from 0 to ``n``.
        n: Number of independent trials, or the effective number, which need not be whole.
        level: Coverage of the interval. Default: 0.95

    Returns:
        tuple: lower and upper end.

    Raises:
        ValueError: If there is no trial, or a number is out of range.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA
    1927.

    Examples:
        >>> low, high = proportion_interval(67, 67)
        >>> f"{low:.3f}, {high:.3f}"
        '0.946, 1.000'
    """
    if not 0 <= successes <= n or not n > 0 or not 0 < level < 1:
        raise ValueError(
            f"a proportion needs 0 <= successes <= n, n > 0 and a level between 0 and 1, but got "
            f"{successes}, {n} and {level}"
        )
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    p = successes / n
    centre, half = p + z2 / (2 * n), np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n**2)))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    # Where nothing or everything succeeded, that is an end, but for rounding.
    return (0.0 if p == 0 else float(low)), (1.0 if p == 1 else float(high))


def proportion(
    flags: Sequence[Any], clusters: Sequence[Any] | None = None, *, level: float = 0.95
) -> Estimate:
    """Share of true flags, with Wilson's interval for as many trials as the clusters are worth.

    The effective number of trials is the number of flags over the design effect: the variance of
    the share, estimated between clusters, over that of independent flags; at least 1. Where all
    clusters have the same share there is no such variance, and each counts as one trial.

    Args:
        flags: True, false, or None where undefined, which is left out.
        clusters: Which flags are not independent. Default: every flag by itself
        level: Coverage of the interval. Default: 0.95

    Source: Kish, "Survey Sampling", 1965, for the effective sample size; Franco, Little, Louis and
    Slud, "Comparative study of confidence intervals for proportions in complex sample surveys",
    J. Survey Statistics and Methodology 2019, for Wilson's interval with it.
    """
    groups = _clustered(flags, clusters)
    if not groups:
        return Estimate(None, None, None)
    sums, sizes = np.array([(group.sum(), len(group)) for group in groups]).T
    n, count = float(sizes.sum()), len(groups)
    share = float(sums.sum() / n)
    deviations = float(np.square(sums - share * sizes).sum())
    effective = float(count)
    # Sums that differ by less than 1e-12 of their sizes, by rounding that is, are of equal shares.
    if deviations > 1e-24 * float(np.square(sizes).sum()) and count > 1:
        variance = deviations / n**2 * count / (count - 1)
        effective = n / max(variance * (n - 1) / (share * (1 - share)), 1.0)
    return Estimate(share, *proportion_interval(share * effective, effective, level))


def paired_difference(
    first: Sequence[Any], second: Sequence[Any], clusters: Sequence[Any], *, seed: int = 0
) -> Difference:
    """Mean difference of two values of the same things, with its interval and p-value.

    The interval is a bootstrap of clusters. The p-value is that of the sign-flip test: the sums of
    clusters get random signs, which changes nothing in distribution if the two do not differ.

    Args:
        first, second: Values of the same things, in the same order; None and NaN are undefined.
        clusters: Which things are not independent.
        seed: Default: 0

    Source: Fisher, "The Design of Experiments", 1935, section 21.
    """
    differences = [
        a - b if a is not None and b is not None else None
        for a, b in zip(first, second, strict=True)
    ]
    groups = _clustered(differences, clusters)
    n = sum(map(len, groups))
    value, low, high = mean_estimate(differences, clusters, seed=seed)
    if len(groups) < 2:
        return Difference(n, value, low, high, None)
    sums = np.array([group.sum() for group in groups])
    rng = np.random.default_rng(seed)
    at_once = max(1, _N_SIGNS // len(sums))
    n_extreme = 0
    for start in range(0, _N_FLIPS, at_once):
        signs = rng.choice((-1.0, 1.0), size=(min(at_once, _N_FLIPS - start), len(sums)))
        # Sums that are equal but for rounding count as equal.
        n_extreme += int((np.abs(signs @ sums) >= abs(sums.sum()) * (1 - 1e-9)).sum())
    return Difference(n, value, low, high, (1 + n_extreme) / (1 + _N_FLIPS))


_N_FLIPS = 4999
_N_SIGNS = 2**20
"""Random signs that are in memory at once."""


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number by Holm's step-down method; None stays None.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics
    1979.

    Examples:
        >>> holm([0.01, 0.04, None, 0.03])
        [0.03, 0.06, None, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        found[place] = highest
    return found


def holm_note(p_values: Sequence[float | None]) -> str:
    """What a caption says of p-values that :func:`holm` corrected: how many there are.

    Examples:
        >>> holm_note([0.03, None, 0.06])
        "corrected by Holm's method (number of comparisons: 2)"
    """
    n_comparisons = sum(p is not None for p in p_values)
    return f"corrected by Holm's method (number of comparisons: {n_comparisons})"


def matched_difference(
    first: Sequence[Any],
    second: Sequence[Any],
    covariates: tuple[Sequence[float], Sequence[float]],
    clusters: tuple[Sequence[Any], Sequence[Any]],
    *,
    n_strata: int = 5,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean difference of two samples at equal values of a covariate, such as the objects' size.

    Both are cut into strata at quantiles of the covariate. Differences within strata are averaged,
    weighted by how many values of both there are; strata that one sample lacks do not count.

    Args:
        first, second: Values of either sample; None and NaN are left out.
        covariates: Of either sample.
        clusters: Of either sample; they are drawn anew in both for the interval.
        n_strata: Default: 5
        n_resamples: Default: 1000
        seed: Default: 0

    Returns:
        Estimate: second minus first; undefined if no stratum holds values of both. There is no
        interval if either sample has fewer than two clusters.

    Source: direct standardisation, Rosenbaum and Rubin, "Reducing bias in observational studies
    using subclassification on the propensity score", JASA 1984.
    """
    every = np.concatenate([np.asarray(one, np.float64) for one in covariates])
    edges = np.quantile(every, np.linspace(0, 1, n_strata + 1)[1:-1])
    totals = []
    for values, covariate, names in zip((first, second), covariates, clusters, strict=True):
        strata = np.searchsorted(edges, np.asarray(covariate, np.float64), side="right")
        of_cluster: dict[Any, Floats] = {}
        for value, stratum, name in zip(values, strata, names, strict=True):
            if value is not None and not np.isnan(value):
                own = of_cluster.setdefault(name, np.zeros((2, n_strata)))
                own[:, stratum] += value, 1.0
        totals.append(np.stack(list(of_cluster.values())) if of_cluster else np.zeros((1, 2, 1)))

    def difference(*sums: Floats) -> float:
        (sum_1, n_1), (sum_2, n_2) = sums
        both = (n_1 > 0) & (n_2 > 0)
        if not both.any():
            return float("nan")
        gaps = sum_2[both] / n_2[both] - sum_1[both] / n_1[both]
        return float(np.average(gaps, weights=(n_1 + n_2)[both]))

    value = difference(*(own.sum(0) for own in totals))
    if np.isnan(value):
        return Estimate(None, None, None)
    if min(map(len, totals)) < 2:
        return Estimate(value, None, None)
    rng = np.random.default_rng(seed)
    found = [
        difference(*(own[rng.integers(len(own), size=len(own))].sum(0) for own in totals))
        for _ in range(n_resamples)
    ]
    return Estimate(value, *_percentiles(numbers(found), 0.95))


def notes_of_few(counts: Mapping[str, int]) -> list[str]:
    """What a summary says of medians of fewer than :data:`FEW` values, if there are any.

    Args:
        counts: Number of values behind each median, by what it is the median of.
    """
    few = [f"{name} ({n})" for name, n in counts.items() if n < FEW]
    if not few:
        return []
    return [f"Medians of fewer than {FEW} values, to be read with care: {', '.join(few)}."]


def _clustered(values: Sequence[Any], clusters: Sequence[Any] | None) -> list[Floats]:
    """The defined values of each cluster that has any."""
    names = range(len(values)) if clusters is None else clusters
    grouped: dict[Any, list[Any]] = {}
    for name, value in zip(names, values, strict=True):
        grouped.setdefault(name, []).append(value)
    return [found for found in map(numbers, grouped.values()) if len(found)]


def _draws(n: int, n_resamples: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(n, size=(n_resamples, n))


def _percentiles(values: Sequence[float] | Floats, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
