"""Numbers of nodes that follow from a tolerance."""

from __future__ import annotations

import pytest
import torch

from captum_interactions import SecondOrderIntegratedGradients, explain, wrap
from captum_interactions.functional.integrated import path_values
from tests import corpora, models

PIXELS, (IDS, MASK) = models.images(2), models.captions(9, 6)


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
    pair = corpora.small_wrapper(), corpora.picture(1), "a red circle"
    imap = explain(*pair, n_steps="auto", tolerance=1e-2)
    used = imap.settings["n_steps"]
    assert all(isinstance(number, int) for number in (used if isinstance(used, list) else [used]))
    assert imap.settings["tolerance"] == 1e-2
    default = explain(*pair, n_steps="auto")
    assert default.settings["tolerance"] == 1e-3
    given = explain(*pair, n_steps=45)
    assert given.settings["n_steps"] == 45
    assert "tolerance" not in given.settings


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
