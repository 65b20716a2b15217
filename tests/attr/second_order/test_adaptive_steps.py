"""Numbers of nodes that follow from a tolerance."""

from __future__ import annotations

import math

import pytest
import torch

from captum_interactions import SecondOrderIntegratedGradients, explain, load_demo, wrap
from captum_interactions.functional import quadrature
from captum_interactions.functional.adaptive import choose_steps
from captum_interactions.functional.integrated import path_values
from tests import models

PIXELS, (IDS, MASK) = models.images(2), models.captions(9, 6)


def powers(degree):
    return lambda x: (x**degree).reshape(-1, 1, 1)


@pytest.mark.parametrize(("degree", "n_steps"), [(1, 1), (2, 1), (4, 2), (6, 3), (10, 5), (20, 10)])
def test_rules_are_exact_up_to_their_degree(degree, n_steps):
    """N Gauss-Legendre nodes integrate a slope of degree 2N − 1 exactly, and none of degree 2N."""
    chosen = choose_steps(powers(degree), 1e-12)
    assert chosen.is_enough
    assert chosen.n_steps == n_steps


@pytest.mark.parametrize("sharpness", [1.0, 10.0, 40.0])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_error_is_that_of_the_rule(sharpness, tolerance):
    """Against slopes that are known: F = tanh(s (α − 0.3))."""
    seen = []

    def values(x):
        seen.extend(x.tolist())
        return torch.tanh(sharpness * (x - 0.3)).reshape(-1, 1, 1)

    def error(n_steps):
        nodes, weights = quadrature(n_steps=n_steps, dtype=torch.float64)
        slopes = sharpness / torch.cosh(sharpness * (nodes - 0.3)) ** 2
        difference = math.tanh(0.7 * sharpness) + math.tanh(0.3 * sharpness)
        return abs(float(weights @ slopes) / difference - 1)

    chosen = choose_steps(values, tolerance)
    assert chosen.is_enough
    assert error(chosen.n_steps) < 1.2 * tolerance
    assert max(error(n) for n in (chosen.n_steps - 1, chosen.n_steps - 2) if n) > 0.5 * tolerance
    assert len(seen) == len(set(seen))  # no point is taken twice


def test_the_worst_example_counts():
    def values(x):
        return torch.stack([x, x**20], 1).unsqueeze(-1)

    assert choose_steps(values, 1e-12).n_steps == 10


def test_a_path_without_change_needs_one_node():
    assert choose_steps(lambda x: torch.ones(len(x), 2, 3), 1e-3).n_steps == 1


def test_a_jump_cannot_be_reached():
    chosen = choose_steps(lambda x: (x > 0.3).float().reshape(-1, 1, 1), 1e-3, max_steps=30)
    assert chosen.n_steps == 30
    assert not chosen.is_enough
    assert chosen.error > 1e-3


@pytest.mark.parametrize("tolerance", [0, -1.0, math.nan, "small", None])
def test_bad_tolerance(tolerance):
    with pytest.raises(ValueError, match="tolerance must be a positive number, but got"):
        choose_steps(powers(1), tolerance)


@pytest.mark.parametrize("size", [None, 1, 3, 100])
def test_values_along_a_path(size):
    function = models.mlp(4)
    start, end, scale = torch.zeros(1, 4), torch.rand(3, 4), torch.rand(3, 1)
    nodes = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    actual = path_values(
        lambda x, s: function(x) * s, start, end, nodes, args=(scale,), internal_batch_size=size
    )
    expected = torch.stack([function(z * end) * scale for z in (0.0, 0.5, 1.0)])
    torch.testing.assert_close(actual, expected.detach())
    assert not actual.requires_grad


@pytest.mark.parametrize("layers", [("input", 0), (0, 0), (1, 2), (-1, -1)])
@pytest.mark.parametrize("tolerance", [0.1, 1e-2, 1e-3])
def test_delta_is_below_the_tolerance(clip, layers, tolerance):
    soig = SecondOrderIntegratedGradients(wrap(clip), layers)
    assert soig.n_steps_used is None
    options = {"additional_forward_args": MASK, "n_steps": "auto", "tolerance": tolerance}
    maps, delta = soig.attribute((PIXELS, IDS), return_convergence_delta=True, **options)
    a, b = soig._propagate((PIXELS, IDS), None, MASK)
    size = (a.embedding - a.baseline_embedding).norm(dim=1) * (
        b.embedding - b.baseline_embedding
    ).norm(dim=1)
    assert (delta.abs() / size).max() < 1.1 * tolerance
    used = soig.n_steps_used
    same = soig.attribute((PIXELS, IDS), additional_forward_args=MASK, n_steps=used)
    torch.testing.assert_close(maps, same)
    assert soig.decompose((PIXELS, IDS), **options).interactions.shape == maps.shape
    assert soig.n_steps_used == used


def test_factors_get_the_nodes_of_their_side(clip):
    soig = SecondOrderIntegratedGradients(wrap(clip), (0, 1))
    soig.attribute((PIXELS, IDS), additional_forward_args=MASK, n_steps="auto")
    both = soig.n_steps_used
    soig.factors_a(PIXELS, n_steps="auto")
    assert soig.n_steps_used[0] == both[0]
    soig.factors_b(IDS, None, MASK, "auto")
    assert soig.n_steps_used[1] == both[1]
    assert both[0] != both[1]


def test_explain_tells_the_nodes():
    wrapper, scenes = load_demo(1)
    imap = explain(wrapper, scenes[0].image, scenes[0].caption, n_steps="auto", tolerance=1e-2)
    used = imap.settings["n_steps"]
    assert all(isinstance(number, int) for number in (used if isinstance(used, list) else [used]))
    assert imap.settings["tolerance"] == 1e-2
    given = explain(wrapper, scenes[0].image, scenes[0].caption, n_steps=45)
    assert given.settings["n_steps"] == 45


def test_too_sharp_a_path_warns(clip, monkeypatch):
    monkeypatch.setattr("captum_interactions.attr._utils.steps.MAX_STEPS", 3)
    soig = SecondOrderIntegratedGradients(wrap(clip), (0, 0))
    with pytest.warns(UserWarning, match="needs more than 3 nodes for a tolerance of"):
        soig.attribute((PIXELS, IDS), n_steps="auto", tolerance=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": "many"}, "n_steps must be 'auto' or a number of nodes, but got 'many'"),
        ({"n_steps": (1, 2, 3)}, "n_steps must be one for both inputs or a pair"),
        ({"n_steps": (3, 0)}, "n_steps must be an int of at least 1"),
        ({"n_steps": "auto", "method": "riemann_left"}, "'auto' chooses nodes of 'gausslegendre'"),
        ({"n_steps": "auto", "tolerance": 0.0}, "tolerance must be a positive number"),
    ],
)
def test_bad_options(clip, options, message):
    soig = SecondOrderIntegratedGradients(wrap(clip))
    with pytest.raises(ValueError, match=message):
        soig.attribute((PIXELS, IDS), **options)


def test_half_precision_ends():
    soig = SecondOrderIntegratedGradients(wrap(models.clip().bfloat16()), (-1, -1))
    soig.attribute((PIXELS.bfloat16(), IDS), n_steps="auto", tolerance=1e-6)
    assert max(soig.n_steps_used) < 30
