"""Similarities of single tokens in the joint space."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr._utils.inputs import check_input
from captum_interactions.attr._utils.path import Normalization
from captum_interactions.attr.second_order.base import (
    PairAttribution,
    check_pair,
    check_target,
    interactions_alone,
)
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.encoders.wrapper import unit, widen
from captum_interactions.functional import Decomposition


class TokenEmbeddings(NamedTuple):
    """Embeddings of the tokens of B inputs of one tower, and of the inputs themselves."""

    tokens: Tensor
    """Embeddings of single tokens, shape (B, T, K)."""
    mask: Tensor
    """1 for tokens that can reach the embedding, else 0, shape (B, T)."""
    whole: Tensor
    """Embeddings of the inputs, shape (B, K)."""


class TokenSimilarity(PairAttribution):
    r"""How similar is each token of a to each token of b, where both are embedded alone?

    The last hidden state of every token passes the head of its tower, which for the tokens of an
    image and of a text is known as the image-text similarity map (ITSM):

    .. math::
        A_{ij} = \cos(e_i, f_j) , \qquad e_i = \mathrm{head}_a(h_i, h_i, \ldots, h_i) .

    A head pools what it gets, so it is given the state of one token in the place of all. Where one
    token is pooled, as in CLIP, this is its layer norm and projection; where states are averaged,
    it is what the head makes of one of them; an attention pooling is left with its value
    projection. The model's own modules do it, whatever they are.

    The map says what tokens resemble, not what the score is made of: it has no reference, and
    nothing is promised about its sum. Where the score is made of its tokens, see
    :class:`~captum_interactions.attr.TokenDecomposition`.

    It can even be the opposite of a map of matches: Li et al. find that CLIP's tokens of the
    background resemble a text more than those of the object it names. On the bundled model, too,
    (24 generated scenes, 53 phrases) the largest value lies on the named object in 17 % of the
    cases, and the share of positive values there is no larger than the object's area. Dot products
    in place of cosines, or no layer norm before the projection of the image, change little.

    Source: Li, Wang, Duan, Xu and Li, "Exploring visual interpretability for contrastive
    language-image pre-training", 2022 (arXiv 2209.07046). Programs of others leave out the layer
    norm before the projection of image tokens; here the head is the model's own.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        normalization (str, optional): ``"cosine"``: cosines of tokens. ``"frozen"``: dot products
            over the norms of the embeddings of the pair. ``"none"``: dot products. Default:
            ``"cosine"``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a tower has no blocks, or the normalization is unknown.

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> maps = TokenSimilarity(wrapper).attribute(
        ...     batch.inputs, additional_forward_args=batch.additional_forward_args
        ... )
        >>> maps.shape == (1, len(batch.axes_a[0]), len(batch.axes_b[0]))
        True
    """

    needs = "two encoders with blocks"
    cost = "2 forward passes of each input, and its head for every token"

    def __init__(
        self, wrapper: DualEncoderWrapper, *, normalization: Normalization = "cosine"
    ) -> None:
        # Only so far as to see what the wrapper is.
        PairAttribution.__init__(self, wrapper, None, normalization)
        for name, tower in (("a", wrapper.tower_a), ("b", wrapper.tower_b)):
            if not tower.n_blocks:
                raise ValueError(
                    f"{type(self).__name__} needs the last hidden states of both inputs, but "
                    f"tower {name} ({type(tower).__name__}) has no blocks"
                )
        self.layers = (wrapper.tower_a.n_blocks - 1, wrapper.tower_b.n_blocks - 1)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: None = None,
        target: None = None,
        additional_forward_args: Any = None,
        *,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """Similarity maps of B pairs.

        Args:
            inputs (tuple[Tensor, Tensor]): Input a and input b, B rows each.
            baselines: Must be None; tokens are compared with nothing. Default: None
            target: Must be None. Default: None
            additional_forward_args (optional): What the towers take beside their inputs. Default:
                None
            internal_batch_size (int, optional): At most this many tokens pass a head at once.
                Default: None, all

        Returns:
            Tensor: shape (B, Ta, Tb). Padding is exactly zero.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If shapes or values are not as described.
        """
        check_target(target)
        a, b = self._embed(inputs, baselines, additional_forward_args, internal_batch_size)
        return self._map(a, b)

    def decompose(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: None = None,
        additional_forward_args: Any = None,
        *,
        internal_batch_size: int | None = None,
    ) -> Decomposition:
        """The map with the score. Constant and main effects, which it has not, are zero."""
        a, b = self._embed(inputs, baselines, additional_forward_args, internal_batch_size)
        return interactions_alone(self._map(a, b), self._score(a, b))

    def _map(self, a: TokenEmbeddings, b: TokenEmbeddings) -> Tensor:
        tokens_a, tokens_b = a.tokens, b.tokens
        if self.normalization == "cosine":
            tokens_a, tokens_b = unit(tokens_a), unit(tokens_b)
        maps = tokens_a @ tokens_b.transpose(1, 2)
        if self.normalization == "frozen":
            maps = maps / (a.whole.norm(dim=-1) * b.whole.norm(dim=-1))[:, None, None]
        return maps * a.mask.unsqueeze(2) * b.mask.unsqueeze(1)

    def _score(self, a: TokenEmbeddings, b: TokenEmbeddings) -> Tensor:
        if self.normalization == "none":
            return (a.whole * b.whole).sum(-1)
        return (unit(a.whole) * unit(b.whole)).sum(-1)

    def _embed(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: None,
        additional_forward_args: Any,
        internal_batch_size: int | None,
    ) -> tuple[TokenEmbeddings, TokenEmbeddings]:
        if baselines is not None:
            raise ValueError(
                f"{type(self).__name__} compares with no reference, so baselines must be None"
            )
        if internal_batch_size is not None and internal_batch_size < 1:
            raise ValueError(
                f"internal_batch_size must be at least 1, but got {internal_batch_size}"
            )
        check_pair(inputs)
        extras = self.wrapper.split_additional(additional_forward_args)
        towers = (self.wrapper.tower_a, self.wrapper.tower_b)
        with explaining(self.wrapper), torch.no_grad():
            checked = [
                check_input(name, tower, own, rest)
                for name, tower, own, rest in zip("ab", towers, inputs, extras, strict=True)
            ]
            a, b = (
                _token_embeddings(tower, own, rest, internal_batch_size)
                for tower, (own, rest) in zip(towers, checked, strict=True)
            )
        return a, b


def _token_embeddings(
    tower: Any, inputs: Tensor, extras: tuple[Any, ...], internal_batch_size: int | None
) -> TokenEmbeddings:
    tokens = widen(tower.embed_tokens(inputs, *extras, internal_batch_size=internal_batch_size))
    mask = tower.token_mask(inputs, *extras)
    mask = tokens.new_ones(tokens.shape[:2]) if mask is None else mask.to(tokens)
    return TokenEmbeddings(tokens, mask, widen(tower.encode(inputs, *extras)))
