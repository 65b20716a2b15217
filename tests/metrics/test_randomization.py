"""Randomised weights and captions: what is compared, and that every weight is put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_interactions import (
    CallableTower,
    DualEncoderWrapper,
    SecondOrderIntegratedGradients,
    wrap,
)
from captum_interactions.attr import parameter_stages
from captum_interactions.metrics import cascading_randomization, label_randomization
from tests import models


def weights(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12))


def stages_of(model):
    return [("head", list(model[2].parameters())), ("stem", list(model[0].parameters()))]


def test_a_map_of_the_weights_changes_and_one_of_the_input_does_not():
    model, x = network(), torch.randn(3, 12)
    before = weights(model)
    state = torch.get_rng_state()
    of_weights = cascading_randomization(lambda: model(x), stages_of(model))
    of_input = cascading_randomization(lambda: x, stages_of(model))
    assert torch.equal(torch.get_rng_state(), state)
    assert of_weights.stages == ("head", "stem")
    assert of_weights.correlations.shape == of_weights.magnitude_correlations.shape == (2, 3)
    assert of_weights.correlations.abs().max() < 0.95
    torch.testing.assert_close(of_input.correlations, torch.ones(2, 3, dtype=torch.float64))
    assert all(map(torch.equal, weights(model), before))


def test_random_weights_give_maps_without_correlation():
    torch.manual_seed(0)
    matrix, x = nn.Parameter(torch.randn(60, 60)), torch.randn(40, 60)
    result = cascading_randomization(lambda: x @ matrix, [("all", [matrix])])
    values = result.correlations
    assert abs(values.mean()) < 4 * values.std() / 40**0.5


def test_each_stage_comes_on_top_of_those_before():
    model, seen = network(), []

    def attribute():
        seen.append(weights(model))
        return torch.arange(4.0)[None]

    before = weights(model)
    # A parameter that two stages share is shuffled once.
    stages = stages_of(model)
    stages[1] = ("stem", [*stages[1][1], *stages[0][1]])
    cascading_randomization(attribute, stages)
    original, head, both = seen
    assert all(map(torch.equal, original, before))
    for now, was in zip(head[2:], before[2:], strict=True):
        assert not torch.equal(now, was)
        assert torch.equal(now.flatten().sort().values, was.flatten().sort().values)
    assert all(map(torch.equal, head[:2], before[:2]))
    assert all(map(torch.equal, both[2:], head[2:]))
    assert not torch.equal(both[0], before[0])


def test_weights_are_put_back_after_an_error():
    model, calls = network(), []

    def attribute():
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return torch.arange(4.0)[None]

    before = weights(model)
    with pytest.raises(KeyboardInterrupt):
        cascading_randomization(attribute, stages_of(model))
    assert all(map(torch.equal, weights(model), before))


def test_the_seed_decides():
    model, x = network(), torch.randn(3, 12)
    one, same, other = (
        cascading_randomization(lambda: model(x), stages_of(model), seed).correlations
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_no_stages():
    for stages in ([], [("head", [])]):
        with pytest.raises(ValueError, match="there must be stages, each with parameters"):
            cascading_randomization(lambda: torch.ones(1, 2), stages)


def test_every_parameter_of_a_model_is_in_one_stage():
    clip = models.clip()
    wrapper = wrap(clip)
    ids, mask = models.captions(6)
    for parameter in clip.text_model.parameters():
        parameter.requires_grad = False
    stages = parameter_stages(wrapper, (models.images(), ids), mask)
    assert [name for name, _ in stages] == [
        "a: block 2 and head, b: block 2 and head",
        "a: block 1, b: block 1",
        "a: block 0, b: block 0",
        "a: embeddings, b: embeddings",
    ]
    names = {id(parameter): name for name, parameter in clip.named_parameters()}
    found = [[names[id(parameter)] for parameter in parameters] for _, parameters in stages]
    flat = [name for stage in found for name in stage]
    assert len(flat) == len(set(flat))
    assert set(names.values()) - set(flat) == {"logit_scale"}
    assert all(".layers." in name for stage in found[1:3] for name in stage)
    assert {"visual_projection.weight", "text_projection.weight"} <= set(found[0])
    assert "text_model.embeddings.token_embedding.weight" in found[3]
    assert not any(p.requires_grad for p in clip.text_model.parameters())
    assert all(p.requires_grad for p in clip.vision_model.parameters())


def test_second_order_maps_of_a_model_pass_the_check():
    wrapper = wrap(models.clip())
    ids, mask = models.captions(6, 6)
    inputs = models.images(2), ids
    explainer = SecondOrderIntegratedGradients(wrapper, layers=(0, 0))

    def attribute():
        maps = explainer.attribute(inputs, additional_forward_args=mask, n_steps=4)
        return maps[:, 1:, 1:-1]

    before = weights(wrapper)
    result = cascading_randomization(attribute, parameter_stages(wrapper, inputs, mask))
    assert result.correlations[-1].abs().max() < 0.6
    assert all(map(torch.equal, weights(wrapper), before))


def test_towers_of_different_depth_end_together():
    closed = DualEncoderWrapper(CallableTower(network()), CallableTower(network(1)))
    x = torch.randn(2, 12)
    ((name, parameters),) = parameter_stages(closed, (x, x))
    assert name == "a: encoder, b: encoder"
    assert len(parameters) == 8
    shared = network()
    siamese = DualEncoderWrapper(CallableTower(shared), CallableTower(shared))
    assert len(parameter_stages(siamese, (x, x))[0][1]) == 4


def test_a_tower_without_parameters():
    wrapper = DualEncoderWrapper(CallableTower(nn.Tanh()), CallableTower(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match="a CallableTower has no parameters"):
        parameter_stages(wrapper, (torch.ones(1, 3), torch.ones(1, 3)))


def test_labels():
    x, orders = torch.randn(6, 30), []

    def attribute(order):
        orders.append(order)
        return x + 0.1 * x[order]

    state = torch.get_rng_state()
    values = label_randomization(attribute, 6)
    assert torch.equal(torch.get_rng_state(), state)
    assert orders[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert sorted(orders[1].tolist()) == [0, 1, 2, 3, 4, 5]
    assert (orders[1] != orders[0]).all()
    # Maps that hardly depend on b stay alike, those that show b alone do not.
    assert (values > 0.9).all()
    assert label_randomization(lambda order: x[order], 6).abs().max() < 0.7
    torch.testing.assert_close(
        label_randomization(lambda order: x, 6), torch.ones(6, dtype=torch.float64)
    )
    with pytest.raises(ValueError, match="there are 1"):
        label_randomization(attribute, 1)


@pytest.mark.parametrize("n_pairs", [2, 3, 17])
def test_nobody_keeps_the_own_label(n_pairs):
    orders = []

    def attribute(order):
        orders.append(order)
        return torch.rand(n_pairs, 4)

    for seed in range(20):
        label_randomization(attribute, n_pairs, seed)
    assert all((order != torch.arange(n_pairs)).all() for order in orders[1::2])
