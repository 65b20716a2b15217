"""The last block in path coordinates, against the block itself run on the states of the path."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import BeitConfig, BeitModel, CLIPModel, DINOv3ViTConfig, DINOv3ViTModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.encoders.model.pooled_block import pooled_row, pre_norm_parts
from captum_interactions.encoders.model.pooled_path import has_plain_norm, row_along
from captum_interactions.functional import quadrature
from tests import models
from tests.expected import expected_map, image_side, relative_error, text_baseline, text_side
from tests.families import FAMILIES, default_layers

PIXELS, (IDS, MASK) = models.images(3), models.captions(9, 6, 8)


def test_row_is_that_of_the_block(clip):
    block = clip.vision_model.encoder.layers[-1]
    generator = torch.Generator().manual_seed(3)
    start, end = (
        torch.randn(1, 7, 16, generator=generator),
        torch.randn(3, 7, 16, generator=generator),
    )
    position = torch.tensor([0, 4, 6])
    visible = torch.arange(7) <= position[:, None]
    row_at = row_along(pre_norm_parts(block), start, end, position, visible)
    coordinates = torch.rand(2, 3, 7, generator=generator)
    states = (start + coordinates.unsqueeze(-1) * (end - start)).flatten(0, 1)
    expected = pooled_row(pre_norm_parts(block), states, position.repeat(2), visible.repeat(2, 1))
    actual = row_at(coordinates.flatten(0, 1), slice(0, 3))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    some = row_at(coordinates[:, 1:].flatten(0, 1), slice(1, 3))
    torch.testing.assert_close(some, expected.unflatten(0, (2, 3))[:, 1:].flatten(0, 1))


BUILDS = {family.name: family.build for family in FAMILIES}


@pytest.mark.parametrize(
    "name",
    [
        "CLIP",
        "BLIP",
        "VisionTextDualEncoder (ViT, BERT)",
        "VisionTextDualEncoder (DINOv2, RoBERTa)",
        "TIPSv2",
    ],
)
def test_kinds_of_blocks_are_pre_norm_parts(name):
    wrapper = wrap(BUILDS[name]())
    block = wrapper.tower_a.blocks[-1]
    states = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    position = torch.tensor([0, 3])
    with torch.no_grad():
        expected = block(states, attention_mask=None)[torch.arange(2), position]
        actual = pooled_row(pre_norm_parts(block), states, position)
    # Sums of at most 64 terms of size 1, and a few of them after each other.
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert default_layers(wrapper)[0] == "last block (quick)"


def test_blocks_with_rotary_positions_run_as_they_are():
    config = DINOv3ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=12, patch_size=4,
    )  # fmt: skip
    (block,) = wrap((DINOv3ViTModel(config), DINOv3ViTModel(config))).tower_a.blocks
    assert type(block).__name__ == "DINOv3ViTLayer"
    assert pre_norm_parts(block) is None


@pytest.mark.parametrize(
    "options", [{"layer_scale_init_value": 0.5}, {"use_shared_relative_position_bias": True}]
)
def test_blocks_with_parameters_or_biases_of_their_own_run_as_they_are(options):
    """BEiT's parts have the names of ViT's; it scales them, or adds a bias to the logits."""
    config = BeitConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=12, patch_size=4, **{"layer_scale_init_value": 0.0, **options},
    )  # fmt: skip
    assert pre_norm_parts(BeitModel(config).layers[-1]) is None


def test_the_scale_of_the_logits_is_the_blocks_own():
    model = BUILDS["VisionTextDualEncoder (ViT, BERT)"]()
    block = wrap(model).tower_a.blocks[-1]
    states = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))
    block.attention.scaling *= 3
    with torch.no_grad():
        expected = block(states)[:, 0]
        actual = pooled_row(pre_norm_parts(block), states, torch.tensor([0]))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e-4, 1.0])
def test_paths_that_cross_a_constant_state(clip, offset):
    """There the variance is a difference of large numbers, and layer norm is steep."""
    block = clip.vision_model.encoder.layers[-1]
    start = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0)) * 30
    end = -start + offset
    first, exact = torch.zeros(1, dtype=torch.long), copy.deepcopy(block).double()
    row_at = row_along(pre_norm_parts(block), start, end, first)
    for z in (0.25, 0.498046875, 0.75):  # numbers that float32 holds
        states = start.double() + z * (end.double() - start.double())
        expected = pooled_row(pre_norm_parts(exact), states, first)
        actual = row_at(torch.full((1, 5), z), slice(0, 1))
        # What is left of the states there is 256 times smaller than their rounding was.
        assert relative_error(actual.detach().double(), expected.detach()) < 256 * 6e-7
    assert row_at(torch.full((1, 5), 0.5), slice(0, 1)).isfinite().all()


@pytest.mark.parametrize("normalization", ["cosine", "frozen", "none"])
@pytest.mark.parametrize("row", [0, 1])
def test_map_is_the_oracles(clip, normalization, row):
    length = int(MASK[row].sum())
    ids, pixels = IDS[row : row + 1, :length], PIXELS[row : row + 1]
    soig = SecondOrderIntegratedGradients(wrap(clip), (-1, -1), normalization=normalization)
    expected = expected_map(
        image_side(clip, pixels, -1, torch.zeros_like(pixels)),
        text_side(clip, ids, -1, text_baseline(ids, models.PAD)),
        quadrature(n_steps=6),
        normalization=normalization,
    )
    for size in (None, 1, 4):
        actual = soig.attribute(
            (PIXELS, IDS), additional_forward_args=MASK, n_steps=6, internal_batch_size=size
        )
        assert relative_error(actual[row, :, :length], expected) < 1e-5
        assert not actual[row, :, length:].any()


def test_the_way_by_states_gives_the_same(clip, monkeypatch):
    """Phrases, lists of baselines, main effects and factors, with and without coordinates."""
    wrapper = wrap(clip)
    soig = SecondOrderIntegratedGradients(wrapper, (-1, -1))
    options = {"additional_forward_args": MASK, "n_steps": 4}
    groups = {"groups_a": [[0, 1], [5]], "groups_b": torch.rand(3, 2, IDS.shape[1])}

    def everything():
        return [
            soig.attribute((PIXELS, IDS), baselines=([0.0, 1.0], None), **options),
            soig.attribute((PIXELS, IDS), **groups, **options),
            *soig.decompose((PIXELS, IDS), **options),
            soig.factors_a(PIXELS, n_steps=4).values,
            soig.factors_b(IDS, None, MASK, 4).values,
        ]

    quick = everything()
    calls = []
    for tower in (wrapper.tower_a, wrapper.tower_b):
        monkeypatch.setattr(tower, "along", lambda *_, **__: calls.append(1))
    slow = everything()
    assert calls
    for actual, expected in zip(quick, slow, strict=True):
        assert (actual - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))


def without_first_token(_, __, output):
    return torch.cat([0 * output[:, :1], output[:, 1:]], 1)


def eager_of_my_own(module, query, key, value, mask, **_):
    weights = (query @ key.transpose(2, 3)).softmax(-1)  # not scaled
    return (weights @ value).transpose(1, 2), weights


class Mixing(nn.Module):
    """An MLP that lets tokens see each other."""

    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp

    def forward(self, states):
        return self.mlp(states) + states.mean(-2, keepdim=True)


def hook(name):
    return lambda block: block.get_submodule(name).register_forward_hook(without_first_token)


def own_attention(block):
    ALL_ATTENTION_FUNCTIONS.register("my_own", eager_of_my_own)
    block.self_attn.config = copy.deepcopy(block.self_attn.config)
    block.self_attn.config._attn_implementation = "my_own"


def rows_of_their_own(block):
    forward = block.mlp.forward
    block.mlp.forward = lambda states: forward(states) * torch.arange(states.shape[1])[:, None]


@pytest.mark.parametrize(
    "change",
    [
        hook("mlp"),
        hook("mlp.fc1"),
        hook("mlp.activation_fn"),
        hook("layer_norm2"),
        hook("layer_norm1"),
        own_attention,
        rows_of_their_own,
        lambda block: setattr(block, "mlp", Mixing(block.mlp)),
        lambda block: setattr(block.self_attn, "q_norm", nn.LayerNorm(8)),
    ],
    ids=["mlp", "fc1", "activation", "norm2", "norm1", "attention", "forward", "mixing", "unknown"],
)
def test_changed_blocks_run_as_they_are(change, monkeypatch):
    """Hooks and parts that tell tokens apart see all of them, so the map is the slow one's."""
    clip = models.clip()
    change(clip.vision_model.encoder.layers[-1])
    soig = SecondOrderIntegratedGradients(wrap(clip), (-1, -1))
    options = {"additional_forward_args": MASK, "n_steps": 3}
    actual = soig.attribute((PIXELS, IDS), **options)
    monkeypatch.setattr(
        "captum_interactions.encoders.towers.block_tower.pre_norm_parts", lambda _: None
    )
    assert relative_error(actual, soig.attribute((PIXELS, IDS), **options)) < 1e-5


