"""Captum's own methods at a layer of each tower, and RISE."""

from __future__ import annotations

import itertools

import pytest
import torch
from captum.attr import (
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    LayerIntegratedGradients,
    Occlusion,
)
from torch import nn

from captum_interactions import CallableTower, SecondOrderIntegratedGradients, explain, wrap
from captum_interactions.attr import (
    ATTRIBUTIONS,
    RISE,
    FirstOrderGradCam,
    FirstOrderInputXGradient,
    FirstOrderIntegratedGradients,
    FirstOrderOcclusion,
)
from tests import models
from tests.attr.test_model_untouched import FuseError, state
from tests.expected import relative_error
from tests.families import FAMILIES

PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)
BASELINE = torch.where((IDS == models.BOS) | (IDS == models.EOS), IDS, models.PAD)
METHODS = (
    FirstOrderIntegratedGradients,
    FirstOrderInputXGradient,
    FirstOrderGradCam,
    FirstOrderOcclusion,
    RISE,
)


def run(method, wrapper, inputs=(PIXELS, IDS), extras=MASK, layers=(0, 0), **options):
    if method is RISE:
        options = {"n_samples": 12, **options}
    return method(wrapper, layers).attribute(inputs, additional_forward_args=extras, **options)


# Integrated Gradients


def test_integrated_gradients_are_captums_at_layers(clip, wrapper):
    """Captum hooks what gives the states that enter a block."""
    a, b = FirstOrderIntegratedGradients(wrapper, (0, 1)).attribute(
        (PIXELS, IDS), additional_forward_args=MASK, n_steps=7
    )
    image = LayerIntegratedGradients(wrapper, clip.vision_model.pre_layrnorm).attribute(
        PIXELS, torch.zeros_like(PIXELS), additional_forward_args=(IDS, MASK), n_steps=7
    )
    text = LayerIntegratedGradients(
        lambda ids, pixels, mask: wrapper(pixels, ids, mask), clip.text_model.encoder.layers[0]
    ).attribute(IDS, BASELINE, additional_forward_args=(PIXELS, MASK), n_steps=7)
    assert relative_error(a, image.sum(-1)) < 1e-4
    assert relative_error(b, text.sum(-1)) < 1e-4


def test_integrated_gradients_are_captums_at_the_input(wrapper):
    a = FirstOrderIntegratedGradients(wrapper, ("input", 0)).attribute(
        (PIXELS, IDS), additional_forward_args=MASK, n_steps=7, internal_batch_size=3
    )[0]
    pixels = IntegratedGradients(wrapper).attribute(
        PIXELS, additional_forward_args=(IDS, MASK), n_steps=7, method="gausslegendre"
    )
    cells = nn.functional.avg_pool2d(pixels.sum(1), 4) * 16
    assert relative_error(a, cells.flatten(1)) < 1e-4


def test_integrated_gradients_are_complete(wrapper):
    a, b = FirstOrderIntegratedGradients(wrapper, (-1, -1)).attribute(
        (PIXELS, IDS), additional_forward_args=MASK, n_steps=60
    )
    with torch.no_grad():
        score = wrapper(PIXELS, IDS, MASK)
        without_a = wrapper(0 * PIXELS, IDS, MASK)
        without_b = wrapper(PIXELS, BASELINE, MASK)
    torch.testing.assert_close(a.sum(1), score - without_a, rtol=0, atol=1e-4)
    torch.testing.assert_close(b.sum(1), score - without_b, rtol=0, atol=1e-4)


def test_second_order_marginals_are_differences_of_these(wrapper):
    """Interactions summed over b and the effect of a against b's baseline: a's gradients."""
    parts = SecondOrderIntegratedGradients(wrapper, (1, 1)).decompose(
        (PIXELS, IDS), additional_forward_args=MASK, n_steps=40
    )
    a, _ = FirstOrderIntegratedGradients(wrapper, (1, 1)).attribute(
        (PIXELS, IDS), additional_forward_args=MASK, n_steps=40
    )
    marginal = parts.main_effects_a + parts.interactions.sum(2)
    assert relative_error(a, marginal) < 1e-3


def test_baselines_are_averaged(wrapper):
    one, two, both = (
        FirstOrderIntegratedGradients(wrapper, ("input", 0)).attribute(
            (PIXELS, IDS), (baseline, None), None, MASK, n_steps=5
        )[0]
        for baseline in (0.1, -0.2, [0.1, -0.2])
    )
    assert relative_error(both, (one + two) / 2) < 1e-5


