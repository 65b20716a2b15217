"""Attributions by attention against their formulas, written out for one pair of a CLIP."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from captum_interactions import wrap
from captum_interactions.attr import (
    GAME,
    GEM,
    AttentionRollout,
    CLIPSurgery,
    GradECLIP,
    LeGrad,
    MaskCLIP,
)
from captum_interactions.attr.first_order.attention_rollout import rollout
from captum_interactions.attr.first_order.clip_surgery import feature_surgery
from captum_interactions.encoders.attention import record
from tests import models
from tests.expected import relative_error
from tests.plain_clip import plain_image, plain_text

PIXELS, IDS = models.images(), models.caption(6)
METHODS = (GAME, AttentionRollout, GradECLIP, LeGrad, MaskCLIP, CLIPSurgery, GEM)


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    return models.clip(attention=request.param)


@pytest.fixture(scope="module")
def image(model):
    return plain_image(model, PIXELS)


@pytest.fixture(scope="module")
def text(model):
    return plain_text(model, IDS)


def shown(tower, row):
    """A map without the pooled token and the first one, which is special on both sides."""
    row = row.detach().clone()
    row[0] = row[tower.end] = 0
    return row


def check(actual, *expected):
    for ours, theirs in zip(actual, expected, strict=True):
        if theirs is None:
            assert ours is None
        else:
            assert theirs.abs().max() > 1e-4
            assert relative_error(ours[0], theirs) < 1e-4


def test_the_plain_towers_are_the_model(model, image, text):
    with torch.no_grad():
        expected = wrap(model)(PIXELS, IDS).item()
    assert (image.embedding @ text.embedding).item() == pytest.approx(expected, abs=1e-6)


def game(tower, other, n_blocks):
    weights = tower.weights[-n_blocks:]
    score = tower.embedding @ other.embedding.detach()
    relevance = torch.eye(len(tower.states[0]))
    for heads in weights:
        gradients = torch.autograd.grad(score, heads, retain_graph=True)
        products = [(g * w).clamp(min=0) for g, w in zip(gradients, heads, strict=True)]
        relevance = relevance + sum(products) / len(products) @ relevance
    return shown(tower, relevance[tower.end])


@pytest.mark.parametrize("n_blocks", [1, 2, 3])
def test_game(model, image, text, n_blocks):
    actual = GAME(wrap(model), n_blocks).attribute((PIXELS, IDS))
    check(actual, game(image, text, n_blocks), game(text, image, n_blocks))


def test_game_of_one_block_is_its_row(model, image, text):
    """R = I + A, so the pooled token's row is that of the attention and its gradient."""
    (gradient,) = torch.autograd.grad(
        image.embedding @ text.embedding.detach(), image.weights[-1][0], retain_graph=True
    )
    one = (gradient * image.weights[-1][0]).clamp(min=0)[0] / 2
    (gradient,) = torch.autograd.grad(
        image.embedding @ text.embedding.detach(), image.weights[-1][1], retain_graph=True
    )
    two = (gradient * image.weights[-1][1]).clamp(min=0)[0] / 2
    actual = GAME(wrap(model)).attribute((PIXELS, IDS))[0]
    assert relative_error(actual[0, 1:], (one + two)[1:].detach()) < 1e-4


def test_rollout(model, image, text):
    def product(tower):
        matrix = torch.eye(len(tower.states[0]))
        for heads in tower.weights:
            mean = sum(heads) / len(heads) + torch.eye(len(matrix))
            matrix = (mean / mean.sum(1, keepdim=True)) @ matrix
        return shown(tower, matrix[tower.end])

    check(AttentionRollout(wrap(model)).attribute((PIXELS, IDS)), product(image), product(text))


def test_rollouts_rows_sum_to_one(model):
    wrapper = wrap(model)
    for tower, inputs in ((wrapper.tower_a, PIXELS), (wrapper.tower_b, IDS)):
        states, context = tower.prefix(0, inputs)
        matrix = rollout(record(tower, 0, states, *context))
        torch.testing.assert_close(matrix.sum(-1), torch.ones(matrix.shape[:2]))
        assert (matrix >= 0).all()


