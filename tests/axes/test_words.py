"""Tokens of any kind of tokenizer merge into the words that a person sees, in any script."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest

from captum_interactions.encoders import TextAxis
from captum_interactions.encoders.inputs.texts import special_ids, tokenize
from tests import tokenizers

# Words of scripts with spaces, and emoji: every tokenizer gives the same.
SPACED = {
    " A red circle isn't on the well-made table (yet).  ": (
        "A red circle isn't on the well-made table ( yet ) ."
    ),
    "naïve l’été, élevé": "naïve l’été , élevé",
    "Vie\u0323\u0302t nai\u0308ve man\u0303ana": "Vie\u0323\u0302t nai\u0308ve man\u0303ana",
    "co\u00adop non\u2011stop col·lecció": "co\u00adop non\u2011stop col·lecció",
    "don`t rock 'n' roll’s 3D": "don ` t rock ' n ' roll’s 3D",
    "İstanbul ﬁne Straße": "İstanbul ﬁne Straße",
    "красный круг, обʼєктів Украи\u0306на": "красный круг , обʼєктів Украи\u0306на",
    "κόκκινος κύκλος ΣΑΣ": "κόκκινος κύκλος ΣΑΣ",
    "دائرة حمراء، مُحَمَّد": "دائرة حمراء ، مُحَمَّد",
    "می\u200cخواهم کتاب\u200cها": "می\u200cخواهم کتاب\u200cها",
    "שָׁלוֹם צה״ל": "שָׁלוֹם צה״ל",
    "नमस्ते दुनिया।": "नमस्ते दुनिया ।",
    "ক্ষমা தமிழ் അവന്\u200d ශ්\u200dරී": "ক্ষমা தமிழ் അവന്\u200d ශ්\u200dරී",
    "빨간 원이 있다": "빨간 원이 있다",
    "a 👩\u200d💻 and 👍🏽🙂🙂👍": "a 👩\u200d💻 and 👍🏽 🙂 🙂 👍",
    "🇩🇪🇫🇷 1️⃣2️⃣ *️⃣ ❤️": "🇩🇪 🇫🇷 1️⃣ 2️⃣ *️⃣ ❤️",
    "👨\u200d👩\u200d👧\u200d👦🏴\U000e0067\U000e0062\U000e007f": (
        "👨\u200d👩\u200d👧\u200d👦 🏴\U000e0067\U000e0062\U000e007f"
    ),
    "\n  two\n\tlines   and  more\n": "two lines and more",
    "x²+½=3.14 C++ #tag": "x² + ½ = 3.14 C + + # tag",
}
UNSPACED = [
    "東京都の東京タワーはTokyoにある。ﾃﾚﾋﾞ",
    "漂亮的模型，你好！",
    "3D模型🙂",
    "Ａｌｐｈａ\u3000全角 ①",
    "が か\u3099 ガ 人々",
    "สวัสดีครับ ภาษาไทย red",
    "ລາວ ភាសាខ្មែរ မြန်မာ བོད་ཡིག",
    "a\u200bb \ufeffc",
]
SHARED = ["wow... 👍👍👍 -- c!!?", "ok!!! 🙂🙂🙂🙂 ((a)) --> b"]
"""Where some tokenizers have one token for several words."""
_CHUNKS = [chunk for text in [*SPACED, *UNSPACED] for chunk in text.split()] + ["  ", "\n"]
_MIXED = ["".join(random.Random(seed).choices(_CHUNKS, k=9)) for seed in range(30)]
TEXTS = [*SPACED, *UNSPACED, *_MIXED]


@pytest.fixture(scope="module", params=tokenizers.FAST)
def tokenizer(request):
    return tokenizers.FAST[request.param]()


def axis_of(tokenizer, text, **options):
    return tokenize(tokenizer, text, **options)[2][0]


def typed(tokenizer):
    """Texts that spell special tokens between words."""
    names = ("bos_token", "eos_token", "cls_token", "sep_token", "mask_token")
    pieces = [getattr(tokenizer, name) for name in names if getattr(tokenizer, name)]
    return [f"a {one} red {two} hat" for one, two in zip(pieces, reversed(pieces), strict=True)]


def selected(axis, selection):
    return tuple(axis.select(selection).nonzero()[0].tolist())


def joined(axis, words):
    """The words of a text, those between which no token has a border in one piece."""
    found, stop = [], 0
    for word in words:
        start = axis.text.index(word, stop)
        if any(span and span[0] < stop and start < span[1] for span in axis.spans):
            found[-1] += axis.text[stop:start] + word
        else:
            found.append(word)
        stop = start + len(word)
    return found


def characters(axis):
    """Indices of the characters, spaces apart, that tokens cover."""
    covered = {i for span in axis.spans if span for i in range(*span)}
    return {i for i in covered if not axis.text[i].isspace()}


def composed(text):
    return unicodedata.normalize("NFC", text).casefold()


def plain(text):
    """A text without what tokenizers may change: case, marks, width, and what has no width."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return [letter for letter in text if unicodedata.category(letter)[0] not in "MCZ"]


