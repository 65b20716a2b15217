"""Tokenise texts, with the range of characters of every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unicodedata import normalize

import regex
from torch import Tensor

from captum_interactions.axes import TextAxis
from captum_interactions.axes.text import shorten
from captum_interactions.user_warnings import warn_caller

# Braille has an empty cell, and annotations have marks of their own.
_VISIBLE = regex.compile(r"[^\s\p{Z}\p{Cc}\p{DI}\u2800\ufff9-\ufffb]", regex.V1)
_SURROGATE = regex.compile(r"\p{Cs}")


def special_ids(source: Any) -> list[int]:
    """Ids of special tokens: start and end of a text, padding, languages, controls.

    The token for unknown words is not special, unless it also ends texts.

    Args:
        source: A tokenizer, or a config with the same names.
    """
    ends = _named(source, "bos", "eos", "cls", "sep")
    added = getattr(source, "added_tokens_decoder", {}).items()
    marked = {*getattr(source, "all_special_ids", ()), *(i for i, token in added if token.special)}
    return sorted(ends | marked - _named(source, "unk"))


def _named(source: Any, *names: str) -> set[int]:
    ids: set[int] = set()
    for name in names:
        found = getattr(source, f"{name}_token_id", None)
        ids.update(found if isinstance(found, (list, tuple)) else (found,))
    return ids - {None}


def tokenize(
    tokenizer: Any,
    raw: Any,
    context_length: int | None = None,
    *,
    truncation: bool = False,
    padding: bool | str = True,
    prompt: str = "",
) -> tuple[Tensor, Tensor, list[TextAxis]]:
    """Tokenise one text or a sequence of texts.

    Args:
        tokenizer: A tokenizer of ``transformers``. If it has no character offsets (it is not a
            fast one), words are matched if its pieces spell the text, as SigLIP's do; otherwise
            tokens have labels, but there are no words.
        raw: A string or a sequence of strings.
        context_length (int, optional): Maximum number of tokens of the model, special tokens
            included. Default: None, no limit
        truncation (bool): Cut longer texts instead of raising an error. Default: False
        padding (bool or str): True pads to the longest text, ``"max_length"`` to
            ``context_length``. Default: True
        prompt (str): Put before each text. Its tokens count as special. Default: none

    Returns:
        tuple: token ids (B, T), attention mask (B, T), and one axis per text. Tokens of
        :func:`special_ids` are special, also if they are typed in a text.

    Raises:
        TypeError: If a text is not a string.
        ValueError: If a text has no visible character or no token, contains a lone surrogate, or
            is too long and ``truncation`` is False.
    """
    texts = checked_texts(raw)
    knows_offsets = bool(tokenizer.is_fast)
    cut = truncation and context_length is not None
    options = {"max_length": context_length} if cut or padding == "max_length" else {}
    encoding = tokenizer(
        [prompt + text for text in texts],
        padding=padding,
        truncation=cut,
        return_tensors="pt",
        return_offsets_mapping=knows_offsets,
        return_special_tokens_mask=True,
        return_attention_mask=True,
        verbose=False,
        **options,
    )
    ids, mask = encoding["input_ids"], encoding["attention_mask"]
    for index, (text, length) in enumerate(zip(texts, mask.sum(1).tolist(), strict=True)):
        if context_length is not None and length > context_length:
            raise ValueError(
                f"text {index} has {length} tokens with its special tokens, but the model's "
                f"context holds {context_length}; shorten it or pass truncation=True: "
                f"{shorten(text)!r}"
            )
    known_special = set(special_ids(tokenizer))
    axes = []
    for index, text in enumerate(texts):
        padded = [not attended for attended in mask[index].tolist()]
        special = [
            token in known_special and not pad
            for token, pad in zip(ids[index].tolist(), padded, strict=True)
        ]
        # Tokens that the tokenizer adds around the text have no characters.
        put = encoding["special_tokens_mask"][index].tolist()
        pieces = tokenizer.convert_ids_to_tokens(ids[index].tolist())
        own = [token for token, pad in enumerate(padded) if not (pad or put[token])]
        if not own:
            raise ValueError(f"text {index} has no tokens beside special ones: {text!a}")
        if knows_offsets:
            offsets = [encoding["offset_mapping"][index][token].tolist() for token in own]
        else:
            offsets = _spell(prompt + text, [pieces[token] for token in own])
        spans: list[tuple[int, int] | None] = [None] * len(padded)
        for token, (start, stop) in zip(own, offsets, strict=False):
            special[token] |= 0 < len(prompt) >= stop
            spans[token] = _trimmed(text, start - len(prompt), stop - len(prompt))
        labels = [
            text[slice(*span)] if span else piece for span, piece in zip(spans, pieces, strict=True)
        ]
        known = text if knows_offsets or offsets else ""
        axes.append(TextAxis(tuple(labels), tuple(special), tuple(padded), known, tuple(spans)))
    return ids, mask, axes


def checked_texts(raw: Any) -> Sequence[str]:
    """One text or several as a sequence of texts.

    Raises:
        TypeError: If it is neither a string nor a sequence of strings.
        ValueError: If there is none, or one has no visible character or half a surrogate pair.
    """
    texts = [raw] if isinstance(raw, str) else raw
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"a text is a string or a list of strings, but got {raw!r}")
    if not texts:
        raise ValueError("expected at least one text, but got an empty list")
    for index, text in enumerate(texts):
        if not _VISIBLE.search(text):
            what = "holds no visible character" if text.strip() else "is empty"
            raise ValueError(f"text {index} {what}: {text!a}")
        broken = _SURROGATE.search(text)
        if broken is not None:
            raise ValueError(
                f"text {index} holds half of a surrogate pair at character {broken.start()}, which "
                f"is no character (was it decoded with errors='surrogateescape'?): {text!a}"
            )
    return texts


def warn_of_unreached(axes: Sequence[TextAxis], reached: Tensor | None) -> None:
    """Warn of words that cannot influence the embedding, such as those after a typed end of text.

    Args:
        axes (sequence): One axis per text.
        reached (Tensor, optional): True for tokens that can influence the embedding, shape (B, T).
            None if all of them can.
    """
    for axis, row in zip(axes, [] if reached is None else reached.tolist(), strict=False):
        words = [word.text for word in axis.words if not any(row[token] for token in word.tokens)]
        if words:
            named = ", ".join(map(repr, words[:8])) + (", ..." if len(words) > 8 else "")
            warn_caller(
                f"the text {shorten(axis.text)!r} holds an end of text, where the model pools: "
                f"{named} behind it cannot influence the embedding, so their attributions are zero"
            )


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int] | None:
    """A span without surrounding spaces, which some tokenizers include; None if it is empty."""
    start = max(start, 0)
    covered = text[start : max(stop, 0)]
    start += len(covered) - len(covered.lstrip())
    stop = start + len(covered.strip())
    return (start, stop) if start < stop else None


def _spell(text: str, pieces: list[str]) -> list[tuple[int, int]]:
    """Character spans of pieces that spell a text up to case and punctuation; empty otherwise."""
    spans, stop = [], 0
    for piece in pieces:
        start = None
        for letter in piece.removeprefix("##").replace("▁", ""):
            while stop < len(text) and _plain(text[stop]) != _plain(letter):
                if text[stop].isalnum():
                    return []
                stop += 1
            start = stop if start is None else start
            stop += 1
        if stop > len(text):
            return []
        spans.append((stop if start is None else start, stop))
    return spans


def _plain(letter: str) -> str:
    return normalize("NFKC", letter).casefold()
