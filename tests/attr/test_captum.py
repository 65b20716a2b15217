"""SecondOrderIntegratedGradients among Captum's own tools."""

from __future__ import annotations

import inspect

import pytest
import torch
from captum.attr import Attribution, GradientAttribution, IntegratedGradients, NoiseTunnel
from captum.metrics import infidelity, sensitivity_max

from captum_interactions import CallableTower, SecondOrderIntegratedGradients, wrap
from tests import models
from tests.expected import relative_error

PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)
EMBEDDINGS = torch.rand(2, 6), torch.rand(2, 9)


@pytest.fixture(scope="module")
def soig(wrapper):
    return SecondOrderIntegratedGradients(wrapper)


@pytest.fixture(scope="module")
def of_callables():
    return SecondOrderIntegratedGradients(wrap((models.mlp(6), models.mlp(9, seed=1))))


def test_class_and_arguments():
    assert issubclass(SecondOrderIntegratedGradients, GradientAttribution)
    assert SecondOrderIntegratedGradients.get_name() == "Second Order Integrated Gradients"
    ours = inspect.signature(SecondOrderIntegratedGradients.attribute).parameters
    theirs = inspect.signature(IntegratedGradients.attribute).parameters
    assert list(ours)[:9] == list(theirs)  # self, then eight
    defaults = {name: p.default for name, p in theirs.items() if name != "n_steps"}
    assert {name: ours[name].default for name in defaults} == defaults
    assert {p.kind for p in list(ours.values())[9:]} == {inspect.Parameter.KEYWORD_ONLY}
    delta = inspect.signature(GradientAttribution.compute_convergence_delta).parameters
    own = inspect.signature(SecondOrderIntegratedGradients.compute_convergence_delta).parameters
    assert list(own) == list(delta)


def test_an_instance_is_an_attribution_of_its_wrapper(soig, wrapper):
    assert isinstance(soig, Attribution)
    assert soig.forward_func is wrapper


@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_on_the_image_alone(soig, nt_type):
    torch.manual_seed(0)
    options = {"additional_forward_args": MASK, "n_steps": 3}
    actual, delta = NoiseTunnel(soig).attribute(
        (PIXELS, IDS),
        nt_type=nt_type,
        nt_samples=4,
        nt_samples_batch_size=2,
        stdevs=(0.05, 0.0),
        return_convergence_delta=True,
        **options,
    )
    plain = soig.attribute((PIXELS, IDS), **options)
    assert actual.shape == plain.shape
    assert delta.shape == (8,)
    assert actual[1, :, 5:].count_nonzero() == 0
    if nt_type == "smoothgrad":
        assert 1e-4 < relative_error(actual, plain) < 0.5


def test_no_noise_changes_nothing(soig):
    options = {"additional_forward_args": MASK, "n_steps": 3}
    baselines = (0.1, torch.full((1, 7), models.PAD))
    actual = NoiseTunnel(soig).attribute(
        (PIXELS, IDS), nt_samples=3, stdevs=(0.0, 0.0), baselines=baselines, **options
    )
    assert relative_error(actual, soig.attribute((PIXELS, IDS), baselines, **options)) < 1e-5


def test_noise_on_both_embeddings(of_callables):
    torch.manual_seed(0)
    actual = NoiseTunnel(of_callables).attribute(
        EMBEDDINGS, nt_samples=20, stdevs=(0.02, 0.01), baselines=(torch.zeros(2, 6), 0.5)
    )
    plain = of_callables.attribute(EMBEDDINGS, (torch.zeros(2, 6), 0.5))
    assert 1e-4 < relative_error(actual, plain) < 0.3


def test_noise_on_ids_is_refused(soig):
    with pytest.raises(ValueError, match="whole numbers.*standard deviation to 0 for the text"):
        NoiseTunnel(soig).attribute((PIXELS, IDS), nt_samples=2, stdevs=0.05)