def test_words_tile_what_tokens_cover(tokenizer):
    for text in TEXTS:
        axis = axis_of(tokenizer, text)
        positions = [i for word in axis.words for i in range(*word.span)]
        assert positions == sorted(set(positions))
        assert characters(axis) <= set(positions)
        assert [word.text for word in axis.words] == [text[slice(*w.span)] for w in axis.words]
        assert not any(word.text[0].isspace() or word.text[-1].isspace() for word in axis.words)


def test_every_token_that_is_not_special_belongs_to_one_word(tokenizer):
    for text in [*TEXTS, *SHARED, *typed(tokenizer)]:
        for axis in (axis_of(tokenizer, text), axis_of(tokenizer, text, prompt="find: ")):
            of_words = sorted(token for word in axis.words for token in word.tokens)
            assert of_words == [token for token, special in enumerate(axis.special) if not special]


def test_the_characters_of_a_token_are_in_one_word(tokenizer):
    for text in [*TEXTS, *SHARED]:
        axis = axis_of(tokenizer, text)
        for start, stop in filter(None, axis.spans):
            assert any(w.span[0] <= start and stop <= w.span[1] for w in axis.words)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("BERT", ["wow", ".", ".", ".", "👍👍👍", "-", "-", "c", "!", "!", "?"]),
        ("CLIP", ["wow", ".", ".", ".", "👍👍👍", "-", "-", "c", "!", "!", "?"]),
        ("XLM-R", ["wow", ".", ".", ".", "👍", "👍", "👍", "--", "c", "!!", "?"]),
    ],
)
def test_words_that_share_a_token_are_one_word(kind, words):
    axis = axis_of(tokenizers.FAST[kind](), SHARED[0])
    assert [word.text for word in axis.words] == words


def test_special_tokens_that_a_text_spells_are_special(tokenizer):
    for text in typed(tokenizer):
        ids, _, (axis,) = tokenize(tokenizer, text)
        found = [t for t, i in enumerate(ids[0].tolist()) if i in special_ids(tokenizer)]
        assert found == [t for t, special in enumerate(axis.special) if special]
        spelled = [t for t in found if axis.spans[t]]
        assert [axis.labels[t] for t in spelled] == text.split(" ")[1::2]
        for token in spelled:
            assert selected(axis, axis.spans[token]) == (token,)
        words = [word.text for word in axis.words]
        assert words == ["a", "red", "hat"]
        for word in axis.words:
            assert selected(axis, word.text) == word.tokens


def test_unknown_words_are_words():
    axis = axis_of(tokenizers.FAST["BERT"](), "a ꙮꙮ hat")
    assert axis.special == (True, False, False, False, True)
    assert [word.text for word in axis.words] == ["a", "ꙮꙮ", "hat"]


def test_words_are_what_their_tokens_say(tokenizer):
    compared = 0
    for text in TEXTS:
        ids, _, (axis,) = tokenize(tokenizer, text)
        owners = [token for word in axis.words for token in word.tokens]
        for word in axis.words:
            said = tokenizer.decode(ids[0, list(word.tokens)]).removeprefix("##")
            unknown = tokenizer.unk_token is not None and tokenizer.unk_token in said
            if not unknown and all(owners.count(token) == 1 for token in word.tokens):
                assert plain(said) == plain(word.text)
                compared += 1
    assert compared > 100


def test_words_are_selected_by_their_span_and_found_by_their_text(tokenizer):
    for text in TEXTS:
        axis = axis_of(tokenizer, text)
        words = [composed(word.text) for word in axis.words]
        for word in axis.words:
            assert selected(axis, word.span) == word.tokens
            # Where words are not spaced, the letters of one occur in others too.
            places = words if text in SPACED else composed(text)
            if places.count(composed(word.text)) == 1:
                assert axis.find(f" {word.text.upper()} ") == word.span
                assert selected(axis, word.text) == word.tokens


@pytest.mark.parametrize(("text", "words"), SPACED.items(), ids=SPACED)
def test_words_of_scripts_with_spaces(tokenizer, text, words):
    axis = axis_of(tokenizer, text)
    assert [word.text for word in axis.words] == joined(axis, words.split())


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("XLM-R", "東京都の東京タワー", "東京 都 の 東京 タ ワ ー"),
        ("Gemma", "東京都の東京タワー", "東京 都 の 東京 タ ワ ー"),
        ("RoBERTa", "東京タワー", "東京 タワー"),
        ("BERT", "東京都の東京タワー", "東 京 都 の 東 京 タワー"),
        ("BERT", "สวัสดีครับ ภาษาไทย", "สวัสดีครับ ภาษาไทย"),
        ("XLM-R", "สวัสดีครับ", "สวัสดี ค รั บ"),
        ("Qwen", "3D模型🙂", "3D 模型 🙂"),
        ("CLIP", "3D模型🙂", "3D 模 型 🙂"),
    ],
)
def test_words_of_scripts_without_spaces_are_the_tokenizers(kind, text, words):
    assert [word.text for word in axis_of(tokenizers.FAST[kind](), text).words] == words.split()


