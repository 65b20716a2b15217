"""Selections of a text: tokens, words, phrases and characters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_interactions.encoders import TextAxis, TokenAxis
from captum_interactions.encoders.inputs.texts import tokenize
from tests import models


def axis_of(text):
    return tokenize(models.clip_tokenizer(), text, 200)[2][0]


def selected(axis, selection):
    weights = axis.select(selection)
    assert weights.dtype == np.float32
    assert weights.shape == (len(axis),)
    assert set(weights) <= {0.0, 1.0}
    return weights.nonzero()[0].tolist()


@pytest.fixture(scope="module")
def axis():
    """start, a, red, cir, cle, (, a, ), end"""
    return axis_of("A red circle (a)")


@pytest.mark.parametrize(
    ("selection", "tokens"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("red", [2]),
        ("RED Circle", [2, 3, 4]),
        ("  circle ", [3, 4]),
        ("circle (a)", [3, 4, 5, 6, 7]),
        ("(a)", [5, 6, 7]),
        ((2, 5), [2]),
        ((3, 4), [2]),
        ((7, 8), [3]),
        ((8, 10), [3, 4]),
        ((0, 16), [1, 2, 3, 4, 5, 6, 7]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, 4), [0, 4, 8]),
        (range(5, 7), [5, 6]),
        ({0, -1}, [0, 8]),
        ([1, 2, 3], [1, 2, 3]),
        ([2, 5], [2, 5]),
        (np.array([2, 2, 2]), [2]),
    ],
)
def test_selections(axis, selection, tokens):
    assert selected(axis, selection) == tokens


def test_words_and_their_tokens(axis):
    words = [(word.text, word.span, word.tokens) for word in axis.words]
    assert words == [
        ("A", (0, 1), (1,)),
        ("red", (2, 5), (2,)),
        ("circle", (6, 12), (3, 4)),
        ("(", (13, 14), (5,)),
        ("a", (14, 15), (6,)),
        (")", (15, 16), (7,)),
    ]
    assert [unit.tokens for unit in axis.units] == [tokens for _, _, tokens in words]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("it's a well-made hat.", ["it's", "a", "well-made", "hat", "."]),
        ("l’été, naïve", ["l’été", ",", "naïve"]),
        ("красный круг", ["красный", "круг"]),
        ("红 圆", ["红", "圆"]),
        ("a 🙂 face", ["a", "🙂", "face"]),
        ("at 12:30, 3.14 of 1,000.", ["at", "12:30", ",", "3.14", "of", "1,000", "."]),
        ("  two\n\tlines ", ["two", "lines"]),
    ],
)
def test_words_of_any_language_keep_all_their_tokens(text, words):
    axis = axis_of(text)
    assert [word.text for word in axis.words] == words
    covered = [token for word in axis.words for token in word.tokens]
    assert sorted(set(covered)) == list(range(1, len(axis) - 1))
    for word in axis.words:
        assert text[slice(*word.span)] == word.text
        assert selected(axis, word.span) == list(word.tokens)
        assert selected(axis, word.text) == list(word.tokens)


def test_letters_of_several_bytes_are_several_tokens_of_the_same_character():
    axis = axis_of("圆")
    (word,) = axis.words
    assert word.tokens == (1, 2, 3)
    assert axis.spans[1:4] == ((0, 1),) * 3
    assert axis.labels[1:4] == ("圆",) * 3


@pytest.mark.parametrize(
    ("phrase", "spans"), [("red", "[(0, 3), (13, 16)]"), ("Red ball", "[(0, 8), (13, 21)]")]
)
def test_a_phrase_that_occurs_twice_is_not_guessed(phrase, spans):
    axis = axis_of("red ball and red ball")
    with pytest.raises(ValueError, match="occurs 2 times in 'red ball and red ball'") as caught:
        axis.select(phrase)
    assert f"select one of the character spans {spans} instead" in str(caught.value)
    assert selected(axis, (13, 16)) == selected(axis, [-6])


def test_occurrences_that_overlap_are_two():
    with pytest.raises(ValueError, match=r"occurs 2 times .* \[\(0, 7\), \(4, 11\)\]"):
        axis_of("red red red").select("red red")


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        ("blue", ValueError, "the phrase 'blue' does not occur in 'A red circle"),
        ("re", ValueError, "the phrase 're' does not occur"),
        ("circ", ValueError, "the phrase 'circ' does not occur"),
        ("", ValueError, "the phrase '' does not occur"),
        ("  ", ValueError, "the phrase '  ' does not occur"),
        ((5, 17), ValueError, r"\(5, 17\) is not a character span of a text of 16 characters"),
        ((-1, 4), ValueError, r"\(-1, 4\) is not a character span"),
        ((4, 4), ValueError, r"\(4, 4\) is not a character span"),
        ((1, 2), ValueError, r"no token covers ' ' at \(1, 2\)"),
        ([9], ValueError, "token 9 does not exist: there are 9 tokens"),
        ([-10], ValueError, "token -10 does not exist: there are 9 tokens"),
        ([], ValueError, r"select tokens of the text by a phrase, a tuple .*but got \[\]"),
        (slice(3, 3), ValueError, "select tokens of the text by .* list of token indices, but got"),
        ([0.5], ValueError, r"select tokens of the text by a phrase, .*but got \[0.5\]"),
        ([True] * 9, ValueError, "select tokens of the text by a phrase, .*but got"),
        ((1, 2, 3), TypeError, r"select tokens of the text by a phrase, .*but got \(1, 2, 3\)"),
        (3, TypeError, "select tokens of the text by a phrase, .*but got 3"),
        (torch.ones(9), TypeError, "select tokens of the text by a phrase, .*but got tensor"),
    ],
)
def test_bad_selections(axis, selection, error, message):
    with pytest.raises(error, match=message):
        axis.select(selection)


def test_an_axis_without_text_knows_tokens_alone():
    axis = TextAxis(("7", "8"), (False, False), (False, False), "", (None, None))
    assert axis.words == ()
    assert [unit.label for unit in axis.units] == ["7", "8"]
    assert selected(axis, [1]) == [1]
    with pytest.raises(ValueError, match="the phrase 'a' does not occur in ''"):
        axis.select("a")


def test_numbered_tokens():
    axis = TokenAxis.numbered(3)
    assert axis.labels == ("0", "1", "2")
    assert axis.at_input() is axis
    assert selected(axis, {0, 2}) == [0, 2]
    with pytest.raises(TypeError, match="select tokens by a slice, a range, .*but got 'red'"):
        axis.select("red")


@pytest.mark.parametrize(
    ("raw", "error", "message"),
    [
        ("", ValueError, "text 0 is empty: ''"),
        (["a", " \n"], ValueError, r"text 1 is empty: ' \\n'"),
        ([], ValueError, "expected at least one text, but got an empty list"),
        (["a", 3], TypeError, r"a text is a string or a list of strings, but got \['a', 3\]"),
        (None, TypeError, "a text is a string or a list of strings, but got None"),
    ],
)
def test_bad_texts(raw, error, message):
    with pytest.raises(error, match=message):
        tokenize(models.clip_tokenizer(), raw, 16)
