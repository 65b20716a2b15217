"""Patches left out of the sequence, against the models with a mask on their attention."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from captum_interactions import explain, wrap
from captum_interactions.attr import BanzhafInteractions, ShapleyInteractions, masked_score
from captum_interactions.attr._utils.players import Players
from captum_interactions.encoders import Tower
from captum_interactions.metrics import draw_present
from tests import game_oracle, models
from tests.attr.second_order import test_interaction_index as indices
from tests.encoders.test_single_models import built
from tests.families import FAMILIES

DROPS = {"masking": ("attention", "baseline")}
REFUSED = ("ALIGN", "CLAP", "GroupViT", "SigLIP 2 (NaFlex)")
IMAGES = models.images(2).double()


class Hiding(TorchFunctionMode):
    """No token attends to those that are hidden, in any attention of a run: an additive mask."""

    def __init__(self, present):
        super().__init__()
        self.present, self.count = present, 0
        self.bias = torch.zeros(1, len(present)).double().masked_fill(~present, -torch.inf)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        size = len(self.present)
        if func is F.scaled_dot_product_attention and args[1].shape[-2] == size:
            assert kwargs.get("attn_mask") is None
            kwargs["attn_mask"] = self.bias
            self.count += 1
        elif func is F.multi_head_attention_forward and len(args[1]) == size:
            assert kwargs["attn_mask"] is None
            kwargs["attn_mask"] = self.bias.expand(len(args[0]), -1)
            self.count += 1
        elif func is F.softmax and args[0].shape[-1] == size:
            args = (args[0] + self.bias.to(args[0].dtype), *args[1:])
            self.count += 1
        return func(*args, **kwargs)


def hidden(run, present, n_attentions):
    """The output of a run in which tokens are hidden, bool of shape (T,)."""
    with torch.no_grad(), Hiding(present) as hiding:
        output = run()
    assert hiding.count == n_attentions
    return output


@cache
def family(name):
    return wrap(next(one for one in FAMILIES if one.name == name).build().double())


def scored(wrapper, images=IMAGES, layers=None, **options):
    text = wrapper.tower_b.prepare(wrapper.tower_b.sample())
    return masked_score(
        wrapper, (images, text.inputs), None, text.extras, layers=layers, normalization="none",
        **{**DROPS, **options},
    )  # fmt: skip


def choices(score, count=12):
    """Choices of patches of each image, none empty; the first are all of them, and one."""
    present = draw_present(score.players_a, count)
    present[..., 3] |= ~(present & score.players_a[:, None]).any(-1)
    present[:, 0] = score.players_a
    present[:, 1] = score.players_a & (score.players_a.cumsum(1) == 4)
    return present


def close(actual, expected):
    # Some models take the softmax of float64 logits in float32, with an error of 6e-8 per block.
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("name", [f.name for f in FAMILIES if f.name not in REFUSED])
def test_it_is_the_model_with_a_mask_on_its_attention(name):
    wrapper = family(name)
    tower = wrapper.tower_a
    score = scored(wrapper)
    present = choices(score)
    actual = score.embed(0, present)
    n_tokens = present.shape[2]
    assert score.players_a.sum(1).tolist() == [9, 9]
    special = ~score.players_a[0]
    n_attentions = tower.n_blocks + ("SigLIP" in name or name == "AIMv2")
    for row, image in enumerate(IMAGES):
        for one, embedding in zip(present[row], actual[row], strict=True):
            expected = hidden(lambda i=image: tower.encode(i[None])[0], one | special, n_attentions)
            close(embedding, expected)
    assert n_tokens == 9 + int(special.sum())
    close(actual[:, 0], tower.encode(IMAGES).detach())
    nothing = score.embed(0, torch.zeros_like(present[:, :1]))
    if special.any():
        close(nothing[0, 0], hidden(lambda: tower.encode(IMAGES[:1])[0], special, n_attentions))
    else:
        close(nothing[:, 0], tower.encode(torch.zeros_like(IMAGES)).detach())


@pytest.mark.parametrize("pooling", ["mean", None])
@pytest.mark.parametrize("name", ["Dinov2WithRegisters", "DeiT", "IJepa", "SiglipVision", "ViT"])
def test_single_encoders(name, pooling):
    """A mean is that of the tokens that are left, special ones too."""
    model = copy.deepcopy(built(name)).double()
    wrapper = wrap(model, pooling=pooling)
    score = masked_score(
        wrapper, (IMAGES, IMAGES.flip(0)), masking="attention", normalization="none"
    )
    present = choices(score, 4)
    actual = score.embed(1, present)
    n_attentions = 3 + (name == "SiglipVision")
    for one, embedding in zip(present[1], actual[1], strict=True):
        left = one | ~score.players_a[0]
        output = hidden(lambda: model(pixel_values=IMAGES[:1]), left, n_attentions)
        states = output.last_hidden_state[0]
        if pooling == "mean" or name == "IJepa":
            close(embedding, states[left].mean(0))
        else:
            pooled = getattr(output, "pooler_output", None)
            close(embedding, pooled[0] if name == "SiglipVision" else states[0])


def test_images_of_any_shape_against_their_own_mask():
    wrapper = family("SigLIP 2 (NaFlex)")
    tower = wrapper.tower_a
    patches, (mask, shapes), _ = tower.prepare(tower.sample())
    text = wrapper.tower_b.prepare(wrapper.tower_b.sample())
    score = masked_score(
        wrapper, (patches, text.inputs), None, (mask, shapes), normalization="none", **DROPS
    )
    assert torch.equal(score.players_a, mask.bool())  # padding is no player
    present = choices(score)
    for row, (one, embeddings) in enumerate(zip(present, score.embed(0, present), strict=True)):
        own = patches[row].expand(len(one), -1, -1), (one & mask[row].bool()).long()
        expected = tower.encode(*own, shapes[row].expand(len(one), -1)).detach()
        close(embeddings, expected)


@pytest.mark.parametrize(
    ("make", "weight"),
    [
        (BanzhafInteractions, game_oracle.banzhaf(0.5)),
        (ShapleyInteractions, game_oracle.shapley),
    ],
)
def test_interactions_against_brute_force(make, weight):
    model = models.clip().double()
    tower = wrap(model).tower_a

    def image_without(present):
        left = torch.ones(10, dtype=torch.bool)
        for player, tokens in enumerate(indices.PATCHES):
            left[tokens] = player in present
        return hidden(lambda: tower.encode(indices.PIXELS)[0], left, 3)

    value = indices.joint(
        image_without, indices.caption_without(model, "attention"), 3, 4, "cosine"
    )
    expected = game_oracle.terms(value, 3, 4, weight)
    options = {"groups_a": indices.PATCHES, "groups_b": [[1], [2], [3], [4]]}
    pair = indices.PIXELS, indices.IDS
    game = make(wrap(model)).game(pair, masking="attention", **options)
    indices.check(game, expected)
    assert float(game.score) == pytest.approx(value(tuple(range(7))), abs=1e-6)
    assert float(game.baseline) == pytest.approx(value(()), abs=1e-6)
    # The class token stays in its place, even as a member of a group.
    options["groups_a"] = [[0, *indices.PATCHES[0]], *indices.PATCHES[1:]]
    indices.check(make(wrap(model)).game(pair, masking="attention", **options), expected)


def test_a_batch_and_explaining_by_name():
    wrapper = wrap(models.clip())
    images, (ids, mask) = models.images(2), models.captions(7, 5)
    options = {"n_samples": (40, 28), "masking": "attention"}
    maps = BanzhafInteractions(wrapper).attribute((images, ids), None, None, mask, **options)
    for row, expected in enumerate(maps):
        own = slice(row, row + 1)
        pair = images[own], (ids[own], mask[own])
        imap = explain(wrapper, *pair, "banzhaf_interactions", **options)
        scale = float(expected.abs().max())
        torch.testing.assert_close(imap.interactions, expected, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("perturbations_per_eval", [1, 3, 64])
def test_absent_patches_are_not_computed(monkeypatch, perturbations_per_eval):
    wrapper = family("CLIP")
    expected = scored(wrapper)
    present = choices(expected, 20)
    score = scored(wrapper, perturbations_per_eval=perturbations_per_eval)
    shapes = []
    embed = type(wrapper.tower_a).embed

    def counted(tower, layer, features, *context):
        shapes.append(tuple(features.shape[:2]))
        return embed(tower, layer, features, *context)

    monkeypatch.setattr(type(wrapper.tower_a), "embed", counted)
    actual = score.embed(0, present)
    assert max(rows for rows, _ in shapes) <= perturbations_per_eval
    distinct = {(row, *one.tolist()) for row in range(2) for one in present[row]}
    assert sum(rows for rows, _ in shapes) == len(distinct)
    # The class token, and the patches that are there.
    assert sum(rows * tokens for rows, tokens in shapes) == sum(
        1 + sum(one[2:]) for one in distinct
    )
    close(actual, expected.embed(0, present))


def test_every_patch_is_a_player_whatever_its_baseline():
    """Leaving out a patch that looks like the baseline's changes the embedding all the same."""
    wrapper = family("CLIP")
    images = IMAGES.clone()
    images[:, :, :4, :4] = 0
    assert scored(wrapper, images, masking="baseline").players_a.sum(1).tolist() == [8, 8]
    score = scored(wrapper, images)
    assert score.players_a.sum(1).tolist() == [9, 9]
    without = score.players_a.clone()
    without[:, 1] = False
    gap = (score.embed(0, without[:, None]) - score.embed(0, None)).abs().max()
    assert gap > 1e-3 * score.embed(0, None).abs().max()


