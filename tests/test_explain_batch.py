"""Many pairs in one call: each gets the map that it gets alone."""

from __future__ import annotations

import warnings

import pytest
import torch

from captum_interactions import explain, explain_batch, load_demo
from captum_interactions.attr import attributions
from captum_interactions.interaction_map import InteractionMap

FEW = {
    "second_order_integrated_gradients": {"n_steps": 2},
    "integrated_hessians": {"n_steps": 2},
    "integrated_gradients": {"n_steps": 2},
    "lifted": {"n_steps": 2},
    "banzhaf_interactions": {"n_samples": 640},
    "shapley_interactions": {"n_samples": 640},
}
UNDEFINED = {"token_decomposition"}
"""Not for this model."""


@pytest.fixture(scope="module")
def demo():
    """The bundled model and four scenes, two of them with captions of as many tokens."""
    wrapper, scenes = load_demo(40)
    lengths = [wrapper.prepare(s.image, s.caption).inputs[1].shape[1] for s in scenes]
    alike = [i for i, length in enumerate(lengths) if length == lengths[0]][:2]
    others = [i for i, length in enumerate(lengths) if length != lengths[0]][:2]
    assert len(alike) == 2
    chosen = [scenes[i] for i in (alike[0], others[0], alike[1], others[1])]
    return wrapper, [scene.image for scene in chosen], [scene.caption for scene in chosen]


@pytest.mark.parametrize("name", [i.name for i in attributions() if i.name not in UNDEFINED])
def test_every_pair_gets_its_own_map(demo, name):
    wrapper, images, captions = demo
    options = FEW.get(name, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # two nodes are few
        together = explain_batch(wrapper, images, captions, name, **options)
        alone = [
            explain(wrapper, image, caption, name, **options)
            for image, caption in zip(images, captions, strict=True)
        ]
    for one, other, caption in zip(together, alone, captions, strict=True):
        assert type(one) is type(other)
        assert one.axis_b.text == caption
        assert one.axis_b == other.axis_b
        assert one.axis_a.labels == other.axis_a.labels
        assert one.score == pytest.approx(other.score, abs=1e-6)
        assert one.settings == other.settings
        if isinstance(one, InteractionMap):
            assert_close(one.interactions, other.interactions)
            assert_close(one.main_effects_a, other.main_effects_a)
            assert one.constant == pytest.approx(other.constant, abs=1e-5)
            assert one.convergence_delta == pytest.approx(other.convergence_delta, abs=1e-5)
        else:
            for side in ("attributions_a", "attributions_b"):
                values, expected = getattr(one, side), getattr(other, side)
                assert (values is None) == (expected is None)
                if values is not None:
                    assert_close(values, expected)


def assert_close(values, expected):
    assert (values - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_pairs_of_the_same_shape_are_evaluated_together(demo, monkeypatch):
    wrapper, images, captions = demo
    sizes = []
    encode = type(wrapper.tower_a).encode

    def counted(self, x, *extras):
        sizes.append(len(x))
        return encode(self, x, *extras)

    monkeypatch.setattr(type(wrapper.tower_a), "encode", counted)
    explain_batch(wrapper, images, captions, "mask_clip")
    assert 2 in sizes


def test_no_pairs_give_no_maps(demo):
    assert explain_batch(demo[0], [], []) == []


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
