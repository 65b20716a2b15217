"""The tower of a ``sentence-transformers`` model. The package is not imported here."""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from typing import Any, cast

from torch import Tensor, nn

from captum_interactions.encoders.families.dual_models import context_length, is_dual_model
from captum_interactions.encoders.families.single_models import is_single_model, text_blocks
from captum_interactions.encoders.families.trial import is_tested, try_out
from captum_interactions.encoders.families.word_weights import (
    is_splade,
    is_static,
    splade,
    static_tower,
)
from captum_interactions.encoders.model.pooling import Pool
from captum_interactions.encoders.towers.block_tower import Run
from captum_interactions.encoders.towers.text_tower import TextTower, full_mask, shortest
from captum_interactions.user_warnings import warn_caller

TRANSFORMER = "0.auto_model"
"""Name of a model's transformer."""

_MEAN_INSTEAD = "wrap(model[0].auto_model, model.tokenizer, pooling='mean')"
"""How to explain a model's transformer alone."""

_OTHER_SCORES = {
    "MultiVectorEncoder": "it encodes queries and documents, so it makes no pair with another one. "
    "By itself it can be wrapped: wrap(model)",
    "SparseEncoder": "only those that pool the logits of a masked language model (SPLADE) are "
    f"known. The encoder can be explained with a mean of its states: {_MEAN_INSTEAD}",
}
"""Models of the package that do not score a pair by dense embeddings."""

_OTHER_ROUTES = (
    "has other routes than 'query' and 'document'. Wrap two of them: "
    "wrap(tuple(SentenceTransformer(modules=[*route]) for route in model[0].sub_modules.values()))"
)

_OTHER_MODULES = {
    "Asym": _OTHER_ROUTES,
    "Router": _OTHER_ROUTES,
    "WeightedLayerPooling": "mixes the hidden states of several layers, so that no layer can be "
    f"explained by itself. Its transformer can be: {_MEAN_INSTEAD}",
}
"""Modules that are not a part of a chain."""

_TESTED = {
    *("Dense", "Dropout", "LayerNorm", "MLMTransformer", "Normalize", "Pooling", "SpladePooling"),
    "Transformer",
}
"""Tested modules. Chains with other modules are checked when they are wrapped."""


class _Sentences(TextTower):
    """Texts of a model with its own length limit, which may exceed that of its transformer."""

    @property
    def context_length(self) -> int | None:
        return shortest(super().context_length, cast(Any, self.model).max_seq_length)


def is_sentence_model(model: Any) -> bool:
    """Whether a model is one of ``sentence-transformers``, a chain of modules."""
    return isinstance(model, nn.Sequential) and hasattr(model, "prompts")


def sentence_tower(model: Any, prompt_name: str | None = None) -> TextTower:
    """The tower of a model for which :func:`is_sentence_model` holds, with all of its modules.

    Args:
        model: The model: a transformer, its pooling, and further modules.
        prompt_name (str, optional): Name of the model's prompt that is put before every raw text.
            Default: the model's own default, usually none

    Raises:
        TypeError: If the model is not a chain that starts with a text transformer.
        ValueError: If the model has no prompt of that name.
    """
    reason = None if is_static(model) or is_splade(model) else _why_not(model)
    if reason is not None:
        raise TypeError(f"{type(model).__name__} cannot be explained: {reason}")
    prompt = prompt_of(model, prompt_name)
    _warn_of_other_score(model)
    if is_static(model):
        return static_tower(model, prompt)
    blocks, answer = text_blocks(model, TRANSFORMER)
    run: Run = splade if is_splade(model) else _sentence
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
    if _pools_several(model):
        tower.pool = Pool("0", tokens=itemgetter("token_embeddings"), output=_with_tokens)
    tower.unit_modules = tuple(
        name for name, part in model.named_children() if type(part).__name__ == "Normalize"
    )
    if not is_tested(model[0].auto_model) or {type(part).__name__ for part in model} - _TESTED:
        try_out(tower)
    return tower


def prompt_of(model: Any, name: str | None = None) -> str:
    """The prompt of this name, or the model's default prompt; usually there is none.

    Raises:
        ValueError: If the model has no prompt of that name.
    """
    name = name or model.default_prompt_name
    if name is None:
        return ""
    if name not in model.prompts:
        known = ", ".join(model.prompts) or "none"
        raise ValueError(f"the model has no prompt {name!r}; its prompts are {known}")
    return cast(str, model.prompts[name] or "")


