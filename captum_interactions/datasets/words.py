"""Finding words in captions."""

from __future__ import annotations

import re
from collections.abc import Iterable

Span = tuple[int, int]

_TOKEN = re.compile(r"\w+|(?<!\w)-|-(?!\w)|[^\w\s-]")
"""Words and punctuation marks; a hyphen inside of a word divides it as a space does."""


class WordFinder:
    """Finds whole words in upper or lower case; of words that overlap, the first, then the longest.

    Args:
        words: Words, or expressions of several words separated by spaces.

    Examples:
        >>> finder = WordFinder(["dog", "hot dog"])
        >>> finder.find("A Hot dog, dogs and a dog.")
        [((2, 9), 'hot dog'), ((22, 25), 'dog')]
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[list[str], str]]] = {}
        for word in sorted({word.lower() for word in words}):
            sought = _TOKEN.findall(word)
            if sought:
                self._by_first.setdefault(sought[0], []).append((sought, word))
        for candidates in self._by_first.values():
            candidates.sort(key=lambda candidate: -len(candidate[0]))

    def find(self, caption: str) -> list[tuple[Span, str]]:
        """The words in a caption, in order.

        Returns:
            Spans, each with the word in lower case.
        """
        parts = tokens(caption)
        words = [word for word, _ in parts]
        found, k = [], 0
        while k < len(words):
            for sought, word in self._by_first.get(words[k], ()):
                if words[k : k + len(sought)] == sought:
                    found.append(((parts[k][1][0], parts[k + len(sought) - 1][1][1]), word))
                    k += len(sought) - 1
                    break
            k += 1
        return found


def tokens(text: str) -> list[tuple[str, Span]]:
    """Words and punctuation marks of a text in lower case, each with its range of characters.

    Examples:
        >>> tokens("A dog's")
        [('a', (0, 1)), ('dog', (2, 5)), ("'", (5, 6)), ('s', (6, 7))]
    """
    return [(match[0].lower(), match.span()) for match in _TOKEN.finditer(text)]


def plurals(word: str) -> tuple[str, ...]:
    """A noun and its regular plural in English.

    Examples:
        >>> plurals("bus"), plurals("berry"), plurals("fire hydrant")
        (('bus', 'buses'), ('berry', 'berries'), ('fire hydrant', 'fire hydrants'))
    """
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word, word + "es"
    if re.search(r"[^aeiou]y$", word):
        return word, word[:-1] + "ies"
    return word, word + "s"
