"""From captions to token ids, with the characters behind every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from captum_interactions.encoders.axes import TextAxis


def tokenize(
    tokenizer: Any, raw: Any, context_length: int, *, truncation: bool = False
) -> tuple[Tensor, Tensor, list[TextAxis]]:
    """Tokenise one text or a sequence of texts, padded to the longest of them.

    Args:
        tokenizer: A fast tokenizer of ``transformers``, which knows character offsets.
        raw: A string or a sequence of strings.
        context_length (int): The longest sequence that the model takes, special tokens included.
        truncation (bool): Cut longer texts instead of raising an error. Default: False

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
    options = {"max_length": context_length} if truncation else {}
    encoding = tokenizer(
        list(texts),
        padding=True,
        truncation=truncation,
        return_tensors="pt",
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_attention_mask=True,
        verbose=False,
        **options,
    )
    mask = encoding["attention_mask"]
    for index, (text, length) in enumerate(zip(texts, mask.sum(1).tolist(), strict=True)):
        if length > context_length:
            raise ValueError(
                f"text {index} has {length} tokens with its special tokens, but the model's "
                f"context holds {context_length}; shorten it or pass truncation=True: {text!r}"
            )
    axes = []
    for index, text in enumerate(texts):
        padding = tuple(not attended for attended in mask[index].tolist())
        # A tokenizer marks padding as special too; here the two are told apart.
        special = tuple(
            bool(is_special) and not is_padding
            for is_special, is_padding in zip(
                encoding["special_tokens_mask"][index].tolist(), padding, strict=True
            )
        )
        spans = tuple(
            (start, stop) if start < stop and not (is_special or is_padding) else None
            for (start, stop), is_special, is_padding in zip(
                encoding["offset_mapping"][index].tolist(), special, padding, strict=True
            )
        )
        pieces = tokenizer.convert_ids_to_tokens(encoding["input_ids"][index].tolist())
        labels = tuple(
            text[span[0] : span[1]] if span else piece
            for span, piece in zip(spans, pieces, strict=True)
        )
        axes.append(TextAxis(labels, special, padding, text, spans))
    return encoding["input_ids"], mask, axes
