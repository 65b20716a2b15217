"""Many pairs in one call: each gets the map that it gets alone."""

from __future__ import annotations

import warnings

import pytest
import torch

from captum_interactions import explain, explain_batch, load_demo
from captum_interactions.attr import attributions
from captum_interactions.explanation import is_complete
from captum_interactions.maps.interaction_map import InteractionMap
from tests import models

LENGTHS = (5, 9, 5, 7)
FEW = {
    "second_order_integrated_gradients": {"n_steps": 2},
    "integrated_hessians": {"n_steps": 2},
    "integrated_gradients": {"n_steps": 2},
    "lifted": {"n_steps": 2},
    "rise": {"n_samples": 20},
    "interaction_lime": {"n_samples": 50},
    "banzhaf_interactions": {"n_samples": 64},
    "shapley_interactions": {"n_samples": 256},
}
UNDEFINED = {"token_decomposition"}
"""Not for a model whose embedding is no mean."""


@pytest.fixture(scope="module")
def pairs():
    """Four images and captions, two of them of as many tokens."""
    ids, _ = models.captions(*LENGTHS)
    images = [image.unsqueeze(0) for image in models.images(len(LENGTHS))]
    return images, [row[None, :length] for row, length in zip(ids, LENGTHS, strict=True)]


@pytest.fixture(scope="module")
def demo():
    return load_demo(4)


@pytest.mark.parametrize("name", [i.name for i in attributions() if i.name not in UNDEFINED])
def test_every_pair_gets_its_own_map(wrapper, pairs, name):
    options = FEW.get(name, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # two nodes are few
        together = explain_batch(wrapper, *pairs, name, **options)
        alone = [explain(wrapper, a, b, name, **options) for a, b in zip(*pairs, strict=True)]
    assert [len(one.axis_b) for one in together] == list(LENGTHS)
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("name", ["banzhaf_interactions", "grad_eclip", "token_similarity"])
def test_raw_images_and_captions_keep_their_meaning(demo, name):
    wrapper, scenes = demo
    options = {"layers": (-1, -1), "n_samples": 640} if name == "banzhaf_interactions" else {}
    images, captions = [s.image for s in scenes[:2]], [s.caption for s in scenes[:2]]
    together = explain_batch(wrapper, images, captions, name, **options)
    for one, image, caption in zip(together, images, captions, strict=True):
        assert one.axis_b.text == caption
        assert one.axis_a.image.tobytes() == image.tobytes()
        assert_same(one, explain(wrapper, image, caption, name, **options))


def assert_same(one, other):
    assert type(one) is type(other)
    assert one.axis_a.labels == other.axis_a.labels
    assert one.axis_b == other.axis_b
    assert one.score == pytest.approx(other.score, abs=1e-6)
    assert one.settings == other.settings
    if isinstance(one, InteractionMap):
        names = ("interactions", "main_effects_a", "main_effects_b")
        assert one.constant == pytest.approx(other.constant, abs=1e-5)
        assert one.convergence_delta == pytest.approx(other.convergence_delta, abs=1e-5)
    else:
        names = ("attributions_a", "attributions_b")
    for name in names:
        values, expected = getattr(one, name), getattr(other, name)
        assert (values is None) == (expected is None)
        if values is not None:
            scale = expected.abs().max()
            assert (values - expected).abs().max() <= 1e-4 * scale + 1e-7


def test_pairs_of_the_same_shape_are_evaluated_together(wrapper, pairs, monkeypatch):
    sizes = []
    encode = type(wrapper.tower_a).encode

    def counted(self, x, *extras):
        sizes.append(len(x))
        return encode(self, x, *extras)

    monkeypatch.setattr(type(wrapper.tower_a), "encode", counted)
    explain_batch(wrapper, *pairs, "grad_eclip")
    assert sizes.count(1) == 2 * sizes.count(2) > 0


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("second_order_integrated_gradients", {"n_steps": 3}, True),
        ("second_order_integrated_gradients", {"multiply_by_inputs": False}, False),
        ("token_similarity", {}, False),
        ("grad_eclip", {}, False),
    ],
)
def test_which_maps_are_complete(wrapper, name, options, expected):
    assert is_complete(wrapper, name, options) is expected


def test_no_pairs_give_no_maps(wrapper):
    assert explain_batch(wrapper, [], []) == []


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        ("image.png", ["a"], TypeError, "takes a list of inputs a, but got str"),
        (["image.png"], "a", TypeError, "takes a list of inputs b, but got str"),
        (torch.zeros(2, 3, 96, 96), ["a", "b"], TypeError, "inputs a, but got Tensor"),
        (["image.png"], ["a", "b"], ValueError, "1 inputs a and 2 inputs b"),
        ([torch.zeros(2, 3, 96, 96)], [["a", "b"]], ValueError, "takes one pair, but got 2"),
    ],
)
def test_bad_batches_are_refused(demo, a, b, error, message):
    with pytest.raises(error, match=message):
        explain_batch(demo[0], a, b)