# Input×Gradient, GradCAM


def test_input_x_gradient_is_captums(wrapper):
    a = FirstOrderInputXGradient(wrapper, ("input", 0)).attribute(
        (PIXELS, IDS), additional_forward_args=MASK
    )[0]
    pixels = InputXGradient(wrapper).attribute(
        PIXELS.clone().requires_grad_(), additional_forward_args=(IDS, MASK)
    )
    cells = nn.functional.avg_pool2d(pixels.sum(1), 4) * 16
    assert relative_error(a, cells.flatten(1).detach()) < 1e-4


def test_grad_cam_is_captums_on_feature_maps():
    """On a convolutional encoder, whose layers Captum knows how to read."""
    model = next(family for family in FAMILIES if family.name == "ALIGN").build()
    wrapper = wrap(model)
    batch = wrapper.prepare(wrapper.tower_a.sample(), wrapper.tower_b.sample())
    for relu in (True, False):
        a = FirstOrderGradCam(wrapper, (-1, -1), relu_attributions=relu).attribute(
            batch.inputs, additional_forward_args=batch.additional_forward_args
        )[0]
        expected = LayerGradCam(wrapper, model.vision_model.pooler).attribute(
            batch.inputs[0].clone().requires_grad_(),
            additional_forward_args=(batch.inputs[1], *batch.additional_forward_args),
            attribute_to_layer_input=True,
            relu_attributions=relu,
        )
        assert relative_error(a, expected.flatten(1).detach()) < 1e-4


def test_grad_cam_of_tokens_by_its_formula(wrapper):
    a, b = FirstOrderGradCam(wrapper, (1, 2)).attribute((PIXELS, IDS), additional_forward_args=MASK)
    towers = (wrapper.tower_a, PIXELS, (), 1), (wrapper.tower_b, IDS, (MASK,), 2)
    for actual, (tower, inputs, extras, layer), (other, theirs, own, _) in zip(
        (a, b), towers, towers[::-1], strict=True
    ):
        states, context = tower.prefix(layer, inputs, *extras)
        states = states.detach().requires_grad_()
        embedding = tower.tail(layer, states, *context)
        score = nn.functional.cosine_similarity(embedding, other.encode(theirs, *own))
        (gradient,) = torch.autograd.grad(score.sum(), states)
        for row in range(2):
            count = 10 if tower is wrapper.tower_a else int(MASK[row].sum())
            mean = gradient[row, :count].mean(0)
            expected = (states[row] @ mean).clamp(min=0).detach()
            expected[0] = 0
            if tower is wrapper.tower_b:
                expected[count - 1 :] = 0
            assert relative_error(actual[row], expected) < 1e-4


def test_grad_cam_needs_hidden_states(wrapper):
    with pytest.raises(ValueError, match=r"hidden states .*'input' of encoder a has features"):
        FirstOrderGradCam(wrapper, ("input", 0)).attribute(
            (PIXELS, IDS), additional_forward_args=MASK
        )


# Occlusion


def test_occlusion_is_captums_at_the_input(wrapper):
    a = FirstOrderOcclusion(wrapper, ("input", 0)).attribute(
        (PIXELS, IDS), additional_forward_args=MASK
    )[0]
    pixels = Occlusion(wrapper).attribute(
        PIXELS, (3, 4, 4), (3, 4, 4), additional_forward_args=(IDS, MASK)
    )
    assert relative_error(a, pixels[:, 0, ::4, ::4].flatten(1)) < 1e-4


@pytest.mark.parametrize("per_eval", [1, 4])
def test_occlusion_replaces_one_token(wrapper, per_eval):
    """Layer 0 is where a patch's state is its own, so this is as if the image were painted over."""
    a, b = FirstOrderOcclusion(wrapper).attribute(
        (PIXELS, IDS), additional_forward_args=MASK, perturbations_per_eval=per_eval
    )
    with torch.no_grad():
        score = wrapper(PIXELS, IDS, MASK)
        for patch in (0, 4, 8):
            row, column = divmod(patch, 3)
            painted = PIXELS.clone()
            painted[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
            torch.testing.assert_close(
                a[:, 1 + patch], score - wrapper(painted, IDS, MASK), rtol=0, atol=1e-5
            )
        for word in (1, 3):
            ids = IDS.clone()
            ids[:, word] = models.PAD
            torch.testing.assert_close(
                b[:, word], score - wrapper(PIXELS, ids, MASK), rtol=0, atol=1e-5
            )
    assert a[:, 0].abs().max() < 1e-6  # the class token is the same for all images


def test_occlusion_of_images_that_end_within_a_patch():
    wrapper, pixels = wrap(models.clip()), models.images(1, (14, 19))
    a = FirstOrderOcclusion(wrapper, ("input", 0)).attribute((pixels, IDS[:1]))[0]
    painted = pixels.clone()
    painted[:, :, 8:12, 12:16] = 0
    with torch.no_grad():
        fall = wrapper(pixels, IDS[:1]) - wrapper(painted, IDS[:1])
    assert a.shape == (1, 12)
    torch.testing.assert_close(a[:, 11], fall, rtol=0, atol=1e-5)


# RISE


class Line(nn.Module):
    """Inputs to unit vectors whose product with (1, 0) is linear in the input."""

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, x):
        cosine = x @ self.weights
        return torch.stack([cosine, (1 - cosine**2).sqrt()], -1)


