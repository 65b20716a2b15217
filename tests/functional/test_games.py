"""Coalition games against sums over all coalitions, and against least squares over the grid."""

from __future__ import annotations

import pytest
import torch

from captum_interactions.functional import (
    all_coalitions,
    design,
    draw_coalitions,
    effects,
    enough_coalitions,
    pair_effects,
    products,
    quadrature,
)
from tests import game_oracle
from tests.expected import rounding, rounding_of_products

N_A, N_B, K = 3, 4, 5


def nodes(*p):
    return torch.tensor(p, dtype=torch.float64)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def table(n_players, seed, n_outputs=K):
    """A vector for every coalition: a game in which all players interact."""
    shape = (2**n_players, n_outputs)
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def smooth(n_players, seed, n_outputs=K):
    """A game whose interactions get weaker with their order, as those of encoders do."""
    weights = torch.randn(n_players, n_outputs, generator=generator(seed), dtype=torch.float64)
    return (all_coalitions(n_players).double() @ weights - 0.5).mul(0.7).tanh()


def look_up(values, members):
    return values[(members.long() << torch.arange(members.shape[1])).sum(1)]


def exact(values, probabilities):
    n_players = len(values).bit_length() - 1
    reading = design(all_coalitions(n_players), probabilities, is_exact=True)
    return reading, effects(reading, values)


def joint(values_a, values_b):
    """The same two games as one of all players, in numbers."""

    def value(coalition):
        code_a = sum(2**i for i in coalition if i < N_A)
        code_b = sum(2 ** (i - N_A) for i in coalition if i >= N_A)
        return float(values_a[code_a] @ values_b[code_b])

    return value


@pytest.mark.parametrize("index", [0.5, 0.2, 0.93, "shapley"])
def test_brute_force(index):
    values_a, values_b = table(N_A, 1), table(N_B, 2)
    if index == "shapley":
        probabilities, weights = quadrature(n_steps=(N_A + N_B + 1) // 2, dtype=torch.float64)
        weight = game_oracle.shapley
    else:
        probabilities, weights, weight = nodes(index), nodes(1.0), game_oracle.banzhaf(index)
    reading_a, of_a = exact(values_a, probabilities)
    reading_b, of_b = exact(values_b, probabilities)
    matrix, errors = products(of_a, of_b, weights)
    assert errors.count_nonzero() == 0
    expected = game_oracle.terms(joint(values_a, values_b), N_A, N_B, weight)
    actual = {
        "main_effects_a": matrix[1:, 0],
        "main_effects_b": matrix[0, 1:],
        "interactions": matrix[1:, 1:],
        "intra_a": within(reading_a, of_a, of_b, weights),
        "intra_b": within(reading_b, of_b, of_a, weights),
    }
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=1e-12)


def within(reading, own, other, weights):
    mean = other._replace(values=other.values[:, :1], readout=other.readout[:, :1])
    players = range(reading.members.shape[1])
    columns = [products(pair_effects(reading, own, i), mean, weights)[0] for i in players]
    return torch.cat(columns, 1)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_the_grid_of_joint_scores_gives_the_same_numbers(p):
    """Least squares over m_a × m_b scores, from values of m_a + m_b coalitions."""
    values_a, values_b = smooth(6, 1), smooth(5, 2)
    members = [draw_coalitions(n, nodes(p), 40, generator(n)) for n in (6, 5)]
    readings = [design(one, nodes(p), is_exact=False) for one in members]
    seen = [look_up(v, one) for v, one in zip((values_a, values_b), members, strict=True)]
    sides = [effects(reading, v) for reading, v in zip(readings, seen, strict=True)]
    actual, _ = products(*sides, nodes(1.0))
    grid = torch.ones(40, 40, dtype=torch.float64)
    centred = (one.double() - p for one in members)
    expected = game_oracle.grid_fit(seen[0] @ seen[1].T, *centred, grid)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("change", [0.02, 0.0005])
def test_rounding_of_embeddings_that_hardly_change(change):
    """In float32, the products are the grid's numbers in float64, up to the rounding of sums.

    What counts is the size of the changes, and not that of the embeddings.
    """
    sizes = (20, 5)
    members = [draw_coalitions(n, nodes(0.5), 60, generator(n)) for n in sizes]
    seen = []
    for n, one in zip(sizes, members, strict=True):
        weights = torch.randn(n, K, generator=generator(n), dtype=torch.float64)
        seen.append((3 + change * (one.double() @ weights - 0.5).tanh()).float())
    readings = [design(one, nodes(0.5), is_exact=False) for one in members]
    sides = [effects(reading, v) for reading, v in zip(readings, seen, strict=True)]
    actual = products(*sides, nodes(1.0))[0][1:, 1:].double()
    grid = torch.ones(60, 60, dtype=torch.float64)
    # Interactions are the same without the constant, and the oracle is more exact.
    scores = (seen[0].double() - 3) @ (seen[1].double() - 3).T
    expected = game_oracle.grid_fit(scores, *(one.double() - 0.5 for one in members), grid)[1:, 1:]
    exact = [effects(one, v.double()).values[0, 1:] for one, v in zip(readings, seen, strict=True)]
    errors = [
        rounding(60, reading.readout.abs() @ (v - v.mean(0)).double().abs())[0, 1:]
        for reading, v in zip(readings, seen, strict=True)
    ]
    bound = rounding_of_products(exact[0], exact[1].T, errors[0], errors[1].T)
    assert bound.max() < 1e-4 * expected.abs().max()
    assert ((actual - expected).abs() <= bound).all()


