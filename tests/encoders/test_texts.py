"""Texts before they are tokenized: what no tokenizer can say anything about is refused by name."""

from __future__ import annotations

import pytest

from captum_interactions.encoders.inputs.texts import tokenize
from tests import tokenizers


@pytest.mark.parametrize("name", ["BERT", "CLIP", "XLM-R"])
@pytest.mark.parametrize(
    "text",
    [
        *("\u200b", "\ufeff", " \u2060\u200d ", "\u3164", "\u00ad", "\ufe0f", "\u034f"),
        *("\u2800", "\u115f\u1160", "\U000e0041", "\u180e", "\x00\x07", "\ufffa", "\u200e\u061c"),
    ],
    ids=ascii,
)
def test_texts_of_invisible_characters(name, text):
    with pytest.raises(ValueError, match="text 1 holds no visible character: '.*"):
        tokenize(tokenizers.FAST[name](), ["a dog", text])


@pytest.mark.parametrize("text", ["", " ", "\n\t\u2003\u00a0"])
def test_empty_texts(text):
    with pytest.raises(ValueError, match="text 0 is empty: '"):
        tokenize(tokenizers.bert(lowercase=True), text)


@pytest.mark.parametrize("text", ["a\u200bdog", "👍🏽", "\u0600", "ะ", "。", "᠎a"])
def test_texts_with_something_to_see(text):
    assert tokenize(tokenizers.FAST["XLM-R"](), text)[2][0].units


def test_texts_that_leave_no_tokens():
    """A mark that belongs to no letter is stripped by a lowercasing BERT."""
    with pytest.raises(ValueError, match=r"text 0 has no tokens beside special ones: '\\u0301'"):
        tokenize(tokenizers.bert(lowercase=True), "\u0301")


@pytest.mark.parametrize(("text", "place"), [("\ud83d", 0), ("dog \udc4d", 4), ("a\udc80b", 1)])
@pytest.mark.parametrize("name", ["BERT", "CLIP"])
def test_lone_surrogates(name, text, place):
    message = f"text 1 holds half of a surrogate pair at character {place}, which is no character"
    with pytest.raises(ValueError, match=message):
        tokenize(tokenizers.FAST[name](), ["a dog", text])
