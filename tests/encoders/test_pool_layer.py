"""What an encoder pools, as a layer: its quick way, and when it is not taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import SiglipConfig, SiglipModel

from captum_interactions import SecondOrderIntegratedGradients, explain, wrap
from captum_interactions.encoders.model.pooling_attention import pooling_attention
from tests import models
from tests.expected import relative_error
from tests.families import text_config, vision_config

PIXELS = models.images(2)
IDS = torch.randint(2, 60, (2, 16), generator=torch.Generator().manual_seed(0))
LAYERS = ("pool", -1)


def siglip():
    config = SiglipConfig(
        text_config=text_config(projection_size=16), vision_config=vision_config()
    )
    return models.randomise(SiglipModel(config))


def quick_and_slow(model, monkeypatch, **options):
    """A map along coordinates, if there are any, and one along states."""
    wrapper = wrap(model)
    soig = SecondOrderIntegratedGradients(wrapper, LAYERS)
    quick = soig.attribute((PIXELS, IDS), n_steps=4, **options)
    for tower in (wrapper.tower_a, wrapper.tower_b):
        monkeypatch.setattr(tower, "along", lambda *_: None)
    return quick, soig.attribute((PIXELS, IDS), n_steps=4, **options), wrapper.tower_a


def has_coordinates(tower):
    with torch.no_grad():
        states, context = tower.prefix("pool", PIXELS)
        return type(tower).along(tower, "pool", 0 * states[:1], states, *context) is not None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"groups_a": [[0, 1], [4]]},
        {"baselines": ([0.0, 1.0], None)},
        {"internal_batch_size": 3},
    ],
)
def test_coordinates_give_the_map_of_states(monkeypatch, options):
    quick, slow, tower = quick_and_slow(siglip(), monkeypatch, **options)
    assert has_coordinates(tower)
    assert relative_error(quick, slow) < 1e-5


class Curved(nn.Module):
    """Keys and values that are no straight paths."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, states, *mask):
        return self.head(states.tanh(), *mask)


def two_attentions(model):
    model.vision_model.head.register_forward_hook(
        lambda head, args, output: output + head.forward(2 * args[0])
    )


def query_of_the_input(model):
    own = model.vision_model.head.attention.forward
    model.vision_model.head.attention.forward = lambda query, *states, **options: own(
        query + states[0].mean(1, keepdim=True), *states, **options
    )


def curved(model):
    model.vision_model.head = Curved(model.vision_model.head)


@pytest.mark.parametrize("change", [two_attentions, query_of_the_input, curved])
def test_heads_that_are_not_plain_run_as_they_are(monkeypatch, change):
    model = siglip()
    change(model)
    quick, slow, tower = quick_and_slow(model, monkeypatch)
    assert not has_coordinates(tower)
    assert relative_error(quick, slow) < 1e-6


def double(module, args, output):
    return 2 * output


@pytest.mark.parametrize("part", ["head.mlp", "head.layernorm", "head", "post_layernorm"])
def test_hooks_around_the_attention_count(monkeypatch, part):
    model = siglip()
    model.vision_model.get_submodule(part).register_forward_hook(double)
    quick, slow, _ = quick_and_slow(model, monkeypatch)
    assert relative_error(quick, slow) < 1e-5
    with torch.no_grad():
        own = model.get_image_features(pixel_values=PIXELS).pooler_output
    assert relative_error(wrap(model).encode_a(PIXELS).detach(), own) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    expected = SecondOrderIntegratedGradients(wrap(siglip())).attribute((PIXELS, IDS))
    wrapper = wrap(siglip().to(dtype))
    actual = SecondOrderIntegratedGradients(wrapper).attribute((PIXELS.to(dtype), IDS))
    assert has_coordinates_of_type(wrapper.tower_a, dtype)
    assert relative_error(actual, expected) < (0.1 if dtype is torch.bfloat16 else 0.02)


def has_coordinates_of_type(tower, dtype):
    with torch.no_grad():
        states, context = tower.prefix("pool", PIXELS.to(dtype))
        return tower.along("pool", 0 * states[:1], states, *context) is not None


def test_an_error_leaves_the_model_as_it_was():
    model = siglip()
    soig = SecondOrderIntegratedGradients(wrap(model))
    plain = soig.attribute((PIXELS, IDS), n_steps=2)
    parts = [dict(vars(module)) for module in model.modules()]

    def fail(*_):
        raise RuntimeError("out of order")

    handle = model.vision_model.head.layernorm.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of order"):
        soig.attribute((PIXELS, IDS), n_steps=2)
    handle.remove()
    assert [dict(vars(module)).keys() for module in model.modules()] == [p.keys() for p in parts]
    assert torch.equal(soig.attribute((PIXELS, IDS), n_steps=2), plain)


def test_a_texts_last_token_is_all_of_its_last_block(monkeypatch):
    """Where SigLIP pools: padding takes part in attention, and its rows need not be computed."""
    tower = wrap(siglip()).tower_b
    with torch.no_grad():
        states, context = tower.prefix(2, IDS)
        assert tower.along(2, states[:1], states, *context) is not None
    assert tower.token_mask(IDS).all()
    assert not tower.special_tokens(IDS)[:, -1].any()


def test_pooling_attention_of_a_mask():
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    query, states = torch.randn(3, 1, 8), torch.randn(3, 5, 8)
    hidden = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) > 0.6
    mask = hidden.repeat_interleave(2, 0).unsqueeze(1)
    with torch.no_grad():
        expected = attention(query, states, states, attn_mask=mask)[0]
        asked = pooling_attention(lambda: attention(query, states, states, attn_mask=mask))
        logits = asked.query @ asked.key.transpose(2, 3) + asked.mask
        mixed = (logits.softmax(-1) @ asked.value).transpose(1, 2).flatten(2)
        torch.testing.assert_close(attention.out_proj(mixed), expected)
    unmasked = hidden.unsqueeze(1).unsqueeze(1).logical_not()
    run = lambda: nn.functional.scaled_dot_product_attention(  # noqa: E731
        *(torch.randn(3, 2, n, 4) for n in (1, 5, 5)), attn_mask=unmasked
    )
    assert torch.equal(pooling_attention(run).mask.squeeze() == 0, ~hidden)
    assert pooling_attention(lambda: (run(), run())) is None


def test_names_of_layers():
    wrapper = wrap(siglip())
    assert wrapper.default_layers == LAYERS
    assert wrapper.tower_a.layers == (0, 1, 2, "pool")
    with pytest.raises(ValueError, match="from -3 to 2, 'pool', or 'input' for .* but got 'head'"):
        SecondOrderIntegratedGradients(wrapper, ("head", -1))
    with pytest.raises(ValueError, match="from -3 to 2, or 'input' .* but got 'pool'"):
        SecondOrderIntegratedGradients(wrapper, (-1, "pool"))
    imap = explain(wrapper, PIXELS[:1], IDS[:1], n_steps=60)
    assert imap.interactions.shape == (9, 16)
    assert imap.heatmap([3]).shape == (3, 3)
