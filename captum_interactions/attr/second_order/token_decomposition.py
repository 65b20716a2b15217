"""The exact parts of a score whose embeddings are means over tokens."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from captum_interactions.attr.second_order.token_similarity import TokenEmbeddings, TokenSimilarity
from captum_interactions.encoders.wrapper import unit
from captum_interactions.functional import contract


class TokenDecomposition(TokenSimilarity):
    r"""Parts of a score that is itself a sum over pairs of tokens.

    If an encoder averages the last hidden states of its tokens, with nothing behind that is not
    affine or a scaling to unit length, its embedding is (up to its length) the mean of the
    embeddings of single tokens, and the score is a double sum:

    .. math::
        g(a) = \frac{1}{T_a} \sum_i e_i , \quad h(b) = \frac{1}{T_b} \sum_j f_j , \qquad
        A_{ij} = \frac{\langle e_i, f_j \rangle}{T_a T_b \, |g(a)| \, |h(b)|} , \qquad
        \sum_{ij} A_{ij} = s(a, b) .

    It needs no reference and is exact. It is also shallow: a last hidden state has seen all of its
    input, so token i stands for a place in it, not for what was there. That the embedding is such a
    mean is checked on the inputs; where it is not (one token is pooled, an attention pools, a
    perceptron follows), the method is refused, and
    :class:`~captum_interactions.attr.TokenSimilarity` still shows what tokens resemble.

    Source: Möller, Nikolaev and Padó, "An attribution method for Siamese encoders", EMNLP 2023
    (arXiv 2310.05703), where it is a point of comparison.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        normalization (str, optional): The score that is explained. ``"cosine"`` and ``"frozen"``
            are the same here, since the norms are those of the pair; ``"none"`` is the dot product,
            for models that do not scale to unit length themselves. Default: ``"cosine"``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a tower has no blocks, or the normalization is unknown; on ``attribute``, if
            an embedding is not the mean over its tokens.
    """

    needs = "two encoders whose embedding is the mean over their tokens"

    def _embed(
        self, inputs: tuple[Tensor, Tensor], *args: Any
    ) -> tuple[TokenEmbeddings, TokenEmbeddings]:
        a, b = super()._embed(inputs, *args)
        for name, side in (("a", a), ("b", b)):
            self._check_mean(name, side)
        return a, b

    def _map(self, a: TokenEmbeddings, b: TokenEmbeddings) -> Tensor:
        parts_a, parts_b = (self._parts(side) for side in (a, b))
        return contract(parts_a, parts_b)

    def _parts(self, side: TokenEmbeddings) -> Tensor:
        """What each token adds to the embedding that the score uses, (B, T, K)."""
        parts = side.tokens * (side.mask / side.mask.sum(1, keepdim=True)).unsqueeze(-1)
        if self.normalization == "none":
            return parts
        return cast(Tensor, parts / parts.sum(1, keepdim=True).norm(dim=-1, keepdim=True))

    def _check_mean(self, name: str, side: TokenEmbeddings) -> None:
        mean, whole = self._parts(side).sum(1), side.whole
        whole = whole if self.normalization == "none" else unit(whole)
        gap = float(((mean - whole).norm(dim=-1) / whole.norm(dim=-1)).max())
        half = any(parameter.element_size() < 4 for parameter in self.wrapper.parameters())
        if not gap <= (0.05 if half else 1e-4):
            raise ValueError(
                f"{type(self).__name__} needs encoders whose embedding is the mean over their "
                f"tokens, but that of input {name} differs from it by {gap:.2g} of its length: the "
                "tower pools or scales otherwise (see TokenSimilarity)"
            )
