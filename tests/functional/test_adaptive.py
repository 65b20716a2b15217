"""Rules that follow from values of a function alone, against slopes that are known."""

from __future__ import annotations

import math

import pytest
import torch

from captum_interactions.functional import quadrature
from captum_interactions.functional.adaptive import choose_rule


def powers(degree):
    return lambda x: (x**degree).reshape(-1, 1, 1)


def steep(sharpness):
    """``tanh(s (α − 0.3))``, its slope, and its difference."""

    def values(x):
        return torch.tanh(sharpness * (x - 0.3)).reshape(-1, 1, 1)

    def slopes(x):
        return (sharpness / torch.cosh(sharpness * (x - 0.3)) ** 2).reshape(-1, 1, 1)

    return values, slopes


def turning(norm=0.005):
    """The direction of what goes straight from a vector of a small norm to one of 18."""
    generator = torch.Generator().manual_seed(0)
    small, step = torch.nn.functional.normalize(torch.randn(2, 1, 8, generator=generator).double())
    small, step = norm * small, 18 * step
    small -= (small @ step.T) / 18**2 * step  # so that it is nearest to zero at the start

    def values(x):
        return torch.nn.functional.normalize(small + x.reshape(-1, 1, 1) * step, dim=-1)

    def slopes(x):
        embeddings = small + x.reshape(-1, 1, 1) * step
        norms = embeddings.norm(dim=-1, keepdim=True)
        units = embeddings / norms
        return (step - units * (units * step).sum(-1, keepdim=True)) / norms

    return values, slopes


def error_of(rule, values, slopes):
    """What the sum of slopes misses of the difference, relative to it."""
    ends = values(torch.tensor([0.0, 1.0], dtype=torch.float64))
    total = torch.einsum("m,mbk->bk", rule.weights, slopes(rule.nodes))
    difference = ends[1] - ends[0]
    return float(((total - difference).norm(dim=-1) / difference.norm(dim=-1)).max())


@pytest.mark.parametrize(("degree", "n_steps"), [(1, 1), (2, 1), (4, 2), (6, 3), (10, 5), (20, 10)])
def test_rules_are_exact_up_to_their_degree(degree, n_steps):
    """N Gauss-Legendre nodes integrate a slope of degree 2N − 1 exactly, and none of degree 2N."""
    chosen = choose_rule(powers(degree), 1e-12)
    assert chosen.is_enough
    assert chosen.n_steps == n_steps
    expected = quadrature(n_steps=n_steps, dtype=torch.float64)
    torch.testing.assert_close(tuple(chosen.rule), tuple(expected))


@pytest.mark.parametrize(("degree", "counts"), [(6, [17]), (16, [17, 8]), (24, [17, 8, 8])])
def test_values_are_taken_at_few_points(degree, counts):
    """Errors are known for up to three eighths as many nodes as there are intervals."""
    runs = []

    def watched(x):
        runs.append(len(x))
        return powers(degree)(x)

    assert choose_rule(watched, 1e-12).n_steps == degree // 2
    assert runs == counts


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("make", [*map(steep, (1.0, 10.0, 40.0, 1000.0)), turning()])
def test_error_is_that_of_the_rule(make, tolerance):
    values, slopes = make
    seen = []

    def watched(x):
        seen.extend(x.tolist())
        return values(x)

    chosen = choose_rule(watched, tolerance)
    assert chosen.is_enough
    actual = error_of(chosen.rule, values, slopes)
    assert actual < 1.2 * tolerance
    # The function is smooth, so the polynomials know its slopes far better than to the tolerance.
    assert actual == pytest.approx(chosen.error, abs=0.2 * tolerance)
    assert len(seen) == len(set(seen))  # no point is taken twice
    assert float(chosen.rule.weights.sum()) == pytest.approx(1.0, abs=1e-14)
    assert (chosen.rule.nodes.diff() > 0).all()


def fewest(values, slopes, tolerance):
    """Nodes that the rule of one panel takes; infinite if 1024 are too few."""
    counts = (2**power for power in range(3, 11))
    enough = (
        count
        for count in counts
        if error_of(quadrature(n_steps=count, dtype=torch.float64), values, slopes) <= tolerance
    )
    return next(enough, math.inf)


@pytest.mark.parametrize("make", [steep(1000.0), turning(1e-3)])
def test_nodes_are_placed_where_the_path_turns(make):
    """A tenth of the nodes that one panel needs."""
    chosen = choose_rule(make[0], 1e-3)
    assert chosen.is_enough
    assert error_of(chosen.rule, *make) <= 1e-3
    assert 10 * chosen.n_steps <= fewest(*make, 1e-3)
    nearest = torch.tensor(0.3 if make[0](torch.zeros(1)).shape[-1] == 1 else 0.0)
    assert (chosen.rule.nodes - nearest).abs().median() < 0.05


@pytest.mark.parametrize("kink", [0.123, 0.3, 0.37, 0.55, 0.71])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_kinks(kink, tolerance):
    """No polynomial knows the slopes beside a kink, so an error may be several times as large."""

    def values(x):
        return torch.relu(x - kink).reshape(-1, 1, 1)

    def slopes(x):
        return (x > kink).double().reshape(-1, 1, 1)

    chosen = choose_rule(values, tolerance)
    assert chosen.n_steps < 30
    assert error_of(chosen.rule, values, slopes) < 12 * tolerance


def test_errors_that_are_small_by_chance():
    """By values on 24 intervals, six and seven nodes have small errors, and eight a large one."""

    def values(x):
        return (x + 1e-3).sqrt().reshape(-1, 1, 1)

    def slopes(x):
        return 0.5 / values(x)

    chosen = choose_rule(values, 1e-2)
    assert chosen.is_enough
    assert error_of(chosen.rule, values, slopes) < 1e-2


def test_the_worst_example_counts():
    def values(x):
        return torch.stack([x, x**20], 1).unsqueeze(-1)

    assert choose_rule(values, 1e-12).n_steps == 10


def test_a_path_without_change_needs_one_node():
    assert choose_rule(lambda x: torch.ones(len(x), 2, 3), 1e-3).n_steps == 1


@pytest.mark.parametrize("max_steps", [5, 30])
def test_a_jump_cannot_be_reached(max_steps):
    chosen = choose_rule(lambda x: (x > 0.3).float().reshape(-1, 1, 1), 1e-3, max_steps)
    assert 1 <= chosen.n_steps <= max_steps
    assert not chosen.is_enough
    assert chosen.error > 1e-3


def test_what_fits_is_taken_where_not_enough_fits():
    values, slopes = turning()
    chosen = choose_rule(values, 1e-6, max_steps=20)
    assert 10 <= chosen.n_steps <= 20
    assert not chosen.is_enough
    assert 1e-6 < error_of(chosen.rule, values, slopes) < 0.1


def test_rounding_takes_no_nodes():
    """Values of half precision say nothing of errors below their rounding."""
    values = steep(10.0)[0]

    def rounded(x):
        return values(x).bfloat16()

    chosen = choose_rule(rounded, 1e-6)
    assert chosen.n_steps < 20


@pytest.mark.parametrize("tolerance", [0, -1.0, math.nan, "small", None])
def test_bad_tolerance(tolerance):
    with pytest.raises(ValueError, match="tolerance must be a positive number, but got"):
        choose_rule(powers(1), tolerance)
