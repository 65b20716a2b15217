"""One encoder on both sides, where layer hooks would mix up the two inputs."""

from __future__ import annotations

import pytest
import torch

from captum_interactions import CallableTower, SecondOrderIntegratedGradients, wrap
from captum_interactions.functional import quadrature
from tests import models
from tests.expected import relative_error
from tests.oracle import token_map


@pytest.mark.parametrize("lengths", [(3, 3), (2, 7), (8, 7)])
@pytest.mark.parametrize("as_towers", [True, False])
def test_against_the_oracle(lengths, as_towers):
    encoder = models.Recurrent()
    pair = (CallableTower(encoder), CallableTower(encoder)) if as_towers else (encoder, encoder)
    soig = SecondOrderIntegratedGradients(wrap(pair), normalization="none")
    inputs = tuple(torch.randn(2, length, 4) for length in lengths)
    maps, delta = soig.attribute(inputs, n_steps=12, return_convergence_delta=True)
    for row in range(2):
        paths = [(torch.zeros_like(x[row]), x[row]) for x in inputs]
        expected = token_map(encoder, encoder, *paths, *quadrature(n_steps=12))
        assert relative_error(maps[row], expected) < 1e-5
    assert delta.abs().max() < 1e-2 * maps.sum((1, 2)).abs().max()


def test_the_same_input_on_both_sides_gives_a_symmetric_map():
    encoder = models.Recurrent()
    soig = SecondOrderIntegratedGradients(wrap((encoder, encoder)))
    sentence = torch.randn(1, 4, 4)
    (attributions,) = soig.attribute((sentence, sentence))
    assert relative_error(attributions.T, attributions) < 1e-5


def test_both_towers_of_one_clip_may_be_its_text(clip):
    text = wrap(clip).tower_b
    soig = SecondOrderIntegratedGradients(wrap((text, text)), (1, 1))
    short, long = models.caption(5), models.caption(9)
    maps = soig.attribute((short, long), n_steps=5)
    assert maps.shape == (1, 5, 9)
    swapped = soig.attribute((long, short), n_steps=5)
    assert relative_error(swapped.transpose(1, 2), maps) < 1e-5
