"""Tokenizers of ``open_clip`` and of OpenAI's ``clip``, with the interface of ``transformers``.

They clean a text before they split it; offsets refer to the original text.
"""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import Any, cast

import torch
from torch import Tensor


def reader(tokenizer: Any, context_length: int | None) -> Any:
    """A tokenizer with the interface of those of ``transformers``."""
    if tokenizer is None or hasattr(tokenizer, "is_fast"):
        return tokenizer
    if hasattr(tokenizer, "tokenizer") and hasattr(tokenizer, "clean_fn"):
        return CleaningTokenizer(tokenizer)
    return BytePairTokenizer(tokenizer, context_length)


class CleaningTokenizer:
    """A tokenizer of ``transformers`` behind open_clip's cleaning of texts, an ``HFTokenizer``.

    Offsets refer to the original text.
    """

    def __init__(self, tokenizer: Any) -> None:
        mode = getattr(tokenizer, "tokenizer_mode", "")
        if mode:
            raise TypeError(
                f"tokenizers with tokenizer_mode={mode!r} are not known, as they put a class token "
                "behind the padding: pass token ids as a tensor"
            )
        self._tokenizer = tokenizer.tokenizer
        self._clean = tokenizer.clean_fn
        self._strips_separator = getattr(tokenizer, "strip_sep_token", False)
        self.is_fast = self._tokenizer.is_fast
        self.model_max_length = tokenizer.context_length
        self.all_special_ids = getattr(self._tokenizer, "all_special_ids", ())
        for name in ("bos", "eos", "cls", "sep", "pad", "unk", "mask"):
            setattr(self, f"{name}_token_id", getattr(self._tokenizer, f"{name}_token_id", None))

    def __call__(self, texts: list[str], **options: Any) -> Any:
        seen = [self._clean(text) for text in texts]
        encoding = self._tokenizer(seen, **options)
        ids = encoding["input_ids"]
        if self._strips_separator:
            encoding["input_ids"] = ids.masked_fill(ids == self._tokenizer.sep_token_id, 0)
        for text, clean, offsets in zip(
            texts, seen, encoding.get("offset_mapping", ()), strict=False
        ):
            behind = _behind(text, clean)
            spans = [_joined(behind[start:stop]) for start, stop in offsets.tolist()]
            offsets.copy_(torch.tensor(spans))
        return encoding

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return cast("list[str]", self._tokenizer.convert_ids_to_tokens(ids))


class BytePairTokenizer:
    """CLIP's own byte-pair tokenizer with the interface of a fast one of ``transformers``.

    Args:
        tokenizer: A ``SimpleTokenizer`` of either package, or OpenAI's ``clip.tokenize``.
        context_length (int): Number of ids of every text.
    """

    is_fast = True
    pad_token_id = 0
    """Padding is the id 0, which is also an exclamation mark."""

    def __init__(self, tokenizer: Any, context_length: int | None) -> None:
        if not hasattr(tokenizer, "byte_decoder"):
            tokenizer = getattr(inspect.getmodule(tokenizer), "_tokenizer", tokenizer)
        if not hasattr(tokenizer, "byte_decoder"):
            raise TypeError(
                "expected a SimpleTokenizer of open_clip or clip, clip.tokenize, an HFTokenizer of "
                f"open_clip, or a tokenizer of transformers, but got {type(tokenizer).__name__}"
            )
        self.model_max_length = context_length
        self._tokenizer = tokenizer
        self.bos_token_id, self.eos_token_id = (
            next(tokenizer.encoder[name] for name in names if name in tokenizer.encoder)
            for names in (
                ("<start_of_text>", "<|startoftext|>"),
                ("<end_of_text>", "<|endoftext|>"),
            )
        )

    def __call__(
        self, texts: list[str], *, truncation: bool = False, **_: Any
    ) -> dict[str, Tensor]:
        """Ids (B, T) padded with zeros, and the further outputs of a fast tokenizer."""
        rows = [self._tokenizer.encode(text) for text in texts]
        spans = [self._spans(text, row) for text, row in zip(texts, rows, strict=True)]
        longest = max(self.model_max_length or 0, *(len(row) + 2 for row in rows))
        if truncation and self.model_max_length:
            longest = self.model_max_length
        shape = (len(texts), longest)
        ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        special, offsets = torch.ones_like(ids), torch.zeros((*shape, 2), dtype=torch.long)
        for index, row in enumerate(rows):
            stop = min(len(row) + 2, longest)
            kept = row[: stop - 2]
            ids[index, :stop] = torch.tensor([self.bos_token_id, *kept, self.eos_token_id])
            mask[index, :stop] = 1
            special[index, 1 : stop - 1] = 0
            offsets[index, 1 : stop - 1] = torch.tensor(spans[index][: stop - 2]).view(-1, 2)
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "special_tokens_mask": special,
            "offset_mapping": offsets,
        }

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self._tokenizer.decoder[i] for i in ids]

    def _spans(self, text: str, ids: list[int]) -> list[tuple[int, int]]:
        """The character span of each piece."""
        pieces = [self._bytes(token) for token in ids]
        seen = b"".join(pieces).decode("utf-8", "replace")
        letters = [
            span
            for letter, span in zip(seen, _behind(text, seen), strict=True)
            for _ in letter.encode()
        ]
        ends = list(accumulate(map(len, pieces), initial=0))
        return [_joined(letters[start:stop]) for start, stop in pairwise(ends)]

    def _bytes(self, token: int) -> bytes:
        letters = self._tokenizer.decoder[token].removesuffix("</w>")
        return bytes(self._tokenizer.byte_decoder[letter] for letter in letters)


_Span = tuple[int, int]
_NOTHING: _Span = (0, 0)


def _behind(text: str, seen: str) -> list[_Span]:
    """The character of the original text for each letter of the cleaned text.

    Tokenizers change case and spaces, drop punctuation, and repair broken characters.
    """
    owners, letters = _folded(text)
    places, seen_letters = _folded(seen)
    spans = [_NOTHING] * len(seen)
    matcher = SequenceMatcher(None, letters, seen_letters, autojunk=False)
    for kind, start, stop, first, last in matcher.get_opcodes():
        for index in range(first, last):
            same = start + index - first
            own = owners[same : same + 1] if kind == "equal" else owners[start:stop]
            around = [(owner, owner + 1) for owner in own]
            spans[places[index]] = _joined([spans[places[index]], *around])
    return spans


def _folded(text: str) -> tuple[list[int], str]:
    """Letters without case and form, and without spaces, with the index of their characters."""
    found = [
        (index, folded)
        for index, letter in enumerate(text)
        if not letter.isspace()
        for folded in unicodedata.normalize("NFKD", letter).casefold()
    ]
    return [index for index, _ in found], "".join(letter for _, letter in found)


def _joined(spans: Sequence[_Span]) -> _Span:
    known = [span for span in spans if span != _NOTHING]
    if not known:
        return _NOTHING
    return min(start for start, _ in known), max(stop for _, stop in known)