def grad_eclip(tower, other, n_blocks):
    score = tower.embedding @ other.embedding.detach()
    total = torch.zeros(len(tower.states[0]))
    tokens = [j for j in range(1, len(total)) if j != tower.end]
    for heads, mixed in zip(tower.heads[-n_blocks:], tower.mixed[-n_blocks:], strict=True):
        gradients = torch.autograd.grad(score, mixed, retain_graph=True)
        for (query, key, value), gradient in zip(heads, gradients, strict=True):
            cosines = {j: F.cosine_similarity(query[tower.end], key[j], dim=0) for j in tokens}
            low, high = min(cosines.values()), max(cosines.values())
            for j in tokens:
                loosened = (cosines[j] - low) / (high - low)
                total[j] += (loosened * (gradient[tower.end] @ value[j])).item()
    return total.clamp(min=0)


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_grad_eclip(model, image, text, n_blocks):
    actual = GradECLIP(wrap(model), n_blocks).attribute((PIXELS, IDS))
    check(actual, grad_eclip(image, text, n_blocks), grad_eclip(text, image, n_blocks))


def test_grad_eclip_takes_one_block_of_images_and_eight_of_texts(model, image, text):
    actual = GradECLIP(wrap(model)).attribute((PIXELS, IDS))
    check(actual, grad_eclip(image, text, 1), grad_eclip(text, image, 3))


def test_a_single_token_has_the_whole_attention(model, image):
    """Where all cosines are alike there is nothing to stretch."""
    ids = models.caption(3)
    text = plain_text(model, ids)
    actual = GradECLIP(wrap(model), 1).attribute((PIXELS, ids))[1][0]
    score = text.embedding @ image.embedding.detach()
    gradients = torch.autograd.grad(score, text.mixed[-1])
    gain = sum(
        gradient[2] @ value[1]
        for gradient, (_, _, value) in zip(gradients, text.heads[-1], strict=True)
    )
    torch.testing.assert_close(actual[1], gain.clamp(min=0).detach(), rtol=1e-4, atol=1e-6)


def test_mask_clip(model, image, text):
    layer, states = image.layers[-1], image.states[-2]
    values = [value for _, _, value in image.project(layer, states)]
    final = image.rest(layer, states, values)
    row = torch.stack([image.head(state) @ text.embedding for state in final])
    check(MaskCLIP(wrap(model)).attribute((PIXELS, IDS)), shown(image, row), None)


