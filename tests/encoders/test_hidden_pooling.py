"""Models pool where their pooled token is, whatever the attention mask says of it."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel, CLIPModel, CLIPSegModel

from captum_interactions import SecondOrderIntegratedGradients, wrap
from tests import models
from tests.families import FAMILIES, text_config

LEGACY = 2
"""The id that tells CLIP to pool at the largest id."""


def ending_in_padding(eos=models.EOS, model_class=CLIPModel, attention="sdpa"):
    """A CLIP whose padding token is its end-of-text token, as in OpenAI's tokenizer."""
    config = models.clip_config(model_class.config_class, eos=eos)
    config.text_config.pad_token_id = models.EOS
    config._attn_implementation = attention
    return models.randomise(model_class(config))


IDS = torch.tensor([[models.BOS, 49, 58, 17, 59, 17, models.EOS, models.EOS]])
HIDDEN = (IDS != models.EOS).long()


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("eos", [models.EOS, LEGACY])
@pytest.mark.parametrize("model_class", [CLIPModel, CLIPSegModel])
def test_end_of_text_that_is_masked(model_class, eos, attention, layer):
    wrapper = wrap(ending_in_padding(eos, model_class, attention))
    soig = SecondOrderIntegratedGradients(wrapper, (-1, layer))
    pixels = models.images()
    parts = soig.decompose((pixels, IDS), additional_forward_args=HIDDEN, n_steps=40)
    score = wrapper(pixels, IDS, HIDDEN).detach()
    # Sums of a few float32 products of unit vectors.
    torch.testing.assert_close(parts.score, score, rtol=0, atol=1e-6)
    assert parts.convergence_delta.abs() < 1e-2
    # At layer 0 the end of the text is the same in the baseline; nothing behind it counts.
    assert bool(parts.interactions[0, :, 6].any()) == (layer > 0)
    assert not parts.interactions[0, :, 7].any()


def test_it_does_not_depend_on_the_batch():
    wrapper = wrap(ending_in_padding())
    soig = SecondOrderIntegratedGradients(wrapper)
    longer = torch.tensor([[models.BOS, 5, 6, 7, 8, 9, 10, models.EOS]])
    shorter = torch.tensor([[models.BOS, 5, 6, models.EOS, *[models.EOS] * 4]])
    ids = torch.cat([IDS, longer, shorter])
    mask = (ids != models.EOS).long()
    pixels = models.images(3)
    together = soig.attribute((pixels, ids), additional_forward_args=mask)
    for row in range(3):
        own = slice(row, row + 1)
        alone = soig.attribute((pixels[own], ids[own]), additional_forward_args=mask[own])
        torch.testing.assert_close(
            together[own], alone, rtol=0, atol=1e-5 * float(alone.abs().max())
        )


def test_the_hidden_end_is_special_and_not_padding():
    wrapper = wrap(ending_in_padding())
    axis = wrapper.prepare(models.images(), (IDS, HIDDEN)).axes_b[0]
    assert axis.special == (True, *[False] * 5, True, False)
    assert axis.padding == (*[False] * 7, True)


def first_token_of_bert():
    model = models.randomise(BertModel(BertConfig(**text_config())))
    tower = wrap((model, model), pooling="pooler").tower_a
    return tower, lambda ids, mask: model(ids, attention_mask=mask).pooler_output


def first_token_of_blip():
    (build,) = (family.build for family in FAMILIES if family.name == "BLIP")
    model = build()

    def embed(ids, mask):
        return model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output

    return wrap(model).tower_b, embed


@pytest.mark.parametrize("make", [first_token_of_bert, first_token_of_blip])
def test_first_token_that_is_masked(make):
    tower, embed = make()
    ids, mask = models.caption(7), torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    assert tower.token_mask(ids, mask).tolist() == [[True, False, *[True] * 5]]
    with torch.no_grad():
        for layer in range(tower.n_blocks):
            states, context = tower.prefix(layer, ids, mask)
            made = tower.tail(layer, states, *context)
            torch.testing.assert_close(made, embed(ids, mask), rtol=0, atol=1e-5)
            states[:, 0] += 1
            moved = tower.tail(layer, states, *context)
            assert (moved - made).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(1, 8), "row 0 of the attention mask hides all tokens up to where the model"),
        (torch.tensor([[0, 0, 0, 0, 0, 0, 0, 1]]), "row 0 of the attention mask hides all tokens"),
        (HIDDEN * 0.5, "must hold 1 for tokens and 0 for padding, .* lie from 0 to 0.5"),
        ((1.0 - HIDDEN) * -1e4, "must hold 1 for tokens and 0 for padding, .* from -10000 to -?0"),
        (HIDDEN.float().where(HIDDEN > 0, torch.nan), "must hold 1 for tokens and 0 for padding"),
    ],
)
def test_masks_that_are_none(mask, message):
    soig = SecondOrderIntegratedGradients(wrap(ending_in_padding()))
    with pytest.raises(ValueError, match=message):
        soig.attribute((models.images(), IDS), additional_forward_args=mask)


def test_a_mask_of_zeros_for_models_that_pool_all_tokens():
    model = models.randomise(BertModel(BertConfig(**text_config())))
    soig = SecondOrderIntegratedGradients(wrap(model, pooling="mean"))
    ids = torch.cat([models.caption(6), models.caption(6)])
    mask = torch.tensor([[1] * 6, [0] * 6])
    with pytest.raises(ValueError, match="row 1 of the attention mask hides all tokens: 1 stands"):
        soig.attribute((ids, ids), additional_forward_args=(mask, mask))
