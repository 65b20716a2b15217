"""Attention that is recorded while a tower runs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import Gemma2Config, Gemma2Model
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from captum_interactions import CallableTower, wrap
from captum_interactions.attr import GAME, CLIPSurgery, GradECLIP, LeGrad, MaskCLIP
from captum_interactions.encoders.attention import UndefinedError, attending, record
from captum_interactions.encoders.towers.audio_tower import AudioTower
from tests import models
from tests.attr.test_model_untouched import FuseError, state
from tests.families import FAMILIES, text_config
from tests.plain_clip import plain_image, plain_text

PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)
UNSEEN = ("BLIP", "BLIP image–text retrieval", "FLAVA", "GroupViT")
METHODS = (GAME, GradECLIP, LeGrad, MaskCLIP, CLIPSurgery)


def build(name):
    return next(family for family in FAMILIES if family.name == name).build()


def opened(wrapper, first=0):
    """Each tower with the states and context at a block."""
    for tower, inputs, extras in (
        (wrapper.tower_a, PIXELS, ()),
        (wrapper.tower_b, IDS, (MASK,)),
    ):
        states, context = tower.prefix(first, inputs, *extras)
        yield tower, inputs, extras, states, context


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("eos", [models.EOS, 2])
def test_what_blocks_do_is_what_a_plain_clip_does(attention, eos):
    model = models.clip(attention=attention, eos=eos)
    plain = plain_image(model, PIXELS[:1]), plain_text(model, IDS[:1])
    for plain_tower, (tower, _, _, states, context) in zip(plain, opened(wrap(model)), strict=True):
        recording = record(tower, 0, states, *context)
        assert recording.is_causal == (plain_tower.side == "text")
        assert recording.pooled.tolist() == ([0, 0] if plain_tower.side == "vision" else [6, 4])
        for index, block in enumerate(recording.blocks):
            for ours, theirs in (
                (block.attention.weights[0], torch.stack(plain_tower.weights[index])),
                (block.attention.mixed[0].transpose(0, 1), torch.stack(plain_tower.mixed[index])),
                (block.states[0], plain_tower.states[index]),
                (block.output[0], plain_tower.states[index + 1]),
                (
                    block.attention.value[0],
                    torch.stack([v for _, _, v in plain_tower.heads[index]]),
                ),
            ):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f.name not in UNSEEN], ids=lambda f: f.name
)
@pytest.mark.parametrize("first", [0, -1])
def test_the_embedding_is_the_models_own(family, first):
    wrapper = wrap(family.build())
    batch = wrapper.prepare(wrapper.tower_a.sample(), wrapper.tower_b.sample())
    extras = wrapper.split_additional(batch.additional_forward_args)
    towers = (wrapper.tower_a, wrapper.tower_b)
    for tower, inputs, own in zip(towers, batch.inputs, extras, strict=True):
        if getattr(tower, "convolutional", False) or isinstance(tower, AudioTower):
            continue
        layer = tower.resolve_layer(first)
        with torch.no_grad():
            expected = tower.encode(inputs, *own)
        states, context = tower.prefix(layer, inputs, *own)
        recording = record(tower, layer, states.detach(), *context)
        torch.testing.assert_close(recording.embedding, expected, rtol=1e-5, atol=1e-5)
        for block in recording.blocks:
            total = block.attention.weights.sum(-1)
            torch.testing.assert_close(total, torch.ones_like(total))


def test_it_is_the_models_own_output_of_attentions():
    eager = models.clip(attention="eager")
    with torch.no_grad():
        output = eager(pixel_values=PIXELS, input_ids=IDS, attention_mask=MASK,
                       output_attentions=True)  # fmt: skip
    theirs = output.vision_model_output.attentions, output.text_model_output.attentions
    for (tower, _, _, states, context), expected in zip(
        opened(wrap(models.clip())), theirs, strict=True
    ):
        for block, attention in zip(
            record(tower, 0, states, *context).blocks, expected, strict=True
        ):
            weights = block.attention.weights
            torch.testing.assert_close(weights[0], attention[0], rtol=1e-4, atol=1e-5)


def test_gradients_of_weights_are_finite_differences():
    """The gradient of the embedding by one weight, against replacing that weight."""
    wrapper = wrap(models.clip().double())
    states, context = wrapper.tower_a.prefix(2, PIXELS.double())
    recording = record(wrapper.tower_a, 2, states, *context)
    direction = torch.linspace(-1, 1, 24, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(
        recording.embedding[0] @ direction, recording.blocks[0].attention.weights
    )
    step = torch.zeros_like(gradient)
    step[0, 1, 0, 4] = 1e-6

    def nudged(query, key, value, mask):
        return recording.blocks[0].attention.weights.detach() + step

    moved = record(wrapper.tower_a, 2, states, *context, replaced={2: nudged}).embedding
    slope = (moved - recording.embedding)[0] @ direction / 1e-6
    assert slope.item() == pytest.approx(gradient[0, 1, 0, 4].item(), rel=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_other_models_run_as_ever_meanwhile(attention):
    """Also those whose attention has more to it than a softmax of products."""
    config = Gemma2Config(
        **text_config(), head_dim=6, num_key_value_heads=2, attn_logit_softcapping=2.0
    )
    config._attn_implementation = "eager"
    model, other = models.clip(attention=attention), models.randomise(Gemma2Model(config))
    seen = []

    def attend(module, query, key, value, mask, scaling=None, **_):
        seen.append(module)
        return value.transpose(1, 2), None

    with torch.no_grad():
        expected = other(IDS).last_hidden_state
        with attending(model, attend):
            model.get_image_features(PIXELS)
            assert len(seen) == 3
            assert torch.equal(other(IDS).last_hidden_state, expected)
            new = copy.deepcopy(other)
            new.config = Gemma2Config(**config.to_dict())
        assert len(seen) == 3
        assert new.config._attn_implementation is None
        assert model.config._attn_implementation == attention


def test_an_attention_of_the_users_own_is_put_back():
    def own(*_, **__):
        raise AssertionError

    ALL_ATTENTION_FUNCTIONS["eager"] = own
    try:
        GAME(wrap(models.clip())).attribute((PIXELS, IDS), additional_forward_args=MASK)
        assert ALL_ATTENTION_FUNCTIONS["eager"] is own
    finally:
        del ALL_ATTENTION_FUNCTIONS["eager"]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_untouched(method, attention):
    model = models.clip(attention=attention, dropout=0.5)
    model.train()
    model.vision_model.encoder.layers[0].eval()
    for parameter in model.vision_model.parameters():
        parameter.requires_grad_(False)
    before, weights = state(model), copy.deepcopy(model.state_dict())
    functions = dict(ALL_ATTENTION_FUNCTIONS)
    method(wrap(model)).attribute((PIXELS, IDS), additional_forward_args=MASK)
    assert state(model) == before
    assert dict(ALL_ATTENTION_FUNCTIONS) == functions
    torch.testing.assert_close(dict(model.state_dict()), dict(weights), rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("call", [1, 2])
def test_the_model_is_untouched_after_an_error(method, call):
    model, calls = models.clip(), []

    def burn(*_):
        calls.append(None)
        if len(calls) == call:
            raise FuseError

    model.vision_model.encoder.layers[-1].mlp.register_forward_hook(burn)
    before, functions = state(model), dict(ALL_ATTENTION_FUNCTIONS)
    with pytest.raises(FuseError):
        method(wrap(model)).attribute((PIXELS, IDS), additional_forward_args=MASK)
    assert state(model) == before
    assert dict(ALL_ATTENTION_FUNCTIONS) == functions


@pytest.mark.parametrize("name", UNSEEN)
def test_attention_that_cannot_be_seen_is_refused(name):
    wrapper = wrap(build(name))
    batch = wrapper.prepare(wrapper.tower_a.sample(), wrapper.tower_b.sample())
    model, before = wrapper.tower_a.model, dict(ALL_ATTENTION_FUNCTIONS)
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with pytest.raises(ValueError, match="input a: the attention of .*interface of transformers"):
        GAME(wrapper).attribute(batch.inputs, additional_forward_args=batch.additional_forward_args)
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert dict(ALL_ATTENTION_FUNCTIONS) == before


def test_towers_without_blocks_are_refused():
    wrapper = wrap((models.mlp(6), models.mlp(9)))
    with pytest.raises(ValueError, match="GAME is not defined.*CallableTower has no blocks"):
        GAME(wrapper).attribute((torch.rand(2, 6), torch.rand(2, 9)))


def test_one_side_may_be_defined_alone():
    tower = CallableTower(nn.Linear(5, 24))
    method = GAME(wrap((wrap(models.clip()).tower_a, tower)))
    a, b = method.attribute((PIXELS, torch.rand(2, 5)))
    assert a.shape == (2, 10)
    assert b is None
    assert list(method.undefined) == ["b"]


def test_attention_with_more_to_it_is_refused():
    """A softmax with a sink."""
    model = models.clip()
    module = model.vision_model.encoder.layers[1].self_attn
    own = module.forward
    module.forward = lambda *args, **kwargs: own(*args, s_aux=1.0, **kwargs)
    method = GAME(wrap(model), 3)
    a, b = method.attribute((PIXELS, IDS), additional_forward_args=MASK)
    assert a is None
    assert b is not None
    assert "s_aux" in method.undefined["a"]


def test_attention_that_gives_another_embedding_is_refused():
    """A model whose own, faster attention computes something else than the plain one."""
    model = models.clip()

    def other(module, query, key, value, mask, scaling=None, **options):
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, 2 * value, mask)
        return mixed.transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS["other"] = other
    try:
        model.vision_model.config._attn_implementation = "other"
        method = GAME(wrap(model), 3)
        a, _ = method.attribute((PIXELS, IDS), additional_forward_args=MASK)
        assert a is None
        assert "another embedding" in method.undefined["a"]
    finally:
        del ALL_ATTENTION_FUNCTIONS["other"]


def test_towers_that_pool_several_tokens_have_no_pooled_position():
    wrapper = wrap(build("SigLIP, SigLIP 2 (fixed resolution)"))
    states, context = wrapper.tower_a.prefix(0, PIXELS)
    assert record(wrapper.tower_a, 0, states, *context).pooled is None
    ids = models.captions(16, 16)[0]
    states, context = wrapper.tower_b.prefix(0, ids)
    recording = record(wrapper.tower_b, 0, states, *context)
    assert recording.pooled.tolist() == [15, 15]
    assert not recording.is_causal


def test_a_tower_without_blocks_is_an_error_by_itself():
    with pytest.raises(UndefinedError, match="no blocks"):
        record(CallableTower(nn.Linear(4, 3)), 0, torch.rand(1, 2, 4))


def test_single_tokens_pass_the_models_own_head():
    """Each token of the last block, put where the model pools, gives its embedding."""
    for tower, inputs, extras, states, context in opened(wrap(models.clip())):
        recording = record(tower, 0, states, *context)
        output = recording.blocks[-1].output.detach()
        with torch.no_grad():
            embeddings = tower.project(output.flatten(0, 1), *context).unflatten(
                0, output.shape[:2]
            )
            expected = tower.encode(inputs, *extras)
        pooled = embeddings[torch.arange(2), recording.pooled]
        torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)
