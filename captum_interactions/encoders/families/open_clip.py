"""Towers of ``open_clip`` models and of OpenAI's ``clip`` package. Neither is imported here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_interactions.axes import TextAxis
from captum_interactions.encoders.families.open_clip_tokenizers import reader
from captum_interactions.encoders.families.timm import is_timm, timm_tower
from captum_interactions.encoders.families.trial import is_tested, try_out
from captum_interactions.encoders.model.hooks import find_blocks, find_embeddings
from captum_interactions.encoders.towers.base import Tower, TowerInputs
from captum_interactions.encoders.towers.image_tower import ImageTower
from captum_interactions.encoders.towers.text_tower import TextTower

_ONE_LAYER = ("t5", "mt5")
"""Text models whose first block computes a position bias for all later blocks, so that a run can
start only before it."""


def is_open_clip(model: Any) -> bool:
    """Whether a model has the methods ``encode_image`` and ``encode_text``."""
    return all(hasattr(model, name) for name in ("encode_image", "encode_text", "visual"))


def open_clip_towers(model: Any, processor: Any = None) -> tuple[Tower, Tower]:
    """The towers of a model for which :func:`is_open_clip` holds.

    Args:
        model: A model with a vision transformer or a ModifiedResNet, and a text transformer or a
            text encoder of ``transformers``.
        processor (optional): A tuple ``(preprocess, tokenizer)``, either of which may be None:
            what ``create_model_from_pretrained`` and ``get_tokenizer`` give, or ``clip.load`` and
            ``clip.tokenize``. Default: None

    Raises:
        TypeError: If the image or text encoder, or the processor, is of another kind.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "hooks cannot be used at the blocks of a TorchScript model: load it with jit=False"
        )
    preprocess, tokenizer = (None, None) if processor is None else _two(processor)
    return _image_tower(model, preprocess), _text_tower(model, tokenizer)


def _two(processor: Any) -> tuple[Any, Any]:
    """The preprocessing of images, and the tokenizer."""
    if not isinstance(processor, (tuple, list)) or len(processor) != 2:
        count = f" of {len(processor)}" if isinstance(processor, (tuple, list)) else ""
        raise TypeError(
            "the processor of an open_clip or clip model is a tuple (preprocess, tokenizer), "
            f"either of which may be None, but got {type(processor).__name__}{count}"
        )
    preprocess, tokenizer = processor
    if preprocess is not None and not callable(preprocess):
        raise TypeError(
            "preprocess must be a function from an image to pixel values, but got "
            f"{type(preprocess).__name__}"
        )
    return preprocess, tokenizer


# Images


def _image_tower(model: Any, preprocess: Any) -> ImageTower:
    visual = model.visual
    stem = getattr(visual, "conv1", None)
    size = getattr(visual, "image_size", getattr(visual, "input_resolution", None))
    options: dict[str, Any] = {
        "image_size": (size, size) if isinstance(size, int) else size and tuple(size),
        "image_processor": preprocess,
    }
    if is_timm(getattr(visual, "trunk", None)):
        return timm_tower(
            model, preprocess, _image, "visual.trunk", _FixedSizeImages, options["image_size"]
        )
    if isinstance(stem, nn.Conv2d) and hasattr(visual, "attnpool"):
        blocks = [*(f"visual.layer{index}" for index in range(1, 5)), "visual.attnpool"]
        names = [f"visual.{name}" for name, _ in visual.named_children()]
        before = [name for name in names if name not in blocks]
        return _FixedSizeImages(
            model, _image, blocks, before, patch=(32, 32), convolutional=True, **options
        )
    if not isinstance(stem, nn.Conv2d) or not hasattr(visual, "transformer"):
        raise TypeError(
            f"the image encoder {type(visual).__name__} is neither a vision transformer nor a "
            "ModifiedResNet of open_clip or clip, nor one of timm: write a Tower for it"
        )
    _refuse_no_pooling(visual, getattr(visual, "pool_type", "tok"))
    return _FixedSizeImages(
        model,
        _image,
        find_blocks(model, "visual.transformer"),
        patch=(stem.kernel_size[0], stem.kernel_size[1]),
        channels=stem.in_channels,
        tokens_first=not getattr(visual.transformer, "batch_first", False),
        **options,
    )


class _FixedSizeImages(ImageTower):
    """An image encoder whose first layer has a type of its own, for images of one size."""

    @property
    def dtype(self) -> torch.dtype:
        modules = cast(Any, self.model).visual.modules()
        return next(m.weight.dtype for m in modules if isinstance(m, nn.Conv2d))

    def check(self, inputs: Tensor, *extras: Any) -> None:
        super().check(inputs, *extras)
        if self.image_size not in (None, tuple(inputs.shape[2:])):
            raise ValueError(
                f"the model takes images of {self.image_size} pixels (height, width), but pixel "
                f"values have shape {tuple(inputs.shape)}"
            )


# Texts


