"""InteractionLIME against one regression over the whole grid of scores."""

from __future__ import annotations

import itertools

import pytest
import torch

from captum_interactions import wrap
from captum_interactions.attr import InteractionLIME
from captum_interactions.attr.second_order.interaction_lime import draw_masks
from tests import models
from tests.ablation import Game
from tests.attr.second_order.test_by_hand import linear
from tests.expected import relative_error, rounding, rounding_of_products

PAIR = models.images(), models.caption(7)


@pytest.mark.parametrize("n_samples", [4, 100])
def test_a_bilinear_score_is_its_own_surrogate(n_samples):
    # s(x, y) = (x1 + 1) (2 y1) + (x2) (y2 - 1); from (1, 1) to (3, 0) and from (0, 2) to (1, 5).
    wrapper = wrap(
        (
            linear([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0]),
            linear([[2.0, 0.0], [0.0, 1.0]], [0.0, -1.0]),
        )
    )
    lime = InteractionLIME(wrapper, normalization="none")
    inputs = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 5.0]])
    baselines = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 2.0]])
    parts = lime.decompose(inputs, baselines, n_samples=n_samples)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(parts.constant, torch.tensor([1.0]), **close)
    torch.testing.assert_close(parts.main_effects_a, torch.tensor([[0.0, -1.0]]), **close)
    torch.testing.assert_close(parts.main_effects_b, torch.tensor([[4.0, 3.0]]), **close)
    torch.testing.assert_close(
        parts.interactions, torch.tensor([[[4.0, 0.0], [0.0, -3.0]]]), **close
    )
    assert parts.convergence_delta.abs().max() < 1e-4


@pytest.mark.parametrize("n_features", [6, 15])
def test_exact_recovery_with_random_masks(n_features):
    a, b = torch.nn.Linear(n_features, 4), torch.nn.Linear(5, 4)
    x, y = torch.rand(3, n_features), torch.rand(3, 5)
    lime = InteractionLIME(wrap((a, b)), normalization="none")
    expected = torch.einsum("ni,ki,kj,nj->nij", x, a.weight, b.weight, y)
    actual = lime.attribute((x, y), n_samples=40)
    torch.testing.assert_close(actual, expected.detach(), rtol=1e-4, atol=1e-5)


def test_embeddings_that_hardly_change():
    """Coefficients of an additive game, up to the rounding of sums of its changes.

    Embeddings are 4 plus multiples of 2^-10, which float32 holds exactly.
    """
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randint(-8, 9, (4, n), generator=generator) / 2**10 for n in (6, 5)]
    a, b = (linear(one.tolist(), [4.0] * 4) for one in weights)
    lime = InteractionLIME(wrap((a, b)), normalization="none")
    actual = lime.attribute((torch.ones(1, 6), torch.ones(1, 5)), n_samples=64)[0].double()
    phi, psi = (one.double() for one in weights)
    errors = []
    for one in (phi, psi):
        masks = draw_masks(one.shape[1], 64, seed=0).double()
        changes = masks @ one.T
        sizes = lime._pseudo_inverse(masks).abs() @ (changes - changes.mean(0)).abs()
        # The constant 4 comes back with the rounding of a sum that is zero.
        errors.append(rounding(len(masks), sizes)[1:] + 4e-14)
    bound = rounding_of_products(phi.T, psi, errors[0], errors[1].T)
    assert bound.max() < 1e-4 * (phi.T @ psi).abs().max()
    assert ((actual - phi.T @ psi).abs() <= bound).all()


def regression(game, masks_a, masks_b, width):
    """c, u, v and W of one weighted least-squares fit over all pairs of masks."""
    rows, weights, scores = [], [], []
    for z_a, z_b in itertools.product(masks_a, masks_b):
        outer = torch.outer(z_a, z_b).flatten()
        rows.append(torch.cat([torch.ones(1), z_a, z_b, outer]).double())
        distances = [1 - (z.sum() / len(z)).sqrt().item() for z in (z_a, z_b)]
        weights.append(torch.tensor(-sum(d * d for d in distances) / (2 * width**2)).exp())
        scores.append(game.score(z_a, z_b))
    roots = torch.stack(weights).double().sqrt().unsqueeze(1)
    target = roots * torch.tensor(scores).double().unsqueeze(1)
    solution = torch.linalg.lstsq(roots * torch.stack(rows), target, driver="gelsd").solution
    n_a, n_b = masks_a.shape[1], masks_b.shape[1]
    c, u, v, w = solution.squeeze(1).float().split([1, n_a, n_b, n_a * n_b])
    return c, u, v, w.unflatten(0, (n_a, n_b))


