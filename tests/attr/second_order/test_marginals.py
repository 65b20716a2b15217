"""Sums over one side are first-order: Captum's own numbers at the same nodes.

Summed over all tokens of b, a map is Integrated Gradients of ``s(·, b) − s(·, r_b)`` if the factors
of b sum to ``h(b) − h(r_b)``. So b is integrated finely here, and a at the nodes that are compared.
"""

from __future__ import annotations

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients

from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.functional import METHODS
from tests import models
from tests.expected import relative_error, text_baseline

# Captum's trapezoid weights do not sum to one.
SHARED_METHODS = [method for method in METHODS if method != "riemann_trapezoid"]
FINE = {"n_steps": 60}
PIXELS, IDS = models.images(2), models.captions(8, 8)[0]
BASELINE = text_baseline(IDS, models.PAD)


def marginal(factors, other):
    """Sums over the other side of the maps of aligned pairs, (B, T)."""
    maps = (factors @ other).sum(-1)
    return maps[torch.arange(len(maps)), torch.arange(len(maps))]


@pytest.mark.parametrize("method", SHARED_METHODS)
def test_patches(wrapper, method):
    soig = SecondOrderIntegratedGradients(wrapper, ("input", -1))
    options = {"n_steps": 7, "method": method}
    actual = marginal(soig.factors_a(PIXELS, **options), soig.factors_b(IDS, **FINE))
    captum = IntegratedGradients(
        lambda pixels, ids, baseline: wrapper(pixels, ids) - wrapper(pixels, baseline)
    ).attribute(PIXELS, 0, additional_forward_args=(IDS, BASELINE), **options)
    cells = torch.nn.functional.avg_pool2d(captum.float().sum(1), 4) * 16
    assert relative_error(actual, cells.flatten(1)) < 1e-5


@pytest.mark.parametrize("method", SHARED_METHODS)
@pytest.mark.parametrize("layer", [0, 1])
def test_words_at_a_layer(wrapper, clip, layer, method):
    soig = SecondOrderIntegratedGradients(wrapper, (-1, layer))
    options = {"n_steps": 7, "method": method}
    actual = marginal(soig.factors_b(IDS, **options), soig.factors_a(PIXELS, **FINE))
    text = clip.text_model
    captum = LayerIntegratedGradients(
        lambda ids, pixels: wrapper(pixels, ids) - wrapper(0 * pixels, ids),
        text.embeddings if layer == 0 else text.encoder.layers[layer - 1],
    ).attribute(IDS, BASELINE, additional_forward_args=(PIXELS,), **options)
    assert relative_error(actual, captum.float().sum(-1)) < 1e-5


@pytest.mark.parametrize("dimension", [3, 12])
@pytest.mark.parametrize("method", SHARED_METHODS)
def test_main_effects(method, dimension):
    """These need the nodes of one side alone."""
    wrapper = wrap((models.mlp(6, dimension), models.mlp(9, dimension, seed=1)))
    soig = SecondOrderIntegratedGradients(wrapper)
    inputs = a, b = torch.rand(3, 6), torch.rand(3, 9)
    baselines = baseline_a, baseline_b = torch.rand(3, 6), torch.rand(1, 9)
    options = {"n_steps": 6, "method": method}
    parts = soig.decompose(inputs, baselines, **options)
    ig_a = IntegratedGradients(wrapper)
    captum = ig_a.attribute(
        a, baseline_a, additional_forward_args=baseline_b.expand(3, 9), **options
    )
    assert relative_error(parts.main_effects_a, captum.float()) < 1e-5
    ig_b = IntegratedGradients(lambda y, x: wrapper(x, y))
    captum = ig_b.attribute(b, baseline_b, additional_forward_args=baseline_a, **options)
    assert relative_error(parts.main_effects_b, captum.float()) < 1e-5


@pytest.mark.parametrize("dimension", [3, 12])
def test_a_whole_map_with_many_nodes(dimension):
    wrapper = wrap((models.mlp(6, dimension), models.mlp(9, dimension, seed=1)))
    a, b = torch.rand(3, 6), torch.rand(3, 9)
    maps = SecondOrderIntegratedGradients(wrapper).attribute((a, b), **FINE)
    ig = IntegratedGradients(lambda x, y: wrapper(x, y) - wrapper(x, 0 * y))
    captum = ig.attribute(a, additional_forward_args=b, **FINE)
    assert relative_error(maps.sum(2), captum.float()) < 1e-5
