"""IntegratedHessians written out, of cross-encoders, and against second-order IG."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_interactions import SecondOrderIntegratedGradients
from captum_interactions.attr import IntegratedHessians
from captum_interactions.functional import quadrature
from tests import models
from tests.expected import relative_error

PAIR, MASK = (models.images(2), models.captions(7, 5)[0]), models.captions(7, 5)[1]


class CrossEncoder(nn.Module):
    """Tokens of both inputs in one sequence, mixed by attention: (B, Ta, D), (B, Tb, D) -> (B,)."""

    def __init__(self):
        super().__init__()
        self.encoder = models.Attention(4, 3)

    def forward(self, a, b, mask=None):
        b = b if mask is None else b * mask.unsqueeze(-1)
        return self.encoder(torch.cat([a, b], 1)).square().sum(1)


@pytest.fixture(scope="module")
def cross():
    return CrossEncoder()


@pytest.fixture(scope="module")
def states():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, generator=generator), torch.randn(2, 5, 4, generator=generator)


def test_a_product_of_powers_written_out():
    # x³ y²: the corner difference is all there is, on any path of both.
    hessians = IntegratedHessians(lambda x, y: (x**3 * y**2).sum(1))
    inputs = torch.tensor([[2.0]]), torch.tensor([[-3.0]])
    maps, delta = hessians.attribute(inputs, n_steps=2, return_convergence_delta=True)
    torch.testing.assert_close(maps, torch.tensor([[[72.0]]]))
    assert delta.abs() < 1e-4
    # The rule of the right end: 3 · 5/8 · 2 · 3/4 · 72
    right = hessians.attribute(inputs, n_steps=2, method="riemann_right")
    torch.testing.assert_close(right, torch.tensor([[[202.5]]]))


def test_baselines_and_the_other_parts_written_out():
    # f = x y + x + 2 y, from (1, 1) to (3, 5): 2 · 4, then 1 · 2 + 2 and 1 · 4 + 8, and 4 at first.
    hessians = IntegratedHessians(lambda x, y: (x * y + x + 2 * y).sum(1))
    inputs = torch.tensor([[3.0]]), torch.tensor([[5.0]])
    parts = hessians.decompose(inputs, 1.0, n_steps=3)
    assert [float(part.sum()) for part in parts] == pytest.approx([4, 4, 12, 8, 28])


def test_the_diagonal_path_written_out():
    # 2 x y ∫∫ αβ dα dβ is half of x y; of x² y it is 2 · 2 x² y ∫∫ (αβ)² dα dβ, four ninths.
    inputs = torch.tensor([[3.0]]), torch.tensor([[5.0]])
    for power, share in ((1, 1 / 2), (2, 4 / 9)):
        hessians = IntegratedHessians(lambda x, y, p=power: (x**p * y).sum(1), path="diagonal")
        actual = hessians.attribute(inputs, n_steps=3)
        assert float(actual) == pytest.approx(share * 3**power * 5, rel=1e-5)


def test_the_diagonal_path_is_the_cross_block_of_the_whole(cross, states):
    """All blocks by the formula of the paper, which together are f(x) - f(r)."""
    nodes, weights = quadrature(n_steps=6, dtype=torch.float64)
    encoder = CrossEncoder().double()
    joined = torch.cat([s[0] for s in states]).double()

    def function(x):
        return encoder(x[None, :3], x[None, 3:]).squeeze()

    whole = torch.zeros(32, 32, dtype=torch.float64)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for alpha, w in zip(nodes, weights, strict=True):
            for beta, v in zip(nodes, weights, strict=True):
                point = alpha * beta * joined
                hessian = torch.autograd.functional.hessian(function, point).reshape(32, 32)
                gradient = torch.autograd.functional.jacobian(function, point).flatten()
                whole += w * v * alpha * beta * hessian * torch.outer(*[joined.flatten()] * 2)
                whole += w * v * torch.diag(gradient * joined.flatten())
    difference = function(joined) - function(0 * joined)
    assert whole.sum() == pytest.approx(difference.item(), rel=1e-3)
    blocks = whole.reshape(8, 4, 8, 4).sum((1, 3))
    expected = (blocks[:3, 3:] + blocks[3:, :3].T).float()
    actual = IntegratedHessians(cross, path="diagonal").attribute(states, n_steps=6)
    assert relative_error(actual[0], expected) < 1e-4


def test_the_cross_block_by_the_formula(cross, states):
    nodes, weights = quadrature(n_steps=3)
    expected = torch.zeros(3, 5)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for alpha, w in zip(nodes, weights, strict=True):
            for beta, v in zip(nodes, weights, strict=True):
                point = alpha * states[0][:1], beta * states[1][:1]
                mixed = torch.autograd.functional.hessian(lambda a, b: cross(a, b).sum(), point)[0][
                    1
                ]
                deltas = states[0][0][:, :, None, None] * states[1][0]
                expected += w * v * (mixed.squeeze() * deltas).sum((1, 3))
    actual = IntegratedHessians(cross).attribute(states, n_steps=3)
    assert relative_error(actual[0], expected) < 1e-4
    mirrored = IntegratedHessians(lambda a, b: cross(b, a)).attribute(states[::-1], n_steps=3)
    assert relative_error(mirrored.transpose(1, 2), actual) < 1e-5


def test_a_cross_encoder_is_complete(cross, states):
    hessians = IntegratedHessians(cross)
    mask = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    maps, delta = hessians.attribute(
        states, (0.1, 0.2), None, mask, n_steps=25, return_convergence_delta=True
    )
    assert delta.abs().max() < 1e-4 * maps.abs().max()
    assert maps[1, :, 3:].abs().max() == 0
    parts = hessians.decompose(states, (0.1, 0.2), mask, n_steps=25)
    assert parts.convergence_delta.abs().max() < 1e-3
    with torch.no_grad():
        torch.testing.assert_close(parts.score, cross(*states, mask))
    chunked = hessians.attribute(states, (0.1, 0.2), None, mask, 25, internal_batch_size=101)
    assert relative_error(chunked, maps) < 1e-5


@pytest.mark.parametrize("layers", [(-1, -1), (0, 1), ("input", 0)])
@pytest.mark.parametrize("normalization", ["cosine", "frozen", "none"])
def test_of_a_dual_encoder_it_is_second_order_integrated_gradients(wrapper, layers, normalization):
    hessians = IntegratedHessians(wrapper, layers, normalization=normalization)
    soig = SecondOrderIntegratedGradients(wrapper, layers, normalization=normalization)
    options = {"additional_forward_args": MASK, "n_steps": 4}
    actual, expected = (method.decompose(PAIR, **options) for method in (hessians, soig))
    for one, other in zip(actual, expected, strict=True):
        assert relative_error(one, other) < 1e-5
    assert actual.interactions[1, :, 5:].count_nonzero() == 0
    maps = hessians.attribute(PAIR, **options, internal_batch_size=7)
    assert relative_error(maps, expected.interactions) < 1e-5


def test_an_additive_function_has_no_interactions():
    hessians = IntegratedHessians(lambda x, y: x.exp().sum(1) + y.sum(1))
    assert hessians.attribute((torch.rand(2, 3), torch.rand(2, 4))).count_nonzero() == 0


def test_bad_input(wrapper, cross, states):
    with pytest.raises(TypeError, match="a function of two inputs"):
        IntegratedHessians(3)
    with pytest.raises(ValueError, match="path must be"):
        IntegratedHessians(cross, path="straight")
    with pytest.raises(ValueError, match="explained at its inputs"):
        IntegratedHessians(cross, (0, 0))
    with pytest.raises(ValueError, match="input b must be real-valued.*take embeddings"):
        IntegratedHessians(cross).attribute((states[0], torch.ones(2, 5, dtype=torch.long)))
    with pytest.raises(ValueError, match="baseline a must be None, a number"):
        IntegratedHessians(cross).attribute(states, (torch.ones(1, 2, 4), None))
    with pytest.raises(ValueError, match=r"scores of shape \(2,\)"):
        IntegratedHessians(lambda a, b: a.sum()).attribute(states)
    with pytest.raises(ValueError, match="not complete by itself"):
        IntegratedHessians(cross, path="diagonal").attribute(states, return_convergence_delta=True)
    with pytest.raises(ValueError, match="baseline b must be a single one"):
        IntegratedHessians(wrapper).attribute(PAIR, (None, [1, 2]))
    with pytest.raises(ValueError, match="internal_batch_size must be at least 1"):
        IntegratedHessians(cross).attribute(states, internal_batch_size=0)
