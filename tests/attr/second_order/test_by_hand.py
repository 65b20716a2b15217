"""Maps that can be computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.functional import METHODS
from tests import models


def linear(weight, bias=None):
    """The linear encoder ``x -> weight @ x + bias``."""
    weight = torch.tensor(weight)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


@pytest.mark.parametrize("n_steps", [2, 7])
@pytest.mark.parametrize("method", METHODS)
def test_a_bilinear_score_written_out(method, n_steps):
    # s(x, y) = (x1 + 2 x2) (3 y1) + (-x1) (y1 + y2) = 2 x1 y1 - x1 y2 + 6 x2 y1
    wrapper = wrap((linear([[1.0, 2.0], [-1.0, 0.0]]), linear([[3.0, 0.0], [1.0, 1.0]])))
    soig = SecondOrderIntegratedGradients(wrapper, normalization="none")
    inputs = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    maps, delta = soig.attribute(
        inputs, n_steps=n_steps, method=method, return_convergence_delta=True
    )
    torch.testing.assert_close(maps, torch.tensor([[[6.0, 1.0], [36.0, 0.0]]]))
    torch.testing.assert_close(delta, torch.zeros(1), rtol=0, atol=1e-4)


def test_a_bilinear_score_with_baselines_written_out():
    # s(x, y) = (x1 + 1) (2 y1) + (x2) (y2 - 1); from (1, 1) to (3, 0) and from (0, 2) to (1, 5).
    wrapper = wrap(
        (
            linear([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0]),
            linear([[2.0, 0.0], [0.0, 1.0]], [0.0, -1.0]),
        )
    )
    soig = SecondOrderIntegratedGradients(wrapper, normalization="none")
    inputs = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 5.0]])
    parts = soig.decompose(inputs, (torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 2.0]])))
    torch.testing.assert_close(parts.constant, torch.tensor([1.0]))  # 2 · 0 + 1 · 1
    torch.testing.assert_close(parts.main_effects_a, torch.tensor([[0.0, -1.0]]))
    torch.testing.assert_close(parts.main_effects_b, torch.tensor([[4.0, 3.0]]))
    torch.testing.assert_close(parts.interactions, torch.tensor([[[4.0, 0.0], [0.0, -3.0]]]))
    torch.testing.assert_close(parts.score, torch.tensor([8.0]))  # 4 · 2 + 0 · 4


def test_a_product_of_powers_written_out():
    # x³ y² in one feature each: ∫ 3 α² dα · ∫ 2 β dβ times x³ y², exact with two nodes.
    wrapper = wrap((lambda x: x**3, lambda y: y**2))
    soig = SecondOrderIntegratedGradients(wrapper, normalization="none")
    inputs = torch.tensor([[2.0]]), torch.tensor([[-3.0]])
    maps = soig.attribute(inputs, n_steps=2)
    torch.testing.assert_close(maps, torch.tensor([[[8.0 * 9.0]]]))
    right = soig.attribute(inputs, n_steps=2, method="riemann_right")  # 3 · 5/8 · 2 · 3/4 · 72
    torch.testing.assert_close(right, torch.tensor([[[202.5]]]))


@pytest.mark.parametrize("normalization", ["none", "frozen"])
@pytest.mark.parametrize("dimension", [2, 16])
def test_any_bilinear_score(dimension, normalization):
    a, b = nn.Linear(6, dimension), nn.Linear(5, dimension)
    soig = SecondOrderIntegratedGradients(wrap((a, b)), normalization=normalization)
    x, y = (models.randomise(nn.Embedding(4, n), seed=n).weight.detach() for n in (6, 5))
    expected = torch.einsum("ni,ki,kj,nj->nij", x, a.weight, b.weight, y)
    if normalization == "frozen":
        expected = expected / (a(x).norm(dim=1) * b(y).norm(dim=1))[:, None, None]
    actual = soig.attribute((x, y), n_steps=1)
    torch.testing.assert_close(actual, expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2), (3, 2, 2, 2)])
def test_what_a_token_is_for_inputs_of_any_rank(shape):
    """(F) are tokens, (T, D) is summed over D, and (C, *S) over C."""
    encoder = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    x, y = torch.rand(2, *shape), torch.rand(2, 3)
    wrapper = wrap((encoder, nn.Linear(3, 4)))
    wrapper(x, y)
    soig = SecondOrderIntegratedGradients(wrapper, normalization="none")
    tokens = soig.attribute((x, y), n_steps=1)
    features = soig.attribute((x, y), n_steps=1, full_resolution="a")
    weight_a, weight_b = encoder[1].weight, wrapper.tower_b.function.weight
    expected = torch.einsum("ni,ki,kj,nj->nij", x.flatten(1), weight_a, weight_b, y).detach()
    torch.testing.assert_close(features.flatten(1, -2), expected, rtol=1e-5, atol=1e-6)
    dims = {1: [], 2: [2], 3: [1], 4: [1]}[len(shape)]
    expected = features.sum(dims) if dims else features
    torch.testing.assert_close(tokens, expected.reshape(tokens.shape), rtol=1e-5, atol=1e-6)


def test_local_attributions_are_the_mean_of_the_mixed_derivatives():
    # d/dx d/dy x³ y² averaged over the square from (0, 0) to (2, -3): 3 · 4/3 · 2 · (-3/2)
    wrapper = wrap((lambda x: x**3, lambda y: y**2))
    soig = SecondOrderIntegratedGradients(wrapper, None, False, normalization="none")
    maps = soig.attribute((torch.tensor([[2.0]]), torch.tensor([[-3.0]])), n_steps=2)
    torch.testing.assert_close(maps, torch.tensor([[[-12.0]]]))