@pytest.mark.parametrize(
    ("text", "phrase", "span"),
    [
        ("東京都と", "東京", (0, 2)),
        ("東京都と", "京都", (1, 3)),
        ("大きいTokyoタワー", "tokyo", (3, 8)),
        ("ภาษาไทย red", "ไทย", (4, 7)),
        ("it's what it is", "it", (10, 12)),
        ("a red-hot, red hat", "RED", (11, 14)),
        ("a red-hot, red hat", "hot, red", (6, 14)),
        ("a well-made hat", "made", (7, 11)),
        ("a well-made hat", "a well", (0, 6)),
        ("l’été", "ÉTÉ", (2, 5)),
        ("🙂👍🏽🙂🙂", "👍🏽", (1, 3)),
        ("a hat, a", "hat, a", (2, 8)),
    ],
)
def test_phrases(tokenizer, text, phrase, span):
    assert axis_of(tokenizer, text).find(phrase) == span


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("phrase_form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("un café élevé, l’été", "café"),
        ("un café élevé, l’été", "ÉLEVÉ"),
        ("un café élevé, l’été", "Été"),
        ("Việt naïve mañana", "việt naïve"),
        ("Україна їжак", "їжак"),
        ("빨간 원이 있다", "원이 있다"),
        ("が ガ 人々", "ガ"),
        ("नमस्ते क़लम", "क़लम"),
    ],
)
def test_phrases_in_any_normalization_form(text, phrase, form, phrase_form):
    text, phrase = unicodedata.normalize(form, text), unicodedata.normalize(phrase_form, phrase)
    axis = TextAxis((), (), (), text, ())
    start, stop = axis.find(phrase)
    assert composed(text[start:stop]) == composed(phrase)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a circle", "cle"),
        ("красный", "красн"),
        ("नमस्ते", "नम"),
        ("नमस्ते", "नमस"),
        ("cafe\u0301", "cafe"),
        ("می\u200cخواهم", "خواهم"),
        ("อำ", "อ"),
        ("👩\u200d💻", "💻"),
        ("👍🏽", "👍"),
        ("🇩🇪🇫🇷", "🇪🇫"),
        ("1️⃣", "1"),
        ("A1", "1"),
    ],
)
def test_words_and_emoji_are_not_cut(tokenizer, text, part):
    with pytest.raises(ValueError, match="does not occur in"):
        axis_of(tokenizer, text).find(part)


@pytest.mark.parametrize("prompt", ["a blue hat: ", "the table:\n", "  the  circle "])
def test_prompts_are_special_and_leave_the_text_as_it_is(tokenizer, prompt):
    for text in TEXTS:
        alone = axis_of(tokenizer, text)
        ids, _, (axis,) = tokenize(tokenizer, text, prompt=prompt)
        assert axis.text == text
        assert characters(axis) == characters(alone)
        before = axis.special.index(False)
        assert not any(axis.spans[:before])
        said = tokenizer.decode(ids[0, :before], skip_special_tokens=True)
        assert plain(said) == plain(prompt)
        assert sum(axis.special[before:]) == alone.special[-1]
        if text in SPACED:
            assert [word[:2] for word in axis.words] == [word[:2] for word in alone.words]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("context", [None, 600])
def test_batches_hold_the_axes_of_single_texts(tokenizer, side, context, monkeypatch):
    monkeypatch.setattr(tokenizer, "padding_side", side)
    padding = "max_length" if context else True
    ids, mask, axes = tokenize(tokenizer, TEXTS, context, padding=padding)
    assert ids.shape[1] == (context or max(map(len, axes)))
    for text, row, present, axis in zip(TEXTS, ids, mask.bool(), axes, strict=True):
        own_ids, _, (own,) = tokenize(tokenizer, text)
        kept = slice(-len(own), None) if side == "left" else slice(len(own))
        assert row[present].tolist() == own_ids[0].tolist()
        assert axis.padding == tuple((~present).tolist())
        assert not any(axis.padding[kept])
        for field in ("labels", "special", "spans"):
            assert getattr(axis, field)[kept] == getattr(own, field)
        shift = len(axis) - len(own) if side == "left" else 0
        words = [word._replace(tokens=tuple(np.add(word.tokens, shift))) for word in own.words]
        assert list(axis.words) == words
        outside = [i for i, pad in enumerate(axis.padding) if pad]
        assert not any(axis.special[i] or axis.spans[i] for i in outside)


