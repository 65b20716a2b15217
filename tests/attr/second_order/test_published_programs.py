"""Two published programs, written down again as they compute, on small models of our own making."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.attr import BanzhafInteractions, masked_score
from captum_interactions.functional import all_coalitions
from tests import models
from tests.expected import image_side, relative_error, text_side

N_PATCHES, N_WORDS = 4, 3


@pytest.fixture(scope="module")
def fixlip():
    """A tiny model of 2 × 2 patches and 3 words, and its scores of all joint coalitions."""
    clip = models.clip(image_size=8, layers=2, dimension=8)
    wrapper = wrap(clip)
    inputs = models.images(size=(8, 8)), models.caption(N_WORDS + 2)
    score = masked_score(wrapper, inputs)
    members = all_coalitions(N_PATCHES + N_WORDS)
    there = [own.unsqueeze(0).clone() for own in members.split((N_PATCHES, N_WORDS), 1)]
    # The class token, and both ends of the caption, are no players.
    present_a = torch.nn.functional.pad(there[0], (1, 0), value=True)
    present_b = torch.nn.functional.pad(there[1], (1, 1), value=True)
    return wrapper, inputs, members.double(), score(present_a, present_b)[0].double()


@pytest.mark.parametrize("p", [0.3, 0.5, 0.7])
def test_fixlip(fixlip, p):
    """Weighted least squares of scores on a constant, each player and each pair of players.

    Pairs within an input are among them: they take nothing from pairs across.
    """
    wrapper, inputs, members, scores = fixlip
    n_players = members.shape[1]
    pairs = list(combinations(range(n_players), 2))
    columns = [torch.ones(len(members)).double(), *members.T]
    columns += [members[:, i] * members[:, j] for i, j in pairs]
    size = members.sum(1, keepdim=True)
    root = (p**size * (1 - p) ** (n_players - size)).sqrt()
    design = torch.stack(columns, 1) * root
    fitted = torch.linalg.lstsq(design, (scores - scores[0]).unsqueeze(1) * root).solution[:, 0]
    found = dict(zip(pairs, fitted[1 + n_players :].tolist(), strict=True))
    expected = torch.tensor(
        [[found[i, N_PATCHES + j] for j in range(N_WORDS)] for i in range(N_PATCHES)]
    )
    banzhaf = BanzhafInteractions(wrapper, (0, 0), p=p)
    ours = banzhaf.attribute(inputs)[0, 1:, 1:-1]
    # Scores of float32, of at most 1 and good to a few of its steps of 6e-8, and differences of
    # four of them, which are averaged; the design in float64 adds nothing.
    assert (ours - expected).abs().max() < 1e-6
    assert expected.abs().max() > 1e-2


def exclip(side_text, side_image, n_steps):
    """Right Riemann sum, a gradient per dimension, then the matrix over all pairs of features."""
    jacobians, differences, norms = [], [], []
    for side in (side_text, side_image):
        difference = side.end - side.start
        steps = torch.arange(1, 0, -1 / n_steps)
        points = (side.start + steps[:, None, None] * difference).requires_grad_()
        embeddings = side.function(points)
        rows = []
        for dimension in range(embeddings.shape[1]):
            (gradient,) = torch.autograd.grad(
                list(embeddings[:, dimension]), points, retain_graph=True
            )
            rows.append(gradient.sum(0) / n_steps)
        jacobians.append(torch.stack(rows).flatten(1))
        differences.append(difference)
        norms.append(side.function(side.end[None]).norm().detach())
    matrix = torch.mm(jacobians[0].T, jacobians[1])
    text, image = (difference.flatten() for difference in differences)
    matrix = matrix * text.unsqueeze(1).repeat(1, len(image))
    matrix = matrix * image.repeat(len(text), 1)
    matrix = matrix / (norms[0] * norms[1])
    shape = (*differences[0].shape, *differences[1].shape)
    return matrix.reshape(shape).sum((1, 3))[:, 1:]  # without the class token


@pytest.mark.parametrize("layer", [1, 2])
def test_exclip(layer):
    """The text's baseline is shorter than the caption, whose end is where the path is pooled."""
    clip, pixels, ids = models.clip(), models.images(), models.caption(7)
    baseline = torch.zeros_like(ids)
    baseline[0, 0], baseline[0, 2] = models.BOS, models.EOS
    expected = exclip(
        text_side(clip, ids, layer, baseline),
        image_side(clip, pixels, layer, torch.zeros_like(pixels)),
        n_steps=10,
    )
    soig = SecondOrderIntegratedGradients(wrap(clip), (layer, layer), normalization="frozen")
    ours = soig.attribute((pixels, ids), (0.0, baseline), n_steps=10, method="riemann_right")
    # Sums of some hundred products in float32, in another order: its step is 6e-8.
    assert relative_error(ours[0, 1:].T, expected) < 1e-5
