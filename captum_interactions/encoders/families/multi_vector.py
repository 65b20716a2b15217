"""The towers of a ``MultiVectorEncoder`` of ``sentence-transformers``: ColBERT and its relatives.

The package is not imported here. It also reads the models of PyLate and of Stanford's ColBERT.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_interactions.axes import TextAxis
from captum_interactions.encoders.families.dual_models import context_length
from captum_interactions.encoders.families.sentence_transformers import (
    TRANSFORMER,
    prompt_of,
    why_no_texts,
)
from captum_interactions.encoders.families.single_models import text_blocks
from captum_interactions.encoders.late_interaction import LateInteractionWrapper
from captum_interactions.encoders.towers.base import TowerInputs
from captum_interactions.encoders.towers.text_tower import TextTower, full_mask, shortest
from captum_interactions.encoders.towers.token_tower import TokenTower

Task = Literal["query", "document"]

_OWN_PROMPTS = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""Names of the prompts that the package takes for each task, in this order."""


def is_multi_vector(model: Any) -> bool:
    """Whether a model is a ``MultiVectorEncoder``."""
    return "MultiVectorEncoder" in {kind.__name__ for kind in type(model).__mro__}


def multi_vector_wrapper(
    model: Any, prompts: tuple[str | None, str | None] | None = None
) -> LateInteractionWrapper:
    """Wrap a model for which :func:`is_multi_vector` holds.

    Args:
        model: The model: a transformer of texts, and modules that change its tokens' embeddings.
        prompts (tuple, optional): Names of the prompts before queries and documents. Default: None,
            those that the model's ``encode_query`` and ``encode_document`` take

    Raises:
        TypeError: If the model is no such chain, or merges tokens.
        ValueError: If the model has no prompt of that name.
    """
    reason = why_no_texts(model) or _why_not(model)
    if reason is not None:
        raise TypeError(f"{type(model).__name__} cannot be explained: {reason}")
    names = prompts or (None, None)
    return LateInteractionWrapper(
        _token_tower(model, "query", names[0]), _token_tower(model, "document", names[1])
    )


def _why_not(model: Any) -> str | None:
    for module in model:
        if hasattr(module, "pool_one"):
            return (
                f"its {type(module).__name__} merges tokens, by a hard choice. Without it: "
                "wrap(type(model)(modules=[m for m in model if not hasattr(m, 'pool_one')], "
                "prompts=model.prompts))"
            )
    if model[0].query_expansion is not None and model.tokenizer.padding_side == "left":
        return (
            "it expands queries where its tokenizer puts padding, before them. Without expansion: "
            "model[0].query_expansion = None"
        )
    return None


def _token_tower(model: Any, task: Task, prompt_name: str | None) -> TokenTower:
    if prompt_name is None:
        own = (name for name in _OWN_PROMPTS[task] if name in model.prompts)
        prompt_name = next(own, None)
    texts = _Texts(model, task, prompt_of(model, prompt_name))
    is_mean = task == "query" and model.similarity_fn_name == "meanmaxsim"
    return TokenTower(texts, texts.counted, is_mean)


class _Texts(TextTower):
    """Queries or documents, with an embedding for each token.

    Queries may be *expanded* to a length by mask tokens, whose embeddings count in the score though
    other tokens may not attend to them. Expansion is a part of the baseline too.
    """

    def __init__(self, model: Any, task: Task, prompt: str) -> None:
        first, tokenizer = model[0], model.tokenizer
        blocks, answer = text_blocks(model, TRANSFORMER)
        expansion = first.query_expansion if task == "query" else None
        super().__init__(
            model,
            partial(_tokens, task=task),
            blocks,
            config=first.auto_model.config,
            tokenizer=tokenizer,
            context_length=context_length(first.auto_model),
            prompt=prompt,
            answer=answer,
        )
        self.task: Task = task
        self.expanded_length = 0 if expansion is None else int(expansion["length"])
        """The number of tokens that shorter queries are expanded to."""
        self.attends_to_expansion = expansion is None or bool(expansion["attend"])
        token = expansion and (expansion["token"] or tokenizer.mask_token or tokenizer.eos_token)
        self.expansion = token or ""

    @property
    def context_length(self) -> int | None:
        first = cast(Any, self.model)[0]
        return shortest(super().context_length, first.max_seq_length, _own_length(first, self.task))

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        ids, (mask,), axes = super().prepare(raw, truncation=truncation)
        mask = full_mask(ids, mask)
        missing = max(self.expanded_length - ids.shape[1], 0)
        ids, mask = F.pad(ids, (0, missing)), F.pad(mask, (0, missing))
        expansions = self._expansions(mask)
        axes = tuple(
            _expanded(cast(TextAxis, axis), places, self.expansion)
            for axis, places in zip(axes, expansions.tolist(), strict=True)
        )
        if self.expanded_length:
            ids = ids.masked_fill(expansions, self._expansion_id)
        if self.attends_to_expansion:
            mask = mask.masked_fill(expansions, 1)
        return TowerInputs(ids, (mask,), axes)

    def counted(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """True for tokens that count in the score, as the model's own mask says, (B, T)."""
        mask = full_mask(ids, attention_mask)
        features = {
            "input_ids": ids,
            "attention_mask": mask,
            "query_expansion_positions": self._expansions(mask),
        }
        for module in cast(Any, self.model):
            if hasattr(module, "skiplist_words"):
                features = module(features, task=self.task)
        return features["attention_mask"].bool()

    def token_mask(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor | None:
        seen = super().token_mask(inputs, attention_mask)
        if seen is None or self.attends_to_expansion:
            return seen
        # Others do not attend to it, but it has an embedding of its own.
        return seen | self._expansions(seen)

    @property
    def _expansion_id(self) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(self.expansion))

    def _expansions(self, mask: Tensor) -> Tensor:
        """Where queries are expanded: True in the place of padding, up to a length, (B, T)."""
        places = torch.arange(mask.shape[1], device=mask.device)
        return (mask == 0) & (places < self.expanded_length)

    def _is_special(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        special = super()._is_special(ids, attention_mask)
        return special | (ids == self._expansion_id) if self.expanded_length else special


def _expanded(axis: TextAxis, places: list[bool], label: str) -> TextAxis:
    """The axis of a text with expansions in some places, behind its end or in its padding."""
    missing = len(places) - len(axis)
    fields = (
        (*axis.labels, *("",) * missing),
        (*axis.special, *(False,) * missing),
        (*axis.padding, *(False,) * missing),
    )
    tokens = [
        (label, True, False) if new else old for new, *old in zip(places, *fields, strict=True)
    ]
    labels, special, padding = zip(*tokens, strict=True)
    return TextAxis(labels, special, padding, axis.text, (*axis.spans, *(None,) * missing))


def _own_length(transformer: Any, task: Task) -> int | None:
    """The model's present limit of queries or documents, in tokens."""
    if task == "document":
        return cast("int | None", transformer.document_length)
    own, expansion = transformer.query_length, transformer.query_expansion
    if expansion is not None and expansion["strategy"] == "fixed":
        own = expansion["length"]
    elif expansion is not None and own:
        own = max(own, expansion["length"])
    return cast("int | None", own)


def _tokens(model: Any, ids: Tensor, mask: Tensor | None = None, *, task: Task) -> Tensor:
    features = {"input_ids": ids, "attention_mask": full_mask(ids, mask)}
    return cast(Tensor, model(features, task=task)["token_embeddings"])
