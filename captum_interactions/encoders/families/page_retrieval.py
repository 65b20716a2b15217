"""The towers of ColPali and ColQwen2 of ``transformers``: queries, and images of pages.

A language model reads both: the words of a query, or what a vision model made of a page and a
prompt. Its blocks are the layers of both towers, so a page's tokens are its image tokens.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from captum_interactions.axes import TextAxis
from captum_interactions.encoders.inputs.texts import checked_texts, tokenize
from captum_interactions.encoders.late_interaction import LateInteractionWrapper
from captum_interactions.encoders.model.hooks import find_blocks
from captum_interactions.encoders.towers.base import TowerInputs
from captum_interactions.encoders.towers.image_tower import ImageTower
from captum_interactions.encoders.towers.page_tower import PageTower
from captum_interactions.encoders.towers.text_tower import TextTower, full_mask
from captum_interactions.encoders.towers.token_tower import TokenTower

_LANGUAGE_MODEL = "vlm.language_model"


def is_page_retriever(model: Any) -> bool:
    """Whether a model embeds queries and pages by token."""
    return getattr(getattr(model, "config", None), "model_type", None) in ("colpali", "colqwen2")


def page_wrapper(model: Any, processor: Any) -> LateInteractionWrapper:
    """Wrap a model for which :func:`is_page_retriever` holds.

    Args:
        model: The model.
        processor: Its own processor, which knows the prompts.

    Raises:
        TypeError: If there is no processor, or another one.
    """
    if not hasattr(processor, "process_queries"):
        raise TypeError(
            f"{type(model).__name__} needs its processor, which puts prompts around queries and "
            f"pages, but got {type(processor).__name__}: wrap(model, processor)"
        )
    pages = _pages(model, processor)
    return LateInteractionWrapper(TokenTower(_Queries(model, processor)), TokenTower(pages))


class _Queries(TextTower):
    """Queries between a prefix and a suffix, which stay in the baseline. They are never cut."""

    def __init__(self, model: Any, processor: Any) -> None:
        config, tokenizer = model.config.vlm_config.text_config, processor.tokenizer
        is_colpali = model.config.model_type == "colpali"
        super().__init__(
            model,
            _run_query,
            find_blocks(model, _LANGUAGE_MODEL),
            config=config,
            tokenizer=tokenizer,
            context_length=config.max_position_embeddings,
            prompt=(tokenizer.bos_token if is_colpali else "") + processor.query_prefix,
        )
        self.suffix = processor.query_augmentation_token * 10 + "\n"
        axis = tokenize(tokenizer, "a" + self.suffix, prompt=self.prompt)[2][0]
        self._n_behind = len(axis) - _stop(axis, 1)

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        several = isinstance(raw, (list, tuple)) and all(isinstance(text, str) for text in raw)
        if not (isinstance(raw, str) or several):
            return super().prepare(raw, truncation=truncation)
        texts = checked_texts(raw)  # before the suffix, which would hide that one is empty
        prepared = super().prepare([text + self.suffix for text in texts])
        axes = map(_without_suffix, cast(tuple[TextAxis, ...], prepared.axes), texts)
        return prepared._replace(axes=tuple(axes))

    def _is_special(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        present = full_mask(ids, attention_mask)
        behind = present.flip(-1).cumsum(-1).flip(-1) <= self._n_behind
        special = super()._is_special(ids, attention_mask)
        return special | (behind & present.bool())


def _stop(axis: TextAxis, length: int) -> int:
    """Where a suffix begins, behind the last token of a text of so many characters."""
    return 1 + max(
        index for index, span in enumerate(axis.spans) if span is not None and span[0] < length
    )


def _without_suffix(axis: TextAxis, text: str) -> TextAxis:
    stop = _stop(axis, len(text))
    behind = len(axis) - stop
    return TextAxis(
        axis.labels,
        axis.special[:stop] + tuple(not padded for padded in axis.padding[stop:]),
        axis.padding,
        text,
        axis.spans[:stop] + (None,) * behind,
    )


def _run_query(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    return _embeddings(model, input_ids=ids, attention_mask=full_mask(ids, mask))


def _embeddings(model: Any, input_ids: Tensor, **inputs: Tensor) -> Tensor:
    if model.config.model_type == "colpali":
        # The processor says so of all tokens: each sees all others.
        inputs["token_type_ids"] = torch.zeros_like(input_ids)
    return cast(Tensor, model(input_ids=input_ids, use_cache=False, **inputs).embeddings)


# Pages


def _pages(model: Any, processor: Any) -> ImageTower:
    blocks = find_blocks(model, _LANGUAGE_MODEL)
    if model.config.model_type == "colqwen2":
        return PageTower(
            model, _run_patches, blocks, ["vlm.visual"], answer=_no_patches, processor=processor
        )
    vision = model.config.vlm_config.vision_config
    size = (vision.image_size, vision.image_size)
    blank = processor.process_images([Image.new("RGB", size)])["input_ids"][0].tolist()
    n_patches = blank.count(processor.image_token_id)
    prompt = processor.tokenizer.convert_ids_to_tokens(blank[n_patches:])
    return ImageTower(
        model,
        partial(_run_page, ids=tuple(blank)),
        blocks,
        ["vlm.vision_tower"],
        patch=(vision.patch_size, vision.patch_size),
        image_size=size,
        image_processor=processor.image_processor,
        special=prompt,
        answer=partial(_no_image, n_patches=n_patches, width=vision.hidden_size),
    )


def _run_page(model: Any, pixels: Tensor, *, ids: tuple[int, ...]) -> Tensor:
    own = torch.tensor(ids, device=pixels.device).expand(len(pixels), -1)
    return _embeddings(
        model, input_ids=own, pixel_values=pixels, attention_mask=torch.ones_like(own)
    )


def _run_patches(model: Any, patches: Tensor, ids: Tensor, mask: Tensor, grid: Tensor) -> Tensor:
    return _embeddings(
        model, input_ids=ids, pixel_values=patches, attention_mask=mask, image_grid_thw=grid
    )


# What stands for the output of the vision model if the language model starts at a block.


def _no_image(states: Tensor, *, n_patches: int, width: int) -> Any:
    return SimpleNamespace(last_hidden_state=states.new_zeros((len(states), n_patches, width)))


def _no_patches(states: Tensor) -> Any:
    return SimpleNamespace(pooler_output=torch.zeros_like(states).flatten(0, 1))
