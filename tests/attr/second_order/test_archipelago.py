"""Archipelago against four scores a pair, and written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_interactions import wrap
from captum_interactions.attr import Archipelago
from tests import models
from tests.ablation import Game
from tests.attr.second_order.test_by_hand import linear
from tests.expected import relative_error

PAIR = models.images(), models.caption(6)


@pytest.mark.parametrize("context", ["both", "present", "absent"])
def test_a_bilinear_score_written_out(context):
    # s(x, y) = 2 x1 y1 - x1 y2 + 6 x2 y1, as in test_by_hand
    wrapper = wrap((linear([[1.0, 2.0], [-1.0, 0.0]]), linear([[3.0, 0.0], [1.0, 1.0]])))
    archipelago = Archipelago(wrapper, normalization="none", context=context)
    inputs = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    torch.testing.assert_close(archipelago.attribute(inputs), torch.tensor([[[6.0, 1], [36, 0]]]))
    parts = archipelago.decompose(inputs, (torch.tensor([[0.0, 1.0]]), 0.0))
    torch.testing.assert_close(parts.interactions, torch.tensor([[[6.0, 1], [18, 0]]]))
    torch.testing.assert_close(parts.main_effects_b, torch.tensor([[18.0, 0.0]]))
    assert parts.main_effects_a.abs().max() < 1e-6
    torch.testing.assert_close(parts.convergence_delta, torch.zeros(1), rtol=0, atol=1e-5)


def test_both_contexts_written_out():
    # (x1 + x2)² y at (1, 2, 3): alone 1 · 3 and 4 · 3; beside the other (9 - 4) · 3 and (9 - 1) · 3
    wrapper = wrap((lambda x: x.sum(1, keepdim=True) ** 2, lambda y: y))
    inputs = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])
    expected = {
        "absent": [3.0, 12.0],
        "present": [15.0, 24.0],
        "both": [9.0, 18.0],
        "strength": [(9 + 225) / 2, (144 + 576) / 2],
    }
    for context, values in expected.items():
        actual = Archipelago(wrapper, normalization="none", context=context).attribute(inputs)
        torch.testing.assert_close(actual[0, :, 0], torch.tensor(values))


@pytest.mark.parametrize("layers", [(-1, -1), (1, 0), ("input", 0)])
def test_four_scores_a_pair(wrapper, layers):
    game = Game(wrapper, layers, PAIR)
    n_a, n_b = game.n_tokens(0), game.n_tokens(1)
    expected = torch.zeros(2, n_a, n_b)
    for i in range(n_a):
        for j in range(n_b):
            for k, others in enumerate((0.0, 1.0)):
                a, b = torch.full((n_a,), others), torch.full((n_b,), others)
                for in_a in (0, 1):
                    for in_b in (0, 1):
                        a[i], b[j] = in_a, in_b
                        sign = (-1) ** (in_a + in_b)
                        expected[k, i, j] += sign * game.score(a, b)
    for context, values in zip(("absent", "present"), expected, strict=True):
        actual = Archipelago(wrapper, layers, context=context).attribute(PAIR)
        assert relative_error(actual[0], values) < 1e-4
    strength = Archipelago(wrapper, layers, context="strength").attribute(PAIR)
    assert relative_error(strength[0], expected.square().mean(0)) < 1e-4


def test_groups(wrapper):
    groups_a, groups_b = [[1, 2, 4], [7]], [[1], [2, 3]]
    archipelago = Archipelago(wrapper, (0, 0), context="absent")
    actual = archipelago.attribute(PAIR, groups_a=groups_a, groups_b=groups_b)[0]
    game = Game(wrapper, (0, 0), PAIR)

    def score(group_a, group_b):
        a, b = torch.ones(10), torch.ones(6)
        a[[1, 2, 4, 7]], b[[1, 2, 3]] = 0.0, 0.0
        a[group_a], b[group_b] = 1.0, 1.0
        return game.score(a, b)

    for i, a in enumerate(groups_a):
        for j, b in enumerate(groups_b):
            expected = score(a, b) - score(a, []) - score([], b) + score([], [])
            assert float(actual[i, j]) == pytest.approx(expected, abs=1e-5)


def test_groups_that_share_tokens_are_refused(wrapper):
    with pytest.raises(ValueError, match="groups_b .* must not share tokens"):
        Archipelago(wrapper).attribute(PAIR, groups_b=[[1, 2], [2, 3]])


def test_number_of_encoder_rows():
    class Counting(nn.Linear):
        rows = 0

        def forward(self, x):
            self.rows += len(x)
            return super().forward(x)

    a, b = Counting(7, 3), Counting(5, 3)
    archipelago = Archipelago(wrap((a, b)))
    inputs = torch.rand(1, 7), torch.rand(1, 5)
    archipelago.attribute(inputs, internal_batch_size=4)
    opening = 3  # the input twice, for its embedding and its norm, and the baseline
    assert a.rows <= 2 * 7 + 2 + opening
    assert b.rows <= 2 * 5 + 2 + opening


def test_several_baselines_are_averaged_over(wrapper):
    archipelago = Archipelago(wrapper, (0, 0))
    means = [archipelago.attribute(PAIR, (value, None)) for value in (0.0, 0.5)]
    actual = archipelago.attribute(PAIR, ([0.0, 0.5], None))
    assert relative_error(actual, torch.stack(means).mean(0)) < 1e-5


def test_pixels_in_no_patch_stay(wrapper):
    pixels = models.images(size=(14, 15))
    full = Archipelago(wrapper, ("input", 0), context="present").attribute((pixels, PAIR[1]))
    assert full.shape == (1, 9, 6)
    changed = pixels.clone()
    changed[..., 12:, :] = 0
    other = Archipelago(wrapper, ("input", 0), context="present").attribute((changed, PAIR[1]))
    # They are seen by no patch of this model, so nothing changes.
    assert relative_error(other, full) < 1e-5


def test_unknown_context(wrapper):
    with pytest.raises(ValueError, match="context must be one of both, present"):
        Archipelago(wrapper, context="all")