def routes(model: Any) -> tuple[Any, Any] | None:
    """A model for queries and one for documents, if the model routes them separately."""
    parts = getattr(model[0] if len(model) else None, "sub_modules", {})
    if not {"query", "document"} <= {*parts}:
        return None
    rest = list(model)[1:]
    options = {"device": str(model.device), "prompts": model.prompts}
    options["default_prompt_name"] = model.default_prompt_name
    first, second = (
        type(model)(modules=[*parts[name], *rest], **options) for name in ("query", "document")
    )
    for part in (first, second):
        part.similarity_fn_name = model.similarity_fn_name
        part.train(model.training)
    return first, second


def dual_inside(model: Any) -> tuple[Any, Any] | None:
    """A dual encoder that is the only module of a model, with its processor (``clip-ViT-B-32``)."""
    parts = [part for part in model if type(part).__name__ != "Normalize"]
    inside = getattr(parts[0], "auto_model", None) if len(parts) == 1 else None
    return (inside, parts[0].processor) if is_dual_model(inside) else None


def _warn_of_other_score(model: Any) -> None:
    own_score = getattr(model, "similarity_fn_name", None) or "cosine"
    if own_score != "cosine" and "Normalize" not in {type(part).__name__ for part in model}:
        warn_caller(
            f"the model's own similarity is {str(own_score)!r}, but the wrapper's score is the "
            "cosine; attributions with normalization='none' explain the dot product"
        )


def _pools_several(model: Any) -> bool:
    """Whether a model pools several tokens directly after its transformer."""
    modes = getattr(model[1], "pooling_mode", "cls") if len(model) > 1 else "cls"
    modes = (modes,) if isinstance(modes, str) else modes
    return any(mode not in ("cls", "lasttoken") for mode in modes)


def _with_tokens(tokens: Tensor, features: dict[str, Any], **_: Any) -> dict[str, Any]:
    return {**features, "token_embeddings": tokens}


def _why_not(model: Any) -> str | None:
    """The reason why a model is not supported."""
    if type(model).__name__ in _OTHER_SCORES:
        return _OTHER_SCORES[type(model).__name__]
    return why_no_texts(model)


def why_no_texts(model: Any) -> str | None:
    """Why a model is no chain that starts with a text transformer, in words; None if it is one."""
    for module in model:
        if type(module).__name__ in _OTHER_MODULES:
            return f"its {type(module).__name__} {_OTHER_MODULES[type(module).__name__]}"
    first = model[0] if len(model) else None
    transformer = getattr(first, "auto_model", None)
    if not isinstance(transformer, nn.Module):
        return (
            f"its first module, {type(first).__name__}, is no transformer in torch. Embeddings can "
            "be explained as real-valued inputs: wrap((model[1:], model[1:]))"
        )
    if not is_single_model(transformer) or transformer.main_input_name != "input_ids":
        return (
            f"its {type(transformer).__name__} is not an encoder of texts alone. If it is a dual "
            "encoder, take it itself: wrap(model[0].auto_model, model[0].processor)"
        )
    if "message" in getattr(first, "modality_config", ()):
        return (
            "it puts texts into the chat template of its tokenizer, so their words are not known. "
            "Without the template: wrap(model[0].auto_model, model.tokenizer, pooling='last')"
        )
    return None


def _prompt_length(tokenizer: Any, prompt: str) -> int:
    """Number of tokens that the package attributes to the prompt: those of the prompt by itself.

    A trailing space of the prompt may be a token of its own there, so that the first word of a text
    is counted as a part of the prompt. The model's own embeddings leave out the same tokens.
    """
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


def _sentence(
    model: Any, ids: Tensor, mask: Tensor | None = None, prompt_length: int | None = None
) -> Tensor:
    features = {
        "input_ids": ids,
        "attention_mask": full_mask(ids, mask),
    }
    if prompt_length is not None:
        features["prompt_length"] = cast(Any, prompt_length)
    embedding = model(features)["sentence_embedding"]
    return cast(Tensor, embedding[:, : getattr(model, "truncate_dim", None)])
