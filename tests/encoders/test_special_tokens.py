"""One notion of special tokens: what an axis calls special is what a baseline keeps."""

from __future__ import annotations

import pytest
import torch
from transformers import M2M100Config, M2M100Model, NllbTokenizer, PreTrainedTokenizerFast

from captum_interactions import wrap
from captum_interactions.encoders.inputs.texts import special_ids, tokenize
from captum_interactions.encoders.towers.text_tower import TextTower
from tests import models, tokenizers

TEXTS = ["two dogs", "a dog in the park, [MASK] and <mask>"]


def nllb(**options):
    return tokenizers.byte_fallback(NllbTokenizer, **options)


class Config:
    """A vocabulary that holds the ids of any tokenizer."""

    vocab_size = 10**6


def tower_of(tokenizer):
    """A tower that is asked for its baselines alone."""
    return TextTower(
        torch.nn.Linear(1, 1), lambda model, ids, mask: ids, [], config=Config, tokenizer=tokenizer
    )


@pytest.mark.parametrize("name", [*tokenizers.FAST, "NLLB", "ByT5"])
def test_baselines_keep_what_axes_call_special(name):
    make = {**tokenizers.FAST, "NLLB": nllb, "ByT5": tokenizers.byt5}[name]
    tower = tower_of(make())
    word = tower.tokenizer.encode("dog", add_special_tokens=False)[0]
    ids, (mask,), axes = tower.prepare(TEXTS)
    kept = tower.set_constant(ids, word, mask) == ids
    for row, axis in enumerate(axes):
        special, padding = torch.tensor(axis.special), torch.tensor(axis.padding)
        assert special.any() or name in ("Gemma", "Llama")  # which put nothing around a text here
        assert not (special & padding).any()
        # A word may be the constant by chance.
        same = ids[row] == word
        assert torch.equal(kept[row] | same, special | padding | same)
        assert torch.equal(tower.special_tokens(ids, mask)[row], special | padding)


def test_languages():
    """NLLB pools at its language token, and pads with a token that is no language."""
    tokenizer = nllb(src_lang="fra_Latn")
    size = {"vocab_size": len(tokenizer), "d_model": 12, "max_position_embeddings": 32}
    for part in ("encoder", "decoder"):
        size |= {f"{part}_layers": 2, f"{part}_attention_heads": 2, f"{part}_ffn_dim": 24}
    config = M2M100Config(**size, pad_token_id=tokenizer.pad_token_id)
    encoder = models.randomise(M2M100Model(config).get_encoder())
    tower = wrap(encoder, tokenizer, pooling="cls").tower_a
    ids, extras, (axis,) = tower.prepare("two dogs")
    assert (axis.labels[0], axis.special[0]) == ("fra_Latn", True)
    baseline = tower.baseline(ids, *extras)
    assert tokenizer.convert_ids_to_tokens(baseline[0])[:2] == ["fra_Latn", "<pad>"]
    assert baseline[0, -1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("name", "typed", "is_special"),
    [
        ("BERT", "[SEP]", True),
        ("BERT", "[MASK]", True),
        ("BERT", "[UNK]", False),
        ("CLIP", "<|endoftext|>", True),
        ("T5", "</s>", True),
        ("Qwen", "<|endoftext|>", True),
    ],
)
def test_special_tokens_that_are_typed(name, typed, is_special):
    tokenizer = tokenizers.FAST[name]()
    axis = tokenize(tokenizer, f"a dog {typed} of two")[2][0]
    (typed_token,) = (i for i, label in enumerate(axis.labels) if label == typed and axis.spans[i])
    assert axis.special[typed_token] == is_special
    assert axis.text[slice(*axis.spans[typed_token])] == typed


def test_unknown_words_are_words():
    axis = tokenize(tokenizers.bert(lowercase=True), "a ⚇ dog")[2][0]
    assert axis.labels[axis.spans.index((2, 3))] == "⚇"
    assert not axis.special[axis.spans.index((2, 3))]


def test_special_tokens_that_have_no_name():
    """A tokenizer from its file alone names none, but knows which are special."""
    named = tokenizers.bert(lowercase=True)
    bare = PreTrainedTokenizerFast(tokenizer_object=named.backend_tokenizer)
    bare.pad_token = "[PAD]"
    ends = [named.cls_token_id, named.sep_token_id]
    assert bare.cls_token_id is None
    assert set(ends) <= set(special_ids(bare))


def test_configs_with_several_ends():
    class Ends:
        bos_token_id, eos_token_id, unk_token_id = 1, [2, 7], 5

    assert special_ids(Ends) == [1, 2, 7]
