"""Towers of ``open_clip`` models and of OpenAI's ``clip`` package. Neither is imported here."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_interactions.encoders.cut import find_blocks
from captum_interactions.encoders.image_tower import ImageTower
from captum_interactions.encoders.text_tower import TextTower
from captum_interactions.encoders.tower import Tower


def is_open_clip(model: Any) -> bool:
    """Whether a model encodes images and texts by methods of these names."""
    return all(hasattr(model, name) for name in ("encode_image", "encode_text", "visual"))


def open_clip_towers(model: Any, processor: Any = None) -> tuple[Tower, Tower]:
    """The towers of a model for which :func:`is_open_clip` holds.

    Args:
        model: A model with a vision transformer or a ModifiedResNet.
        processor (optional): A tuple ``(preprocess, tokenizer)``, either of which may be None:
            what ``create_model_from_pretrained`` and ``get_tokenizer`` give, or ``clip.load`` and
            ``clip.tokenize``. Default: None

    Raises:
        TypeError: If the image or text encoder is of another kind.
    """
    preprocess, tokenizer = processor if isinstance(processor, tuple) else (None, None)
    return _image_tower(model, preprocess), _text_tower(model, tokenizer)


def _image_tower(model: Any, preprocess: Any) -> ImageTower:
    visual = model.visual
    if hasattr(visual, "attnpool"):
        return ImageTower(
            model,
            _image,
            [*(f"visual.layer{index}" for index in range(1, 5)), "visual.attnpool"],
            patch=(32, 32),
            image_processor=preprocess,
            convolutional=True,
        )
    stem = getattr(visual, "conv1", None)
    if stem is None:
        raise TypeError(
            f"the image encoder {type(visual).__name__} is neither a vision transformer nor a "
            "ModifiedResNet of open_clip"
        )
    return ImageTower(
        model,
        _image,
        find_blocks(model, "visual.transformer"),
        patch=(stem.kernel_size[0], stem.kernel_size[1]),
        channels=stem.in_channels,
        image_processor=preprocess,
        tokens_first=not getattr(visual.transformer, "batch_first", False),
    )


def _text_tower(model: Any, tokenizer: Any) -> TextTower:
    # CLIP keeps the parts of its text encoder itself, CustomTextCLIP in a module.
    name = "text" if isinstance(getattr(model, "text", None), nn.Module) else ""
    text = getattr(model, name) if name else model
    embedding = getattr(text, "token_embedding", None)
    if embedding is None:
        raise TypeError(
            f"the text encoder {type(text).__name__} is not a text transformer of open_clip"
        )
    pool_type = getattr(text, "text_pool_type", getattr(text, "pool_type", "argmax"))
    eos = getattr(text, "text_eos_id", getattr(text, "eos_id", None))
    is_causal = getattr(text, "attn_mask", True) is not None
    ends = {"argmax": "largest", "eos": eos}.get(pool_type) if is_causal else None
    length = text.positional_embedding.shape[0]
    reader = tokenizer if hasattr(tokenizer, "is_fast") else getattr(tokenizer, "tokenizer", None)
    return TextTower(
        model,
        _text,
        find_blocks(model, f"{name}.transformer".lstrip(".")),
        config=_Vocabulary(embedding.num_embeddings),
        tokenizer=reader or (None if tokenizer is None else BytePairTokenizer(tokenizer, length)),
        context_length=length,
        end_of_text=cast(Any, ends),
        fixed_length=True,
        tokens_first=not getattr(text.transformer, "batch_first", False),
    )


def _image(model: Any, pixels: Tensor) -> Tensor:
    return cast(Tensor, model.encode_image(pixels))


def _text(model: Any, ids: Tensor, _: None = None) -> Tensor:
    return cast(Tensor, model.encode_text(ids))


class _Vocabulary:
    """What a text tower asks of a config."""

    pad_token_id = 0

    def __init__(self, size: int) -> None:
        self.vocab_size = size


class BytePairTokenizer:
    """CLIP's own byte-pair tokenizer with the interface of a fast one of ``transformers``.

    Args:
        tokenizer: A ``SimpleTokenizer`` of either package, or OpenAI's ``clip.tokenize``.
        context_length (int): Number of ids of every text.
    """

    is_fast = True
    pad_token_id = 0
    """Padding is the id 0, which is also an exclamation mark."""

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        if not hasattr(tokenizer, "byte_decoder"):
            tokenizer = getattr(inspect.getmodule(tokenizer), "_tokenizer", tokenizer)
        if not hasattr(tokenizer, "byte_decoder"):
            raise TypeError(
                "expected a SimpleTokenizer of open_clip or clip, or a tokenizer of transformers, "
                f"but got {type(tokenizer).__name__}"
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
        """Ids (B, T) padded with zeros, and what a fast tokenizer gives beside them."""
        rows = [self._tokenizer.encode(text) for text in texts]
        longest = max(self.model_max_length, *(len(row) + 2 for row in rows))
        if truncation:
            longest = self.model_max_length
            rows = [row[: longest - 2] for row in rows]
        shape = (len(texts), longest)
        ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        special, offsets = torch.ones_like(ids), torch.zeros((*shape, 2), dtype=torch.long)
        for index, (text, row) in enumerate(zip(texts, rows, strict=True)):
            stop = len(row) + 2
            ids[index, :stop] = torch.tensor([self.bos_token_id, *row, self.eos_token_id])
            mask[index, :stop] = 1
            special[index, 1 : stop - 1] = 0
            if row:
                offsets[index, 1 : stop - 1] = torch.tensor(self._offsets(text, row))
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "special_tokens_mask": special,
            "offset_mapping": offsets,
        }

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self._tokenizer.decoder[i] for i in ids]

    def _offsets(self, text: str, ids: list[int]) -> list[tuple[int, int]]:
        """Characters behind each piece, or (0, 0) if the tokenizer has rewritten the text."""
        lowered = [(i, letter.lower()) for i, letter in enumerate(text) if not letter.isspace()]
        owners = [i for i, letter in lowered for _ in letter.encode()]
        pieces = [self._bytes(token) for token in ids]
        if b"".join(pieces) != b"".join(letter.encode() for _, letter in lowered):
            return [(0, 0)] * len(ids)
        spans, done = [], 0
        for piece in pieces:
            spans.append((owners[done], owners[done + len(piece) - 1] + 1))
            done += len(piece)
        return spans

    def _bytes(self, token: int) -> bytes:
        letters = self._tokenizer.decoder[token].removesuffix("</w>")
        return bytes(self._tokenizer.byte_decoder[letter] for letter in letters)
