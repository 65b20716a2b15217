"""Features times gradient is refused where it is zero in exact arithmetic, and only there."""

from __future__ import annotations

import pytest
import torch
from captum.attr import (
    InputXGradient,
    IntegratedGradients,
    LayerGradientXActivation,
    NoiseTunnel,
)

from captum_interactions import explain, load_demo, wrap
from captum_interactions.attr import FirstOrderInputXGradient, LiftedAttribution
from tests import corpora, models

EXPLAINERS = {
    "InputXGradient": InputXGradient,
    "LayerGradientXActivation": LayerGradientXActivation,
    "NoiseTunnel": lambda function: NoiseTunnel(InputXGradient(function)),
}


@pytest.fixture(scope="module")
def clip():
    return corpora.small_wrapper()


@pytest.fixture(scope="module")
def batch(clip):
    prepared = clip.prepare([corpora.picture(0), corpora.picture(1)], ["a red circle", "a red dot"])
    return {
        "inputs": prepared.inputs,
        "additional_forward_args": prepared.additional_forward_args,
    }


def refusal(name, layer):
    return rf"InputXGradient is zero for all parts of input {name} at layer {layer}: .*normalised"


@pytest.mark.parametrize(("layers", "name"), [((-1, -1), "a"), ((-1, 0), "a"), ((0, -1), "b")])
def test_the_last_block_of_a_pre_norm_model(clip, batch, layers, name):
    with pytest.raises(ValueError, match=refusal(name, 2)):
        FirstOrderInputXGradient(clip, layers).attribute(**batch)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision(dtype):
    model, processor = models.clip_with_processor()
    wrapper = wrap(model.to(dtype), processor)
    pair = corpora.picture(0), "a red circle"
    with pytest.raises(ValueError, match=refusal("a", 2)):
        explain(wrapper, *pair, "input_x_gradient", layers=(-1, 0))
    found = explain(wrapper, *pair, "input_x_gradient", layers=(1, 1))
    assert found.attributions_a[1:].abs().max() > 1e-3


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("explainer", EXPLAINERS.values(), ids=EXPLAINERS)
@pytest.mark.parametrize("normalization", ["cosine", "none"])
def test_its_second_order_counterpart(clip, batch, side, explainer, normalization):
    lifted = LiftedAttribution(
        clip, (-1, -1), explainer=explainer, side=side, normalization=normalization
    )
    for run in (lifted.attribute, lifted.decompose):
        with pytest.raises(ValueError, match=f"is zero for all parts of input {side} at layer 2"):
            run(**batch, n_steps=2)
    other = (0, -1) if side == "a" else (-1, 0)
    earlier = LiftedAttribution(
        clip, other, explainer=explainer, side=side, normalization=normalization
    )
    earlier.attribute(**batch, n_steps=2)


def test_other_explainers_are_not_refused_there(clip, batch):
    lifted = LiftedAttribution(clip, (-1, -1), explainer=IntegratedGradients)
    maps = lifted.attribute(**batch, n_steps=2)
    assert maps[:, 1:].abs().max() > 1e-4


def test_what_is_refused_is_rounding_and_what_is_not_is_not():
    """At every layer of the bundled model, against the products themselves."""
    wrapper, scenes = load_demo(1)
    prepared = wrapper.prepare(scenes[0].image, scenes[0].caption)
    extras = wrapper.split_additional(prepared.additional_forward_args)
    towers = (wrapper.tower_a, wrapper.tower_b)
    with torch.no_grad():
        others = [t.encode(x, *e) for t, x, e in zip(towers, prepared.inputs, extras, strict=True)]
    for side, tower in enumerate(towers):
        own, rest = prepared.inputs[side], extras[side]
        for layer in range(tower.n_blocks):
            states, context = tower.prefix(layer, own, *rest)
            states = states.detach().requires_grad_()
            score = torch.cosine_similarity(tower.tail(layer, states, *context), others[1 - side])
            products = (states * torch.autograd.grad(score.sum(), states)[0]).sum(-1).detach()
            content = ~tower.special_tokens(own, *rest) & (products != 0)
            largest = float(products[content].abs().max())
            layers = (layer, 0) if side == 0 else (0, layer)
            try:
                FirstOrderInputXGradient(wrapper, layers).attribute(
                    prepared.inputs, additional_forward_args=prepared.additional_forward_args
                )
                refused = False
            except ValueError:
                refused = True
            # 2**-18: a thousand products of float32 (see AttributionMap.rounding).
            assert refused == (largest < 2.0**-18)
            assert refused == (layer == tower.n_blocks - 1)


def test_tokens_that_are_normalised_by_the_users_own_function():
    torch.manual_seed(0)
    linear = torch.nn.Linear(4, 3)
    norm = torch.nn.LayerNorm(4, elementwise_affine=False)
    normed = wrap((lambda x: linear(norm(x)).tanh().mean(1), lambda y: linear(y).mean(1)))
    inputs = torch.randn(2, 5, 4), torch.randn(2, 6, 4)
    with pytest.raises(ValueError, match=refusal("a", "'input'")):
        FirstOrderInputXGradient(normed).attribute(inputs)
    # Without the norm, a cosine of a linear function depends on the scale of single tokens.
    plain = wrap((lambda x: linear(x).mean(1), lambda y: linear(y).mean(1)))
    FirstOrderInputXGradient(plain).attribute(inputs)
    # Features that are zero have products of zero, which are no rounding.
    FirstOrderInputXGradient(plain).attribute((torch.zeros(2, 5, 4), inputs[1]))