def _text_tower(model: Any, tokenizer: Any) -> TextTower:
    # CLIP keeps the parts of its text encoder itself, CustomTextCLIP and CoCa in a module.
    name = "text" if isinstance(getattr(model, "text", None), nn.Module) else ""
    text = getattr(model, name) if name else model
    within = f"{name}.transformer".lstrip(".")
    if hasattr(text, "pooler") and hasattr(text, "config"):
        blocks = find_blocks(model, within)
        tower = _TextsOfTransformers(
            model,
            _masked_text,
            blocks[:1] if text.config.model_type in _ONE_LAYER else blocks,
            find_embeddings(model, within),
            config=text.config,
            tokenizer=reader(tokenizer, None),
            context_length=getattr(tokenizer, "context_length", None),
        )
        if not is_tested(text.transformer):
            try_out(tower)
        return tower
    embedding = getattr(text, "token_embedding", None)
    if not isinstance(embedding, nn.Embedding):
        raise TypeError(
            f"the text encoder {type(text).__name__} is neither a text transformer nor a text "
            "encoder of transformers in open_clip: write a Tower for it"
        )
    has_class = getattr(text, "cls_emb", None) is not None
    pool_type = getattr(text, "text_pool_type", getattr(text, "pool_type", "argmax"))
    if not has_class:
        _refuse_no_pooling(text, pool_type)
    eos = getattr(text, "text_eos_id", getattr(text, "eos_id", None))
    is_causal = getattr(text, "attn_mask", True) is not None
    is_pooled = is_causal and not has_class
    ends = {"argmax": "largest", "eos": eos}.get(pool_type) if is_pooled else None
    length = getattr(text, "context_length", None) or text.positional_embedding.shape[0]
    return (_TextsWithClass if has_class else TextTower)(
        model,
        _text,
        find_blocks(model, within),
        config=_Vocabulary(text, embedding.num_embeddings, pool_type),
        tokenizer=reader(tokenizer, length),
        context_length=length,
        end_of_text=cast(Any, ends),
        fixed_length=True,
        tokens_first=not getattr(text.transformer, "batch_first", False),
    )


class _Vocabulary:
    """The entries of a config that a text tower needs, for models without a config."""

    def __init__(self, text: Any, size: int, pool_type: str) -> None:
        self.vocab_size = size
        self.pad_token_id = getattr(text, "pad_id", 0)
        if pool_type == "argmax":
            # CLIP's vocabulary ends with both ends of a text, so that the last has the largest id.
            self.bos_token_id, self.eos_token_id = size - 2, size - 1


class _TextsOfTransformers(TextTower):
    """Text towers whose model masks the padding id by itself."""

    def _attended(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        seen: Tensor = ids != self.config.pad_token_id
        return seen if attention_mask is None else seen & attention_mask.bool()

    def set_constant(
        self, inputs: Tensor, value: float, attention_mask: Tensor | None = None
    ) -> Tensor:
        ids = inputs.where(self._attended(inputs, attention_mask), self.config.pad_token_id)
        return super().set_constant(ids, value, attention_mask)

    def _is_special(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        # All texts end with a special token; a baseline of padding only would not be a text.
        places = torch.arange(ids.shape[1], device=ids.device)
        last = (self._attended(ids) * places).argmax(-1, keepdim=True)
        return super()._is_special(ids).scatter(1, last, True)


class _TextsWithClass(TextTower):
    """The text tower of CoCa, which appends a class token and masks padding by its id.

    Unless ``correct_cls_mask`` is set, its mask is off by one position, so that the class token
    attends to the first padding token. That counts as a special token here.
    """

    def token_mask(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return nn.functional.pad(self._seen(inputs), (0, 1), value=True)

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        inputs, extras, axes = super().prepare(raw, truncation=truncation)
        return TowerInputs(
            inputs,
            extras,
            tuple(
                replace(
                    cast(TextAxis, axis),
                    labels=(*axis.labels, "[class]"),
                    special=(*map(any, zip(axis.special, axis.padding, strict=True)), True),
                    padding=(*(not seen for seen in row), False),
                    spans=(*cast(TextAxis, axis).spans, None),
                )
                for axis, row in zip(axes, self._seen(inputs).tolist(), strict=True)
            ),
        )

    def recall(self, states: Tensor, *context: Any) -> Any:
        return (states, *super().recall(states, *context)[1:])

    def _seen(self, inputs: Tensor) -> Tensor:
        """The tokens of the text that the model attends to, (B, T)."""
        text = cast(Any, self.model).text
        seen: Tensor = self._ids(inputs) != text.pad_id
        if getattr(text, "correct_cls_mask", False):
            return seen
        return nn.functional.pad(seen[:, :-1], (1, 0), value=True)

    def _axes_of_ids(self, ids: Tensor, mask: Tensor | None = None) -> tuple[TextAxis, ...]:
        none = (None,) * ids.shape[1]
        read = self.tokenizer.convert_ids_to_tokens if self.tokenizer else partial(map, str)
        return tuple(
            TextAxis(tuple(read(row)), tuple(special), (False,) * len(row), "", none)
            for row, special in zip(ids.tolist(), self._is_special(ids).tolist(), strict=True)
        )


# Embedding functions


def _image(model: Any, pixels: Tensor) -> Tensor:
    return _embedding(model.encode_image, pixels)


def _text(model: Any, ids: Tensor) -> Tensor:
    return _embedding(model.encode_text, ids)


def _masked_text(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    if mask is not None:
        ids = ids.masked_fill(mask == 0, model.text.config.pad_token_id)
    return _embedding(model.encode_text, ids)


def _embedding(encode: Callable[..., Any], inputs: Tensor) -> Tensor:
    """The embedding before normalisation, without the tokens that some models return with it."""
    can_normalize = "normalize" in inspect.signature(encode).parameters
    output = encode(inputs, **({"normalize": False} if can_normalize else {}))
    return output if isinstance(output, Tensor) else cast(Tensor, output[0])


def _refuse_no_pooling(part: Any, pool_type: Any) -> None:
    if pool_type == "none":
        raise TypeError(
            f"the {type(part).__name__} has pool_type 'none': it gives an embedding for each of "
            "its tokens instead of one for all of them"
        )
