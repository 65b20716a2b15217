"""Correlations against SciPy's, with ties, batches and cases that have none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from captum_interactions.metrics import average_ranks, pearson, spearman


def samples(ties):
    values = torch.randn((2, 40, 15), generator=torch.Generator().manual_seed(0))
    return (values * 2).round() if ties else values


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(pearson, scipy.stats.pearsonr), (spearman, scipy.stats.spearmanr)]
)
def test_scipy(ours, theirs, ties):
    x, y = samples(ties)
    y = y + 0.5 * x if not ties else y
    expected = [
        theirs(a, b).statistic for a, b in zip(x.double().numpy(), y.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(ours(x, y), expected, atol=1e-12)


def test_ranks():
    assert average_ranks(torch.tensor([3.0, 1.0, 3.0, -0.0, 0.0])).tolist() == [
        4.5,
        3,
        4.5,
        1.5,
        1.5,
    ]
    x = samples(True).flatten(0, 1)
    np.testing.assert_array_equal(average_ranks(x), scipy.stats.rankdata(x, axis=-1))


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_perfect_and_opposite(correlation):
    x = samples(False)[0]
    torch.testing.assert_close(correlation(x, 3 * x + 1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(correlation(x, -x), -torch.ones(40, dtype=torch.float64))


def test_spearman_knows_only_the_order():
    x, y = samples(False)
    torch.testing.assert_close(spearman(x.exp(), y**3), spearman(x, y))


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_unrelated_values_have_none_on_average(correlation):
    x = torch.randn((2, 4000, 10), generator=torch.Generator().manual_seed(1))
    values = correlation(x[0], x[1])
    assert abs(values.mean()) < 4 * values.std() / 4000**0.5


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_undefined(correlation):
    good = torch.tensor([1.0, 2.0, 4.0])
    # The mean of three times 0.1 is not 0.1 in floating point.
    for bad in ([0.1, 0.1, 0.1], [math.nan, 1.0, 2.0], [math.inf, 1.0, 2.0]):
        assert correlation(torch.tensor(bad), good).isnan()
        assert correlation(good, torch.tensor(bad)).isnan()
    assert correlation(good[:1], good[:1]).isnan()
    assert correlation(good[:0], good[:0]).isnan()


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_leading_axes_broadcast(correlation):
    x, y = samples(False)
    table = correlation(x[:3, None], y[None, :4])
    assert table.shape == (3, 4)
    torch.testing.assert_close(table[2, 1], correlation(x[2], y[1]))


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_bad_shapes(correlation):
    with pytest.raises(ValueError, match=r"equally long, but got shapes \(2, 3\) and \(2, 4\)"):
        correlation(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(4, 3\) to correlate do not broadcast"):
        correlation(torch.ones(2, 3), torch.ones(4, 3))
    with pytest.raises(ValueError, match="last axis"):
        correlation(torch.tensor(1.0), torch.tensor(1.0))