def test_half_precision_is_not_mistaken_for_an_order():
    wrapper = wrap(models.clip().bfloat16())
    score = scored(wrapper, models.images(2).bfloat16())
    assert score.players_a.sum() == 18


# Refusals.


class Sequences(Tower):
    """Encodes (B, T, 4) by blocks of attention, of which the first may know positions."""

    n_blocks = 2

    def __init__(self, first="set", pool="mean"):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.first, self.pool = first, pool
        models.randomise(self)

    def prefix(self, layer, inputs, *extras):
        return inputs, ()

    def tail(self, layer, states, *context):
        if self.first == "causal":
            states = states.cumsum(1)
        states = states + self.linear(states).tanh()
        states = states + F.scaled_dot_product_attention(states, states, states)
        return states.mean(1) if self.pool == "mean" else states[:, self.pool]

    def encode(self, inputs, *extras):
        return self.tail(0, inputs)

    def baseline(self, inputs, *extras):
        return 0.1 * torch.ones_like(inputs)


def test_own_towers_whose_tokens_are_a_set():
    wrapper = wrap((Sequences(), Sequences()))
    pair = torch.rand(1, 5, 4), torch.rand(1, 6, 4)
    score = masked_score(wrapper, pair, masking="attention", normalization="none")
    present = draw_present(score.players_a, 6)
    for one, embedding in zip(present[0], score.embed(0, present)[0], strict=True):
        torch.testing.assert_close(embedding, wrapper.encode_a(pair[0][:, one])[0].detach())


