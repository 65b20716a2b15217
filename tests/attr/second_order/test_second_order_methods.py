"""What every second-order method keeps to, whichever it is."""

from __future__ import annotations

import copy

import pytest
import torch
from captum.attr import Attribution, FeatureAblation, IntegratedGradients, LayerGradCam

from captum_interactions import DualEncoderWrapper, explain, wrap
from captum_interactions.attr import (
    ATTRIBUTIONS,
    Archipelago,
    IntegratedHessians,
    InteractionCAM,
    InteractionLIME,
    LiftedAttribution,
    SecondOrderIntegratedGradients,
    TokenDecomposition,
    TokenSimilarity,
)
from captum_interactions.functional import Decomposition
from tests import models
from tests.attr.test_model_untouched import FuseError, state
from tests.expected import relative_error

PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)

# How a method is made, and what its attribute and decompose are given beside the pair.
METHODS = {
    "second-order integrated gradients": (SecondOrderIntegratedGradients, {"n_steps": 3}),
    "archipelago": (Archipelago, {}),
    "hessians": (IntegratedHessians, {"n_steps": 2}),
    "cam": (InteractionCAM, {}),
    "lime": (InteractionLIME, {"n_samples": 20}),
    "lifted": (
        lambda wrapper: LiftedAttribution(wrapper, (-1, -1), explainer=IntegratedGradients),
        {"n_steps": 3},
    ),
    "lifted ablation": (
        lambda wrapper: LiftedAttribution(wrapper, (-1, -1), explainer=FeatureAblation),
        {"n_steps": 3},
    ),
    "lifted layer, other side": (
        lambda wrapper: LiftedAttribution(wrapper, (-1, -1), explainer=LayerGradCam, side="b"),
        {"n_steps": 3},
    ),
    "token similarity": (TokenSimilarity, {}),
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def maps(method, wrapper, pixels=PIXELS, ids=IDS, mask=MASK):
    make, options = method
    return make(wrapper).attribute((pixels, ids), additional_forward_args=mask, **options)


def test_shape_padding_and_what_it_says_of_itself(method, wrapper):
    attribution = method[0](wrapper)
    assert isinstance(attribution, Attribution)
    assert attribution.order == 2
    assert attribution.needs
    assert "pass" in attribution.cost
    assert attribution.layers == (2, 2)
    actual = maps(method, wrapper)
    assert actual.shape == (2, 10, 7)
    assert actual.dtype == torch.float32
    assert not actual.requires_grad
    assert actual[1, :, 5:].count_nonzero() == 0
    assert (actual.flatten(1).abs().amax(1) > 1e-4).all()


def test_a_pair_is_explained_by_itself(method, wrapper):
    """Neither the other examples of a batch nor padding change anything."""
    both = maps(method, wrapper)
    alone = maps(method, wrapper, PIXELS[1:], IDS[1:, :5], MASK[1:, :5])
    assert relative_error(both[1, :, :5], alone[0]) < 1e-4
    unmasked = maps(method, wrapper, PIXELS[1:], IDS[1:, :5], None)
    assert relative_error(unmasked, alone) < 1e-4


def test_the_parts_hold_the_map_and_the_score(method, wrapper):
    make, options = method
    parts = make(wrapper).decompose((PIXELS, IDS), None, MASK, **options)
    assert isinstance(parts, Decomposition)
    assert relative_error(parts.interactions, maps(method, wrapper)) < 1e-5
    shapes = [tuple(part.shape) for part in parts]
    assert shapes == [(2,), (2, 10), (2, 7), (2, 10, 7), (2,)]
    with torch.no_grad():
        torch.testing.assert_close(parts.score, wrapper(PIXELS, IDS, MASK), rtol=0, atol=1e-5)


@pytest.mark.parametrize("outside", [torch.no_grad, torch.inference_mode])
def test_gradient_modes_outside(method, wrapper, outside):
    expected = maps(method, wrapper)
    with outside():
        inside = maps(method, wrapper, PIXELS.clone(), IDS.clone(), MASK.clone())
    assert relative_error(inside, expected) < 1e-5


def test_half_precision(method):
    half = models.clip().to(torch.bfloat16)
    single = copy.deepcopy(half).float()
    pixels = PIXELS.to(torch.bfloat16)
    actual = maps(method, wrap(half), pixels)
    assert actual.dtype == torch.float32
    assert relative_error(actual, maps(method, wrap(single), pixels.float())) < 0.15


def test_double_precision(method):
    double = models.clip().double()
    actual = maps(method, wrap(double), PIXELS.double())
    assert actual.dtype == torch.float64
    assert relative_error(actual.float(), maps(method, wrap(models.clip()))) < 1e-4


def test_the_model_is_left_as_it_was(method):
    model = models.clip(dropout=0.5).train()
    model.text_model.eval()
    wrapper = wrap(model)
    wrapper.train()
    before = state(model)
    first = maps(method, wrapper)
    assert state(model) == before
    assert relative_error(maps(method, wrapper), first) < 1e-5  # no dropout


def test_the_model_is_left_as_it_was_after_an_error(method):
    model = models.clip()
    fuse, calls = model.visual_projection, []

    def blow(*_):
        calls.append(1)
        if len(calls) > 1:
            raise FuseError

    handle = fuse.register_forward_pre_hook(blow)
    wrapper = wrap(model)
    before = state(model)
    with pytest.raises(FuseError):
        maps(method, wrapper)
    assert state(model) == before
    handle.remove()


def test_bad_input_is_told_before_any_gradient(method, wrapper):
    attribution = method[0](wrapper)
    with pytest.raises(ValueError, match="target must be None"):
        attribution.attribute((PIXELS, IDS), target=0)
    with pytest.raises(TypeError, match="tuple of two tensors"):
        attribution.attribute(PIXELS)
    with pytest.raises(ValueError, match="as many rows in a as in b"):
        attribution.attribute((PIXELS, IDS[:1]))
    with pytest.raises(ValueError, match="NaN"):
        attribution.attribute((PIXELS * float("nan"), IDS))
    with pytest.raises(ValueError, match="additional arguments"):
        attribution.attribute((PIXELS, IDS), additional_forward_args=(MASK, MASK))


def test_what_is_no_dual_encoder(method, wrapper):
    make, _ = method
    if make is not IntegratedHessians:  # takes any function
        with pytest.raises(TypeError, match="DualEncoderWrapper"):
            make(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="normalization must be"):
        (make if isinstance(make, type) else LiftedAttribution)(wrapper, normalization="l2")


@pytest.mark.parametrize("name", [name for name, a in ATTRIBUTIONS.items() if a.order == 2])
@pytest.mark.filterwarnings("ignore:attributions sum to")
def test_explain_by_name(name, wrapper):
    if ATTRIBUTIONS[name] is TokenDecomposition:
        towers = models.Sentences(), models.Sentences()
        wrapper = DualEncoderWrapper(*towers)
        pair = [(torch.tensor([[i, 2, 3]]), torch.ones(1, 3)) for i in (1, 5)]
    else:
        pair = [PIXELS[:1], (IDS[:1], MASK[:1])]
    options = {"n_steps": 3} if "integ" in name else {}
    imap = explain(wrapper, *pair, attribution=name, **options)
    assert imap.interactions.abs().max() > 0
    assert imap.settings["attribution"] == name


def test_names_are_those_of_classes():
    for name, attribution in ATTRIBUTIONS.items():
        assert attribution.order in (1, 2)
        assert name.replace("_", "") in attribution.__name__.lower()
