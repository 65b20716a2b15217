"""The tower of a ``sentence-transformers`` model. The package is not imported here."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_interactions.encoders.cut import find_blocks, find_embeddings
from captum_interactions.encoders.text_tower import TextTower


def is_sentence_model(model: Any) -> bool:
    """Whether a model is a chain of modules that starts with a transformer and its tokenizer."""
    return (
        isinstance(model, nn.Sequential)
        and hasattr(model, "prompts")
        and hasattr(model[0], "auto_model")
        and hasattr(model, "tokenizer")
    )


def sentence_tower(model: Any, prompt_name: str | None = None) -> TextTower:
    """The tower of a model for which :func:`is_sentence_model` holds, with all of its modules.

    Args:
        model: The model: a transformer, its pooling, and whatever follows.
        prompt_name (str, optional): Which of the model's prompts comes before every raw text.
            Default: the model's own default, which is mostly none

    Raises:
        ValueError: If the model has no prompt of that name.
    """
    name = prompt_name or model.default_prompt_name
    if name is not None and name not in model.prompts:
        known = ", ".join(model.prompts) or "none"
        raise ValueError(f"the model has no prompt {name!r}; its prompts are {known}")
    prompt = model.prompts[name] if name else ""
    transformer = next(
        f"0.{name}" for name, part in model[0].named_children() if part is model[0].auto_model
    )
    tower = TextTower(
        model,
        _sentence,
        find_blocks(model, transformer),
        find_embeddings(model, transformer),
        config=model[0].auto_model.config,
        tokenizer=model.tokenizer,
        context_length=model.max_seq_length,
        prompt=prompt,
    )
    tower.unit_modules = tuple(
        name for name, part in model.named_children() if type(part).__name__ == "Normalize"
    )
    if prompt and any(not getattr(module, "include_prompt", True) for module in model):
        tower._run = partial(_sentence, prompt_length=tower._prompt_length())
    return tower


def _sentence(
    model: nn.Module, ids: Tensor, mask: Tensor | None = None, prompt_length: int | None = None
) -> Tensor:
    features = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids) if mask is None else mask,
    }
    if prompt_length is not None:
        features["prompt_length"] = cast(Any, prompt_length)
    return cast(Tensor, model(features)["sentence_embedding"])
