"""Scores of pairs with parts missing, against masking by hand."""

from __future__ import annotations

import pytest
import torch

from captum_interactions import wrap
from captum_interactions.attr import BanzhafInteractions, masked_score
from captum_interactions.functional import Decomposition
from captum_interactions.metrics import (
    conditional_curve,
    draw_present,
    faithfulness,
    mixed_difference,
    predicted_scores,
)
from tests import models


@pytest.fixture(scope="module")
def pairs():
    ids, mask = models.captions(7, 5)
    return (models.images(2), ids), mask


@pytest.fixture(scope="module")
def score(wrapper, pairs):
    inputs, mask = pairs
    return masked_score(wrapper, inputs, None, mask)


def everything(score):
    return torch.ones_like(score.players_a)[:, None], torch.ones_like(score.players_b)[:, None]


def test_with_everything_there_it_is_the_score_of_the_wrapper(wrapper, pairs, score):
    inputs, mask = pairs
    expected = wrapper(*inputs, mask).detach().unsqueeze(1)
    whole_a, whole_b = everything(score)
    for there in ((None, None), (whole_a, None), (None, whole_b), (whole_a, whole_b)):
        torch.testing.assert_close(score(*there), expected)
    torch.testing.assert_close(score.grid(None, None)[..., 0], expected)


def test_with_nothing_there_it_is_that_of_the_baselines(wrapper, pairs, score):
    inputs, mask = pairs
    baselines = wrapper.tower_a.baseline(inputs[0]), wrapper.tower_b.baseline(inputs[1], mask)
    expected = wrapper(*baselines, mask).detach().unsqueeze(1)
    nothing = [torch.zeros_like(part) for part in everything(score)]
    torch.testing.assert_close(score(*nothing), expected)


def test_players(pairs, score):
    # The class token, start and end of text look like their baselines; padding is none either.
    assert score.players_a.tolist() == [[False] + [True] * 9] * 2
    inner = [[False, *[True] * 5, False], [False, *[True] * 3, False, False, False]]
    assert score.players_b.tolist() == inner


def test_words_are_replaced_by_those_of_the_baseline(wrapper, pairs, score):
    (images, ids), mask = pairs
    baseline = wrapper.tower_b.baseline(ids, mask)
    present = draw_present(score.players_b, 4)
    scores = score(None, present)
    for pair in range(2):
        for choice in range(4):
            masked = torch.where(present[pair, choice], ids[pair], baseline[pair])[None]
            expected = wrapper(images[pair][None], masked, mask[pair][None])
            torch.testing.assert_close(scores[pair, choice], expected[0])


def test_attention_masking(wrapper, pairs):
    (images, ids), mask = pairs
    score = masked_score(wrapper, (images, ids), None, mask, masking=("baseline", "attention"))
    present = draw_present(score.players_b, 3)
    scores = score(None, present)
    for pair in range(2):
        for choice in range(3):
            shown = (mask[pair] * present[pair, choice])[None]
            expected = wrapper(images[pair][None], ids[pair][None], shown)
            torch.testing.assert_close(scores[pair, choice], expected[0])


def test_grid_holds_the_scores_of_all_choices(score):
    present_a, present_b = (
        draw_present(score.players_a, 3),
        draw_present(score.players_b, 4, seed=1),
    )
    grid = score.grid(present_a, present_b)
    assert grid.shape == (2, 3, 4)
    for m in range(3):
        for n in range(4):
            expected = score(present_a[:, m : m + 1], present_b[:, n : n + 1])[:, 0]
            torch.testing.assert_close(grid[:, m, n], expected)


def test_equal_choices_are_encoded_once(wrapper, pairs, score, monkeypatch):
    rows = []
    embed = type(wrapper.tower_b).embed

    def counted(tower, layer, features, *context):
        rows.append(len(features))
        return embed(tower, layer, features, *context)

    monkeypatch.setattr(type(wrapper.tower_b), "embed", counted)
    present = draw_present(score.players_b, 40).repeat(1, 3, 1)
    expected = sum(len(set(map(tuple, choices.tolist()))) for choices in present)
    scores = score(None, present)
    assert sum(rows) == expected
    torch.testing.assert_close(scores[:, :40], scores[:, 40:80])
    rows.clear()
    small = masked_score(wrapper, pairs[0], None, pairs[1], perturbations_per_eval=3)
    rows.clear()
    torch.testing.assert_close(small(None, present), scores)
    assert max(rows) == 3


def test_groups_of_tokens(wrapper, pairs, score):
    inputs, mask = pairs
    grouped = masked_score(wrapper, inputs, None, mask, groups_b=[[1, 2], [3]])
    assert grouped.players_b.tolist() == [[True, True]] * 2
    single = torch.ones_like(score.players_b)
    single[:, 1:3] = False
    there = torch.tensor([[[False, True]]] * 2)
    torch.testing.assert_close(grouped(None, there), score(None, single[:, None]))


