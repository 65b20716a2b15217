"""SecondOrderIntegratedGradients of a CLIP against the slow oracle."""

from __future__ import annotations

import pytest
import torch

from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.functional import METHODS, quadrature
from tests import models
from tests.expected import (
    expected_features,
    expected_map,
    image_side,
    relative_error,
    text_baseline,
    text_side,
)

NORMALIZATIONS = ("cosine", "frozen", "none")
LAYERS = [(0, 0), (1, 2), (-1, -1), ("input", 1)]

# Ten image tokens against a caption that is shorter, longer, or both more than dimensions.
PLANS = {
    "text first": {"dimension": 24, "length": 6},
    "image first": {"dimension": 24, "length": 14},
    "a product per dimension": {"dimension": 4, "length": 6},
}


class Case:
    """A model with one pair, and the oracle's word on it."""

    def __init__(self, dimension=24, length=6, size=(12, 12), **options):
        self.model = models.clip(dimension=dimension, **options)
        self.inputs = models.images(size=size), models.caption(length)

    def expected(self, layers, rule, normalization="cosine", resolve=expected_map, **options):
        pixels, ids = self.inputs
        side_a = image_side(self.model, pixels, layers[0], torch.zeros_like(pixels))
        side_b = text_side(self.model, ids, layers[1], text_baseline(ids, models.PAD))
        return resolve(side_a, side_b, rule, normalization=normalization, **options)


@pytest.fixture(scope="module", params=PLANS)
def case(request):
    return Case(**PLANS[request.param])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("layers", LAYERS)
def test_every_layer_and_normalization(case, layers, normalization):
    soig = SecondOrderIntegratedGradients(wrap(case.model), layers, normalization=normalization)
    actual = soig.attribute(case.inputs, n_steps=6)[0]
    assert (
        relative_error(actual, case.expected(layers, quadrature(n_steps=6), normalization)) < 1e-5
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_rule(case, method):
    soig = SecondOrderIntegratedGradients(wrap(case.model), (1, 1))
    actual = soig.attribute(case.inputs, n_steps=5, method=method)[0]
    assert relative_error(actual, case.expected((1, 1), quadrature(method, 5))) < 1e-5


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("layers", [(0, 0), ("input", -1)])
def test_full_resolution(layers, side):
    case = Case()
    soig = SecondOrderIntegratedGradients(wrap(case.model), layers)
    actual, delta = soig.attribute(
        case.inputs, n_steps=4, full_resolution=side, return_convergence_delta=True
    )
    features = case.expected(layers, quadrature(n_steps=4), resolve=expected_features)
    if side == "a":
        expected = features.sum(-1)
    elif layers[0] == "input":
        pixels = features.permute(3, 4, 0, 1, 2)  # (Tb, Db, C, H, W)
        cells = torch.nn.functional.avg_pool2d(pixels.flatten(0, 1).sum(1), 4) * 16
        expected = cells.flatten(1).T.unflatten(1, features.shape[-2:])
    else:
        expected = features.sum(1)
    assert relative_error(actual[0], expected) < 1e-5
    tokens, delta_of_tokens = soig.attribute(case.inputs, n_steps=4, return_convergence_delta=True)
    torch.testing.assert_close(delta, delta_of_tokens, rtol=0, atol=1e-6)
    assert actual.sum() == pytest.approx(tokens.sum().item(), abs=1e-5)


@pytest.mark.parametrize("layers", [(0, 0), (1, 1), (-1, -1), ("input", 0)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("eos", [models.EOS, 2])
def test_attention_implementations_and_pooling_at_the_largest_id(attention, eos, layers):
    case = Case(attention=attention, eos=eos)
    soig = SecondOrderIntegratedGradients(wrap(case.model), layers)
    actual = soig.attribute(case.inputs, n_steps=5)[0]
    assert relative_error(actual, case.expected(layers, quadrature(n_steps=5))) < 1e-5


@pytest.mark.parametrize("layer", [0, -1, "input"])
@pytest.mark.parametrize("size", [(8, 20), (16, 12)])
def test_images_of_other_sizes(size, layer):
    case = Case(size=size)
    soig = SecondOrderIntegratedGradients(wrap(case.model), (layer, -1))
    actual = soig.attribute(case.inputs, n_steps=4)[0]
    assert actual.shape == (size[0] * size[1] // 16 + (layer != "input"), 6)
    assert relative_error(actual, case.expected((layer, -1), quadrature(n_steps=4))) < 1e-5


def test_pixels_that_make_no_whole_patch_do_not_count():
    case = Case(size=(14, 19))
    soig = SecondOrderIntegratedGradients(wrap(case.model), ("input", -1))
    tokens = soig.attribute(case.inputs, n_steps=4)
    pixels = soig.attribute(case.inputs, n_steps=4, full_resolution="a")[0]
    assert tokens.shape == (1, 12, 6)
    assert pixels[:, 12:].count_nonzero() == pixels[:, :, 16:].count_nonzero() == 0
    cells = pixels[:, :12, :16].unflatten(2, (4, 4)).unflatten(1, (3, 4)).sum((0, 2, 4))
    torch.testing.assert_close(cells.flatten(0, 1), tokens[0], rtol=1e-4, atol=1e-6)


def test_default_layers_are_the_last_blocks(case):
    actual = SecondOrderIntegratedGradients(wrap(case.model)).attribute(case.inputs, n_steps=4)[0]
    assert relative_error(actual, case.expected((-1, -1), quadrature(n_steps=4))) < 1e-5
