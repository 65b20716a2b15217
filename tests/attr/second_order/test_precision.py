"""Models in double and in half precision."""

from __future__ import annotations

import copy

import pytest
import torch

from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.functional import Factors, quadrature
from tests import models
from tests.expected import expected_map, image_side, relative_error, text_baseline, text_side

PIXELS, (IDS, MASK) = models.images(2), models.captions(9, 6)
NORMALIZATIONS = ("cosine", "frozen", "none")


def model(dtype, dimension=24):
    return models.clip(dimension=dimension).to(dtype)


@pytest.mark.parametrize("dimension", [24, 4], ids=["short side first", "a product per dimension"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_double_is_double_throughout(dimension, normalization):
    double = model(torch.float64, dimension)
    pixels, ids = PIXELS[:1].double(), IDS[:1]
    soig = SecondOrderIntegratedGradients(wrap(double), (1, 1), normalization=normalization)
    actual, delta = soig.attribute((pixels, ids), n_steps=5, return_convergence_delta=True)
    expected = expected_map(
        image_side(double, pixels, 1, torch.zeros_like(pixels)),
        text_side(double, ids, 1, text_baseline(ids, models.PAD)),
        quadrature(n_steps=5, dtype=torch.float64),
        normalization=normalization,
    )
    assert actual.dtype == delta.dtype == torch.float64
    assert relative_error(actual[0], expected) < 1e-12
    _, delta = soig.attribute((pixels, ids), n_steps=150, return_convergence_delta=True)
    assert delta.abs().item() < 1e-12 * max(1, float(expected.abs().sum()))


@pytest.mark.parametrize("dimension", [24, 4], ids=["short side first", "a product per dimension"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.015)])
def test_half_precision_returns_single(dtype, tolerance, normalization, dimension):
    results = []
    for kind in (dtype, torch.float32):
        soig = SecondOrderIntegratedGradients(
            wrap(model(dtype, dimension).to(kind)), (1, 2), normalization=normalization
        )
        inputs = PIXELS.to(dtype).to(kind), IDS
        options = {"additional_forward_args": MASK, "n_steps": 6}
        maps, delta = soig.attribute(inputs, return_convergence_delta=True, **options)
        parts = soig.decompose(inputs, **options)
        local = soig.attribute(inputs, groups_a=[[0], [2, 3]], full_resolution="b", **options)
        factors = soig.factors_a(inputs[0], n_steps=6), soig.factors_b(inputs[1], None, MASK, 6)
        results.append([maps, delta, *parts, local, factors[0] @ factors[1]])
        tensors = [*results[-1], *(t for f in factors for t in vars(f).values())]
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
        assert all(isinstance(f, Factors) for f in factors)
    half, single = results
    scale = float(single[0].abs().sum((1, 2)).max())
    for actual, expected in zip(half, single, strict=True):
        assert actual.isfinite().all()
        assert (actual - expected).abs().max() < tolerance * max(expected.abs().max(), 0.1 * scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounding_is_not_taken_for_a_missing_derivative(dtype, monkeypatch):
    def unexpected(*args, **kwargs):
        raise AssertionError("fell back to one product per dimension")

    wrapper = wrap(model(dtype))
    for layers in ((0, 0), (2, 2)):
        soig = SecondOrderIntegratedGradients(wrapper, layers)
        monkeypatch.setattr("captum_interactions.attr._utils.products.integrated_vjp", unexpected)
        soig.factors_a(PIXELS.to(dtype), n_steps=4)
        soig.factors_b(IDS, n_steps=4, internal_batch_size=1)


def test_a_wide_input_of_a_narrow_model():
    """CLIP casts pixels itself, so at the pixels the path may be wider than the model."""
    narrow = wrap(model(torch.bfloat16))
    soig = SecondOrderIntegratedGradients(narrow, ("input", -1))
    wide = SecondOrderIntegratedGradients(wrap(model(torch.bfloat16).float()), ("input", -1))
    actual = soig.attribute((PIXELS, IDS), n_steps=4)
    expected = wide.attribute((PIXELS, IDS), n_steps=4)
    assert actual.dtype == torch.float32
    assert (actual - expected).abs().max() < 0.1 * expected.abs().max()


def test_two_towers_of_different_precision():
    half, single = models.mlp(6), models.mlp(4, seed=1)
    half = copy.deepcopy(half).bfloat16()
    soig = SecondOrderIntegratedGradients(wrap((half, single)))
    maps = soig.attribute((torch.rand(2, 6).bfloat16(), torch.rand(2, 4)), n_steps=3)
    assert maps.shape == (2, 6, 4)
    assert maps.dtype == torch.float32