def fixed(x):
    return torch.stack([torch.ones(len(x)), torch.zeros(len(x))], -1)


@pytest.mark.parametrize("p", [0.3, 0.5])
@pytest.mark.parametrize("centered", [False, True])
def test_rises_expectation_on_a_linear_game(p, centered):
    """E[s | m_i = 1] = w_i + p Σ_{j≠i} w_j for s = Σ w_j m_j; E[s] = p Σ w_j."""
    weights = [0.2, -0.1, 0.3, 0.05]
    wrapper = wrap((Line(weights), fixed))
    n_samples = 20000
    a, b = RISE(wrapper, centered=centered).attribute(
        (torch.ones(1, 4), torch.ones(1, 2)), n_samples=n_samples, p=p, perturbations_per_eval=1000
    )
    others = p * (sum(weights) - torch.tensor(weights))
    expected = torch.tensor(weights) + others - (p * sum(weights) if centered else 0)
    # The standard error of each mean is at most 0.5 / sqrt(N p) of the score's range.
    torch.testing.assert_close(a[0], expected, rtol=0, atol=0.02)
    # The other side scores the same whatever is hidden.
    expected = 0.0 if centered else sum(weights)
    torch.testing.assert_close(b[0], torch.full((2,), float(expected)), rtol=0, atol=0.02)


def test_rise_is_its_formula_on_the_same_masks(wrapper):
    a, b = RISE(wrapper).attribute(
        (PIXELS, IDS), additional_forward_args=MASK, n_samples=5, p=0.4, seed=3,
        perturbations_per_eval=2,
    )  # fmt: skip
    masks = torch.rand((10, 5), generator=torch.Generator().manual_seed(3)) < 0.4
    expected = torch.zeros(2, 10)
    with torch.no_grad():
        for n in range(5):
            shown = masks[1:, n].float().reshape(1, 1, 3, 3)
            shown = shown.repeat_interleave(4, 2).repeat_interleave(4, 3)
            score = wrapper(PIXELS * shown, IDS, MASK)
            expected[:, 1:] += score[:, None] * masks[1:, n] / (5 * 0.4)
    assert relative_error(a, expected) < 1e-4
    masks = torch.rand((7, 5), generator=torch.Generator().manual_seed(3)) < 0.4
    expected = torch.zeros(2, 7)
    special = (IDS == models.BOS) | (IDS == models.EOS)
    with torch.no_grad():
        for n in range(5):
            ids = torch.where(masks[:, n] | special, IDS, models.PAD)
            score = wrapper(PIXELS, ids, MASK)
            expected += score[:, None] * masks[:, n] * ~special * MASK / (5 * 0.4)
    assert relative_error(b, expected) < 1e-4


def test_centred_rise_does_not_count_how_often_a_token_is_shown():
    """Where no token matters, the published map is of counts, and the centred one is zero."""
    wrapper = wrap((Line([0.0] * 4), lambda x: fixed(x) + fixed(x).flip(1)))
    inputs = torch.ones(1, 4), torch.ones(1, 2)
    published, centred = (
        RISE(wrapper, centered=centered).attribute(inputs, n_samples=100)[0]
        for centered in (False, True)
    )
    assert published.std() > 0.02
    assert centred.abs().max() < 1e-6


