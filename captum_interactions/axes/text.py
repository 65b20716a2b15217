"""The axis of a text: the words and characters of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np
import regex

from captum_interactions.axes.token import TokenAxis, Unit, Weights

# Scripts without spaces between words, in which characters that share a token are a word.
_SCRIPTS = ("Han", "Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")
_UNSPACED = "".join(rf"\p{{scx={script}}}" for script in _SCRIPTS) + r"--\p{scx=Latn}"
# Combining marks and zero-width joiners belong to the preceding letter; a keycap is no letter.
_LETTERS = rf"(?:(?![0-9]\ufe0f?\u20e3)[[\p{{L}}\p{{N}}_]--[{_UNSPACED}]][\p{{M}}\u200c\u200d]*)+"
_RUN = rf"(?:[[\p{{L}}\p{{N}}]&&[{_UNSPACED}]]\p{{M}}*)+"
_JOINER = r"(?:['’\-\u2010\u2011\u00ad·׳״]|(?<=\p{N})[.,:](?=\p{N}))"
# All other characters are words by themselves, including emoji of several code points.
_WORD = regex.compile(rf"(?P<run>{_RUN})|{_LETTERS}(?:{_JOINER}{_LETTERS})*|(?!\s)\X", regex.V1)
_PART = regex.compile(rf"(?P<run>{_RUN})|{_LETTERS}|(?!\s)\X", regex.V1)


class Word(NamedTuple):
    """A word of a text with its tokens."""

    text: str
    span: tuple[int, int]
    """Half-open range of characters."""
    tokens: tuple[int, ...]
    """Indices on the token axis."""


@dataclass(frozen=True)
class TextAxis(TokenAxis):
    """The tokens of a text with the characters they cover.

    ``spans`` holds one half-open character range per token, and None for tokens without characters.
    """

    text: str
    spans: tuple[tuple[int, int] | None, ...]

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """Words, punctuation marks and emoji, each with its tokens, in reading order.

        Every token that is neither special nor padding belongs to exactly one word. Words that
        share a token are merged, from the start of the first to the end of the last. In scripts
        without spaces between words (Chinese, Japanese, Thai), characters that share a token are
        a word.
        """
        found: list[Word] = []
        for match in _WORD.finditer(self.text):
            for start, stop in self._pieces(match) if match["run"] else [match.span()]:
                tokens = {t for t in self._tokens_of((start, stop)) if not self.special[t]}
                if found and tokens.intersection(found[-1].tokens):
                    before = found.pop()
                    start, tokens = before.span[0], tokens.union(before.tokens)
                if tokens:
                    word = Word(self.text[start:stop], (start, stop), tuple(sorted(tokens)))
                    found.append(word)
        return tuple(found)

    @property
    def units(self) -> tuple[Unit, ...]:
        """Words, or tokens if the text is unknown."""
        words = tuple(Unit(word.text, word.tokens) for word in self.words)
        return words or super().units

    def find(self, phrase: str) -> tuple[int, int]:
        """Character span of a phrase that occurs exactly once, ignoring case.

        Whole words are matched first, then parts of words such as *well-made*. Letters with marks
        match in every Unicode normalization form.

        Raises:
            ValueError: If the phrase does not occur, or occurs several times.
        """
        if not self.text and len(self):
            raise ValueError(
                f"the phrase {phrase!r} does not occur in '': the characters behind these tokens "
                "are not known; select tokens by their indices instead"
            )
        letters = regex.escape(normalize("NFC", phrase.strip()), literal_spaces=True)
        text, places = _composed(self.text)
        pattern = regex.compile(letters, regex.IGNORECASE | regex.V1)
        spans: list[tuple[int, int]] = []
        for pieces in (_WORD, _PART) if letters else ():
            borders = self._borders(pieces)
            matches = pattern.finditer(text, overlapped=True)
            found = [(places[match.start()], places[match.end()]) for match in matches]
            spans = spans or [span for span in found if borders.issuperset(span)]
        if not spans:
            raise ValueError(f"the phrase {phrase!r} does not occur in {shorten(self.text)!r}")
        if len(spans) > 1:
            raise ValueError(
                f"the phrase {phrase!r} occurs {len(spans)} times in {shorten(self.text)!r}: "
                f"select one of the character spans {spans} instead"
            )
        return spans[0]

    def select(self, selection: Any = None) -> Weights:
        """Convert a selection to one weight per token.

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

    def merged(self, spans: Sequence[tuple[int, int]]) -> tuple[Weights, TextAxis]:
        """Merge tokens that given spans do not distinguish.

        Neighbouring tokens that the same spans cover become one token. All tokens that no span
        covers, including special tokens and padding, become one more, without characters.

        Args:
            spans: Half-open ranges of characters; they may overlap.

        Returns:
            tuple: the tokens of each group as zeros and ones, shape (G, T), and the axis of the G
            groups, on which the spans select the same tokens.
        """
        covered = [frozenset(self._tokens_of(span)) for span in spans]
        covering = [tuple(t in tokens for tokens in covered) for t in range(len(self))]
        runs = [list(run) for _, run in groupby(range(len(self)), covering.__getitem__)]
        kept = [run for run in runs if any(covering[run[0]])]
        ranges = [(self.spans[run[0]], self.spans[run[-1]]) for run in kept]
        new_spans = [(first[0], last[1]) for first, last in ranges if first and last]
        labels = [self.text[slice(*span)] for span in new_spans]
        rest = [t for run in runs if not any(covering[run[0]]) for t in run]
        groups = [*kept, *([rest] if rest else [])]
        weights = np.zeros((len(groups), len(self)), np.float32)
        for row, run in zip(weights, groups, strict=True):
            row[run] = 1.0
        others = (True,) * bool(rest)
        axis = TextAxis(
            labels=(*labels, *("[others]",) * len(others)),
            special=(False,) * len(labels) + others,
            padding=(False,) * len(groups),
            text=self.text,
            spans=(*new_spans, *(None,) * len(others)),
        )
        return weights, axis

    def _borders(self, pieces: regex.Pattern[str]) -> set[int]:
        """Positions at which a phrase may start or stop: not within a combined character."""
        borders = set()
        for match in pieces.finditer(self.text):
            borders |= {*match.span(), *(_ends(match) if match["run"] else ())}
        return borders

    def _pieces(self, run: regex.Match[str]) -> list[tuple[int, int]]:
        """Split a run of letters at boundaries of both tokens and characters."""
        covered = [token for token in self.spans if token is not None]
        borders = [b for b in _ends(run) if not any(first < b < last for first, last in covered)]
        return list(zip([run.start(), *borders], [*borders, run.end()], strict=False))

    def _tokens_of(self, span: tuple[int, int]) -> tuple[int, ...]:
        return tuple(
            index
            for index, covered in enumerate(self._covered)
            if covered is not None and covered[0] < span[1] and span[0] < covered[1]
        )

    @cached_property
    def _covered(self) -> tuple[tuple[int, int] | None, ...]:
        """The characters of each token; a token of spaces takes the next one, or else the last one.

        Other tokenizers include the space in the token of the following word.
        """
        spans = [
            span if span is not None and self.text[slice(*span)].strip() else None
            for span in self.spans
        ]
        own = [t for t, skip in enumerate(map(max, self.special, self.padding)) if not skip]
        last = next((spans[t][1] for t in reversed(own) if spans[t]), None)  # type: ignore[index]
        following = None if last is None else (last - 1, last)
        for token in reversed(own):
            span = spans[token]
            if span is None:
                spans[token] = following
            else:
                following = span[0], span[0] + 1
        return tuple(spans)

    def _expects(self) -> str:
        return (
            "select tokens of the text by a phrase, a tuple (start, stop) of characters, a slice, "
            "a range, a set or a list of token indices"
        )


def _composed(text: str) -> tuple[str, list[int]]:
    """A text in NFC, and the positions of its characters, and of its end, in the original text.

    Positions within composed characters are -1.
    """
    pieces, places = [], []
    for character in regex.finditer(r"\X", text):
        piece = normalize("NFC", character[0])
        is_same = piece == character[0]
        places += [character.start() + i if is_same or i == 0 else -1 for i in range(len(piece))]
        pieces.append(piece)
    return "".join(pieces), [*places, len(text)]


def _ends(run: regex.Match[str]) -> list[int]:
    """The ends of the characters of a match, with their combining marks."""
    return [run.start() + character.end() for character in regex.finditer(r"\X", run[0])]


def shorten(text: str, letters: int = 120) -> str:
    """A text of at most so many letters, for messages and figures."""
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"
