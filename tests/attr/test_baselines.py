"""Baselines: which ones, of which shape, and averages over several of them."""

from __future__ import annotations

import pytest
import torch

from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.functional import quadrature
from tests import models
from tests.expected import expected_map, image_side, relative_error, text_baseline, text_side

PIXELS, IDS = models.images(2), models.captions(7, 7)[0]
OTHER_PIXELS, OTHER_IDS = models.images(2, seed=5), models.caption(7, seed=6).repeat(2, 1)


@pytest.fixture(scope="module", params=[24, 4], ids=["short side first", "a product per dimension"])
def soig(request):
    return SecondOrderIntegratedGradients(wrap(models.clip(dimension=request.param)), (1, 1))


@pytest.fixture(scope="module")
def explain(soig):
    return lambda baselines, **options: soig.attribute(
        (PIXELS, IDS), baselines, n_steps=3, **options
    )


def expected(soig, baseline_a, baseline_b):
    """The oracle's map of the first pair."""
    model = soig.wrapper.tower_a.model
    side_a = image_side(model, PIXELS[:1], 1, baseline_a[:1])
    side_b = text_side(model, IDS[:1], 1, baseline_b[:1])
    return expected_map(side_a, side_b, quadrature(n_steps=3))


ZEROS, PADDING = torch.zeros_like(PIXELS), text_baseline(IDS, models.PAD)


@pytest.mark.parametrize(
    ("baselines", "baseline_a", "baseline_b"),
    [
        (None, ZEROS, PADDING),
        ((None, None), ZEROS, PADDING),
        ((0, None), ZEROS, PADDING),
        (0, ZEROS, PADDING),
        (3, ZEROS + 3, text_baseline(IDS, 3)),
        (OTHER_PIXELS, OTHER_PIXELS, PADDING),
        ((0.5, 7), ZEROS + 0.5, text_baseline(IDS, 7)),
        ((None, OTHER_IDS), ZEROS, OTHER_IDS),
        ((OTHER_PIXELS, OTHER_IDS.int()), OTHER_PIXELS, OTHER_IDS),
    ],
    ids=["none", "nones", "zero", "zeros", "constants", "tensor", "tuple", "ids", "tensors"],
)
def test_what_a_baseline_may_be(soig, explain, baselines, baseline_a, baseline_b):
    actual = explain(baselines)[0]
    assert relative_error(actual, expected(soig, baseline_a, baseline_b)) < 1e-5


def test_one_row_serves_all_pairs(explain):
    rows = explain((OTHER_PIXELS[:1], OTHER_IDS[:1]))
    assert torch.equal(rows, explain((OTHER_PIXELS[:1].repeat(2, 1, 1, 1), OTHER_IDS)))


@pytest.mark.parametrize("side", ["a", "b", "both"])
def test_several_baselines_are_averaged(explain, side):
    some_a = [None, 0.3, OTHER_PIXELS] if side != "b" else [None]
    some_b = [OTHER_IDS, 5] if side != "a" else [None]
    baselines = (some_a, some_b)
    if side == "a":
        baselines = some_a
    actual, delta = explain(baselines, return_convergence_delta=True)
    pairs = [explain((a, b), return_convergence_delta=True) for a in some_a for b in some_b]
    maps, deltas = (torch.stack(results).mean(0) for results in zip(*pairs, strict=True))
    assert relative_error(actual, maps) < 1e-5
    torch.testing.assert_close(delta, deltas, rtol=0, atol=1e-5)


def test_several_baselines_and_groups_and_chunks(explain):
    options = {"groups_a": [[1, 2], [3]], "groups_b": [[1], [2, 3], [4]]}
    actual = explain(([0, OTHER_PIXELS], [None, OTHER_IDS]), internal_batch_size=2, **options)
    single = [explain((a, b), **options) for a in (0, OTHER_PIXELS) for b in (None, OTHER_IDS)]
    assert relative_error(actual, torch.stack(single).mean(0)) < 1e-5


def test_full_resolution_averages_baselines(explain):
    actual = explain(([0, OTHER_PIXELS], [None, OTHER_IDS]), full_resolution="a")
    single = [
        explain((a, b), full_resolution="a") for a in (0, OTHER_PIXELS) for b in (None, OTHER_IDS)
    ]
    assert relative_error(actual, torch.stack(single).mean(0)) < 1e-5


def test_baselines_of_their_own_for_each_pair(soig, explain):
    together = explain((OTHER_PIXELS, [OTHER_IDS, None]))
    for row in range(2):
        one = slice(row, row + 1)
        alone = soig.attribute(
            (PIXELS[one], IDS[one]), (OTHER_PIXELS[one], [OTHER_IDS[one], None]), n_steps=3
        )
        assert relative_error(together[one], alone) < 1e-5


def test_a_baseline_is_pooled_where_the_caption_is(soig, explain):
    """So it needs no end-of-text token, and one at another place does not count."""
    nothing = torch.zeros_like(IDS)
    early = nothing.clone()
    early[:, 0], early[:, 2] = models.BOS, models.EOS
    for baseline in (nothing, early):
        actual, delta = explain((None, baseline), return_convergence_delta=True)
        assert relative_error(actual[0], expected(soig, ZEROS, baseline)) < 1e-5
        again = soig.compute_convergence_delta(actual, (None, baseline), (PIXELS, IDS))
        torch.testing.assert_close(again, delta, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("baselines", "error", "message"),
    [
        (
            OTHER_PIXELS[..., :8],
            ValueError,
            r"input's shape \(2, 3, 12, 12\) or one row of it, but got shape \(2, 3, 12, 8\)",
        ),
        (OTHER_PIXELS[0], ValueError, r"baseline a must have .* but got shape \(3, 12, 12\)"),
        (OTHER_PIXELS.repeat(2, 1, 1, 1), ValueError, r"baseline a .* shape \(4, 3, 12, 12\)"),
        ((None, OTHER_IDS[:, :5]), ValueError, r"baseline b .* \(2, 7\) .* shape \(2, 5\)"),
        ((None, None, None), ValueError, "baselines must be one for each .* but got 3"),
        ("zeros", TypeError, "baseline a must be None, a number, a tensor or a list .* got str"),
        ([[0.0], 1.0], TypeError, "baseline a must be None, a number, .* but got list"),
        (([], None), ValueError, "the list of baselines a is empty"),
        (OTHER_PIXELS.double(), TypeError, "baseline a is torch.float64, but input a is .*float32"),
        (OTHER_PIXELS * float("nan"), ValueError, "baseline a holds NaN or infinite values"),
        (float("inf"), ValueError, "baseline a holds NaN or infinite values"),
        (OTHER_PIXELS.to("meta"), TypeError, "baseline a is on meta, but its encoder is on cpu"),
        ((None, 64), ValueError, "a constant text baseline is a token id from 0 to 63, but got 64"),
        ((None, 0.5), ValueError, "token id from 0 to 63, but got 0.5"),
        ((None, OTHER_IDS + 9), ValueError, "token ids must be from 0 to 63, but lie from"),
        ((None, OTHER_IDS + 0.5), ValueError, "token ids must be whole numbers"),
    ],
)
def test_bad_baselines(explain, baselines, error, message):
    with pytest.raises(error, match=message):
        explain(baselines)
