"""Pointing games and segmentation: by hand, by pixels, at chance, at their best, and undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, jaccard_score

from captum_interactions.metrics import (
    average_precision,
    best_level,
    chance_level,
    mean_iou,
    point_game_accuracy,
    point_game_energy,
    shuffled_level,
)

METRICS = [point_game_energy, point_game_accuracy, mean_iou, average_precision]


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pixels(maps, regions, per_patch):
    """Each patch as pixels, the covered ones of which number ``share * per_patch``."""
    values = maps.repeat_interleave(per_patch, 1)
    inside = torch.arange(per_patch) < (regions * per_patch).round().unsqueeze(2)
    return values, inside.flatten(1).double()


def test_energy_by_hand():
    maps = torch.tensor([[[2.0, -3.0], [1.0, 1.0]]])
    regions = torch.tensor([[[1.0, 1.0], [0.5, 0.0]]])
    assert point_game_energy(maps, regions).tolist() == [2.5 / 4]
    assert point_game_energy(maps, regions, "negative").tolist() == [1.0]
    assert point_game_energy(maps, regions, "absolute").tolist() == [5.5 / 7]


def test_accuracy_by_hand():
    maps = torch.tensor([[1.0, 3.0, -4.0], [2.0, 2.0, 1.0]])
    regions = torch.tensor([[0.0, 0.25, 1.0], [1.0, 0.0, 1.0]])
    assert point_game_accuracy(maps, regions).tolist() == [0.25, 0.5]
    assert point_game_accuracy(maps, regions, "negative")[0] == 1
    assert point_game_accuracy(maps, regions, "absolute").tolist() == [1.0, 0.5]
    assert point_game_accuracy(maps, (regions >= 0.5).float()).tolist() == [0.0, 0.5]


@pytest.mark.parametrize("metric", METRICS)
def test_partly_covered_patches_are_pixels(metric):
    maps = randn(6, 9)
    regions = (rand(6, 9, seed=1) * 8).round() / 8
    # As many pixels per patch keep the mean of the map, which mean_iou cuts at.
    expected = metric(*pixels(maps, regions, 8))
    torch.testing.assert_close(metric(maps, regions), expected)


@pytest.mark.parametrize("metric", [point_game_energy, point_game_accuracy])
def test_chance_of_random_maps(metric):
    regions = torch.tensor([[1.0, 0.5, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    values = metric(randn(20_000, 10), regions.expand(20_000, -1))
    values = values[~values.isnan()]  # one map in 1024 has no positive value
    error = values.std() / len(values) ** 0.5
    assert chance_level(regions).item() == pytest.approx(0.15)
    assert abs(values.mean() - 0.15) < 4 * error


@pytest.mark.parametrize("metric", [point_game_energy, point_game_accuracy, average_precision])
def test_constant_maps_have_the_chance_level(metric):
    regions = rand(5, 4, 3)
    torch.testing.assert_close(metric(torch.ones(5, 4, 3), regions), chance_level(regions))


@pytest.mark.parametrize("metric", METRICS)
def test_shuffled_level(metric):
    maps, regions = randn(3, 6, 6), (rand(3, 6, 6, seed=1) < 0.3).double()
    state = torch.get_rng_state()
    chance = shuffled_level(metric, maps, regions, n_shuffles=400)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(chance, shuffled_level(metric, maps, regions, n_shuffles=400))
    if metric in (point_game_energy, point_game_accuracy):
        torch.testing.assert_close(chance, chance_level(regions), atol=0.08, rtol=0)
    # The map that is the region beats it by far.
    assert (metric(regions, regions) > chance + 0.2).all()


@pytest.mark.parametrize("metric", METRICS)
def test_oracle_maps_are_perfect(metric):
    regions = (rand(4, 5, 5) < 0.4).double()
    assert metric(regions, regions).tolist() == [1.0] * 4


@pytest.mark.parametrize("metric", [point_game_energy, point_game_accuracy])
def test_best_level_of_a_small_object(metric):
    regions = torch.tensor([[0.0, 0.2, 0.1]])
    best = best_level(regions)
    assert best.item() == pytest.approx(0.2)
    torch.testing.assert_close(metric(torch.tensor([[0.0, 1.0, 0.0]]), regions), best)
    assert (metric(randn(50, 3), regions.expand(50, -1)).nan_to_num() <= best).all()


@pytest.mark.parametrize("metric", METRICS)
def test_without_a_visible_region_nothing_is_defined(metric):
    regions = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    undefined = metric(torch.tensor([[1.0, 2.0, 3.0]]).expand(2, -1), regions).isnan()
    assert undefined.tolist() == [True, False]
    for level in (chance_level, best_level):
        assert level(regions).isnan().tolist() == [True, False]


@pytest.mark.parametrize("metric", [point_game_energy, point_game_accuracy])
def test_without_mass_nothing_is_defined(metric):
    maps, regions = torch.tensor([[-1.0, 0.0, -2.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert metric(maps, regions).isnan().all()
    assert metric(-maps, regions, "negative").isnan().all()
    assert metric(0 * maps, regions, "absolute").isnan().all()
    assert not metric(maps, regions, "absolute").isnan().any()


@pytest.mark.parametrize("metric", METRICS)
def test_invariance(metric):
    maps, regions = randn(4, 12), rand(4, 12, seed=1)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    value = metric(maps, regions)
    torch.testing.assert_close(metric(maps[:, order], regions[:, order]), value)
    torch.testing.assert_close(metric(3e-9 * maps, regions), value)
    torch.testing.assert_close(metric(maps.reshape(4, 3, 4), regions.reshape(4, 3, 4)), value)
    torch.testing.assert_close(metric(maps[1:2], regions[1:2]), value[1:2])


def test_only_the_order_matters_to_average_precision():
    maps, regions = randn(4, 12), rand(4, 12, seed=1)
    torch.testing.assert_close(
        average_precision(maps, regions), average_precision(maps.exp(), regions)
    )


def test_average_precision_is_that_of_sklearn():
    maps = (randn(30, 20) * 2).round()  # with many ties
    regions = (rand(30, 20, seed=1) < 0.3).double()
    expected = [average_precision_score(r, m) for r, m in zip(regions, maps, strict=True)]
    np.testing.assert_allclose(average_precision(maps, regions), expected, rtol=1e-12)


def test_average_precision_of_parts_is_that_of_sklearn_with_weights():
    maps, regions = (randn(30, 20) * 2).round(), rand(30, 20, seed=1)
    labels = np.repeat([1, 0], 20)
    expected = [
        average_precision_score(labels, np.tile(m, 2), sample_weight=np.concatenate([r, 1 - r]))
        for r, m in zip(regions.numpy(), maps.numpy(), strict=True)
    ]
    np.testing.assert_allclose(average_precision(maps, regions), expected, rtol=1e-10)


def test_mean_iou_is_that_of_sklearn():
    maps, regions = randn(30, 20), (rand(30, 20, seed=1) < 0.3).double()
    for threshold in (None, 0.5):
        cut = maps.mean(1, keepdim=True) if threshold is None else threshold
        expected = [
            jaccard_score(r, m, average="macro")
            for r, m in zip(regions.int().numpy(), (maps > cut).int().numpy(), strict=True)
        ]
        np.testing.assert_allclose(mean_iou(maps, regions, threshold), expected, rtol=1e-12)


def test_mean_iou_by_hand():
    maps = torch.tensor([[0.9, 0.8, 0.1, 0.0]])
    regions = torch.tensor([[1.0, 0.5, 0.5, 0.0]])
    # Foreground: 1.5 of 2.5; background: 1.5 of 2.5.
    assert mean_iou(maps, regions).item() == pytest.approx(0.6)
    # One threshold a map; at 0.85 the foreground is 1 of 2 and the background 2 of 3.
    assert mean_iou(maps, regions, torch.tensor([0.85])).item() == pytest.approx(7 / 12)
    # There is no background at all.
    assert mean_iou(maps, torch.ones(1, 4), -1.0).item() == 1.0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("maps", "regions", "message"),
    [
        (torch.ones(2, 4), torch.ones(2, 5), r"same shape.*\(2, 4\) and \(2, 5\)"),
        (torch.ones(4), torch.ones(4), r"over patches, but got shape \(4,\)"),
        (torch.ones(1, 0), torch.ones(1, 0), r"over patches, but got shape \(1, 0\)"),
        (torch.tensor([[math.nan]]), torch.ones(1, 1), "NaN or infinite"),
        (torch.ones(1, 2), torch.tensor([[0.0, 1.5]]), "from 0 to 1.5"),
        (torch.ones(1, 2), torch.tensor([[math.nan, 1.0]]), "from nan to nan"),
    ],
)
def test_bad_input(metric, maps, regions, message):
    with pytest.raises(ValueError, match=message):
        metric(maps, regions)


def test_bad_options():
    maps = torch.ones(2, 3)
    with pytest.raises(ValueError, match="'positive', 'negative' or 'absolute', but got 'both'"):
        point_game_energy(maps, maps, "both")
    with pytest.raises(ValueError, match=r"one for each of 2 maps, but got shape \(3,\)"):
        mean_iou(maps, maps, torch.ones(3))
    with pytest.raises(ValueError, match="at least 1, but got 0"):
        shuffled_level(point_game_energy, maps, maps, n_shuffles=0)
