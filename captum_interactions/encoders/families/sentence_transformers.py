"""The tower of a ``sentence-transformers`` model. The package is not imported here."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_interactions.callers import warn_caller
from captum_interactions.encoders.families.dual_models import context_length
from captum_interactions.encoders.families.single_models import is_single_model, text_blocks
from captum_interactions.encoders.families.trial import is_tested, try_out
from captum_interactions.encoders.towers.text_tower import TextTower, shortest

_OTHER_SCORES = {
    "CrossEncoder": "it reads both inputs as one text",
    "MultiVectorEncoder": "its score is a sum of best matches between many embeddings",
    "SparseEncoder": "it embeds a text as weights of words",
}
"""Kinds of models of the package that score pairs otherwise than by dense embeddings."""

_ROUTES = (
    "sends queries and documents through modules of their own. Make a SentenceTransformer of each "
    "route and wrap the two as a pair"
)

_OTHER_MODULES = {
    "Asym": _ROUTES,
    "Router": _ROUTES,
    "WeightedLayerPooling": "mixes the hidden states of several layers, so that no layer can be "
    "explained by itself",
}
"""Modules that are no part of one chain."""

_TESTED = frozenset(("Dense", "Dropout", "LayerNorm", "Normalize", "Pooling", "Transformer"))
"""Modules that are tested. Chains with others are tried out when they are wrapped."""


class _Sentences(TextTower):
    """Texts of a model that has a limit of its own, which may be more than its transformer has."""

    @property
    def context_length(self) -> int | None:
        return shortest(super().context_length, cast(Any, self.model).max_seq_length)


def is_sentence_model(model: Any) -> bool:
    """Whether a model is one of ``sentence-transformers``, a chain of modules."""
    return isinstance(model, nn.Sequential) and hasattr(model, "prompts")


def sentence_tower(model: Any, prompt_name: str | None = None) -> TextTower:
    """The tower of a model for which :func:`is_sentence_model` holds, with all of its modules.

    Args:
        model: The model: a transformer, its pooling, and whatever follows.
        prompt_name (str, optional): Which of the model's prompts comes before every raw text.
            Default: the model's own default, which is mostly none

    Raises:
        TypeError: If the model is no chain that starts with a text transformer.
        ValueError: If the model has no prompt of that name.
    """
    reason = _why_not(model)
    if reason is not None:
        raise TypeError(f"{type(model).__name__} cannot be explained: {reason}")
    name = prompt_name or model.default_prompt_name
    if name is not None and name not in model.prompts:
        known = ", ".join(model.prompts) or "none"
        raise ValueError(f"the model has no prompt {name!r}; its prompts are {known}")
    prompt = model.prompts[name] if name else ""
    transformer = next(
        f"0.{name}" for name, part in model[0].named_children() if part is model[0].auto_model
    )
    own_score = getattr(model, "similarity_fn_name", None) or "cosine"
    if own_score != "cosine" and "Normalize" not in {type(part).__name__ for part in model}:
        warn_caller(
            f"the model's own similarity is {str(own_score)!r}, but the wrapper's score is the "
            "cosine; attributions with normalization='none' explain the dot product"
        )
    blocks, answer = text_blocks(model, transformer)
    run = _sentence
    if prompt and any(not getattr(module, "include_prompt", True) for module in model):
        run = partial(_sentence, prompt_length=_prompt_length(model.tokenizer, prompt))
    tower = _Sentences(
        model,
        run,
        blocks,
        config=model[0].auto_model.config,
        tokenizer=model.tokenizer,
        context_length=context_length(model[0].auto_model),
        prompt=prompt,
        answer=answer,
    )
    tower.unit_modules = tuple(
        name for name, part in model.named_children() if type(part).__name__ == "Normalize"
    )
    if not is_tested(model[0].auto_model) or {type(part).__name__ for part in model} - _TESTED:
        try_out(tower)
    return tower


def _why_not(model: Any) -> str | None:
    """Why a model has no tower, in words."""
    if type(model).__name__ in _OTHER_SCORES:
        return _OTHER_SCORES[type(model).__name__]
    for module in model:
        if type(module).__name__ in _OTHER_MODULES:
            return f"its {type(module).__name__} {_OTHER_MODULES[type(module).__name__]}"
    first = model[0] if len(model) else None
    transformer = getattr(first, "auto_model", None)
    if not isinstance(transformer, nn.Module):
        return f"its first module, {type(first).__name__}, is no transformer in torch"
    if not is_single_model(transformer) or transformer.main_input_name != "input_ids":
        return (
            f"its {type(transformer).__name__} is not an encoder of texts alone. If it is a dual "
            "encoder, wrap model[0].auto_model itself"
        )
    if "message" in getattr(first, "modality_config", ()):
        return "it puts texts into the chat template of its tokenizer, so their words are not known"
    return None


def _prompt_length(tokenizer: Any, prompt: str) -> int:
    """How many tokens the package takes for the prompt: those of the prompt alone, without the end.

    A space at its end may be a token there, and with it the first word of a text belongs to the
    prompt. That is what the model's own embeddings leave out.
    """
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


def _sentence(
    model: Any, ids: Tensor, mask: Tensor | None = None, prompt_length: int | None = None
) -> Tensor:
    features = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids) if mask is None else mask,
    }
    if prompt_length is not None:
        features["prompt_length"] = cast(Any, prompt_length)
    embedding = model(features)["sentence_embedding"]
    return cast(Tensor, embedding[:, : getattr(model, "truncate_dim", None)])
