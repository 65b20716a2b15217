"""The tokens of a text, and the words and characters that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import regex

from captum_interactions.encoders.axes.token import TokenAxis, Unit, Weights

# Scripts that put no spaces between words: what the tokenizer keeps together is a word there.
_UNSPACED = "".join(
    rf"\p{{scx={script}}}"
    for script in ("Han", "Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")
)
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]"
_RUN = rf"(?:[[{_UNSPACED}]&&[\p{{L}}\p{{M}}\p{{N}}]]\p{{M}}*)+"
# Joiners hold a word together; anything else is by itself, an emoji of several code points too.
_WORD = regex.compile(
    rf"(?P<run>{_RUN})|{_LETTER}+(?:['’\-\u200c\u200d]{_LETTER}+)*|(?!\s)\X", regex.V1
)


class Word(NamedTuple):
    """A word of a text and the tokens it is made of."""

    text: str
    span: tuple[int, int]
    """Half-open range of characters."""
    tokens: tuple[int, ...]
    """Indices on the token axis."""


@dataclass(frozen=True)
class TextAxis(TokenAxis):
    """The tokens of a text with the characters they cover.

    ``spans`` holds one half-open character range a token, and None for tokens without characters.
    """

    text: str
    spans: tuple[tuple[int, int] | None, ...]

    @property
    def words(self) -> tuple[Word, ...]:
        """Words, punctuation marks and emoji, each with its tokens. A token may serve two words.

        Where a script has no spaces between words (Chinese, Japanese, Thai), characters that share
        a token are a word.
        """
        found = []
        for match in _WORD.finditer(self.text):
            spans = self._pieces(match.span()) if match.group("run") else [match.span()]
            for span in spans:
                tokens = self._tokens_of(span)
                if tokens:
                    found.append(Word(self.text[slice(*span)], span, tokens))
        return tuple(found)

    @property
    def units(self) -> tuple[Unit, ...]:
        """Words, or tokens if the text is not known."""
        words = tuple(Unit(word.text, word.tokens) for word in self.words)
        return words or super().units

    def find(self, phrase: str) -> tuple[int, int]:
        """Character span of a phrase that occurs exactly once, ignoring case."""
        # Neither end may cut a word, and as all of it looks ahead, occurrences may overlap.
        pattern = (
            rf"(?<!{_LETTER}(?={_LETTER}))"
            rf"(?=({regex.escape(phrase.strip(), literal_spaces=True)})(?!(?<={_LETTER}){_LETTER}))"
        )
        matches = regex.finditer(pattern, self.text, regex.IGNORECASE | regex.V1)
        spans = [match.span(1) for match in matches]
        if not phrase.strip() or not spans:
            raise ValueError(f"the phrase {phrase!r} does not occur in {self.text!r}")
        if len(spans) > 1:
            raise ValueError(
                f"the phrase {phrase!r} occurs {len(spans)} times in {self.text!r}: "
                f"select one of the character spans {spans} instead"
            )
        return spans[0]

    def select(self, selection: Any = None) -> Weights:
        """Turn a selection into one weight a token.

        Args:
            selection: None for every token; a phrase (str) that occurs once in the text; a tuple
                (start, stop), a half-open character span; or a slice, range, set or list of token
                indices.

        Returns:
            ndarray: float32 weights, 1 for the selected tokens, shape (T,).

        Raises:
            TypeError: If the kind of selection is unknown.
            ValueError: If the phrase is missing or ambiguous, or nothing is selected.
        """
        if isinstance(selection, str):
            selection = self.find(selection)
        if isinstance(selection, tuple) and len(selection) == 2:
            start, stop = selection
            if not 0 <= start < stop <= len(self.text):
                raise ValueError(
                    f"({start}, {stop}) is not a character span of a text of {len(self.text)} "
                    f"characters"
                )
            selection = list(self._tokens_of((start, stop)))
            if not selection:
                raise ValueError(f"no token covers {self.text[start:stop]!r} at ({start}, {stop})")
        return super().select(selection)

    def _pieces(self, span: tuple[int, int]) -> list[tuple[int, int]]:
        """A span cut wherever no token, and no character of several code points, is cut."""
        start, stop = span
        borders = [start + match.end() for match in regex.finditer(r"\X", self.text[start:stop])]
        covered = [token for token in self.spans if token is not None]
        borders = [b for b in borders if not any(first < b < last for first, last in covered)]
        return list(zip([start, *borders], [*borders, stop], strict=False))

    def _tokens_of(self, span: tuple[int, int]) -> tuple[int, ...]:
        return tuple(
            index
            for index, covered in enumerate(self.spans)
            if covered is not None and covered[0] < span[1] and span[0] < covered[1]
        )

    def _expects(self) -> str:
        return (
            "select tokens by a phrase, a tuple (start, stop) of characters, or by a slice, a "
            "range, a set or a list of token indices"
        )
