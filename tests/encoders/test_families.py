"""Every family of dual encoders against its model's own similarity, and against the slow oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_interactions import SecondOrderIntegratedGradients, check_wrapper, wrap
from captum_interactions.encoders.towers.audio_tower import AudioTower
from captum_interactions.functional import quadrature
from tests.expected import relative_error
from tests.families import FAMILIES
from tests.oracle import entering, leaving, replaced_input, replaced_output, token_map


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name, scope="module")
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return family.build()


@pytest.fixture(scope="module")
def wrapper(model):
    return wrap(model)


@pytest.fixture(scope="module")
def batch(wrapper):
    return wrapper.prepare(wrapper.tower_a.sample(), wrapper.tower_b.sample())


def arguments(wrapper, batch) -> dict[str, Any]:
    """The batch under the names by which models know it."""
    is_sound = isinstance(wrapper.tower_a, AudioTower)
    name_a = "input_features" if is_sound else "pixel_values"
    extras = wrapper.tower_a.extra_names + wrapper.tower_b.extra_names
    named = dict(zip(extras, batch.additional_forward_args, strict=True))
    return {name_a: batch.inputs[0], "input_ids": batch.inputs[1], **named}


def test_the_models_own_similarity(family, model, wrapper, batch):
    with torch.no_grad():
        expected = family.similarity(model, arguments(wrapper, batch))
        actual = wrapper(*batch.inputs, *batch.additional_forward_args)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


# The random image encoder of ALIGN embeds zeros at a hundredth of the length of others.
@pytest.mark.filterwarnings("ignore:the embedding of baseline a is nearly zero")
def test_the_checker_finds_nothing(wrapper):
    assert check_wrapper(wrapper) == []


def side(model, tower, layer, inputs, extras):
    """A layer of a tower, without the tower's own help: a function of tokens, and a path."""
    at_pool = layer == "pool"
    module = model.get_submodule(tower.pool.module if at_pool else tower._blocks[layer])
    seen, replaced = (leaving, replaced_output) if at_pool else (entering, replaced_input)
    baseline = tower.baseline(inputs, *extras)
    start, end = (seen(module, lambda x=x: tower.encode(x, *extras)) for x in (baseline, inputs))

    def run(tokens):
        rows = [x if x is None else x.expand(len(tokens), *x.shape[1:]) for x in (inputs, *extras)]
        states = tokens if end.dim() == 3 else tokens.transpose(1, 2).unflatten(2, end.shape[2:])
        with replaced(module, states):
            embedding = tower.encode(*rows)
        return embedding / embedding.norm(dim=-1, keepdim=True)

    def tokens(states):
        return states[0] if states.dim() == 3 else states[0].flatten(1).T

    return run, (tokens(start), tokens(end))


# The random image encoder of ALIGN embeds zeros at a hundredth of the length of others.
@pytest.mark.filterwarnings("ignore:the embedding of baseline a is nearly zero")
@pytest.mark.parametrize("layer", ["last block", "default"])
def test_the_map_is_the_oracles(model, wrapper, batch, layer):
    layers = (-1, -1) if layer == "last block" else wrapper.default_layers
    if (layer == "default") == (layers == (-1, -1)):
        pytest.skip("the default is the last block")
    extras = wrapper.split_additional(batch.additional_forward_args)
    towers = (wrapper.tower_a, wrapper.tower_b)
    rows = [[None if e is None else e[:1] for e in own] for own in extras]
    (run_a, path_a), (run_b, path_b) = (
        side(model, tower, at, inputs[:1], own)
        for tower, at, inputs, own in zip(towers, layers, batch.inputs, rows, strict=True)
    )
    expected = token_map(run_a, run_b, path_a, path_b, *quadrature(n_steps=6))
    actual = SecondOrderIntegratedGradients(wrapper, layers).attribute(
        batch.inputs, additional_forward_args=batch.additional_forward_args, n_steps=6
    )
    assert relative_error(actual[0], expected) < 1e-5
