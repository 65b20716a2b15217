"""Text encoders of ``sentence-transformers`` that are not transformers with a dense embedding.

Static embeddings are means of one vector per token. Sparse encoders (SPLADE) return weights of all
words of a vocabulary. The package is not imported here.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_interactions.encoders.model.pooling import Pool
from captum_interactions.encoders.towers.text_tower import TextTower, full_mask


def is_static(model: Any) -> bool:
    """Whether a ``SentenceTransformer`` starts with static embeddings."""
    return bool(len(model)) and isinstance(getattr(model[0], "embedding", None), nn.EmbeddingBag)


def static_tower(model: Any, prompt: str = "") -> TextTower:
    """The tower of a model for which :func:`is_static` holds.

    Its only layer is ``"pool"``, the vectors of the tokens. The baseline consists of padding, or of
    unknown words.

    Raises:
        ValueError: If its vocabulary has neither token.
    """
    from transformers import PreTrainedTokenizerFast

    own = model[0].tokenizer
    names = ("[PAD]", "<pad>", "[UNK]", "<unk>")
    known = [name for name in names if own.token_to_id(name) is not None]
    pad = next(iter(known), None)
    unknown = next((name for name in known if name in ("[UNK]", "<unk>")), None)
    if pad is None:
        raise ValueError(
            f"the vocabulary of {type(model[0]).__name__} has none of {', '.join(names)}, of which "
            "a baseline could be made: model[0].tokenizer.add_special_tokens(['[PAD]'])"
        )

    class Plain(PreTrainedTokenizerFast):
        """Texts have no special tokens."""

        def __call__(self, *args: Any, **options: Any) -> Any:
            return super().__call__(*args, **options, add_special_tokens=False)

    tokenizer: Any = Plain(tokenizer_object=own, pad_token=pad, unk_token=unknown)  # type: ignore[no-untyped-call]
    config = SimpleNamespace(vocab_size=model[0].num_embeddings, pad_token_id=own.token_to_id(pad))
    static = StaticEncoder(model)
    tower = _PlainTexts(static, _static, [], config=config, tokenizer=tokenizer, prompt=prompt)
    tower.pool = Pool("vectors", is_default=True)
    return tower


class _PlainTexts(TextTower):
    """Texts without special tokens."""

    def _is_special(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return torch.zeros_like(ids, dtype=torch.bool)


class StaticEncoder(nn.Module):
    """Static embeddings with separate tokens; the module shares the model's weights."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        weight = model[0].embedding.weight
        self.vectors = nn.Embedding(weight.shape[0], weight.shape[1], device="meta")
        self.vectors.weight = weight
        self.rest = nn.ModuleList(list(model)[1:])

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (B, K) of texts (B, T)."""
        weights = mask.to(self.vectors.weight.dtype).unsqueeze(-1)
        features = {"sentence_embedding": (self.vectors(ids) * weights).sum(1) / weights.sum(1)}
        for module in self.rest:
            features = module(features)
        return cast(Tensor, features["sentence_embedding"])


def _static(model: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    return cast(Tensor, model(ids, full_mask(ids, mask)))


def is_splade(model: Any) -> bool:
    """Whether a ``SparseEncoder`` pools the logits of a masked language model."""
    kinds = [type(module).__name__ for module in model]
    return kinds in (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"])


def splade(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Embeddings (B, K) of texts (B, T) by a model for which :func:`is_splade` holds.

    K is the size of the vocabulary. The model's own score is the dot product: explain it with
    ``normalization="none"``. This is its ``SpladePooling`` without in-place operations, which break
    the derivative.
    """
    mask = full_mask(ids, mask)
    logits = model[0]({"input_ids": ids, "attention_mask": mask})["token_embeddings"]
    weights = (logits * mask.unsqueeze(-1)).relu().log1p()
    if model[1].activation_function == "log1p_relu":
        weights = weights.log1p()
    return cast(Tensor, weights.amax(1) if model[1].pooling_strategy == "max" else weights.sum(1))
