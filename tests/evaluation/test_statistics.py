"""Intervals cover what they say, also of clusters; corrections and comparisons by hand."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import pytest

from captum_interactions.evaluation.statistics import (
    bootstrap_interval,
    holm,
    holm_note,
    matched_difference,
    mean,
    mean_estimate,
    notes_of_few,
    paired_difference,
    proportion,
    proportion_interval,
)


def test_wilsons_interval_solves_its_equation():
    """Its ends are where the distance to the share is 1.96 standard errors of the end itself."""
    for successes, n in ((67, 67), (0, 20), (3, 11), (450, 1000)):
        for end in proportion_interval(successes, n):
            gap = (end - successes / n) ** 2 - 1.959964**2 * end * (1 - end) / n
            assert gap == pytest.approx(0, abs=1e-6)
    assert proportion_interval(67, 67)[1] == 1.0
    assert proportion_interval(0, 20)[0] == 0.0
    assert proportion_interval(5, 10, 0.99)[0] < proportion_interval(5, 10)[0]


@pytest.mark.parametrize("arguments", [(1, 0), (3, 2), (-1, 5), (1, 2, 1.0)])
def test_what_is_no_proportion(arguments):
    with pytest.raises(ValueError, match="a proportion needs 0 <= successes <= n"):
        proportion_interval(*arguments)


def test_a_mean_has_the_interval_of_the_bootstrap():
    rng = np.random.default_rng(0)
    values, clusters = [None, *rng.standard_normal(40)], [*"abcdefgh" * 5, "i"]
    plain = bootstrap_interval(values, clusters, statistic=lambda x: float(x.mean()))
    assert mean_estimate(values, clusters) == pytest.approx((mean(values), *plain))
    assert mean_estimate([2.0, None]) == (2.0, None, None)


def images(rng, n_images, share):
    """Five values an image, each the image's own with a probability, else drawn anew."""
    own = rng.random(n_images)[:, None]
    values = np.where(rng.random((n_images, 5)) < share, own, rng.random((n_images, 5)))
    return values.ravel(), np.repeat(np.arange(n_images), 5)


def coverage(interval, truth, n=300):
    rng = np.random.default_rng(1)
    ends = [interval(*images(rng, 40, 0.9)) for _ in range(n)]
    return np.mean([low <= truth <= high for low, high in ends])


def test_intervals_of_clusters_cover_the_truth():
    """Five captions an image; without clusters, which are then ignored, they would not.

    Of 300 draws with a coverage of .95, fewer than .90 or more than .99 come once in 2,000.
    """

    def of_mean(values, names):
        return mean_estimate(values, names, n_resamples=300)[1:]

    def of_share(values, names):
        return proportion(values < 0.7, names)[1:]

    assert 0.90 <= coverage(of_mean, 0.5) <= 0.99
    assert 0.90 <= coverage(of_share, 0.7) <= 0.99
    assert coverage(lambda values, _: of_mean(values, None), 0.5) < 0.8
    assert coverage(lambda values, _: of_share(values, None), 0.7) < 0.8


def test_proportions_of_clusters_by_hand():
    flags = [True, True, False, False] * 5
    alone = proportion(flags)
    assert alone == (0.5, *proportion_interval(10, 20))
    # Pairs that always agree: a variance of 1 / 4 / 9 where independent flags have 1 / 4 / 19.
    pairs, effective = proportion(flags, np.repeat(range(10), 2).tolist()), 20 * 9 / 19
    assert pairs == pytest.approx((0.5, *proportion_interval(effective / 2, effective)))
    # With all flags alike, nothing tells how far they depend on each other.
    assert proportion([1] * 20, np.repeat(range(10), 2).tolist()) == (
        1.0, *proportion_interval(10, 10),
    )  # fmt: skip
    # So it is where all clusters have the same share: 15 of 22 is none that floats can hold.
    alike = proportion(([1] * 15 + [0] * 7) * 3, np.repeat(range(3), 22).tolist())
    assert alike == pytest.approx((15 / 22, *proportion_interval(3 * 15 / 22, 3)))
    assert proportion([True, None, True]) == (1.0, *proportion_interval(2, 2))
    assert proportion([]) == (None, None, None)


def test_paired_differences():
    first, second = [1.0, None, 2.0, 5.0, 3.0], [0.5, 1.0, None, 4.0, 3.5]
    found = paired_difference(first, second, list("abcde"))
    assert (found.n, found.value) == (3, pytest.approx(1 / 3))
    assert found.low <= found.value <= found.high
    assert paired_difference([1.0], [0.0], ["a"]) == (1, 1.0, None, None, None)


def test_the_sign_flip_test_is_that_of_all_signs():
    differences = np.array([0.3, -0.1, 0.5, 0.2, 0.4, -0.2, 0.6, 0.1])
    sums = np.array(list(product((-1, 1), repeat=8))) @ differences
    exact = np.mean(np.abs(sums) >= differences.sum() - 1e-9)
    p = paired_difference(differences, np.zeros(8), range(8)).p
    # Of 4,999 draws; five standard errors.
    assert p == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / 4999))
    # A cluster is flipped as one, so two clusters can not be significant.
    assert paired_difference(np.ones(8), np.zeros(8), [0, 1] * 4).p > 0.4


def test_signs_are_drawn_in_parts_from_one_stream():
    """5,000 images at once took 400 MB; the p-value is that of all signs drawn together."""
    differences = np.random.default_rng(1).standard_normal(1500) + 0.04
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(4999, 1500))
    together = (1 + (np.abs(signs @ differences) >= abs(differences.sum())).sum()) / 5000
    tracemalloc.start()
    try:
        found = paired_difference(differences, np.zeros(1500), range(1500))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.p == together
    assert 0.01 < together < 0.99
    assert peak < signs.nbytes


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    # What is not defined is no comparison.
    assert holm([0.01, None]) == [0.01, None]
    assert holm_note([0.01, None]).endswith("(number of comparisons: 1)")


def test_a_difference_at_equal_size_is_without_that_of_sizes():
    """Values follow the size alone, but for a gap of .1; the second sample's objects are small."""
    rng = np.random.default_rng(0)
    sizes = rng.uniform(0, 1, 800), rng.uniform(0, 0.5, 800)
    values = sizes[0] + 0.1, sizes[1]
    names = np.arange(800) // 2, np.arange(800) // 2
    raw = values[1].mean() - values[0].mean()
    found = matched_difference(*values, sizes, names, n_strata=20, n_resamples=200)
    assert raw < -0.3
    assert found.low <= found.value <= found.high
    # What is left within a stratum of a width of .05.
    assert found.value == pytest.approx(-0.1, abs=0.025)
    alike = [0.0, 0.1, 0.2], [5.0, 6.0, 7.0]
    apart = matched_difference([1.0] * 3, [2.0] * 3, alike, (range(3), range(3)), n_strata=2)
    assert apart == (None, None, None)
    assert matched_difference([], [1.0], ([], [1.0]), ([], [0])) == (None, None, None)
    # Of one image alone nothing is drawn, so nothing tells how far it is from others.
    sizes = [0.1, 0.2, 0.3]
    one_image = matched_difference(
        [1.0, 2.0, 3.0], [5.0] * 3, (sizes, sizes), ([0] * 3, range(3)), n_strata=1
    )
    assert one_image == (3.0, None, None)


def test_small_numbers_are_named():
    assert notes_of_few({"a": 30, "b": 300}) == []
    assert notes_of_few({"a": 30, "b": 29, "c": 4}) == [
        "Medians of fewer than 30 values, to be read with care: b (29), c (4)."
    ]
