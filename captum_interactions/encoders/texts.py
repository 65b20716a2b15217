"""From texts to token ids, with the characters behind every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from captum_interactions.encoders.axes import TextAxis


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
            fast one), tokens are labelled, but there are no words.
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
    axes = []
    for index, text in enumerate(texts):
        padded = [not attended for attended in mask[index].tolist()]
        marked = encoding["special_tokens_mask"][index].tolist()
        offsets = encoding["offset_mapping"][index].tolist() if knows_offsets else None
        # A tokenizer marks padding as special too; here the two are told apart.
        special = [bool(mark) and not pad for mark, pad in zip(marked, padded, strict=True)]
        spans: list[tuple[int, int] | None] = [None] * len(padded)
        for token, (start, stop) in enumerate(offsets or ()):
            if padded[token] or special[token]:
                continue
            special[token] = 0 < stop <= len(prompt)
            spans[token] = _trimmed(text, start - len(prompt), stop - len(prompt))
        pieces = tokenizer.convert_ids_to_tokens(ids[index].tolist())
        labels = [
            text[slice(*span)] if span else piece for span, piece in zip(spans, pieces, strict=True)
        ]
        known = text if knows_offsets else ""
        axes.append(TextAxis(tuple(labels), tuple(special), tuple(padded), known, tuple(spans)))
    return ids, mask, axes


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int] | None:
    """A span without the spaces that some tokenizers count to a word; None if nothing is left."""
    start = max(start, 0)
    covered = text[start : max(stop, 0)]
    start += len(covered) - len(covered.lstrip())
    stop = start + len(covered.strip())
    return (start, stop) if start < stop else None
