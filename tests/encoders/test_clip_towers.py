"""The two towers of CLIP's layout, cut open, against the model's own getters."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import CLIPModel, CLIPSegModel, MetaClip2Model

from captum_interactions import wrap
from captum_interactions.encoders.model.pooled_block import pre_norm_parts
from tests import models

FAMILIES = [CLIPModel, CLIPSegModel, MetaClip2Model]
PIXELS, (IDS, MASK) = models.images(3), models.captions(9, 5, 7)
LAYERS = [0, 1, 2]


def of_images(model, pixels=PIXELS):
    with torch.no_grad():
        resized = tuple(pixels.shape[-2:]) != (12, 12)
        return model.get_image_features(
            pixel_values=pixels, interpolate_pos_encoding=resized
        ).pooler_output


def of_texts(model, ids=IDS, mask=MASK):
    with torch.no_grad():
        return model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output


def recomposed(tower, layer, *inputs):
    with torch.no_grad():
        states, context = tower.prefix(layer, *inputs)
        assert states.shape[0] == len(inputs[0])
        return tower.tail(layer, states, *context)


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def attention(request):
    return request.param


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("eos", [models.EOS, 2])
@pytest.mark.parametrize("model_class", FAMILIES)
class TestFamilies:
    def test_image(self, model_class, attention, layer, eos):
        model = models.family(model_class, attention=attention, eos=eos)
        tower = wrap(model).tower_a
        same(recomposed(tower, layer, PIXELS), of_images(model))
        same(tower.encode(PIXELS).detach(), of_images(model))

    def test_text(self, model_class, attention, layer, eos):
        model = models.family(model_class, attention=attention, eos=eos)
        tower = wrap(model).tower_b
        ids = torch.where(IDS == models.EOS, eos, IDS) if model_class is MetaClip2Model else IDS
        for mask in (MASK, MASK.bool(), None):
            same(recomposed(tower, layer, ids, mask), of_texts(model, ids, mask))
            same(tower.encode(ids, mask).detach(), of_texts(model, ids, mask))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("size", [(8, 20), (16, 16), (14, 19)])
def test_images_of_other_sizes(clip, size, layer):
    pixels = models.images(2, size)
    same(recomposed(wrap(clip).tower_a, layer, pixels), of_images(clip, pixels))


def test_masks_within_the_caption(clip):
    """Tokens that the mask hides before the end of the text are not seen either."""
    mask = MASK.clone()
    mask[:, 2] = 0
    tower = wrap(clip).tower_b
    for layer in LAYERS:
        same(recomposed(tower, layer, IDS, mask), of_texts(clip, IDS, mask))
    assert not tower.token_mask(IDS, mask)[:, 2].any()


def test_padding_in_front(clip):
    ids = torch.nn.functional.pad(models.caption(6), (3, 0), value=models.PAD)
    mask = torch.nn.functional.pad(torch.ones(1, 6).long(), (3, 0))
    tower = wrap(clip).tower_b
    for layer in LAYERS:
        same(recomposed(tower, layer, ids, mask), of_texts(clip, ids, mask))
    assert tower.token_mask(ids, mask).tolist() == [[False] * 3 + [True] * 6]


def double(module, args, output):
    return 2 * output


class Louder(nn.Linear):
    """A replaced projection, as adapters have them."""

    def forward(self, states):
        return 3 * super().forward(states)


@pytest.mark.parametrize(
    "change",
    [
        lambda block: block.register_forward_hook(double),
        lambda block: block.register_forward_pre_hook(lambda _, args: (2 * args[0], *args[1:])),
        lambda block: block.self_attn.v_proj.register_forward_hook(double),
        lambda block: block.self_attn.register_forward_hook(
            lambda _, args, output: (2 * output[0], *output[1:])
        ),
        lambda block: block.mlp.register_forward_hook(double),
        lambda block: block.layer_norm1.register_forward_hook(double),
        lambda block: setattr(block.self_attn.out_proj, "__class__", Louder),
        lambda block: setattr(block.self_attn.k_proj, "forward", lambda x: x.flip(-1)),
        lambda block: setattr(block.self_attn.q_proj, "bias", None),
        lambda block: setattr(block.self_attn.k_proj, "bias", None),
        lambda block: setattr(block.self_attn.v_proj, "bias", None),
    ],
    ids=[
        "hook",
        "pre-hook",
        "hook on a projection",
        "hook on the attention",
        "hook on the mlp",
        "hook on a norm",
        "an adapter",
        "a forward of its own",
        "no query bias",
        "no key bias",
        "no value bias",
    ],
)
def test_changes_to_the_last_block_count(change):
    model = models.clip()
    plain = of_images(model), of_texts(model)
    for tower in (model.vision_model, model.text_model):
        change(tower.encoder.layers[-1])
    wrapper = wrap(model)
    for changed, unchanged, tower, inputs in (
        (of_images(model), plain[0], wrapper.tower_a, (PIXELS,)),
        (of_texts(model), plain[1], wrapper.tower_b, (IDS, MASK)),
    ):
        assert not torch.equal(changed, unchanged)
        for layer in (0, 2):
            same(recomposed(tower, layer, *inputs), changed)


def test_only_the_plain_last_block_is_computed_for_one_token(clip):
    blocks = clip.vision_model.encoder.layers
    assert pre_norm_parts(blocks[-1])
    assert not pre_norm_parts(nn.Identity())
    assert not pre_norm_parts(nn.TransformerEncoderLayer(8, 2, norm_first=True))

    hooked = copy.deepcopy(blocks[-1])
    hooked.register_full_backward_hook(lambda *_: None)
    assert not pre_norm_parts(hooked)

    class Scaled(type(blocks[-1])):
        def forward(self, *args, **kwargs):
            return 2 * super().forward(*args, **kwargs)

    assert not pre_norm_parts(Scaled(clip.config.vision_config))


def test_which_tokens_count(clip):
    tower = wrap(clip).tower_b
    assert tower.token_mask(IDS).tolist() == MASK.bool().tolist()
    longer = torch.cat([IDS, torch.full((3, 2), models.EOS)], 1)
    assert tower.token_mask(longer)[:, :9].tolist() == MASK.bool().tolist()
    assert not tower.token_mask(longer)[:, 9:].any()


def test_layers_count_from_both_ends(clip):
    tower = wrap(clip).tower_a
    assert [tower.resolve_layer(k) for k in (0, 2, -1, -3, "input")] == [0, 2, 2, 0, "input"]


@pytest.mark.parametrize("size", [(12, 12), (9, 14)])
def test_fold_and_spread_are_adjoint(clip, size):
    tower = wrap(clip).tower_a
    generator = torch.Generator().manual_seed(0)
    for layer, shape in (("input", (2, 3, *size)), (1, (2, 10, 16))):
        features = torch.randn(shape, generator=generator)
        tokens = tower.fold(layer, features)
        weights = torch.randn(4, 2, tokens.shape[1], generator=generator)
        spread = tower.spread(layer, weights, shape)
        actual = (spread * features).sum(tuple(range(2, spread.dim())))
        torch.testing.assert_close(actual, (weights * tokens).sum(-1))


def test_the_text_baseline_keeps_special_tokens(clip):
    tower = wrap(clip).tower_b
    baseline = tower.baseline(IDS, MASK)
    expected = torch.where((IDS == models.BOS) | (IDS == models.EOS), IDS, models.PAD)
    assert torch.equal(baseline, expected)
    assert torch.equal(tower.set_constant(IDS.float(), 5.0)[1], torch.tensor(
        [models.BOS, 5, 5, 5, models.EOS, 0, 0, 0, 0]
    ))  # fmt: skip


def test_the_text_baseline_keeps_the_pooled_token_of_outdated_configs():
    ids = IDS.where(IDS != 2, 4)
    outdated, updated = (wrap(models.clip(eos=eos)).tower_b for eos in (2, models.EOS))
    assert torch.equal(outdated.baseline(ids), updated.baseline(ids))


def test_the_image_baseline_is_zero(clip):
    baseline = wrap(clip).tower_a.baseline(PIXELS)
    assert baseline.shape == PIXELS.shape
    assert baseline.count_nonzero() == 0


def test_a_baseline_needs_a_padding_token():
    model = models.clip()
    model.text_model.config.pad_token_id = None
    with pytest.raises(ValueError, match="needs a padding token.*pass token ids as the text base"):
        wrap(model).tower_b.baseline(IDS)
