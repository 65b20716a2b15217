"""The exact parts of a score whose embeddings are means over tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr.second_order.token_similarity import TokenSimilarity
from captum_interactions.encoders.wrapper import unit, widen


class TokenDecomposition(TokenSimilarity):
    r"""Parts of a score that is itself a sum over pairs of tokens.

    If an encoder averages the last hidden states of its tokens, and what follows is affine or a
    scaling to unit length, its embedding is (up to its length) the mean of the embeddings of single
    tokens, and the score is a double sum:

    .. math::
        g(a) = \frac{1}{T_a} \sum_i e_i , \quad h(b) = \frac{1}{T_b} \sum_j f_j , \qquad
        A_{ij} = \frac{\langle e_i, f_j \rangle}{T_a T_b \, |g(a)| \, |h(b)|} , \qquad
        \sum_{ij} A_{ij} = s(a, b) .

    It needs no baseline and is exact, but shallow: the last hidden state of token i depends on the
    whole input, so it stands for a position and not for what was there. The method checks on its
    inputs that the embedding is such a mean, and raises an error if it is not (one token is pooled,
    an attention pools, a perceptron follows);
    :class:`~captum_interactions.attr.TokenSimilarity` still works there.

    Source: Möller, Nikolaev and Padó, "An attribution method for Siamese encoders", EMNLP 2023
    (arXiv 2310.05703), where it serves for comparison.

    Args:
        normalization (str, optional): The score to explain. ``"cosine"`` and ``"frozen"`` are the
            same here, since the norms are those of the pair; ``"none"`` is the dot product, for
            models that do not scale to unit length themselves. Default: ``"cosine"``

    Raises:
        ValueError: If a tower has no blocks, or an option is not as described; on ``attribute``, if
            an embedding is not the mean over its tokens.
    """

    needs = "two encoders whose embedding is the mean over their tokens"

    def _tokens(self, side: LayerInputs, **options: Any) -> Tensor:
        tokens = widen(side.tower.embed_tokens(side.inputs, *side.extras, **options))
        parts = tokens * (side.token_mask / side.token_mask.sum(1, keepdim=True)).unsqueeze(-1)
        whole = widen(side.raw_embedding)
        if self.normalization != "none":
            parts = parts / parts.sum(1, keepdim=True).norm(dim=-1, keepdim=True)
            whole = unit(whole)
        self._check_mean(side.name, parts.sum(1), whole)
        return parts

    def _check_mean(self, name: str, mean: Tensor, whole: Tensor) -> None:
        gap = float(((mean - whole).norm(dim=-1) / whole.norm(dim=-1)).max())
        half = any(parameter.element_size() < 4 for parameter in self.wrapper.parameters())
        if not gap <= (0.05 if half else 1e-4):
            raise ValueError(
                f"{type(self).__name__} needs encoders whose embedding is the mean over their "
                f"tokens, but that of input {name} differs from it by {gap:.2g} of its length: the "
                "tower pools or scales otherwise (see TokenSimilarity)"
            )
