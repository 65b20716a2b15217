"""What a map, its factors and its parts add up to."""

from __future__ import annotations

import itertools

import pytest
import torch

from captum_interactions import DualEncoderWrapper, SecondOrderIntegratedGradients, wrap
from tests import models
from tests.expected import image_side, relative_error, text_baseline, text_side

LENGTHS = (6, 9)
NORMALIZATIONS = ("cosine", "frozen", "none")


@pytest.fixture(scope="module", params=[24, 4], ids=["short side first", "a product per dimension"])
def wrapper(request):
    return wrap(models.clip(dimension=request.param))


@pytest.fixture(scope="module")
def batch():
    ids, mask = models.captions(*LENGTHS)
    return {"inputs": (models.images(2), ids), "additional_forward_args": mask}


def corners(model, batch, normalization):
    """The four scores (a, b), (a, rb), (ra, b), (ra, rb) by the oracle's means, each (B,)."""
    pixels, ids = batch["inputs"]
    scores = []
    for row, length in enumerate(LENGTHS):
        own = ids[row : row + 1, :length]
        side_a = image_side(model, pixels[row : row + 1], 1, torch.zeros(1, 3, 12, 12))
        side_b = text_side(model, own, 1, text_baseline(own, models.PAD))
        with torch.no_grad():
            a, ra = side_a.scaled(normalization)(torch.stack([side_a.end, side_a.start]))
            b, rb = side_b.scaled(normalization)(torch.stack([side_b.end, side_b.start]))
        scores.append(torch.stack([a @ b, a @ rb, ra @ b, ra @ rb]))
    return torch.stack(scores, 1)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_delta_is_what_the_map_has_too_much(wrapper, batch, normalization):
    soig = SecondOrderIntegratedGradients(wrapper, (1, 1), normalization=normalization)
    maps, delta = soig.attribute(**batch, n_steps=3, return_convergence_delta=True)
    both, image, text, neither = corners(wrapper.tower_a.model, batch, normalization)
    expected = maps.sum((1, 2)) - (both - image - text + neither)
    scale = float(both.abs().max())
    torch.testing.assert_close(delta, expected, rtol=0, atol=1e-5 * max(scale, 1))
    again = soig.compute_convergence_delta(
        maps, None, batch["inputs"], additional_forward_args=batch["additional_forward_args"]
    )
    torch.testing.assert_close(again, delta, rtol=0, atol=1e-5 * max(scale, 1))
    in_a_tuple = soig.compute_convergence_delta((maps,), None, batch["inputs"], None)
    torch.testing.assert_close(in_a_tuple, delta, rtol=0, atol=1e-5 * max(scale, 1))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_four_parts_make_the_score(wrapper, batch, normalization):
    soig = SecondOrderIntegratedGradients(wrapper, (2, 2), normalization=normalization)
    parts = soig.decompose(**batch, n_steps=60)
    both, image, text, neither = corners(wrapper.tower_a.model, batch, normalization)
    scale = float(both.abs().max())
    for actual, expected in (
        (parts.score, both),
        (parts.constant, neither),
        (parts.main_effects_a.sum(1), image - neither),
        (parts.main_effects_b.sum(1), text - neither),
        (parts.interactions.sum((1, 2)), both - image - text + neither),
        (parts.convergence_delta, torch.zeros(2)),
    ):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 * max(scale, 1))
    assert relative_error(parts.interactions, soig.attribute(**batch, n_steps=60)) < 1e-5
    if normalization == "cosine":
        score = wrapper(*batch["inputs"], batch["additional_forward_args"]).detach()
        torch.testing.assert_close(parts.score, score, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [6, 14])
def test_swapping_the_sides_swaps_the_parts(wrapper, length):
    swapped = DualEncoderWrapper(wrapper.tower_b, wrapper.tower_a)
    pixels, ids = models.images(), models.caption(length)
    ours = SecondOrderIntegratedGradients(wrapper, (1, 2)).decompose((pixels, ids), n_steps=4)
    theirs = SecondOrderIntegratedGradients(swapped, (2, 1)).decompose((ids, pixels), n_steps=4)
    assert relative_error(theirs.main_effects_a, ours.main_effects_b) < 1e-5
    assert relative_error(theirs.main_effects_b, ours.main_effects_a) < 1e-5
    assert relative_error(theirs.interactions, ours.interactions.transpose(1, 2)) < 1e-5


@pytest.mark.parametrize("steps", [10, 40])
def test_more_steps_leave_less(wrapper, batch, steps):
    soig = SecondOrderIntegratedGradients(wrapper, (2, 2))
    few, many = (
        soig.attribute(**batch, n_steps=n, return_convergence_delta=True)[1].abs().max()
        for n in (steps // 4, steps)
    )
    assert many < few / 2 or few < 1e-6


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_factors_give_the_map_of_every_pair(wrapper, normalization):
    pixels, (ids, mask) = models.images(3), models.captions(*LENGTHS)
    soig = SecondOrderIntegratedGradients(wrapper, (1, 1), normalization=normalization)
    factors_a = soig.factors_a(pixels, n_steps=3)
    factors_b = soig.factors_b(ids, additional_forward_args=mask, n_steps=3)
    maps, deltas = factors_a @ factors_b, factors_a.convergence_delta(factors_b)
    assert (len(factors_a), len(factors_b)) == (3, 2)
    assert maps.shape == (3, 2, 10, 9)
    assert factors_b.values[mask == 0].count_nonzero() == 0
    for i, j in itertools.product(range(3), range(2)):
        expected, delta = soig.attribute(
            (pixels[i : i + 1], ids[j : j + 1]),
            additional_forward_args=mask[j : j + 1],
            n_steps=3,
            return_convergence_delta=True,
        )
        assert relative_error(maps[i, j], expected[0]) < 1e-5
        scale = float(expected.abs().sum())
        assert deltas[i, j].item() == pytest.approx(delta.item(), abs=1e-5 * max(scale, 1))


def test_factors_of_groups_and_of_several_baselines(wrapper):
    soig = SecondOrderIntegratedGradients(wrapper, (1, 1))
    pixels = models.images(2)
    groups, baselines = [[1, 2], [3, 4, 5]], [0.0, models.images(2, seed=7)]
    tokens = soig.factors_a(pixels, baselines, n_steps=3).values
    actual = soig.factors_a(
        pixels, baselines, n_steps=3, groups=groups, method="gausslegendre", internal_batch_size=3
    )
    expected = torch.stack([tokens[:, group].sum(1) for group in groups], 1)
    assert relative_error(actual.values, expected) < 1e-5


def test_what_is_not_multiplied_is_not_complete(wrapper, batch):
    complete = SecondOrderIntegratedGradients(wrapper)
    assert complete.has_convergence_delta()
    assert complete.multiplies_by_inputs
    local = SecondOrderIntegratedGradients(wrapper, multiply_by_inputs=False)
    assert not local.has_convergence_delta()
    assert not local.multiplies_by_inputs
    with pytest.raises(ValueError, match="multiply_by_inputs=False.* are not complete"):
        local.attribute(**batch, return_convergence_delta=True)
    with pytest.raises(ValueError, match="no convergence delta and no decomposition"):
        local.decompose(**batch)
    with pytest.raises(ValueError, match="are not complete, so they have no convergence delta"):
        local.compute_convergence_delta(torch.ones(2, 10, 9), None, batch["inputs"])