class MeanPooled(CLIPModel):
    """One whose images are pooled over all patches, which its blocks do not tell."""

    def get_image_features(self, pixel_values=None, **options):
        states = self.vision_model(pixel_values, **options).last_hidden_state
        return self.visual_projection(states[:, 1:].mean(1))


def mixed_output(_, __, output):
    output.last_hidden_state = output.last_hidden_state + output.last_hidden_state.mean(1, True)
    return output


def mixed_text():
    clip = models.clip()
    norm = clip.text_model.final_layer_norm
    norm.register_forward_hook(lambda _, __, output: output + output.mean(1, keepdim=True))
    return clip


def mixed_image():
    clip = models.clip()
    clip.vision_model.encoder.register_forward_hook(mixed_output)
    return clip


@pytest.mark.parametrize("build", [lambda: models.family(MeanPooled), mixed_text, mixed_image])
@pytest.mark.parametrize("layers", [(-1, -1), (1, 2)])
def test_models_that_use_all_tokens_of_the_last_block(build, layers, monkeypatch):
    soig = SecondOrderIntegratedGradients(wrap(build()), layers)
    actual = soig.attribute((PIXELS, IDS[:, :9]), n_steps=3)
    monkeypatch.setattr(
        "captum_interactions.encoders.towers.block_tower.pre_norm_parts", lambda _: None
    )
    assert relative_error(actual, soig.attribute((PIXELS, IDS[:, :9]), n_steps=3)) < 1e-5