@pytest.mark.parametrize(
    "options", [{"first": "causal"}, {"pool": 1}, {"pool": -1}], ids=["causal", "second", "last"]
)
def test_towers_that_know_positions(options):
    wrapper = wrap((Sequences(**options), Sequences()))
    pair = torch.rand(1, 5, 4), torch.rand(1, 6, 4)
    with pytest.raises(ValueError, match=r"encoder a \(Sequences\).* depends on the order"):
        masked_score(wrapper, pair, masking=("attention", "baseline"))


def refused(monkeypatch, wrapper, pair, message, layers=None, extras=None):
    monkeypatch.setattr(Players, "embed", lambda *_: pytest.fail("a coalition was encoded"))
    message = f"masking='attention' leaves absent patches out .* but {message}.*: take 'baseline'"
    with pytest.raises(ValueError, match=message):
        BanzhafInteractions(wrapper, layers, normalization="none").attribute(
            pair, None, None, extras, **DROPS
        )


NO_RUN, NO_PATCHES = "it does not run without them", "its tokens are not patches of the input"


@pytest.mark.parametrize(
    ("name", "message"),
    [("ALIGN", NO_PATCHES), ("CLAP", NO_RUN), ("GroupViT", NO_PATCHES)],
)
def test_other_families_are_refused(monkeypatch, name, message):
    wrapper = wrap(next(one for one in FAMILIES if one.name == name).build())
    batch = wrapper.prepare(wrapper.tower_a.sample(), wrapper.tower_b.sample())
    refused(monkeypatch, wrapper, batch.inputs, message, extras=batch.additional_forward_args)


@pytest.mark.parametrize(
    ("name", "message"),
    [("Beit", NO_RUN), ("DINOv3ViT", NO_RUN), ("ConvNext", NO_PATCHES), ("ResNet", NO_PATCHES)],
)
def test_relative_positions_and_feature_maps_are_refused(monkeypatch, name, message):
    wrapper = wrap(built(name))
    (images, *_), *_ = wrapper.tower_a.prepare(wrapper.tower_a.sample()), None
    refused(monkeypatch, wrapper, (images, images.flip(0)), message)


@pytest.mark.parametrize("layer", [1, "input"])
def test_other_layers_are_refused(monkeypatch, layer):
    message = f"that is possible behind its embeddings only, layer 0, not at layer {layer!r}"
    refused(monkeypatch, wrap(models.clip()), (models.images(), models.caption(6)), message,
            layers=(layer, 0))  # fmt: skip


def test_a_hook_that_takes_a_certain_patch_is_refused(monkeypatch):
    model = models.clip()

    def mark(module, args, output):
        states = output[0] if isinstance(output, tuple) else output
        states = torch.cat([states[:, :3], 2 * states[:, 3:4], states[:, 4:]], 1)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    model.vision_model.encoder.layers[0].register_forward_hook(mark)
    refused(
        monkeypatch, wrap(model), (models.images(), models.caption(6)),
        "its embedding depends on the order of its tokens",
    )  # fmt: skip
