"""Groups of tokens on either side, against the map of all tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_interactions import SecondOrderIntegratedGradients, wrap
from tests import models
from tests.expected import relative_error

LENGTHS = (6, 9)
GROUPS_A = [[0], [1, 2, 3], range(4, 10)]
GROUPS_B = [(0, 1), [2, 3], [4, 5, 6, 7, 8]]


def weights(groups, n_tokens):
    matrix = torch.zeros(len(groups), n_tokens)
    for row, group in zip(matrix, groups, strict=True):
        row[list(group)] = 1.0
    return matrix


@pytest.fixture(scope="module", params=[24, 4, 2], ids=lambda k: f"{k} dimensions")
def soig(request):
    return SecondOrderIntegratedGradients(wrap(models.clip(dimension=request.param)), (1, 1))


@pytest.fixture(scope="module")
def batch():
    ids, mask = models.captions(*LENGTHS)
    return {"inputs": (models.images(2), ids), "additional_forward_args": mask, "n_steps": 3}


@pytest.fixture(scope="module")
def tokens(soig, batch):
    return soig.attribute(**batch)


@pytest.mark.parametrize("side", ["a", "b", "both"])
@pytest.mark.parametrize("kind", ["lists", "(G, T)", "(B, G, T)", "an array"])
def test_groups_are_sums_of_tokens(soig, batch, tokens, side, kind):
    options, expected = {}, tokens
    if side != "b":
        options["groups_a"] = GROUPS_A
        expected = weights(GROUPS_A, 10) @ expected
    if side != "a":
        options["groups_b"] = GROUPS_B
        expected = expected @ weights(GROUPS_B, 9).T
    if kind != "lists":
        options = {name: weights(groups, 10 if name == "groups_a" else 9)
                   for name, groups in options.items()}  # fmt: skip
    if kind == "(B, G, T)":
        options = {name: torch.stack([w, 0 * w]) for name, w in options.items()}
        expected[1] = 0
    if kind == "an array":
        options = {name: w.numpy().astype(bool) for name, w in options.items()}
    actual, delta = soig.attribute(**batch, **options), None
    assert relative_error(actual, expected) < 1e-5
    if kind != "(B, G, T)":
        _, delta = soig.attribute(**batch, **options, return_convergence_delta=True)
        _, expected_delta = soig.attribute(**batch, return_convergence_delta=True)
        torch.testing.assert_close(delta, expected_delta, rtol=0, atol=1e-6)


def test_groups_may_overlap_and_weigh(soig, batch, tokens):
    generator = torch.Generator().manual_seed(0)
    weights_a = torch.randn(4, 10, generator=generator)
    weights_b = torch.rand(2, 3, 9, generator=generator)
    actual = soig.attribute(**batch, groups_a=weights_a, groups_b=weights_b)
    assert relative_error(actual, weights_a @ tokens @ weights_b.transpose(1, 2)) < 1e-5


def test_a_phrase_and_a_box(soig, batch, tokens):
    actual = soig.attribute(**batch, groups_a=[[4, 5]], groups_b=[[-3, -2]])
    expected = tokens[:, 4:6, -3:-1].sum((1, 2), keepdim=True)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_groups_at_the_pixels():
    soig = SecondOrderIntegratedGradients(wrap(models.clip()), ("input", -1))
    inputs = models.images(1, (8, 12)), models.caption(6)
    tokens = soig.attribute(inputs, n_steps=3)
    assert tokens.shape == (1, 6, 6)
    actual = soig.attribute(inputs, n_steps=3, groups_a=[[0, 3], [5]])
    expected = torch.stack([tokens[:, 0] + tokens[:, 3], tokens[:, 5]], 1)
    assert relative_error(actual, expected) < 1e-5


def test_groups_of_the_other_side_at_full_resolution(soig, batch):
    features = soig.attribute(**batch, full_resolution="a")
    actual = soig.attribute(**batch, full_resolution="a", groups_b=GROUPS_B)
    assert relative_error(actual, features @ weights(GROUPS_B, 9).T) < 1e-5


@pytest.mark.parametrize("groups", [[[0], [1, 2]], [list(range(10)), [3]], 0.5 * torch.ones(1, 10)])
def test_a_delta_needs_every_token_once(soig, batch, groups):
    with pytest.raises(ValueError, match="groups_a in which every token occurs exactly once"):
        soig.attribute(**batch, groups_a=groups, return_convergence_delta=True)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "groups_b holds no group"),
        ([[0], [1, 9]], r"groups_b\[1\] must be a list of token indices below 9, but is \[1, 9\]"),
        ([[-10]], r"groups_b\[0\] must be a list of token indices below 9, but is \[-10\]"),
        ([1, 2], r"groups_b\[0\] must be a list of token indices below 9, but is 1"),
        ([[1.0]], r"groups_b\[0\] must be .* one tensor of shape \(G, 9\)"),
        ([np.ones(9, np.float32)], r"groups_b\[0\] must be .* one tensor of shape \(G, 9\)"),
        (torch.ones(2, 8), r"groups_b must have shape \(G, 9\) or \(2, G, 9\), but got \(2, 8\)"),
        (torch.ones(3, 2, 9), r"shape \(G, 9\) or \(2, G, 9\), but got \(3, 2, 9\)"),
        (torch.ones(9), r"shape \(G, 9\) or \(2, G, 9\), but got \(9,\)"),
        (torch.full((1, 9), float("nan")), "groups_b holds NaN or infinite weights"),
        (np.ones((2, 8)), r"shape \(G, 9\) or \(2, G, 9\), but got \(2, 8\)"),
    ],
)
def test_bad_groups(soig, batch, groups, message):
    with pytest.raises(ValueError, match=message):
        soig.attribute(**batch, groups_b=groups)


def test_groups_are_refused_on_the_side_that_is_kept_apart(soig, batch):
    with pytest.raises(ValueError, match="full_resolution='b' .* no groups_b"):
        soig.attribute(**batch, full_resolution="b", groups_b=GROUPS_B)