@pytest.mark.parametrize("prompt", ["", "find: "])
def test_long_texts(tokenizer, prompt):
    text = "a red circle isn't on the well-made table, नमस्ते 東京 🙂"
    whole = axis_of(tokenizer, text, prompt=prompt)
    message = f"text 1 has {len(whole)} tokens .* context holds 13; shorten it or pass truncation"
    with pytest.raises(ValueError, match=message):
        tokenize(tokenizer, ["a", text], 13, prompt=prompt)
    assert axis_of(tokenizer, text, context_length=len(whole), prompt=prompt) == whole
    assert axis_of(tokenizer, text, truncation=True, prompt=prompt) == whole

    ids, _, (short, _) = tokenize(tokenizer, [text, "a"], 13, truncation=True, prompt=prompt)
    assert ids.shape == (2, 13)
    kept = [span for span in short.spans if span]
    assert kept == [span for span in whole.spans if span][: len(kept)]
    assert sum(short.special) == sum(whole.special)
    full = {word.span: word.tokens for word in whole.words}
    *complete, last = short.words
    for word in complete:
        assert full[word.span] == word.tokens
    assert set(last.tokens) - set(full[last.span]) <= {t for t in last.tokens if not whole.spans[t]}
    with pytest.raises(ValueError, match="no token covers '🙂' at "):
        short.select("🙂")


def test_spaces_belong_to_the_word_that_follows():
    """Some tokens stand for no character, or for one that another token spells."""
    axis = axis_of(tokenizers.FAST["ModernBERT"](), "a    red   ")
    assert axis.spans == (None, (0, 1), None, (5, 8), None, None)
    assert axis.special == (True, False, False, False, False, True)
    assert [word.tokens for word in axis.words] == [(1,), (2, 3, 4)]
    assert selected(axis, "red") == (2, 3, 4)
    axis = axis_of(tokenizers.FAST["XLM-R"](), "ж")
    assert [word.tokens for word in axis.words] == [(1, 2)]


def test_a_token_of_two_words_makes_them_one():
    none = (False,) * 3
    spans = ((0, 4), (4, 13), (14, 15))
    axis = TextAxis(("well", "-made hat", "a"), none, none, "well-made hat a", spans)
    assert [(w.text, w.tokens) for w in axis.words] == [("well-made hat", (0, 1)), ("a", (2,))]
    assert selected(axis, "hat") == (1,)  # a phrase is whatever tokens cover it


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return tokenizers.siglip(tmp_path_factory.mktemp("siglip"))


class TestWithoutOffsets:
    def test_pieces_that_spell_the_text(self, siglip):
        """SigLIP's tokenizer drops case and punctuation."""
        text = "A Red circle, isn't  on the TABLE; 東京都 l’été 🙂"
        axis = axis_of(siglip, [text, "a red table on a circle"], prompt="a hat: ")
        words = "A Red circle isn't on the TABLE 東京都 l’été 🙂"
        assert "".join(w.text for w in axis.words) == words.replace(" ", "")
        assert selected(axis, "isn't") == selected(axis, (14, 19))
        first = next(token for token, span in enumerate(axis.spans) if span)
        assert all(axis.special[:first])
        assert sum(axis.special) == first + 1

    def test_pieces_of_a_text_that_is_cut(self, siglip):
        axis = axis_of(siglip, "a circle on the table", context_length=4, truncation=True)
        assert axis.spans == ((0, 1), (2, 8), (9, 10), None)
        assert [word.text for word in axis.words] == ["a", "circle", "on"]

    @pytest.mark.parametrize("text", ["a naïve hat", "l’été", "🙂 a"])
    def test_pieces_that_do_not(self, text):
        ids, _, (axis,) = tokenize(tokenizers.byt5(), [text])
        assert axis.labels == tuple(tokenizers.byt5().convert_ids_to_tokens(ids[0].tolist()))
        assert axis.special == (False,) * (len(axis) - 1) + (True,)
        assert axis.text == ""
        assert axis.words == ()
        assert [unit.tokens for unit in axis.units] == [(i,) for i in range(len(axis) - 1)]
        assert selected(axis, [0]) == (0,)
        with pytest.raises(ValueError, match="characters behind these tokens are not known; sel"):
            axis.select("a")

    def test_pieces_that_are_unknown_or_spelled_otherwise(self, siglip):
        assert axis_of(siglip, "a ж circle").words == ()
        assert axis_of(siglip, "ﬁ fi circle", context_length=4, truncation=True).words == ()

    def test_long_texts(self, siglip):
        with pytest.raises(ValueError, match="text 0 has 4 tokens with its special .* holds 3"):
            tokenize(siglip, "a circle table", 3)
