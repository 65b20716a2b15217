"""From texts to token ids, with the characters behind every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unicodedata import normalize

from torch import Tensor

from captum_interactions.axes import TextAxis
from captum_interactions.callers import warn_caller


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
        tokenizer: A tokenizer of ``transformers``. If it knows no character offsets (it is not a
            fast one), words are found where its pieces spell the text, as SigLIP's do; else tokens
            are labelled, but there are no words.
        raw: A string or a sequence of strings.
        context_length (int, optional): The longest sequence that the model takes, special tokens
            included. Default: None, any
        truncation (bool): Cut longer texts instead of raising an error. Default: False
        padding (bool or str): True pads to the longest text, ``"max_length"`` to
            ``context_length``. Default: True
        prompt (str): What the model wants before each text. Its tokens count as special. Default:
            none

    Returns:
        tuple: token ids (B, T), attention mask (B, T), and one axis a text.

    Raises:
        TypeError: If a text is not a string.
        ValueError: If a text is empty, or too long and ``truncation`` is False.
    """
    texts = [raw] if isinstance(raw, str) else raw
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"a text is a string or a list of strings, but got {raw!r}")
    if not texts:
        raise ValueError("expected at least one text, but got an empty list")
    for index, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"text {index} is empty: {text!r}")
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
                f"context holds {context_length}; shorten it or pass truncation=True: {text!r}"
            )
    typed = special_ids(tokenizer)
    axes = []
    for index, text in enumerate(texts):
        padded = [not attended for attended in mask[index].tolist()]
        marked = encoding["special_tokens_mask"][index].tolist()
        # A tokenizer marks padding as special too; here the two are told apart.
        special = [bool(mark) and not pad for mark, pad in zip(marked, padded, strict=True)]
        pieces = tokenizer.convert_ids_to_tokens(ids[index].tolist())
        own = [token for token, pad in enumerate(padded) if not (pad or special[token])]
        if knows_offsets:
            offsets = [encoding["offset_mapping"][index][token].tolist() for token in own]
        else:
            offsets = _spell(prompt + text, [pieces[token] for token in own])
        for token in own:
            special[token] = int(ids[index, token]) in typed
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


def special_ids(tokenizer: Any) -> set[int]:
    """Ids that are special wherever they stand, also where a text spells them, as ``[SEP]``.

    Unknown words are parts of a text, unless their id has another purpose too.
    """
    names = ("bos", "eos", "cls", "sep")
    purposes = {getattr(tokenizer, f"{name}_token_id", None) for name in names}
    unknown = getattr(tokenizer, "unk_token_id", None)
    ids = {*getattr(tokenizer, "all_special_ids", ()), *purposes} - ({unknown} - purposes)
    return {i for i in ids if i is not None}


def warn_of_unreached(axes: Sequence[TextAxis], reached: Tensor | None) -> None:
    """Warn of words that cannot reach the embedding, as those behind an end of text that is typed.

    Args:
        axes (sequence): One axis a text.
        reached (Tensor, optional): True for tokens that can reach the embedding, shape (B, T).
            None if all of them can.
    """
    for axis, row in zip(axes, [] if reached is None else reached.tolist(), strict=False):
        words = [word.text for word in axis.words if not any(row[token] for token in word.tokens)]
        if words:
            named = ", ".join(map(repr, words[:8])) + (", ..." if len(words) > 8 else "")
            warn_caller(
                f"the text {axis.text!r} holds an end of text, where the model pools: {named} "
                "behind it cannot reach the embedding, so their attributions are zero"
            )


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int] | None:
    """A span without the spaces that some tokenizers count to a word; None if nothing is left."""
    start = max(start, 0)
    covered = text[start : max(stop, 0)]
    start += len(covered) - len(covered.lstrip())
    stop = start + len(covered.strip())
    return (start, stop) if start < stop else None


def _spell(text: str, pieces: list[str]) -> list[tuple[int, int]]:
    """Characters behind pieces that spell a text, but for case and punctuation; else nothing."""
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