def test_weighted_least_squares_over_the_grid_at_each_node_of_the_integral():
    values_a, values_b = smooth(6, 1), smooth(5, 2)
    probabilities, weights = quadrature(n_steps=3, dtype=torch.float64)
    members = [draw_coalitions(n, probabilities, 120, generator(n)) for n in (6, 5)]
    readings = [design(one, probabilities, is_exact=False) for one in members]
    seen = [look_up(v, one) for v, one in zip((values_a, values_b), members, strict=True)]
    actual, _ = products(
        *(effects(reading, v) for reading, v in zip(readings, seen, strict=True)), weights
    )
    expected = sum(
        weight
        * game_oracle.grid_fit(
            seen[0] @ seen[1].T,
            members[0].double() - p,
            members[1].double() - p,
            torch.outer(readings[0].weights[q], readings[1].weights[q]),
        )
        for q, (p, weight) in enumerate(zip(probabilities, weights, strict=True))
    )
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("index", [0.5, 0.25, "shapley"])
def test_standard_errors(index):
    """Over many seeds, estimates lie around the truth as their standard errors say."""
    values_a, values_b = smooth(7, 1), smooth(6, 2)
    if index == "shapley":
        probabilities, weights = quadrature(n_steps=4, dtype=torch.float64)
    else:
        probabilities, weights = nodes(index), nodes(1.0)
    reading_a, of_a = exact(values_a, probabilities)
    of_b = exact(values_b, probabilities)[1]
    truth = products(of_a, of_b, weights)[0]
    truth_within = within(reading_a, of_a, of_b, weights)
    estimates, errors, estimates_within = [], [], []
    for seed in range(150):
        sides = []
        for values, n, offset in ((values_a, 7, 0), (values_b, 6, 1)):
            members = draw_coalitions(n, probabilities, 96, generator(2 * seed + offset))
            reading = design(members, probabilities, is_exact=False)
            sides.append((reading, effects(reading, look_up(values, members))))
        estimate, error = products(sides[0][1], sides[1][1], weights)
        estimates.append(estimate)
        errors.append(error)
        estimates_within.append(within(*sides[0], sides[1][1], weights))
    estimate, error = torch.stack(estimates), torch.stack(errors)
    deviation = estimate - truth
    spread = deviation.square().mean(0).sqrt()
    # Unbiased, up to what is small against the spread of one estimate.
    assert (deviation.mean(0).abs() / spread).max() < 0.45
    covered = (deviation.abs() < 1.96 * error).double().mean(0)
    assert 0.93 < covered.mean() < 0.995
    assert covered.min() > 0.85
    ratio = error.mean(0) / spread
    assert 1.0 < ratio.mean() < 1.4
    bias = torch.stack(estimates_within).mean(0) - truth_within
    assert bias.abs().max() < 0.1 * truth_within.abs().max()


def test_errors_shrink_with_the_root_of_the_samples():
    values_a, values_b = smooth(7, 1), smooth(6, 2)
    errors = []
    for n_samples in (200, 3200):
        sides = []
        for values, n in ((values_a, 7), (values_b, 6)):
            members = draw_coalitions(n, nodes(0.5), n_samples, generator(n))
            reading = design(members, nodes(0.5), is_exact=False)
            sides.append(effects(reading, look_up(values, members)))
        errors.append(products(*sides, nodes(1.0))[1].mean())
    assert 3.3 < errors[0] / errors[1] < 4.8


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_what_antithetic_pairs_cancel(p):
    """With complements, interactions of two players leave no error in first-order effects."""
    members = all_coalitions(8).double()
    weights = torch.randn(8, 8, generator=generator(0), dtype=torch.float64)
    values = torch.stack([members.sum(1), ((members @ weights) * members).sum(1)], 1)
    truth = exact(values, nodes(p))[1].values
    drawn = draw_coalitions(8, nodes(p), 40, generator(1))
    estimate = effects(design(drawn, nodes(p), is_exact=False), look_up(values, drawn)).values
    error = (estimate - truth)[0, 1:].abs().amax(0)
    assert error[0] < 1e-12  # a linear game is read without error anyway
    assert error[1] < 1e-12 if p == 0.5 else error[1] > 1e-3


