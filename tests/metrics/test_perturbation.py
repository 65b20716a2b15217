"""Insertion and deletion of parts and of pairs, by hand and against plain loops."""

from __future__ import annotations

import pytest
import torch

from captum_interactions.metrics import (
    Curve,
    conditional_curve,
    first_order_pairs,
    mixed_difference,
    pair_deletion_curve,
    pair_differences,
    pair_insertion_curve,
    simultaneous_curve,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Game:
    """``s(S, T) = <g(S), h(T)>`` with g and h that are not additive; None is everything."""

    def __init__(self, n_pairs=2, n_a=5, n_b=3, seed=0):
        self.u, self.v = randn(n_pairs, n_a, 4, seed=seed), randn(n_pairs, n_b, 4, seed=seed + 1)
        self.calls = []

    def __call__(self, present_a, present_b):
        self.calls.append((present_a, present_b))
        return (self.side(self.u, present_a) * self.side(self.v, present_b)).sum(-1)

    @staticmethod
    def side(vectors, present):
        if present is None:
            present = torch.ones(vectors.shape[0], 1, vectors.shape[1], dtype=torch.bool)
        assert present.dtype == torch.bool
        return (present.to(vectors) @ vectors + 0.3).tanh()


def additive(weights_a, weights_b):
    """A score that is a sum over what is there, for one pair."""

    def score(present_a, present_b):
        parts = [
            weights.sum() if present is None else present.to(weights) @ weights
            for present, weights in ((present_a, weights_a), (present_b, weights_b))
        ]
        return parts[0] + parts[1] + torch.zeros(1, 1)

    return score


A, B = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([10.0, 20.0])


def test_conditional_by_hand():
    score = additive(A, B)
    deletion = conditional_curve(score, A[None], "a", "deletion")
    assert deletion.scores.tolist() == [[36, 33, 31, 30]]
    torch.testing.assert_close(deletion.present, torch.tensor([[1, 2 / 3, 1 / 3, 0]]))
    assert deletion.area.item() == pytest.approx((36 / 2 + 33 + 31 + 30 / 2) / 3)
    # Ten roundings of float32 (2**-24 each) of scores up to 36, of which normalising leaves 6.
    bound = 10 * 2.0**-24 * 36 / 6
    assert deletion.normalized_area.item() == pytest.approx((0.5 + 3 / 6 + 1 / 6) / 3, abs=bound)
    insertion = conditional_curve(score, A[None], "a", "insertion")
    assert insertion.scores.tolist() == [[30, 33, 35, 36]]
    assert insertion.normalized_area.item() == pytest.approx((3 / 6 + 5 / 6 + 0.5) / 3, abs=bound)
    of_b = conditional_curve(score, B[None], "b", "deletion")
    assert of_b.scores.tolist() == [[36, 16, 6]]


def test_the_other_input_stays_whole():
    game = Game()
    conditional_curve(game, randn(2, 5), "a", "deletion")
    conditional_curve(game, randn(2, 3), "b", "insertion")
    assert game.calls[0][1] is None
    assert game.calls[1][0] is None


def test_the_right_map_is_best_of_all_orders():
    score = additive(A, B)
    areas = {
        mode: [
            float(conditional_curve(score, order[None].float(), "a", mode).area)
            for order in torch.cartesian_prod(*[torch.arange(3)] * 3)
            if len(order.unique()) == 3
        ]
        for mode in ("insertion", "deletion")
    }
    right = {mode: float(conditional_curve(score, A[None], "a", mode).area) for mode in areas}
    assert right["insertion"] == max(areas["insertion"])
    assert right["deletion"] == min(areas["deletion"])
    # The worst map is the right one turned round, and the mean of all orders is the chance level.
    assert float(conditional_curve(score, -A[None], "a", "deletion").area) == max(areas["deletion"])
    assert sum(areas["deletion"]) / 6 == pytest.approx(33)


def test_random_maps_have_the_same_area_both_ways():
    score, maps = additive(A, B), torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    areas = [
        torch.stack([conditional_curve(score, m[None], "a", mode).normalized_area for m in maps])
        for mode in ("insertion", "deletion")
    ]
    for values in areas:
        assert abs(values.mean() - 0.5) < 4 * values.std() / 500**0.5


def test_only_the_order_of_a_map_matters():
    game, maps = Game(), randn(2, 5)
    curve = conditional_curve(game, maps, "a", "deletion")
    assert torch.equal(curve.scores, conditional_curve(game, maps.exp(), "a", "deletion").scores)
    assert torch.equal(
        curve.scores[1], conditional_curve(game, 9 * maps, "a", "deletion").scores[1]
    )


def test_equally_strong_parts_go_in_order():
    curve = conditional_curve(additive(A, B), torch.zeros(1, 3), "a", "deletion")
    assert curve.scores.tolist() == [[36, 33, 32, 30]]


def test_parts_that_are_no_players_stay():
    game, maps = Game(), randn(2, 5)
    players = torch.tensor([[True, False, True, True, False], [True] * 5])
    maps[0, 1] = 100.0
    for mode in ("insertion", "deletion"):
        curve = conditional_curve(game, maps, "a", mode, players)
        present = game.calls[-1][0]
        assert present[0][:, ~players[0]].all()
        assert present[0][:, players[0]].sum(1).tolist() == sorted(
            [0, 1, 1, 2, 2, 3] if mode == "insertion" else [3, 2, 2, 1, 1, 0],
            reverse=mode == "deletion",
        )
        # Shares are those that really are there, so the pair alone has nearly the same area.
        assert curve.present[0].tolist() == [n / 3 for n in present[0][:, players[0]].sum(1)]
        assert curve.present[1].tolist() == pytest.approx(
            [i / 5 for i in range(6)][:: 1 if mode == "insertion" else -1]
        )


def test_steps():
    game, maps = Game(n_a=7), randn(2, 7)
    every = conditional_curve(game, maps, "a", "deletion")
    some = conditional_curve(game, maps, "a", "deletion", n_steps=3)
    assert every.scores.shape == (2, 8)
    assert (some.present * 7).round().int().tolist() == [[7, 5, 2, 0]] * 2
    torch.testing.assert_close(some.scores, every.scores[:, [0, 2, 5, 7]])
    # More steps than parts change nothing in the area.
    more = conditional_curve(game, maps, "a", "deletion", n_steps=50)
    torch.testing.assert_close(more.area, every.area)


def test_simultaneous_against_a_loop():
    game, maps_a, maps_b = Game(), randn(2, 5), randn(2, 3, seed=5)
    curve = simultaneous_curve(game, maps_a, maps_b, "deletion")
    assert curve.scores.shape == (2, 6)
    for pair in range(2):
        for step in range(6):
            there = []
            for maps, n in ((maps_a, 5), (maps_b, 3)):
                gone = maps[pair].argsort(descending=True)[: int(n * step / 5 + 0.5)]
                there.append(~torch.isin(torch.arange(n), gone))
            a, b = game.side(game.u[pair], there[0]), game.side(game.v[pair], there[1])
            torch.testing.assert_close(curve.scores[pair, step], a @ b)
            share = (there[0].double().mean() + there[1].double().mean()) / 2
            torch.testing.assert_close(curve.present[pair, step], share)
    both = simultaneous_curve(game, -maps_a, -maps_b, "insertion")
    torch.testing.assert_close(both.scores.flip(1)[:, [0, 5]], curve.scores[:, [0, 5]])


def test_mixed_differences_are_products_of_changes():
    game = Game()
    differences = pair_differences(game, 5, 3)
    for i in range(5):
        for j in range(3):
            one_a, one_b = (torch.arange(n) != k for n, k in ((5, i), (3, j)))
            expected = (game.side(game.u, None) - game.side(game.u, one_a.expand(2, 1, -1))) * (
                game.side(game.v, None) - game.side(game.v, one_b.expand(2, 1, -1))
            )
            torch.testing.assert_close(differences[:, i, j], expected.sum((1, 2)))
    groups = torch.rand(2, 6, 5) < 0.5, torch.rand(2, 6, 3) < 0.5
    change_a = game.side(game.u, None) - game.side(game.u, ~groups[0])
    change_b = game.side(game.v, None) - game.side(game.v, ~groups[1])
    torch.testing.assert_close(mixed_difference(game, *groups), (change_a * change_b).sum(2))


def pairwise(truth):
    """A score of pairs alone."""

    def score(present_a, present_b):
        a = torch.ones(1, 1, truth.shape[0]) if present_a is None else present_a.float()
        b = torch.ones(1, 1, truth.shape[1]) if present_b is None else present_b.float()
        return ((a @ truth) * b).sum(-1)

    return score


def test_pair_deletion_by_hand():
    truth = torch.tensor([[0.0, 9.0], [7.0, 1.0], [8.0, -5.0]])
    curve = pair_deletion_curve(pairwise(truth), truth[None])
    assert curve.scores.tolist() == [[20, 11, 3, -4, -5, -5, 0]]
    torch.testing.assert_close(curve.present, torch.arange(6, -1, -1)[None].double() / 6)
    some = pair_deletion_curve(pairwise(truth), truth[None], n_steps=3)
    assert some.scores.tolist() == [[20, 3, -5, 0]]


def test_the_right_ranking_of_pairs_is_best():
    truth = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    score = pairwise(truth)
    orders = torch.rand(300, 1, 4, 3, generator=torch.Generator().manual_seed(1))
    areas = torch.stack([pair_deletion_curve(score, order).area for order in orders])
    assert pair_deletion_curve(score, truth[None]).area < areas.min()
    assert pair_deletion_curve(score, -truth[None]).area > areas.max()
    ends = pair_deletion_curve(score, truth[None]).scores[0, [0, -1]]
    assert abs(areas.mean() - ends.mean()) < 4 * areas.std() / 300**0.5


def test_pair_deletion_with_players():
    game, interactions = Game(), randn(2, 5, 3)
    players_a = torch.tensor([[True, True, False, False, False], [True] * 5])
    players_b = torch.tensor([[False, True, True]] * 2)
    curve = pair_deletion_curve(game, interactions, players_a, players_b)
    alone = Game()
    alone.u, alone.v = game.u[:1], game.v[:1]
    differences = pair_differences(alone, 5, 3)[0, :2, 1:]
    left = alone(None, None).sum() - differences.sum()
    torch.testing.assert_close(curve.scores[0, -1], left)
    # The pair with fewer players goes on as slowly as the other one.
    shares = [4 - int(4 * step / 10 + 0.5) for step in range(11)]
    assert (curve.present[0] * 4).round().int().tolist() == shares
    assert curve.present[1].tolist() == pytest.approx([1 - step / 10 for step in range(11)])


def test_pair_insertion_by_hand():
    interactions = torch.tensor([[[0.0, 9.0], [7.0, 1.0], [8.0, -5.0]]])
    curve = pair_insertion_curve(additive(A, B), interactions)
    # (0, 1) comes first, then (2, 0), and then what is left of a by itself.
    assert curve.scores.tolist() == [[0, 23, 23, 35, 35, 36]]
    expected = [[0, (1 / 3 + 1 / 2) / 2, (1 / 3 + 1 / 2) / 2, 5 / 6, 5 / 6, 1]]
    torch.testing.assert_close(curve.present, torch.tensor(expected))
    area = (5 / 12) * 23 / 2 + (5 / 12) * 58 / 2 + (1 / 6) * 71 / 2
    assert curve.area.item() == pytest.approx(area)


def test_pair_insertion_against_a_loop():
    game, interactions = Game(n_a=4), randn(2, 4, 3)
    curve = pair_insertion_curve(game, interactions)
    for pair in range(2):
        there = [torch.zeros(4, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)]
        expected = [game.side(game.u[pair], there[0]) @ game.side(game.v[pair], there[1])]
        for index in interactions[pair].flatten().argsort(descending=True).tolist():
            i, j = divmod(index, 3)
            changes = 2 - int(there[0][i]) - int(there[1][j])
            there[0][i] = there[1][j] = True
            value = game.side(game.u[pair], there[0]) @ game.side(game.v[pair], there[1])
            expected += [value] * changes
        torch.testing.assert_close(curve.scores[pair], torch.stack(expected))


def test_pair_insertion_with_players_and_steps():
    game, interactions = Game(), randn(2, 5, 3)
    players_a = torch.tensor([[True, True, False, False, False], [True] * 5])
    players_b = torch.tensor([[False, True, True]] * 2)
    curve = pair_insertion_curve(game, interactions, players_a, players_b, n_steps=4)
    present_a, present_b = game.calls[-1]
    assert present_a[0][:, ~players_a[0]].all()
    assert present_b[:, :, 0].all()
    assert curve.present[:, 0].tolist() == [0, 0]
    assert curve.present[:, -1].tolist() == [1, 1]
    assert (curve.present.diff(dim=1) >= 0).all()


@pytest.mark.parametrize("function", [pair_deletion_curve, pair_insertion_curve])
def test_interactions_beat_products_of_first_order_maps(function):
    """Each part of a needs its own partner of b, which the sums do not tell."""
    truth = torch.tensor([[0.0, 4.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 3.5]])
    score, sign = pairwise(truth), 1 if function is pair_deletion_curve else -1
    second = function(score, truth[None]).area
    product = first_order_pairs(truth.sum(1)[None], truth.sum(0)[None])
    orders = torch.rand(300, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    chance = torch.stack([function(score, order).area for order in orders]).mean()
    assert sign * second < sign * function(score, product).area
    assert sign * second < sign * chance


def test_first_order_pairs():
    pairs = first_order_pairs(torch.tensor([[2.0, -1.0]]), torch.tensor([[3.0, -4.0, 0.0]]))
    assert pairs.tolist() == [[[6.0, -8.0, 0.0], [-3.0, -4.0, 0.0]]]


def test_normalized_area_without_a_difference():
    curve = Curve(torch.tensor([[1.0, 0.5, 0.0]] * 2), torch.tensor([[2.0, 1.0, 2.0], [2.0, 1, 0]]))
    assert curve.normalized_area.isnan().tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_curves_have_the_type_of_the_score(dtype):
    curve = conditional_curve(additive(A.to(dtype), B.to(dtype)), A[None], "a", "deletion")
    assert curve.present.dtype == curve.area.dtype == dtype


def ones(*shape):
    return torch.ones(shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: conditional_curve(s, ones(2, 5), "c", "deletion"), "'a' or 'b', but got 'c'"),
        (lambda s: conditional_curve(s, ones(2, 5), "a", "removal"), "but got 'removal'"),
        (lambda s: conditional_curve(s, ones(5), "a", "deletion"), r"\(B, T\), but got \(5,\)"),
        (
            lambda s: conditional_curve(s, ones(2, 5) * torch.nan, "a", "deletion"),
            "maps of a hold NaN",
        ),
        (lambda s: conditional_curve(s, ones(2, 5), "a", "deletion", n_steps=0), "but got 0"),
        (
            lambda s: conditional_curve(s, ones(2, 5), "a", "deletion", ones(2, 5)),
            "must be bool of shape",
        ),
        (
            lambda s: conditional_curve(s, ones(2, 5), "a", "deletion", ones(2, 4) > 0),
            r"bool of shape \(2, 5\), but are torch.bool of shape \(2, 4\)",
        ),
        (
            lambda s: conditional_curve(
                s, ones(2, 5), "a", "deletion", torch.tensor([[True] * 5, [False] * 5])
            ),
            "pair 1 has no part",
        ),
        (
            lambda s: simultaneous_curve(s, ones(2, 5), ones(3, 3), "deletion"),
            "as many maps of a as of b, but got 2 and 3",
        ),
        (lambda s: pair_deletion_curve(s, ones(2, 5)), r"\(B, Ta, Tb\), but got \(2, 5\)"),
        (lambda s: pair_deletion_curve(s, ones(2, 5, 3) / 0), "hold NaN or infinite"),
        (lambda s: pair_insertion_curve(s, ones(2, 5)), r"\(B, Ta, Tb\), but got \(2, 5\)"),
        (lambda s: pair_deletion_curve(s, ones(2, 5, 3), n_steps=0.5), "but got 0.5"),
        (
            lambda s: pair_deletion_curve(s, ones(2, 5, 3), ones(2, 3) > 0),
            r"players of interactions of a must be bool of shape \(2, 5\)",
        ),
    ],
)
def test_bad_input_before_the_model_runs(call, message):
    game = Game()
    with pytest.raises(ValueError, match=message):
        call(game)
    assert not game.calls


def test_a_score_of_another_shape():
    with pytest.raises(ValueError, match=r"must return \(2, 6\) scores, but returned shape \(3,\)"):
        conditional_curve(lambda a, b: torch.ones(3), ones(2, 5), "a", "deletion")
