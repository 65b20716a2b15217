"""Finding words in captions."""

from __future__ import annotations

import re
from collections.abc import Iterable

Span = tuple[int, int]

_TOKEN = re.compile(r"\w+|[^\w\s]")


class WordFinder:
    """Finds whole words, in whatever case; of words that overlap, the longest that begins first.

    Args:
        words: What to look for; several words may stand in one, separated by spaces.

    Examples:
        >>> finder = WordFinder(["dog", "hot dog"])
        >>> finder.find("A Hot dog, dogs and a dog.")
        [((2, 9), 'hot dog'), ((22, 25), 'dog')]
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[list[str], str]]] = {}
        for word in sorted({word.lower() for word in words}):
            tokens = _TOKEN.findall(word)
            if tokens:
                self._by_first.setdefault(tokens[0], []).append((tokens, word))
        for candidates in self._by_first.values():
            candidates.sort(key=lambda candidate: -len(candidate[0]))

    def find(self, caption: str) -> list[tuple[Span, str]]:
        """Where the words are, in the caption's order.

        Returns:
            Spans, each with the word as it was given, but in lower case.
        """
        places = [match.span() for match in _TOKEN.finditer(caption)]
        tokens = [caption[start:stop].lower() for start, stop in places]
        found, k = [], 0
        while k < len(tokens):
            for sought, word in self._by_first.get(tokens[k], ()):
                if tokens[k : k + len(sought)] == sought:
                    found.append(((places[k][0], places[k + len(sought) - 1][1]), word))
                    k += len(sought) - 1
                    break
            k += 1
        return found


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
