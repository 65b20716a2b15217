"""Finding words in captions."""

from __future__ import annotations

import re
from collections.abc import Iterable

Span = tuple[int, int]


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
        longest_first = sorted(
            {word.lower() for word in words}, key=lambda word: (-len(word), word)
        )
        either = "|".join(r"\s+".join(map(re.escape, word.split())) for word in longest_first)
        self._pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE) if either else None

    def find(self, caption: str) -> list[tuple[Span, str]]:
        """Where the words are, in the caption's order.

        Returns:
            Spans, each with the word as it was given, but in lower case.
        """
        if self._pattern is None:
            return []
        return [
            (match.span(), " ".join(match.group().lower().split()))
            for match in self._pattern.finditer(caption)
        ]


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
