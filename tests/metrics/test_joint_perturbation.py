"""Insertion and deletion over both inputs at once, against slow greedy search and by hand."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from captum_interactions.functional import Decomposition
from captum_interactions.metrics import insertion_deletion_area, joint_curves


def parts_of(n_a, n_b, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    a, b, pairs = (
        torch.randn((batch, *n), generator=generator, dtype=torch.float64)
        for n in ((n_a,), (n_b,), (n_a, n_b))
    )
    return Decomposition(torch.zeros(batch), a, b, pairs, torch.zeros(batch))


def score_of(parts):
    """A model that does just what the parts say."""

    def score(present_a, present_b):
        a, b = present_a.double(), present_b.double()
        main_a, main_b = parts.main_effects_a.double(), parts.main_effects_b.double()
        main = a @ main_a.unsqueeze(2) + b @ main_b.unsqueeze(2)
        return main.squeeze(2) + ((a @ parts.interactions.double()) * b).sum(2)

    return score


def slow_greedy(parts, row, fixed, sign):
    """Coalitions of each size, as sets of players; those of b are counted on from those of a."""
    a, b, pairs = (x[row] for x in (parts.main_effects_a, parts.main_effects_b, parts.interactions))
    n_a, n = len(a), len(a) + len(b)

    def worth(those):
        there = those | fixed
        total = sum(float(a[i] if i < n_a else b[i - n_a]) for i in there)
        for i, j in combinations(sorted(there), 2):
            if i < n_a <= j:
                total += float(pairs[i, j - n_a])
        return sign * total

    players = set(range(n)) - fixed
    found = [set()]
    chains = [{start} for start in players]
    for _ in players:
        found.append(max(chains, key=worth))
        chains = [max((c | {p} for p in players - c), key=worth, default=c) for c in chains]
    return [those | fixed for those in found]


def test_greedy_coalitions():
    parts = parts_of(4, 3, batch=2)
    players_a, players_b = torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    players_a[1, 2] = players_b[1, 0] = False
    seen = []

    def score(present_a, present_b):
        seen.append(torch.cat([present_a, present_b], 2))
        return score_of(parts)(present_a, present_b)

    joint_curves(score, parts, players_a, players_b, n_steps=7)
    for present, sign in zip(seen, (1, -1), strict=True):
        for row, fixed in enumerate((set(), {2, 4})):
            expected = slow_greedy(parts, row, fixed, sign)
            found = [set(one.nonzero().flatten().tolist()) for one in present[row]]
            assert [those for those in expected if those in found] == expected
            assert all(those in expected for those in found)


def test_areas_by_hand():
    weights = torch.tensor([[4.0, 1.0]])
    parts = Decomposition(
        torch.zeros(1), weights, torch.tensor([[-1.0]]), torch.zeros(1, 2, 1), torch.zeros(1)
    )
    best, worst = joint_curves(score_of(parts), parts)
    assert best.present[0].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert best.scores.tolist() == [[0, 4, 5, 4]]
    assert worst.scores.tolist() == [[0, -1, 0, 4]]
    assert float(insertion_deletion_area(best, worst)) == pytest.approx((5 + 5) / 3 / 4)


def test_a_right_map_is_best_and_its_reverse_worst():
    parts = parts_of(6, 4, seed=1)
    score = score_of(parts)
    reverse = parts._replace(
        main_effects_a=-parts.main_effects_a, main_effects_b=-parts.main_effects_b,
        interactions=-parts.interactions,
    )  # fmt: skip
    without = parts._replace(interactions=torch.zeros_like(parts.interactions))

    def area(claimed):
        best, worst = joint_curves(score, claimed)
        return float(torch.trapezoid(best.scores - worst.scores, best.present))

    assert area(parts) > area(without) > 0
    assert area(reverse) == pytest.approx(-area(parts))
    others = [area(parts_of(6, 4, seed=seed)) for seed in range(2, 22)]
    assert area(parts) > max(others)
    assert abs(sum(others) / 20) < 0.5 * area(parts)


def test_equal_ends_have_no_area():
    parts = parts_of(2, 2)
    curves = joint_curves(lambda a, b: a.double().sum(2) * 0, parts)
    assert math.isnan(float(insertion_deletion_area(*curves)))


def test_steps():
    parts = parts_of(5, 3, batch=2)
    players = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    best, _ = joint_curves(score_of(parts), parts, players, n_steps=4)
    assert best.present.tolist() == [
        [0, 0.25, 0.5, 0.75, 1], pytest.approx([0, 2 / 6, 3 / 6, 5 / 6, 1])
    ]  # fmt: skip


def test_bad_input():
    parts = parts_of(3, 2)
    with pytest.raises(ValueError, match=r"interactions must be of shape \(1, 3, 2\)"):
        joint_curves(score_of(parts), parts._replace(interactions=torch.zeros(1, 2, 3)))
    with pytest.raises(ValueError, match="main effects of a hold NaN"):
        joint_curves(
            score_of(parts), parts._replace(main_effects_a=parts.main_effects_a * math.nan)
        )
    with pytest.raises(ValueError, match="n_steps must be an int of at least 1"):
        joint_curves(score_of(parts), parts, n_steps=0)
