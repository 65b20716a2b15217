"""The user's model after an explanation is the model before it, also if something went wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import CLIPModel

from captum_interactions import CallableTower, SecondOrderIntegratedGradients, wrap
from tests import models
from tests.expected import relative_error

PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)


class FuseError(Exception):
    """Blown on purpose."""


def state(model):
    """Everything about a model that an explanation might have changed."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    cuda = torch.backends.cuda
    return {
        "attributes": {name: sorted(vars(m)) for name, m in model.named_modules()},
        "training": {name: m.training for name, m in model.named_modules()},
        "hooks": {
            (name, kind): list(getattr(m, kind)) for name, m in model.named_modules()
            for kind in hooks
        },
        "requires grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "gradients": {name: p.grad for name, p in model.named_parameters()},
        "attention": model.config._attn_implementation,
        "attention of towers": (
            model.text_model.config._attn_implementation,
            model.vision_model.config._attn_implementation,
        ),
        "global modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "fused attention": (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled()),
        "random numbers": torch.get_rng_state().tolist(),
    }  # fmt: skip


@pytest.fixture(params=["sdpa", "eager"])
def model(request) -> CLIPModel:
    """A model half of which trains, with dropout and with a frozen tower."""
    model = models.clip(attention=request.param, dropout=0.5)
    model.train()
    model.vision_model.encoder.layers[0].eval()
    model.text_model.embeddings.eval()
    for parameter in model.vision_model.parameters():
        parameter.requires_grad_(False)
    return model


def explain(model, layers, **options):
    soig = SecondOrderIntegratedGradients(wrap(model), layers)
    options = {"additional_forward_args": MASK, "n_steps": 2, **options}
    soig.attribute((PIXELS, IDS), **options)
    soig.compute_convergence_delta(torch.zeros(2, 10, 7), None, (PIXELS, IDS), None, MASK)
    options.pop("full_resolution", None)
    soig.decompose((PIXELS, IDS), **options)
    soig.factors_b(IDS, **options)


@pytest.mark.parametrize("layers", [(0, 0), (-1, -1), ("input", 1)])
def test_after_success(model, layers):
    before, weights = state(model), copy.deepcopy(model.state_dict())
    explain(model, layers, full_resolution="a")
    assert state(model) == before
    torch.testing.assert_close(dict(model.state_dict()), dict(weights), rtol=0, atol=0)


@pytest.mark.parametrize("layers", [(0, 0), ("input", 1)])
@pytest.mark.parametrize("tower", ["text_model", "vision_model"])
@pytest.mark.parametrize("call", [1, 2])
def test_after_an_error_in_the_middle(model, layers, tower, call):
    fuse = {"calls": 0}

    def burn(*_):
        fuse["calls"] += 1
        if fuse["calls"] == call:
            raise FuseError

    getattr(model, tower).encoder.layers[1].mlp.register_forward_hook(burn)
    before = state(model)
    with pytest.raises(FuseError):
        explain(model, layers)
    assert state(model) == before


def test_after_bad_input(model):
    before = state(model)
    with pytest.raises(ValueError, match="NaN"):
        explain(model, (0, 0), baselines=PIXELS * float("nan"))
    assert state(model) == before


def test_dropout_is_off_while_explaining(model):
    quiet = copy.deepcopy(model).eval()
    options = {"additional_forward_args": MASK, "n_steps": 3}
    for layers in ((0, 0), (1, 2)):
        actual, expected = (
            SecondOrderIntegratedGradients(wrap(m), layers).attribute((PIXELS, IDS), **options)
            for m in (model, quiet)
        )
        assert relative_error(actual, expected) < 1e-5
    assert model.training


@pytest.mark.parametrize(
    "as_callable",
    [
        lambda module: module,
        lambda module: module.forward,
        CallableTower,
    ],
    ids=["a module", "a bound method", "a tower"],
)
def test_dropout_of_callables_is_off_too(as_callable):
    encoder = nn.Sequential(models.mlp(6, 12), nn.Dropout(0.9), nn.Linear(12, 5)).train()
    inputs = torch.rand(2, 6), torch.rand(2, 4)
    soig = SecondOrderIntegratedGradients(wrap((as_callable(encoder), models.mlp(4))))
    first, second = soig.attribute(inputs), soig.attribute(inputs)
    assert torch.equal(first, second)
    assert encoder[1].training


def test_inputs_are_left_alone(clip):
    inputs = PIXELS.clone().requires_grad_(), IDS.clone()
    SecondOrderIntegratedGradients(wrap(clip), ("input", 0)).attribute(inputs, n_steps=2)
    assert inputs[0].grad is None
    assert inputs[0].requires_grad
    assert torch.equal(inputs[0], PIXELS)
    assert torch.equal(inputs[1], IDS)