@pytest.mark.parametrize("layers", [(-1, -1), ("input", 0)])
@pytest.mark.parametrize("width", [0.25, 0.1])
def test_the_regression_over_the_grid(wrapper, layers, width):
    game = Game(wrapper, layers, PAIR)
    masks_a = draw_masks(game.n_tokens(0), 30, seed=3)
    masks_b = draw_masks(game.n_tokens(1), 30, seed=4)
    expected = regression(game, masks_a, masks_b, width)
    lime = InteractionLIME(wrapper, layers, kernel_width=width)
    parts = lime.decompose(PAIR, n_samples=30, seed=3)
    actual = parts.constant, parts.main_effects_a[0], parts.main_effects_b[0], parts.interactions[0]
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-4)
    again = lime.attribute(PAIR, n_samples=30, seed=3, internal_batch_size=7)
    assert relative_error(again, parts.interactions) < 1e-4


def test_masks():
    every = draw_masks(3, 8, seed=0)
    assert every[0].tolist() == [1, 1, 1]
    assert len({tuple(row) for row in every.tolist()}) == 8
    some = draw_masks(3, 7, seed=0)
    assert some.shape == (7, 3)
    assert some[0].tolist() == [1, 1, 1]
    assert not torch.equal(draw_masks(30, 10, seed=0), draw_masks(30, 10, seed=1))
    assert 0.4 < draw_masks(30, 500, seed=0).mean() < 0.6


def test_all_masks_of_one_weight_give_banzhaf_interactions():
    """The mean over all coalitions of what i and j do together; nothing for what does nothing."""
    wrapper = wrap((models.mlp(4), models.mlp(3, seed=1)))
    inputs = torch.tensor([[1.0, 0.0, -1.0, 2.0]]), torch.rand(1, 3)
    maps = InteractionLIME(wrapper, kernel_width=1e4).attribute(inputs)[0]
    game = Game(wrapper, ("input", "input"), inputs)
    expected = torch.zeros(4, 3)
    for a in itertools.product([0, 1], repeat=4):
        for b in itertools.product([0, 1], repeat=3):
            signs = torch.outer(2 * torch.tensor(a) - 1, 2 * torch.tensor(b) - 1)
            expected += signs * game.score(torch.tensor(a), torch.tensor(b)) / 2 ** (4 + 3 - 2)
    assert relative_error(maps, expected) < 1e-4
    assert maps[1].abs().max() < 1e-6


def test_groups_are_players():
    a, b = torch.nn.Linear(6, 4), torch.nn.Linear(5, 4)
    inputs = torch.rand(1, 6), torch.rand(1, 5)
    lime = InteractionLIME(wrap((a, b)), normalization="none")
    single = lime.attribute(inputs)
    groups = lime.attribute(inputs, groups_a=[[0, 1], [2, 3, 4]], groups_b=[[4], [0, 1]])
    expected = torch.stack([single[0, :2].sum(0), single[0, 2:5].sum(0)])
    expected = torch.stack([expected[:, 4], expected[:, :2].sum(1)], 1)
    torch.testing.assert_close(groups[0], expected, rtol=1e-4, atol=1e-5)


def test_bad_options(wrapper):
    with pytest.raises(ValueError, match="more than 10, the number of tokens of input a"):
        InteractionLIME(wrapper).attribute(PAIR, n_samples=10)
    with pytest.raises(ValueError, match="kernel_width must be positive"):
        InteractionLIME(wrapper, kernel_width=0)
    with pytest.raises(ValueError, match="share tokens"):
        InteractionLIME(wrapper).attribute(PAIR, groups_a=[[1], [1]])


def test_number_of_encoder_rows(capsys):
    class Counting(torch.nn.Linear):
        rows = 0

        def forward(self, x):
            self.rows += len(x)
            return super().forward(x)

    a, b = Counting(9, 3), Counting(8, 3)
    lime = InteractionLIME(wrap((a, b)))
    lime.attribute((torch.rand(1, 9), torch.rand(1, 8)), n_samples=50, show_progress=True)
    assert a.rows <= 50 + 3  # the input for its embedding and its norm, and the baseline
    assert b.rows <= 50 + 3
    assert "Encoder a" in capsys.readouterr().err
