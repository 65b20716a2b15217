"""The words that make a caption of HNC false, and the boxes of the object concerned."""

from __future__ import annotations

import re
from collections.abc import Sequence

from captum_interactions.datasets.record import Box, Phrase
from captum_interactions.datasets.words import Span, plurals, tokens

_ATTRIBUTE_TYPES = ("attribute", "attribute_subg", "and_logic_attr")
"""Types of captions in which the replaced word is an attribute of an object in the caption."""

_AGREEING = {"are": "is", "an": "a"}
"""Words that change with the noun beside them."""


def words_of(caption: str) -> tuple[str, ...]:
    """The words and punctuation marks of a caption, in lower case."""
    return tuple(word for word, _ in tokens(caption))


def words_that_differ(
    true: str, false: str, replaced: tuple[str, str] | None = None
) -> tuple[Span | None, Span | None]:
    """The spans of the words in which a true and a false caption differ.

    Args:
        true: The true caption.
        false: The false caption.
        replaced: (true words, false words) of the file. They are used if exchanging them turns the
            false caption into the true one, except for singular and plural forms of nouns and
            verbs. Default: None

    Returns:
        Spans in the true and in the false caption: of the replaced words if they are used, or else
        from the first to the last word that differs; None for no word.
    """
    ours, theirs = tokens(true), tokens(false)
    words, others = words_of(true), words_of(false)
    if replaced is not None:
        old, new = map(words_of, replaced)
        for start in range(len(others) - len(new) + 1 if new else 0):
            stop = start + len(new)
            back = others[:start] + old + others[stop:]
            if others[start:stop] == new and _is_alike(back, words):
                return _span(ours, start, start + len(old)), _span(theirs, start, stop)
    words, others = (tuple(_AGREEING.get(word, word) for word in one) for one in (words, others))
    first = _n_equal(words, others)
    last = _n_equal(words[first:][::-1], others[first:][::-1])
    return _span(ours, first, len(ours) - last), _span(theirs, first, len(theirs) - last)


def _span(found: Sequence[tuple[str, Span]], start: int, stop: int) -> Span | None:
    return (found[start][1][0], found[stop - 1][1][1]) if start < stop else None


def _n_equal(words: Sequence[str], others: Sequence[str]) -> int:
    """Number of equal words before the first difference."""
    differ = (k for k, pair in enumerate(zip(words, others, strict=False)) if pair[0] != pair[1])
    return next(differ, min(len(words), len(others)))


def _is_alike(words: Sequence[str], others: Sequence[str]) -> bool:
    return len(words) == len(others) and all(
        _AGREEING.get(word, word) == _AGREEING.get(other, other)
        or word in plurals(other)
        or other in plurals(word)
        for word, other in zip(words, others, strict=True)
    )


def described(
    kind: str, caption: str, span: Span | None, phrases: Sequence[Phrase]
) -> tuple[Box, ...]:
    """Boxes of the phrase of a true caption that a span names, or of which it is an attribute.

    They are empty for other spans, and for captions with "either ... or", whose false words may be
    true of the image.

    Args:
        kind: The caption's type.
        caption: The true caption.
        span: Its words that were replaced.
        phrases: Its phrases.
    """
    if span is None or kind.startswith("xor"):
        return ()
    for phrase in phrases:
        if phrase.span[0] <= span[0] and span[1] <= phrase.span[1]:
            return phrase.boxes
    if kind in _ATTRIBUTE_TYPES:
        for phrase in phrases:
            first, last = phrase.span
            if caption[span[1] : first].isspace():
                return phrase.boxes
            if re.fullmatch(r"\s+(that\s+)?(is|are)\s+", caption[last : span[0]]):
                return phrase.boxes
    return ()
