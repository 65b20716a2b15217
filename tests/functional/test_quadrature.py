"""Quadrature rules: Captum's own nodes and weights, and exactness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr._utils.approximation_methods import approximation_parameters

from captum_interactions.functional import METHODS, quadrature


@pytest.mark.parametrize("n_steps", [2, 5, 20, 33])
@pytest.mark.parametrize("method", METHODS)
def test_nodes_and_weights_are_captums(method, n_steps):
    step_sizes, alphas = approximation_parameters(method)
    nodes, weights = quadrature(method, n_steps)
    theirs = torch.tensor(step_sizes(n_steps))
    if method == "riemann_trapezoid":
        assert theirs.sum() == pytest.approx((n_steps - 1) / n_steps)
        theirs = theirs / theirs.sum()
    torch.testing.assert_close(nodes, torch.tensor(alphas(n_steps)).float())
    torch.testing.assert_close(weights, theirs.float())


@pytest.mark.parametrize("n_steps", [2, 3, 50, 200])
@pytest.mark.parametrize("method", METHODS)
def test_weights_sum_to_one_and_nodes_ascend_within_the_path(method, n_steps):
    nodes, weights = quadrature(method, n_steps, dtype=torch.float64)
    assert weights.sum().item() == pytest.approx(1, abs=1e-14)
    assert (weights > 0).all()
    assert (nodes.diff() > 0).all()
    assert nodes[0] >= 0
    assert nodes[-1] <= 1


@pytest.mark.parametrize("n_steps", [1, 2, 3, 6])
def test_gauss_legendre_is_exact_up_to_its_degree_and_no_further(n_steps):
    nodes, weights = quadrature("gausslegendre", n_steps, dtype=torch.float64)
    errors = [
        abs(float((weights * nodes**degree).sum()) - 1 / (degree + 1))
        for degree in range(2 * n_steps + 1)
    ]
    assert max(errors[:-1]) < 1e-15
    assert errors[-1] > 1e-9


@pytest.mark.parametrize(
    ("method", "order"),
    [
        ("riemann_left", 1),
        ("riemann_right", 1),
        ("riemann_middle", 2),
        ("riemann_trapezoid", 2),
    ],
)
def test_order_of_convergence(method, order):
    def error(n_intervals: int) -> float:
        n_steps = n_intervals + (method == "riemann_trapezoid")
        nodes, weights = quadrature(method, n_steps, dtype=torch.float64)
        return abs(float((weights * nodes.exp()).sum()) - (np.e - 1))

    assert np.log2(error(32) / error(64)) == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_are_rounded_once(dtype):
    exact = quadrature("gausslegendre", 20, dtype=torch.float64)
    for ours, theirs in zip(quadrature("gausslegendre", 20, dtype=dtype), exact, strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, theirs.to(dtype))


def test_device():
    assert {t.device.type for t in quadrature(n_steps=3, device="meta")} == {"meta"}


@pytest.mark.parametrize(
    ("method", "n_steps", "message"),
    [
        (
            "simpson",
            5,
            "method must be one of gausslegendre, .*riemann_trapezoid, but got 'simpson'",
        ),
        (None, 5, "method must be one of .* but got None"),
        ("gausslegendre", 0, "n_steps must be an int of at least 1 for gausslegendre, but got 0"),
        ("riemann_middle", -3, "at least 1 for riemann_middle, but got -3"),
        ("riemann_trapezoid", 1, "at least 2 for riemann_trapezoid, but got 1"),
        ("gausslegendre", 2.0, "n_steps must be an int .* but got 2.0"),
        ("gausslegendre", True, "n_steps must be an int .* but got True"),
        ("gausslegendre", 99_999_999, "n_steps must be at most 2000 for .*, but got 99999999"),
        ("riemann_left", 99_999_999, "n_steps must be at most 100000 for riemann_left, but got"),
    ],
)
def test_bad_rules(method, n_steps, message):
    with pytest.raises(ValueError, match=message):
        quadrature(method, n_steps)