def test_a_hook_that_comes_later_is_noticed(clip):
    soig = SecondOrderIntegratedGradients(wrap(clip), (-1, -1))
    plain = soig.attribute((PIXELS, IDS), n_steps=3)
    handle = clip.vision_model.encoder.register_forward_hook(mixed_output)
    try:
        changed = soig.attribute((PIXELS, IDS), n_steps=3)
        score = soig.wrapper(PIXELS, IDS)
        parts = soig.decompose((PIXELS, IDS), n_steps=3)
    finally:
        handle.remove()
    assert relative_error(changed, plain) > 0.01
    torch.testing.assert_close(parts.score, score.detach())
    torch.testing.assert_close(soig.attribute((PIXELS, IDS), n_steps=3), plain)


def test_norms_in_float32_of_a_model_in_half_precision():
    clip = models.clip().bfloat16()
    for module in clip.modules():
        if isinstance(module, nn.LayerNorm):
            module.float()
    exact = SecondOrderIntegratedGradients(wrap(models.clip()), (-1, -1))
    expected = exact.attribute((PIXELS, IDS), n_steps=3)
    soig = SecondOrderIntegratedGradients(wrap(clip), (-1, -1))
    assert relative_error(soig.attribute((PIXELS.bfloat16(), IDS), n_steps=3), expected) < 0.1


def test_other_blocks_have_no_coordinates():
    clip = models.clip()
    tower = wrap(clip).tower_a
    states, context = tower.prefix(2, PIXELS)
    assert tower.along(2, states[:1], states, *context) is not None
    assert tower.along(1, states[:1], states, *context) is None
    clip.vision_model.encoder.layers[-1].layer_norm1 = nn.RMSNorm(16)
    assert not has_plain_norm(pre_norm_parts(clip.vision_model.encoder.layers[-1]))
    assert tower.along(2, states[:1], states, *context) is None


def test_local_attributions_and_full_resolution_take_states(clip, monkeypatch):
    wrapper = wrap(clip)
    for tower in (wrapper.tower_a, wrapper.tower_b):
        monkeypatch.setattr(tower, "along", lambda *_, **__: pytest.fail("coordinates"))
    local = SecondOrderIntegratedGradients(wrapper, (-1, -1), multiply_by_inputs=False)
    assert local.attribute((PIXELS, IDS), n_steps=2).isfinite().all()