def test_rise_leaves_the_random_state_alone_and_obeys_its_seed(wrapper):
    before = torch.get_rng_state()
    first, again, other = (run(RISE, wrapper, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert relative_error(other, first) > 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [({"p": 0.0}, "p must"), ({"p": 1.5}, "p must"), ({"n_samples": 0}, "n_samples"),
     ({"perturbations_per_eval": 0}, "perturbations")],
)  # fmt: skip
def test_rises_options(wrapper, options, message):
    with pytest.raises(ValueError, match=message):
        run(RISE, wrapper, **options)


# All of them


@pytest.mark.parametrize("name", [name for name, a in ATTRIBUTIONS.items() if a.order == 1])
def test_explain_by_name(wrapper, name):
    options = {"n_samples": 5} if name == "rise" else {}
    shown = explain(wrapper, PIXELS[:1], (IDS[:1], MASK[:1]), attribution=name, **options)
    assert shown.settings["attribution"] == name
    assert shown.heatmap().shape == (3, 3)
    assert len(shown.axis_a) == 10


@pytest.mark.parametrize("layers", [(0, 0), (1, 2)])
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_examples_and_padding_counts_for_nothing(wrapper, method, layers):
    if method is FirstOrderInputXGradient and 2 in layers:
        pytest.skip("features times gradient is zero at the last block")
    together = run(method, wrapper, layers=layers)
    for row, length in enumerate((7, 5)):
        inputs = (PIXELS[row : row + 1], IDS[row : row + 1, :length])
        alone = run(method, wrapper, inputs, None, layers)
        for one, all_ in zip(alone, together, strict=True):
            size = one.shape[1]
            assert relative_error(all_[row : row + 1, :size], one) < 1e-4
            assert all_[row, size:].count_nonzero() == 0


@pytest.mark.parametrize("method", METHODS)
def test_an_encoder_of_both_sides(method):
    """Both sides in one encoder, against a copy of it for each."""
    encoder, copied = models.mlp(6), models.mlp(6)
    inputs = torch.rand(2, 6, 1).transpose(1, 2), torch.rand(2, 6, 1).transpose(1, 2)

    def tower(module):
        return CallableTower(lambda x: module(x.squeeze(1)))

    shared, apart = wrap((tower(encoder), tower(encoder))), wrap((tower(encoder), tower(copied)))
    layers = ("input", "input")
    for one, two in zip(
        run(method, shared, inputs, None, layers), run(method, apart, inputs, None, layers),
        strict=True,
    ):  # fmt: skip
        assert one.shape == (2, 1)
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradient_modes_outside(wrapper, method, context):
    expected = run(method, wrapper)
    with context():
        actual = run(method, wrapper, (PIXELS.clone(), IDS.clone()), MASK.clone())
    for one, two in zip(actual, expected, strict=True):
        assert not one.requires_grad
        assert relative_error(one, two) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_half_precision(method):
    expected = run(method, wrap(models.clip()))
    actual = run(method, wrap(models.clip().bfloat16()), (PIXELS.bfloat16(), IDS))
    for one, two in zip(actual, expected, strict=True):
        assert one.dtype is torch.float32
        assert relative_error(one, two) < 0.3


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_untouched(method):
    model = models.clip(dropout=0.5)
    model.train()
    before = state(model)
    run(method, wrap(model))
    assert state(model) == before
    calls = itertools.count()

    def burn(*_):
        if next(calls) == 1:
            raise FuseError

    model.text_model.encoder.layers[1].mlp.register_forward_hook(burn)
    before = state(model)
    with pytest.raises(FuseError):
        run(method, wrap(model))
    assert state(model) == before


@pytest.mark.parametrize("method", METHODS)
def test_bad_input(wrapper, method):
    for inputs, error, message in (
        (PIXELS, TypeError, "tuple of two tensors"),
        ((PIXELS, IDS[:1]), ValueError, "as many rows"),
        ((PIXELS * float("nan"), IDS), ValueError, "NaN"),
        ((PIXELS, "text"), TypeError, "input b must be a tensor"),
    ):
        with pytest.raises(error, match=message):
            run(method, wrapper, inputs, None)
    with pytest.raises(ValueError, match="target must be None"):
        run(method, wrapper, target=1)
    with pytest.raises(ValueError, match="layer must be"):
        method(wrapper, (7, 0))
    with pytest.raises(ValueError, match="pair"):
        method(wrapper, 0)
    with pytest.raises(TypeError, match="DualEncoderWrapper"):
        method(wrapper.tower_a)


@pytest.mark.parametrize("method", [FirstOrderIntegratedGradients, FirstOrderOcclusion, RISE])
def test_baselines_are_a_pair(wrapper, method):
    with pytest.raises(ValueError, match="one for each"):
        run(method, wrapper, baselines=(None, None, None))
