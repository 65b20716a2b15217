"""Recognition in composed images: by hand, at chance, and at its best."""

from __future__ import annotations

import math

import pytest
import torch

from captum_interactions.metrics import quadrants, recognition_chance, recognition_score


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_quadrants():
    even, odd = quadrants(4, 2), quadrants(3, 5)
    assert even.sum(0).eq(1).all()
    assert even[1].nonzero().tolist() == [[0, 1], [1, 1]]
    assert odd[2].nonzero().tolist() == [[2, 0], [2, 1]]
    assert odd.sum(0).nonzero().tolist() == [
        [row, column] for row in (0, 2) for column in (0, 1, 3, 4)
    ]
    # The published set-up: 3 × 3 corners of 7 × 7 patches, 7 × 7 quadrants of 14 × 14.
    assert quadrants(7, 7).sum((1, 2)).tolist() == [9] * 4
    assert quadrants(14, 14).sum((1, 2)).tolist() == [49] * 4
    with pytest.raises(ValueError, match="the grid is 1 × 4"):
        quadrants(1, 4)


def test_score_by_hand():
    maps = torch.tensor([[[[3.0, -1.0], [0.5, -0.5]], [[3.0, -1.0], [0.5, -0.5]]]])
    score = recognition_score(maps, quadrants(2, 2), torch.tensor([[0, 3]]))
    # Own cell upper left: 3 + 1 + 0.5 of 5 are right; lower right: 1 of 5.
    torch.testing.assert_close(score, torch.tensor([[0.9, 0.2]], dtype=torch.float64))


def test_pooled_masses_by_hand():
    """The word with the stronger map counts more: 4.5 of 5 and .2 of 1 are right."""
    strong = torch.tensor([[3.0, -1.0], [0.5, -0.5]])
    maps = torch.stack([strong, strong / 5]).unsqueeze(0)
    own = torch.tensor([[0, 3]])
    pooled = recognition_score(maps, quadrants(2, 2), own, pooled=True)
    torch.testing.assert_close(pooled, torch.tensor([4.7 / 6]).double())
    chance = recognition_chance(maps, quadrants(2, 2), own, pooled=True)
    # Of maps of 7 parts positive and 3 negative mass, whatever their scale.
    torch.testing.assert_close(chance, torch.tensor([0.7 / 4 + 0.3 * 3 / 4]).double())
    one = recognition_score(maps[:, :1], quadrants(2, 2), own[:, :1], pooled=True)
    assert one.tolist() == recognition_score(maps[:, :1], quadrants(2, 2), own[:, :1])[0].tolist()


def test_middle_patches_do_not_count():
    maps, cells, own = randn(2, 3, 5, 5), quadrants(5, 5), torch.tensor([[0, 1, 2], [3, 3, 0]])
    changed = maps.clone()
    changed[..., 2, :], changed[..., :, 2] = 100.0, -100.0
    for function in (recognition_score, recognition_chance):
        torch.testing.assert_close(function(changed, cells, own), function(maps, cells, own))


def test_one_map_serves_all_words():
    maps, cells, own = randn(2, 1, 4, 4), quadrants(4, 4), torch.tensor([[0, 1, 2], [3, 3, 0]])
    for function in (recognition_score, recognition_chance):
        expected = function(maps.expand(-1, 3, -1, -1), cells, own)
        assert torch.equal(function(maps, cells, own), expected)
    # It cannot be right of four objects at once: their scores are 1 in all if it is positive.
    scores = recognition_score(maps.abs(), cells, torch.arange(4).expand(2, 4))
    torch.testing.assert_close(scores.sum(1), torch.ones(2, dtype=torch.float64))


def test_oracle_maps_are_perfect():
    cells, own = quadrants(4, 6), torch.tensor([[0, 1, 2, 3]])
    assert recognition_score(2 * cells[own] - 1, cells, own).tolist() == [[1.0] * 4]
    assert recognition_score(cells[own], cells, own).tolist() == [[1.0] * 4]
    assert recognition_score(-cells[own], cells, own).tolist() == [[0.0] * 4]


def test_chance():
    cells, own = quadrants(4, 4).flatten(1), torch.tensor([[1]])
    maps = randn(1, 1, 16) + 0.3
    shuffled = torch.stack([maps[0, :, torch.randperm(16)] for _ in range(4000)])
    values = recognition_score(shuffled, cells, own.expand(4000, 1))
    expected = recognition_chance(maps, cells, own)
    assert abs(values.mean() - expected.item()) < 4 * values.std() / 4000**0.5
    assert recognition_chance(maps.abs(), cells, own).item() == pytest.approx(0.25)
    balanced = torch.cat([maps[..., :8], -maps[..., :8]], 2)
    assert recognition_chance(balanced, cells, own).item() == pytest.approx(0.5)


def test_scale_does_not_matter_and_a_zero_map_has_no_score():
    maps, cells, own = randn(1, 2, 4, 4), quadrants(4, 4), torch.tensor([[0, 2]])
    torch.testing.assert_close(
        recognition_score(1e-7 * maps, cells, own), recognition_score(maps, cells, own)
    )
    maps[0, 1] = 0
    for function in (recognition_score, recognition_chance):
        assert function(maps, cells, own).isnan().tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("maps", "cells", "own", "message"),
    [
        (
            torch.ones(1, 2, 4),
            torch.eye(5),
            torch.tensor([[0, 1]]),
            r"got \(1, 2, 4\) and \(5, 5\)",
        ),
        (torch.ones(2, 4), torch.eye(4), torch.tensor([[0, 1]]), r"got \(2, 4\)"),
        (torch.ones(1, 2, 4), torch.eye(4), torch.tensor([[0, 1, 2]]), r"got shape \(1, 3\) for"),
        (torch.ones(1, 2, 4), torch.eye(4), torch.tensor([0, 1]), r"got shape \(2,\)"),
        (torch.ones(1, 2, 4), torch.eye(4), torch.tensor([[0, 4]]), r"4 cells, but got \[\[0, 4\]"),
        (torch.ones(1, 2, 4), torch.eye(4), torch.tensor([[0, -1]]), "4 cells"),
        (torch.ones(1, 1, 4), torch.eye(4), torch.tensor([[0.0]]), "must be indices"),
        (torch.ones(1, 1, 4), torch.ones(2, 4), torch.tensor([[0]]), "must not overlap"),
        (torch.full((1, 1, 4), math.inf), torch.eye(4), torch.tensor([[0]]), "NaN or infinite"),
    ],
)
def test_bad_input(maps, cells, own, message):
    with pytest.raises(ValueError, match=message):
        recognition_score(maps, cells, own)
