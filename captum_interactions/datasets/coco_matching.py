"""Finds the words of a caption that name an object of a category.

A word of the table may also be a part of another name ("toothbrush holder", "baseball pitcher"), a
verb ("a boy skateboards"), or a colour ("yellow and orange fruit"). A few rules on neighbouring
words exclude most of these cases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from captum_interactions.datasets.coco_neighbours import (
    COLOURS,
    DETERMINED,
    HEADS,
    LIVING,
    NO_NOUNS,
    PRONOUNS,
    TWOFOLD,
    VERBS,
)
from captum_interactions.datasets.coco_words import COCO_DECOYS, COCO_SINGULARS
from captum_interactions.datasets.words import Span, WordFinder, plurals, tokens

_SIMILE = re.compile(
    r"\b(?:(?:statue|sculpture|painting|drawing|mural|figurine|carving)s? of|like|dressed as)"
    r"\s+(?:an?|the|two)\s+(?:\w+\s+)?$"
)
"""Expressions before the name of an object that is only depicted or imitated."""


class Mention(NamedTuple):
    """Words of a caption that name objects of a category."""

    span: Span
    category: str


class _Found(NamedTuple):
    start: int
    stop: int
    """Half-open range of tokens."""
    word: str
    category: str | None
    """None for an expression of another meaning, see ``COCO_DECOYS``."""


class Mentions:
    """Finds the names of objects in captions.

    Args:
        category_of: The category of each word, in lower case.
    """

    def __init__(self, category_of: Mapping[str, str]) -> None:
        self._category_of = category_of
        self._finder = WordFinder([*COCO_DECOYS, *category_of])
        self._singular = COCO_SINGULARS | {w for w in category_of if plurals(w)[1] in category_of}

    def find(self, caption: str) -> list[Mention]:
        """The mentions in a caption, in order."""
        parts = tokens(caption)
        starts = {span[0]: k for k, (_, span) in enumerate(parts)}
        stops = {span[1]: k + 1 for k, (_, span) in enumerate(parts)}
        found = [
            _Found(starts[first], stops[last], word, self._category_of.get(word))
            for (first, last), word in self._finder.find(caption)
        ]
        words = [word for word, _ in parts]
        # A space or a hyphen joins words; tokens that touch are one word with an apostrophe.
        joined = [
            re.fullmatch(r"[\s-]+", caption[left[1][1] : right[1][0]]) is not None
            for left, right in pairwise(parts)
        ]
        mentions = []
        for one in self._names(_merged(found, joined), joined):
            if one.category is None or self._misleads(one, words, joined):
                continue
            first, last = parts[one.start][1][0], parts[one.stop - 1][1][1]
            if not _SIMILE.search(caption[:first].lower()):
                mentions.append(Mention((first, last), one.category))
        return mentions

    def _names(self, found: Sequence[_Found], joined: Sequence[bool]) -> Iterator[_Found]:
        """Of adjacent words of different categories, the one that names the object."""
        verb = -1
        for k, one in enumerate(found):
            if k == verb:
                continue
            after = found[k + 1] if k + 1 < len(found) else None
            if after is None or after.category is None or not _touch(one, after, joined):
                yield one
            elif one.category in LIVING and after.word in VERBS:  # "a boy skateboards"
                verb = k + 1
                yield one
            elif one.word not in self._singular:  # "dogs cats": a comma is missing
                yield one
            # Otherwise it describes what follows, as in "teddy bear umbrella".

    def _misleads(self, one: _Found, words: Sequence[str], joined: Sequence[bool]) -> bool:
        """Whether the neighbouring words show that a word of the table does not name an object."""
        before = words[one.start - 1] if one.start else ""
        is_joined = one.stop < len(words) and joined[one.stop - 1]
        after = words[one.stop] if one.stop < len(words) else ""
        if is_joined and after in HEADS and one.word in self._singular:
            return True
        is_infinitive = before == "to" and words[one.start - 2 : one.start - 1] != ["next"]
        if one.word in VERBS and (before in PRONOUNS or is_infinitive):
            return True
        if one.word not in TWOFOLD:
            return False
        beyond = words[one.stop + 1] if one.stop + 1 < len(words) else ""
        is_colour = after in ("and", ",") and beyond in COLOURS
        is_noun = not after.isalpha() or after in NO_NOUNS
        return before not in DETERMINED or is_colour or not is_noun


def _touch(one: _Found, after: _Found, joined: Sequence[bool]) -> bool:
    return one.stop == after.start and joined[one.stop - 1]


def _merged(found: Sequence[_Found], joined: Sequence[bool]) -> list[_Found]:
    """Join adjacent words of one category, as in "jumbo jet airplanes"."""
    merged: list[_Found] = []
    for one in found:
        last = merged[-1] if merged else None
        if last and last.category == one.category is not None and _touch(last, one, joined):
            merged[-1] = one._replace(start=last.start)
        else:
            merged.append(one)
    return merged