def test_the_model_is_left_as_it_was(pairs):
    clip = models.clip().train()
    score = masked_score(wrap(clip), pairs[0], None, pairs[1])
    first = score(None, draw_present(score.players_b, 2))
    assert clip.training
    assert not first.requires_grad
    assert all(module.training for module in clip.modules())


def test_curves_run_from_the_score_to_that_of_the_baseline(score):
    maps = torch.rand(score.players_a.shape)
    curve = conditional_curve(score, maps, "a", "deletion", score.players_a)
    assert curve.scores.shape == (2, 10)
    torch.testing.assert_close(curve.scores[:, :1], score(None, None))
    nothing = torch.zeros_like(score.players_a)[:, None]
    torch.testing.assert_close(curve.scores[:, -1:], score(nothing, None))


def test_banzhaf_interactions_are_the_most_faithful_of_their_kind(wrapper, pairs, score):
    """Over all coalitions, nothing beats least squares."""
    (images, ids), mask = pairs
    inputs = images[1:], ids[1:]
    groups_a = [list(range(1, 4)), list(range(4, 7)), list(range(7, 10))]
    score = masked_score(wrapper, inputs, None, mask[1:], groups_a=groups_a)
    present_a = torch.cartesian_prod(*[torch.tensor([False, True])] * 3)[None]
    present_b = torch.ones(1, 8, ids.shape[1], dtype=torch.bool)
    present_b[0][:, score.players_b[0]] = present_a[0]
    true = score.grid(present_a, present_b)
    game = BanzhafInteractions(wrapper).game(
        inputs, additional_forward_args=mask[1:], groups_a=groups_a
    )
    share_a, share_b = game.interactions.sum(2) / 2, game.interactions.sum(1) / 2
    parts = Decomposition(
        true.mean((1, 2))
        - game.main_effects_a.sum(1) / 2
        - game.main_effects_b.sum(1) / 2
        + game.interactions.sum((1, 2)) / 4,
        game.main_effects_a - share_a,
        game.main_effects_b - share_b,
        game.interactions,
        game.score,
    )
    best = faithfulness(predicted_scores(parts, present_a, present_b), true)
    assert best.r_squared > 0.3
    for seed in range(10):
        noise = 0.02 * torch.randn(
            parts.interactions.shape, generator=torch.Generator().manual_seed(seed)
        )
        other = parts._replace(interactions=parts.interactions + noise)
        assert faithfulness(predicted_scores(other, present_a, present_b), true)[0] < best[0]


def test_mixed_differences_of_the_whole_are_what_a_complete_map_sums_to(wrapper, pairs, score):
    inputs, mask = pairs
    everything_a, everything_b = everything(score)
    baselines = wrapper.tower_a.baseline(inputs[0]), wrapper.tower_b.baseline(inputs[1], mask)
    corners = [
        sign * wrapper(a, b, mask).detach()
        for sign, a, b in (
            (1, *inputs),
            (-1, baselines[0], inputs[1]),
            (-1, inputs[0], baselines[1]),
            (1, *baselines),
        )
    ]
    total = mixed_difference(score, everything_a, everything_b)
    torch.testing.assert_close(total[:, 0], sum(corners))


def test_bad_input(wrapper, pairs, score):
    inputs, mask = pairs
    with pytest.raises(TypeError, match="masked_score needs both encoders"):
        masked_score(models.clip(), inputs)
    with pytest.raises(ValueError, match="masking must be 'baseline' or 'attention'"):
        masked_score(wrapper, inputs, None, mask, masking="zero")
    with pytest.raises(ValueError, match="encoder a .* takes no attention_mask, but .* layer 2"):
        masked_score(wrapper, inputs, None, mask, masking="attention", layers=(-1, 0))
    with pytest.raises(TypeError, match="one baseline a, but got a list"):
        masked_score(wrapper, inputs, ([0.0, 1.0], None), mask)
    with pytest.raises(ValueError, match="at least 1, but got 0"):
        masked_score(wrapper, inputs, None, mask, perturbations_per_eval=0)
    with pytest.raises(ValueError, match="each token must be in at most one group"):
        masked_score(wrapper, inputs, None, mask, groups_b=[[1, 2], [2]])
    whole_a, whole_b = everything(score)
    with pytest.raises(ValueError, match="aligned choices need as many of a as of b"):
        score(whole_a, whole_b.expand(-1, 2, -1))
    with pytest.raises(ValueError, match=r"present_a must be bool of shape \(2, M, 10\), but is"):
        score(whole_a.float(), None)
    with pytest.raises(ValueError, match=r"present_b must be bool of shape \(2, M, 7\), but is"):
        score(None, whole_a)


def test_its_summary_holds_neither_weights_nor_states(wrapper, pairs, score):
    assert repr(score) == (
        "MaskedScore(2 pairs of 10 × 7 tokens,\n"
        "            layers (0, 0), masking ('baseline', 'baseline'))"
    )
    inputs, mask = pairs
    hidden = masked_score(wrapper, inputs, None, mask, masking=("baseline", "attention"))
    assert repr(hidden).endswith("masking ('baseline', 'attention'))")