def test_mask_clip_of_a_model_that_attends_to_nothing_else(model):
    """If attention is an identity anyway, a patch is embedded as the class token would be."""
    model = models.clip()
    layer = model.vision_model.encoder.layers[-1]
    attention = layer.self_attn
    attention.num_heads, attention.head_dim, attention.scale = 1, 16, 0.25
    with torch.no_grad():
        # Queries and keys are large, of the same length and the same: each token attends to itself.
        layer.layer_norm1.weight.fill_(1)
        layer.layer_norm1.bias.zero_()
        attention.q_proj.weight.copy_(40 * torch.eye(16))
        attention.k_proj.weight.copy_(40 * torch.eye(16))
        attention.q_proj.bias.zero_()
        attention.k_proj.bias.zero_()
    wrapper = wrap(model)
    actual = MaskCLIP(wrapper).attribute((PIXELS, IDS))[0]
    states, context = wrapper.tower_a.prefix(2, PIXELS)
    for patch in (1, 5, 9):
        swapped = states.clone()
        swapped[:, [0, patch]] = states[:, [patch, 0]]
        with torch.no_grad():
            embedding = wrapper.tower_a.tail(2, swapped, *context)
            expected = F.cosine_similarity(embedding, wrapper.encode_b(IDS))
        torch.testing.assert_close(actual[:, patch], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_legrad(model, image, text, n_blocks):
    total = torch.zeros(10)
    for index in range(3 - n_blocks, 3):
        score = image.head(image.states[index + 1].mean(0)) @ text.embedding.detach()
        gradients = torch.autograd.grad(score, image.weights[index], retain_graph=True)
        for gradient in gradients:
            total += gradient.clamp(min=0).mean(0) / len(gradients) / n_blocks
    check(LeGrad(wrap(model), n_blocks).attribute((PIXELS, IDS)), shown(image, total), None)


def surgery_tokens(image, n_blocks):
    first = 3 - n_blocks
    path = image.states[first]
    for index in range(first, 3):
        layer, states = image.layers[index], image.states[index]
        values = [value for _, _, value in image.project(layer, states)]
        mixed = [image.softmax(layer, value, value) @ value for value in values]
        path = path + image.attended(layer, mixed)
    return torch.stack([image.head(state) for state in path])


@pytest.mark.parametrize("n_blocks", [1, 2, 6])
def test_clip_surgery(model, image, text, n_blocks):
    tokens = surgery_tokens(image, min(n_blocks, 3))
    baseline = torch.where((IDS == models.BOS) | (IDS == models.EOS), IDS, models.PAD)
    difference = text.embedding - plain_text(model, baseline).embedding
    actual = CLIPSurgery(wrap(model), n_blocks).attribute((PIXELS, IDS))
    check(actual, shown(image, tokens @ difference), None)


def test_clip_surgery_with_redundant_texts(model, image, text):
    wrapper = wrap(model)
    others = torch.cat([models.caption(6, seed=seed) for seed in (5, 6, 7)])
    with torch.no_grad():
        redundant = wrapper.encode_b(others)
    every = torch.stack([text.embedding, *F.normalize(redundant, dim=-1)])
    tokens = surgery_tokens(image, 3)
    weights = (2 * every @ image.embedding).softmax(0)
    weights = weights / weights.mean()
    features = tokens[:, None] * every[None] * weights[None, :, None]  # (T, N, K)
    expected = (features - features.mean(1, keepdim=True)).sum(-1)[:, 0]
    actual = CLIPSurgery(wrapper).attribute((PIXELS, IDS), redundant=(None, redundant))
    check(actual, shown(image, expected), None)


def test_feature_surgery_takes_off_what_is_redundant():
    """With equal weights, a direction that target and others share counts for nothing."""
    target = torch.tensor([[0.6, 0.8, 0.0]])
    others = torch.tensor([[0.6, 0.0, 0.8]])
    own = torch.tensor([[1.0, 0.0, 0.0]])
    actual = feature_surgery(torch.eye(3)[None], target, others, own)
    torch.testing.assert_close(actual, torch.tensor([[0.0, 0.4, -0.4]]))


def similar_tokens(projections, temperature):
    """For each token, weights of all tokens by the cosines of their projections."""
    rows = []
    for one in projections:
        cosines = torch.stack([F.cosine_similarity(one, two, dim=0) for two in projections])
        rows.append((cosines / temperature).softmax(0))
    return torch.stack(rows)


@pytest.mark.parametrize("n_blocks", [1, 2, 6])
def test_gem(model, image, text, n_blocks):
    first = 3 - min(n_blocks, 3)
    path = image.states[first]
    for layer, states in zip(image.layers[first:], image.states[first:], strict=False):
        normed, mixed = layer.layer_norm1(states), []
        temperature = layer.self_attn.head_dim**0.5 / normed.norm(dim=1).mean()
        for query, key, value in image.project(layer, states):
            outputs = []
            for projections in (query, key, value):
                unit = F.normalize(projections, dim=1)
                averaged = similar_tokens(projections, temperature) @ unit
                outputs.append(similar_tokens(averaged, temperature) @ value)
            mixed.append(sum(outputs) / 3)
        path = path + image.attended(layer, mixed)
    expected = torch.stack([image.head(state) @ text.embedding for state in path])
    check(GEM(wrap(model), n_blocks).attribute((PIXELS, IDS)), shown(image, expected), None)


def test_gem_leaves_padding_out():
    """Images of different sizes, whose patches are padded to one length."""
    from tests.families import FAMILIES

    family = next(family for family in FAMILIES if "NaFlex" in family.name)
    wrapper = wrap(family.build())
    batch = wrapper.prepare(wrapper.tower_a.sample(), wrapper.tower_b.sample())
    (patches, ids), (mask, sizes) = batch.inputs, batch.additional_forward_args
    assert mask.sum(1).tolist() == [6, 4]
    together = GEM(wrapper).attribute(batch.inputs, None, (mask, sizes))
    alone = GEM(wrapper).attribute((patches[1:, :4], ids[1:]), None, (mask[1:, :4], sizes[1:]))
    assert relative_error(together[0][1:, :4], alone[0]) < 1e-4
    assert together[0][1, 4:].count_nonzero() == 0


@pytest.mark.parametrize("method", [GAME, AttentionRollout, GradECLIP, LeGrad])
def test_maps_are_not_negative(model, method):
    for attribution in method(wrap(model)).attribute((PIXELS, IDS)):
        assert attribution is None or (attribution >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_examples_and_padding_counts_for_nothing(model, method):
    attribution = method(wrap(model))
    pixels, (ids, mask) = models.images(2), models.captions(5, 8)
    together = attribution.attribute((pixels, ids), additional_forward_args=mask)
    for row, length in enumerate((5, 8)):
        alone = attribution.attribute((pixels[row : row + 1], ids[row : row + 1, :length]))
        for one, all_ in zip(alone, together, strict=True):
            if one is not None:
                size = one.shape[1]
                assert relative_error(all_[row : row + 1, :size], one) < 1e-4
                assert all_[row, size:].count_nonzero() == 0


@pytest.mark.parametrize("method", METHODS)
def test_padding_of_a_bidirectional_text(method):
    """Texts whose tokens all see each other, pooled at the first."""
    from tests.families import FAMILIES

    chinese = next(family for family in FAMILIES if family.name == "Chinese-CLIP").build()
    attribution = method(wrap(chinese))
    pixels, (ids, mask) = models.images(2), models.captions(5, 8)
    together = attribution.attribute((pixels, ids), additional_forward_args=mask)[1]
    if method in (CLIPSurgery, GEM):
        assert "normalise" in attribution.undefined["b"]
        return
    alone = attribution.attribute((pixels[:1], ids[:1, :5]))[1]
    assert alone.count_nonzero() > 0
    assert relative_error(together[:1, :5], alone) < 1e-3
    assert together[0, 5:].count_nonzero() == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradient_modes_outside(model, method, context):
    expected = method(wrap(model)).attribute((PIXELS, IDS))
    with context():
        actual = method(wrap(model)).attribute((PIXELS.clone(), IDS.clone()))
    for one, two in zip(actual, expected, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            assert not one.requires_grad
            assert relative_error(one, two) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_half_precision(method):
    wide, narrow = models.clip(), models.clip().bfloat16()
    expected = method(wrap(wide)).attribute((PIXELS, IDS))
    actual = method(wrap(narrow)).attribute((PIXELS.bfloat16(), IDS))
    for one, two in zip(actual, expected, strict=True):
        if one is not None:
            assert one.dtype is torch.float32
            assert relative_error(one, two) < 0.3


@pytest.mark.parametrize("count", [0, -1, True, 1.5, (1, 2, 3), (1, 0)])
def test_numbers_of_blocks(model, count):
    with pytest.raises(ValueError, match="n_blocks"):
        GAME(wrap(model), count)


def test_what_is_no_wrapper(model):
    for method in METHODS:
        with pytest.raises(TypeError, match="DualEncoderWrapper"):
            method(model)
