"""A method of one's own is its mathematics: the base classes do the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from captum_interactions import SecondOrderIntegratedGradients, explain, wrap
from captum_interactions.attr import ATTRIBUTIONS, Archipelago, LiftedAttribution
from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr._utils.path import Path
from captum_interactions.attr.first_order.base import FirstOrderAttribution
from captum_interactions.attr.second_order.base import SecondOrderAttribution
from captum_interactions.functional import contract
from tests import models
from tests.ablation import Game
from tests.expected import relative_error

PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)


class Norms(FirstOrderAttribution[Tensor]):
    """The length of each token's features.

    Args:
        power (float, optional): Of the length. Default: 2
    """

    cost = "a forward pass of each input"

    def __init__(self, wrapper, layers=None, *, power=2.0):
        super().__init__(wrapper, layers)
        self.power = power

    def _map(self, side: LayerInputs, other: LayerInputs, **_: Any) -> Tensor:
        return side.fold(side.wide_features**self.power)


class Single(SecondOrderAttribution):
    """Products of embeddings of single tokens, all others at their baseline."""

    cost = "a forward pass for each token"

    def _interactions(self, sides: tuple[Path, Path], **_: Any) -> Tensor:
        factors = []
        for path in sides:
            rows = []
            for token in torch.eye(path.n_outputs):
                weights = path.tower.spread(path.layer, token, path.features.shape)
                start = path.baselines[0].expand_as(path.features)
                features = torch.where(weights > 0, path.features, start)
                rows.append(path.function(features, *path.context) - path.baseline_embedding)
            factors.append(torch.stack(rows, 1) * path.token_mask.unsqueeze(-1))
        return contract(*factors)


def test_a_first_order_method(wrapper):
    method = Norms(wrapper, (0, 1), power=4)
    a, b = method.attribute((PIXELS, IDS), additional_forward_args=MASK)
    with torch.no_grad():
        expected = wrapper.tower_a.prefix(0, PIXELS)[0].pow(4).sum(-1)
    torch.testing.assert_close(a, expected)
    assert b[1, 5:].count_nonzero() == 0
    assert b[1, :5].all()
    with pytest.raises(ValueError, match="target must be None"):
        method.attribute((PIXELS, IDS), target=0)
    with pytest.raises(ValueError, match="layer must be an int from -3 to 2"):
        Norms(wrapper, (5, 0))
    for part in ("wrapper (DualEncoderWrapper)", "layers (tuple, optional)", "power", "Raises:"):
        assert part in Norms.__doc__


def test_a_second_order_method(wrapper):
    options = {"additional_forward_args": MASK}
    expected = Archipelago(wrapper, context="absent").attribute((PIXELS, IDS), **options)
    assert relative_error(Single(wrapper).attribute((PIXELS, IDS), **options), expected) < 1e-5
    parts = Single(wrapper).decompose((PIXELS, IDS), None, MASK)
    assert relative_error(parts.interactions, expected) < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(parts.score, wrapper(PIXELS, IDS, MASK), rtol=0, atol=1e-5)
    assert not parts.constant.any()
    dots = Single(wrapper, normalization="none").attribute((PIXELS, IDS), **options)
    assert relative_error(dots, expected) > 0.1


@pytest.mark.parametrize("method", [Norms, Single])
def test_it_is_explained_by_name(wrapper, method, monkeypatch):
    monkeypatch.setitem(ATTRIBUTIONS, "own", method)
    shown = explain(wrapper, PIXELS[:1], (IDS[:1], MASK[:1]), "own", layers=(1, 1))
    assert shown.settings["layers"] == [1, 1]
    assert shown.heatmap().shape == (3, 3)


# The second-order map of one's own attribution of a score.


def occlusion(forward_func, inputs, baselines, additional_forward_args, size=1):
    """The fall of the score without each token, in all of its features (B, T, D)."""
    whole = forward_func(inputs, *additional_forward_args)
    falls = []
    for first in range(0, inputs.shape[1], size):
        occluded = inputs.clone()
        occluded[:, first : first + size] = baselines[:, first : first + size]
        fall = whole - forward_func(occluded, *additional_forward_args)
        falls += [fall] * min(size, inputs.shape[1] - first)
    return torch.stack(falls, 1).unsqueeze(-1).expand_as(inputs) / inputs.shape[2]


@pytest.mark.parametrize("layers", [(-1, -1), (0, 1)])
@pytest.mark.parametrize("side", ["a", "b"])
def test_an_attribution_of_ones_own(wrapper, layers, side):
    """A token's row is the fall of its part of the score, which is a product with its factor."""
    pair = PIXELS[:1], IDS[:1]
    soig = SecondOrderIntegratedGradients(wrapper, layers)
    psi = (soig.factors_b(pair[1]) if side == "a" else soig.factors_a(pair[0])).values[0]
    index = "ab".index(side)
    game = Game(wrapper, layers, pair)
    present = torch.ones(game.n_tokens(index))
    whole, falls = game.embedding(index, present), []
    for i in range(len(present)):
        present[i] = 0
        falls.append(psi @ (whole - game.embedding(index, present)))
        present[i] = 1
    expected = torch.stack(falls, 0 if side == "a" else 1)
    lifted = LiftedAttribution(wrapper, layers, explainer=occlusion, side=side)
    assert relative_error(lifted.attribute(pair)[0], expected) < 1e-4
    chunked = lifted.attribute(pair, internal_batch_size=2)
    assert relative_error(chunked[0], expected) < 1e-4


def test_gradients_of_ones_own(wrapper):
    def gradient_times_input(forward_func, inputs, baselines, args):
        (gradient,) = torch.autograd.grad(forward_func(inputs, *args).sum(), inputs)
        return gradient * inputs

    expected = LiftedAttribution(wrapper, (1, 1)).decompose((PIXELS, IDS), None, MASK)
    lifted = LiftedAttribution(wrapper, (1, 1), explainer=gradient_times_input)
    actual = lifted.decompose((PIXELS, IDS), None, MASK)
    for one, other in zip(actual, expected, strict=True):
        assert relative_error(one, other) < 1e-5


def test_options_and_errors_of_ones_own(wrapper):
    lifted = LiftedAttribution(wrapper, explainer=occlusion)
    wide = lifted.attribute((PIXELS, IDS), None, None, MASK, options={"size": 10})
    # All tokens of the image together, at each of them.
    assert relative_error(wide, wide[:, :1].expand_as(wide)) < 1e-6
    with pytest.raises(TypeError, match="occlusion has no option sizes .* options are size"):
        lifted.attribute((PIXELS, IDS), options={"sizes": 1})
    wrong = LiftedAttribution(wrapper, explainer=lambda f, x, b, args: f(x, *args))
    with pytest.raises(ValueError, match=r"its inputs, \(6, 10, 16\), but returned \(6,\)"):
        wrong.attribute((PIXELS[:1], IDS[:1]))


def test_a_list_of_baselines_is_averaged_over():
    wrapper = wrap((models.mlp(6), models.mlp(9, seed=1)))
    pair = torch.rand(2, 6), torch.rand(2, 9)

    def difference(forward_func, inputs, baselines, args):
        fall = forward_func(inputs, *args) - forward_func(baselines, *args)
        return fall.unsqueeze(1).expand_as(inputs)

    lifted = LiftedAttribution(wrapper, explainer=difference)
    one, two, both = (
        lifted.attribute(pair, (baseline, None)) for baseline in (0.1, 0.7, [0.1, 0.7])
    )
    assert relative_error(both, (one + two) / 2) < 1e-5