def test_sensitivity(of_callables):
    torch.manual_seed(0)
    small, large = (
        sensitivity_max(
            lambda inputs, **options: (of_callables.attribute(inputs, **options),),
            EMBEDDINGS,
            perturb_radius=radius,
            n_perturb_samples=5,
            baselines=(0.1, 0.2),
            n_steps=4,
        )
        for radius in (0.001, 0.1)
    )
    assert small.shape == (2,)
    assert (small > 0).all()
    assert (small < large).all()


def test_infidelity_of_the_marginals(of_callables):
    """Marginals explain differences of scores, and better than other numbers would."""
    torch.manual_seed(0)
    wrapper, (a, b) = of_callables.wrapper, EMBEDDINGS
    marginal = of_callables.attribute(EMBEDDINGS).sum(2)

    def difference(x, y):
        return wrapper(x, y) - wrapper(x, 0 * y)

    def remove_some(x):
        kept = (torch.rand_like(x) < 0.5).float()
        return (1 - kept), x * kept

    def score(attribution):
        torch.manual_seed(1)
        return infidelity(
            difference, remove_some, a, attribution, additional_forward_args=b,
            n_perturb_samples=50,
        )  # fmt: skip

    assert (score(marginal) < 0.5 * score(torch.zeros_like(marginal))).all()
    assert (score(marginal) < score(marginal.flip(1))).all()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_modes_outside(wrapper, context):
    plain = SecondOrderIntegratedGradients(wrapper, (1, 0)).decompose(
        (PIXELS, IDS), (0.1, 3), MASK, n_steps=3
    )
    with context():
        was = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        inputs, mask = (PIXELS.clone(), IDS.clone()), MASK.clone()
        inside = SecondOrderIntegratedGradients(wrapper, (1, 0))
        parts = inside.decompose(inputs, (0.1, 3), mask, n_steps=3)
        pixels = SecondOrderIntegratedGradients(wrapper, ("input", 0)).attribute(
            inputs, (inputs[0].clone() / 2, None), additional_forward_args=mask, n_steps=2
        )
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == was
    assert relative_error(parts.interactions, plain.interactions) < 1e-5
    assert not parts.interactions.requires_grad
    assert pixels.isfinite().all()


def test_inference_tensors_reach_functions_as_ordinary_ones():
    encoder = models.mlp(6)
    tower = CallableTower(lambda x, scale: encoder(x * scale), extra_names=["scale"])
    soig = SecondOrderIntegratedGradients(wrap((tower, models.mlp(9))))
    with torch.inference_mode():
        inputs, scale = (torch.rand(2, 6), torch.rand(2, 9)), torch.rand(2, 6)
        maps = soig.attribute(inputs, additional_forward_args=scale, n_steps=3)
    ordinary = tuple(x.clone() for x in inputs), None, None, scale.clone()
    assert torch.equal(maps, soig.attribute(*ordinary, n_steps=3))


def test_nothing_returned_requires_a_gradient(of_callables):
    inputs = tuple(x.clone().requires_grad_() for x in EMBEDDINGS)
    maps, delta = of_callables.attribute(inputs, return_convergence_delta=True)
    results = [maps, delta, *of_callables.decompose(inputs)]
    results += vars(of_callables.factors_a(inputs[0])).values()
    assert not any(result.requires_grad for result in results)
    assert inputs[0].grad is None


def test_the_wrapper_is_a_forward_function(wrapper):
    attributions, delta = IntegratedGradients(wrapper).attribute(
        PIXELS,
        additional_forward_args=(IDS, MASK),
        n_steps=60,
        internal_batch_size=10,
        return_convergence_delta=True,
    )
    assert attributions.shape == PIXELS.shape
    assert delta.abs().max() < 1e-3


def test_the_wrapper_gives_the_models_own_cosine(wrapper, clip):
    with torch.no_grad():
        output = clip(input_ids=IDS, pixel_values=PIXELS, attention_mask=MASK)
        scores = wrapper(PIXELS, IDS, MASK)
    expected = (output.logits_per_image / clip.logit_scale.exp()).diagonal()
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