@pytest.mark.parametrize("rule", [nodes(0.5), nodes(0.2), quadrature(n_steps=4).nodes.double()])
def test_drawn_coalitions(rule):
    members = draw_coalitions(6, rule, 1000, generator(0))
    assert members.shape == (1000 // (2 * len(rule)) * 2 * len(rule), 6)
    per_node = members.unflatten(0, (len(rule), -1, 2)).double().mean(1)
    # Each player is present as often as it should be, to one coalition.
    expected = torch.stack([rule, rule.flip(0)], 1).unsqueeze(2).expand_as(per_node)
    tolerance = 1.01 * 2 * len(rule) / len(members)
    torch.testing.assert_close(per_node, expected, rtol=0, atol=tolerance)
    first, second = members.unflatten(0, (-1, 2)).unbind(1)
    is_symmetric = torch.allclose(rule, 1 - rule.flip(0))
    assert torch.equal(first, ~second) == is_symmetric
    if not is_symmetric:
        assert not (first & second).any()
    assert torch.equal(members, draw_coalitions(6, rule, 1000, generator(0)))
    assert not torch.equal(members, draw_coalitions(6, rule, 1000, generator(1)))


def test_players_are_drawn_independently():
    members = draw_coalitions(5, nodes(0.3), 40000, generator(0))[::2].double()
    correlation = torch.corrcoef(members.T) - torch.eye(5)
    assert correlation.abs().max() < 0.02


def test_weights_make_every_coalition_serve_every_node():
    rule = quadrature(n_steps=4, dtype=torch.float64).nodes
    values = smooth(8, 3)
    members = draw_coalitions(8, rule, 8000, generator(0))
    weights = design(members, rule, is_exact=False).weights
    assert weights.max() <= len(rule) / len(members) * (1 + 1e-9)
    torch.testing.assert_close(weights.sum(1), torch.ones(4).double(), rtol=0, atol=0.05)
    truth = design(all_coalitions(8), rule, is_exact=True).weights @ values
    torch.testing.assert_close(weights @ look_up(values, members), truth, rtol=0, atol=0.05)


def test_all_coalitions():
    assert all_coalitions(2).tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert all_coalitions(0).shape == (1, 0)
    weights = design(all_coalitions(5), nodes(0.1, 0.7), is_exact=True).weights
    torch.testing.assert_close(weights.sum(1), nodes(1.0, 1.0))


def test_a_player_that_changes_nothing():
    values = smooth(6, 1)[all_coalitions(7)[:, :6].long() @ (1 << torch.arange(6))]
    drawn = draw_coalitions(7, nodes(0.5), 60, generator(0))
    reading = design(drawn, nodes(0.5), is_exact=False)
    of_all = exact(values, nodes(0.5))[1].values[0]
    assert of_all[7].abs().max() < 1e-14
    sampled, other = effects(reading, look_up(values, drawn)), exact(smooth(4, 2), nodes(0.5))[1]
    matrix, errors = products(sampled, other, nodes(1.0))
    assert (matrix[7, 1:].abs() < 3 * errors[7, 1:]).all()


def test_no_players():
    of_none = exact(table(0, 1), nodes(0.5))[1]
    of_some = exact(table(3, 2), nodes(0.5))[1]
    assert products(of_none, of_some, nodes(1.0))[0].shape == (1, 4)


@pytest.mark.parametrize(("n_samples", "p"), [(1, 0.5), (6, 0.5), (12, 0.5), (10, 0.2)])
def test_too_few_coalitions(n_samples, p):
    members = draw_coalitions(6, nodes(p), n_samples, generator(0))
    message = "too few to tell the effects of 6 players apart: take n_samples of at least 32"
    with pytest.raises(ValueError, match=message):
        design(members, nodes(p), is_exact=False)


@pytest.mark.parametrize("n_players", [5, 20, 60])
@pytest.mark.parametrize("rule", [nodes(0.5), nodes(0.1), quadrature(n_steps=5).nodes.double()])
def test_what_is_said_to_be_enough_is(n_players, rule):
    members = draw_coalitions(
        n_players, rule, enough_coalitions(n_players, len(rule)), generator(0)
    )
    design(members, rule, is_exact=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types(dtype):
    reading = design(all_coalitions(3), nodes(0.4), is_exact=True)
    of_all = effects(reading, table(3, 1).to(dtype))
    matrix, errors = products(of_all, of_all, nodes(1.0))
    assert matrix.dtype == errors.dtype == dtype
