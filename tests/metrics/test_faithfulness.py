"""Faithfulness, infidelity and sensitivity of maps, by hand and against NumPy and Captum."""

from __future__ import annotations

import captum.metrics
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch

from captum_interactions.functional import Decomposition
from captum_interactions.metrics import (
    draw_present,
    faithfulness,
    interaction_infidelity,
    interaction_sensitivity,
    predicted_scores,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decomposition(n_pairs=2, n_a=4, n_b=3):
    return Decomposition(
        randn(n_pairs, seed=1),
        randn(n_pairs, n_a, seed=2),
        randn(n_pairs, n_b, seed=3),
        randn(n_pairs, n_a, n_b, seed=4),
        torch.zeros(n_pairs, dtype=torch.float64),
    )


class Bilinear:
    """A score that is a decomposition."""

    def __init__(self, parts):
        self.parts, self.calls = parts, 0

    def __call__(self, present_a, present_b):
        self.calls += 1
        n_pairs, n_a, n_b = self.parts.interactions.shape
        a = torch.ones(n_pairs, 1, n_a) if present_a is None else present_a
        b = torch.ones(n_pairs, 1, n_b) if present_b is None else present_b
        steps = max(a.shape[1], b.shape[1])
        a, b = a.expand(-1, steps, -1), b.expand(-1, steps, -1)
        return predicted_scores(self.parts, a, b).diagonal(dim1=1, dim2=2)


def test_predicted_scores_against_a_loop():
    parts = decomposition()
    there = draw_present(torch.ones(2, 4) > 0, 5), draw_present(torch.ones(2, 3) > 0, 6, seed=1)
    predicted = predicted_scores(parts, *there)
    assert predicted.shape == (2, 5, 6)
    for pair, m, n in np.ndindex(2, 5, 6):
        of_a, of_b = there[0][pair, m].nonzero().flatten(), there[1][pair, n].nonzero().flatten()
        value = parts.constant[pair] + parts.main_effects_a[pair, of_a].sum()
        value = value + parts.main_effects_b[pair, of_b].sum()
        value = value + parts.interactions[pair][of_a][:, of_b].sum()
        torch.testing.assert_close(predicted[pair, m, n], value)
    everything = predicted_scores(parts, torch.ones(2, 1, 4), torch.ones(2, 1, 3)).flatten()
    torch.testing.assert_close(everything, parts.score + parts.convergence_delta)


def test_faithfulness_is_that_of_scipy_and_sklearn():
    scores, noise = randn(3, 5, 6), randn(3, 5, 6, seed=1)
    predicted = 0.7 * scores + 0.3 * noise + 0.1
    result = faithfulness(predicted, scores)
    for row in range(3):
        x, y = predicted[row].flatten().numpy(), scores[row].flatten().numpy()
        expected = (
            sklearn.metrics.r2_score(y, x),
            scipy.stats.pearsonr(x, y).statistic,
            scipy.stats.spearmanr(x, y).statistic,
        )
        np.testing.assert_allclose([part[row] for part in result], expected, rtol=1e-10)


def test_faithfulness_at_its_ends():
    scores = randn(2, 40)
    perfect = faithfulness(scores, scores)
    for values in perfect:
        torch.testing.assert_close(values, torch.ones(2, dtype=torch.float64))
    mean = faithfulness(scores.mean(1, keepdim=True).expand(-1, 40), scores)
    torch.testing.assert_close(mean.r_squared, torch.zeros(2, dtype=torch.float64))
    assert mean.pearson.isnan().all()
    assert (faithfulness(scores + 5, scores).r_squared < -10).all()
    torch.testing.assert_close(faithfulness(scores + 5, scores).pearson, perfect.pearson)
    assert all(values.isnan().all() for values in faithfulness(scores, torch.full((2, 40), 0.1)))


def test_chance_of_faithfulness():
    result = faithfulness(randn(3000, 20), randn(3000, 20, seed=1))
    for values in (result.pearson, result.spearman):
        assert abs(values.mean()) < 4 * values.std() / 3000**0.5
    assert result.r_squared.mean() < 0


def test_draw_present():
    players = torch.tensor([[True, False, True, True], [True] * 4])
    state = torch.get_rng_state()
    drawn = draw_present(players, 4000, p=0.3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn, draw_present(players, 4000, p=0.3))
    assert not torch.equal(drawn, draw_present(players, 4000, p=0.3, seed=1))
    assert drawn[0, :, 1].all()
    assert abs(drawn[1].double().mean() - 0.3) < 4 * (0.21 / 16000) ** 0.5
    assert draw_present(players, 3, p=1.0).all()
    assert not draw_present(players, 3, p=0.0)[1].any()


def groups(n_groups=30):
    return (
        ~draw_present(torch.ones(2, 4) > 0, n_groups),
        ~draw_present(torch.ones(2, 3) > 0, n_groups, seed=1),
    )


def test_infidelity_of_the_right_interactions_is_zero():
    parts = decomposition()
    score = Bilinear(parts)
    for normalize in (False, True):  # main effects are none of its business
        error = interaction_infidelity(score, parts.interactions, *groups(), normalize=normalize)
        torch.testing.assert_close(error, torch.zeros(2, dtype=torch.float64))
    wrong = interaction_infidelity(score, parts.interactions.flip(1), *groups())
    assert (wrong > 0.1).all()


def test_infidelity_against_a_loop():
    parts, (of_a, of_b) = decomposition(), groups(7)
    claimed = randn(2, 4, 3, seed=9)
    for normalize in (False, True):
        values = interaction_infidelity(Bilinear(parts), claimed, of_a, of_b, normalize)
        for pair in range(2):
            said, true = (
                np.array(
                    [m[pair][a][:, b].sum() for a, b in zip(of_a[pair], of_b[pair], strict=True)]
                )
                for m in (claimed, parts.interactions)
            )
            scale = (said * true).sum() / (said**2).sum() if normalize else 1.0
            assert values[pair].item() == pytest.approx(((scale * said - true) ** 2).mean())


def test_infidelity_with_everything_taken_away_is_the_squared_convergence_delta():
    parts = decomposition()
    claimed = parts.interactions + 0.25
    everything = torch.ones(2, 1, 4) > 0, torch.ones(2, 1, 3) > 0
    error = interaction_infidelity(Bilinear(parts), claimed, *everything)
    torch.testing.assert_close(error, torch.full((2,), 9.0, dtype=torch.float64))


def test_normalised_infidelity_knows_no_scale_and_takes_zeros():
    parts, claimed = decomposition(), randn(2, 4, 3, seed=9)
    one, other, zero = (
        interaction_infidelity(Bilinear(parts), scale * claimed, *groups(), normalize=True)
        for scale in (1.0, -30.0, 0.0)
    )
    torch.testing.assert_close(one, other)
    plain = interaction_infidelity(Bilinear(parts), 0 * claimed, *groups())
    torch.testing.assert_close(zero, plain)
    assert (one <= plain).all()


def smooth(a, b):
    """A map that depends on both inputs."""
    return (a.unsqueeze(2) * b.unsqueeze(1)).tanh()


def test_sensitivity_is_that_of_captum():
    inputs, steps = (randn(3, 4), randn(3, 5, seed=1)), randn(10, 3, 9, seed=2)
    draws = iter(steps)

    def perturb(a, b):
        step = next(draws)
        return a + step[:, :4], b + step[:, 4:]

    def all_at_once(x):
        # Captum repeats each example, its draws come after one another.
        step = steps.transpose(0, 1).flatten(0, 1)
        return x[0] + step[:, :4], x[1] + step[:, 4:]

    theirs = captum.metrics.sensitivity_max(
        lambda x: (smooth(*x),), inputs, perturb_func=all_at_once, n_perturb_samples=10
    )
    torch.testing.assert_close(interaction_sensitivity(smooth, inputs, perturb=perturb), theirs)


def test_sensitivity_stays_in_the_ball():
    inputs, seen = (randn(2, 4), randn(2, 3, seed=1)), []

    def attribute(a, b):
        seen.append((a, b))
        return smooth(a, b)

    state = torch.get_rng_state()
    value = interaction_sensitivity(attribute, inputs, radius=0.1, n_samples=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(seen) == 6
    for x, changed in zip(inputs * 5, [side for pair in seen[1:] for side in pair], strict=True):
        assert 0 < (x - changed).abs().max() <= 0.1
    assert (value > 0).all()
    assert torch.equal(value, interaction_sensitivity(smooth, inputs, radius=0.1, n_samples=5))
    assert (interaction_sensitivity(smooth, inputs, radius=0.01, n_samples=5) < value).all()


def test_sensitivity_at_its_ends():
    inputs = randn(2, 4), randn(2, 3, seed=1)
    constant = torch.ones(2, 4, 3)
    assert interaction_sensitivity(lambda a, b: constant, inputs).tolist() == [0.0, 0.0]
    assert interaction_sensitivity(lambda a, b: 0 * constant, inputs).isnan().all()
    # Token ids stay as they are.
    ids = torch.arange(6).reshape(2, 3)
    value = interaction_sensitivity(lambda a, b: smooth(a, b.double()), (inputs[0], ids))
    assert (value > 0).all()
    with pytest.raises(ValueError, match="neither input is real-valued"):
        interaction_sensitivity(smooth, (ids, ids))
    with pytest.raises(ValueError, match="got 0 and"):
        interaction_sensitivity(smooth, inputs, n_samples=0)
    with pytest.raises(ValueError, match="got 10 and -1"):
        interaction_sensitivity(smooth, inputs, radius=-1)


def test_bad_input():
    parts = decomposition()
    with pytest.raises(ValueError, match=r"present_b must be of shape \(2, choices, 3\)"):
        predicted_scores(parts, torch.ones(2, 1, 4), torch.ones(2, 1, 4))
    with pytest.raises(ValueError, match=r"\(B, ...\), but got \(2, 3\) and \(2, 4\)"):
        faithfulness(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="must be bool of shape"):
        draw_present(torch.ones(2, 3), 5)
    with pytest.raises(ValueError, match="got 5 and 1.5"):
        draw_present(torch.ones(2, 3) > 0, 5, p=1.5)
    score, (of_a, of_b) = Bilinear(parts), groups()
    for removed in ((of_a.float(), of_b), (of_a, of_b[:, :-1]), (of_b, of_a)):
        with pytest.raises(ValueError, match="must be bool of shape"):
            interaction_infidelity(score, parts.interactions, *removed)
    assert not score.calls
