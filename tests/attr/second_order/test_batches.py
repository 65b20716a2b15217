"""Several pairs at once: each is explained as if it were alone."""

from __future__ import annotations

import pytest
import torch

from captum_interactions import SecondOrderIntegratedGradients, wrap
from tests import models
from tests.expected import relative_error

LENGTHS = (5, 13, 8)
OPTIONS = {"n_steps": 3}


@pytest.fixture(scope="module", params=[24, 4], ids=["short side first", "a product per dimension"])
def wrapper(request):
    return wrap(models.clip(dimension=request.param))


@pytest.fixture(scope="module")
def batch():
    """Three pairs with captions of different lengths: (inputs, attention mask)."""
    ids, mask = models.captions(*LENGTHS)
    return (models.images(3), ids), mask


@pytest.mark.parametrize("is_masked", [True, False])
@pytest.mark.parametrize("layers", [(0, 0), (1, 2), ("input", 1), (-1, -1)])
def test_a_padded_caption_is_explained_as_if_alone(wrapper, batch, layers, is_masked):
    (pixels, ids), mask = batch
    soig = SecondOrderIntegratedGradients(wrapper, layers)
    maps, deltas = soig.attribute(
        (pixels, ids),
        additional_forward_args=mask if is_masked else None,
        return_convergence_delta=True,
        **OPTIONS,
    )
    for row, length in enumerate(LENGTHS):
        alone, delta = soig.attribute(
            (pixels[row : row + 1], ids[row : row + 1, :length]),
            return_convergence_delta=True,
            **OPTIONS,
        )
        assert relative_error(maps[row, :, :length], alone[0]) < 1e-5
        assert maps[row, :, length:].count_nonzero() == 0
        assert deltas[row].item() == pytest.approx(delta.item(), abs=1e-5)


@pytest.mark.parametrize("side", ["a", "b"])
def test_padding_is_zero_at_full_resolution_too(wrapper, batch, side):
    inputs, mask = batch
    soig = SecondOrderIntegratedGradients(wrapper, (1, 1))
    options = {"additional_forward_args": mask, **OPTIONS}
    features = soig.attribute(inputs, full_resolution=side, **options)
    tokens = soig.attribute(inputs, **options)
    summed = features.sum(2) if side == "a" else features.sum(3)
    assert relative_error(summed, tokens) < 1e-5
    padding = features.movedim(-1 if side == "a" else 2, 1)[mask == 0]
    assert padding.numel()
    assert padding.count_nonzero() == 0


def test_all_results_of_a_batch_are_those_of_its_rows(wrapper, batch):
    inputs, mask = batch
    soig = SecondOrderIntegratedGradients(wrapper, (1, 1))
    parts = soig.decompose(inputs, additional_forward_args=mask, **OPTIONS)
    assert parts.main_effects_b[mask == 0].count_nonzero() == 0
    for row, length in enumerate(LENGTHS):
        alone = soig.decompose(
            (inputs[0][row : row + 1], inputs[1][row : row + 1, :length]), **OPTIONS
        )
        of_row = parts._replace(
            main_effects_b=parts.main_effects_b[:, :length],
            interactions=parts.interactions[:, :, :length],
        )
        for together, single in zip(of_row, alone, strict=True):
            torch.testing.assert_close(together[row], single[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("internal_batch_size", [1, 4, 7])
def test_chunks_change_nothing(wrapper, batch, internal_batch_size):
    inputs, mask = batch
    soig = SecondOrderIntegratedGradients(wrapper, (1, 1), normalization="frozen")
    groups = torch.rand(3, 2, 10, generator=torch.Generator().manual_seed(0))
    for options in ({}, {"groups_a": groups}, {"full_resolution": "a"}):
        options = {"additional_forward_args": mask, "n_steps": 3, **options}
        whole = soig.attribute(inputs, **options)
        chunked = soig.attribute(inputs, internal_batch_size=internal_batch_size, **options)
        assert relative_error(chunked, whole) < 1e-5


def test_padding_anywhere(wrapper):
    """In front of the caption and within it, whatever way is taken to the map."""
    ids = torch.nn.functional.pad(models.caption(8), (3, 2), value=models.PAD)
    mask = torch.tensor([[0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0]])
    soig = SecondOrderIntegratedGradients(wrapper, (1, 1))
    options = {"inputs": (models.images(), ids), "additional_forward_args": mask, **OPTIONS}
    tokens = soig.attribute(**options)
    seen = mask[0].clone()
    seen[3] = 0  # the first token is the same in the baseline
    assert torch.equal(tokens[0].abs().sum(0) > 0, seen > 0)
    for other in (
        soig.attribute(**options, groups_b=torch.eye(13)),
        soig.attribute(**options, full_resolution="a").sum(2),
        soig.attribute(**options, full_resolution="b").sum(3),
        soig.decompose(**options).interactions,
        soig.factors_a(models.images(), **OPTIONS) @ soig.factors_b(ids, None, mask, **OPTIONS),
    ):
        assert relative_error(other.reshape(tokens.shape), tokens) < 1e-5


def test_ids_padded_by_the_token_that_ends_the_text(batch):
    """Tokenizers of CLIP pad with the end-of-text token; the first one is pooled."""
    (pixels, ids), mask = batch
    soig = SecondOrderIntegratedGradients(wrap(models.clip()), (1, 1))
    padded = torch.where(mask.bool(), ids, models.EOS)
    for masks in (mask, None):
        actual = soig.attribute((pixels, padded), additional_forward_args=masks, **OPTIONS)
        expected = soig.attribute((pixels, ids), additional_forward_args=mask, **OPTIONS)
        assert relative_error(actual, expected) < 1e-5
