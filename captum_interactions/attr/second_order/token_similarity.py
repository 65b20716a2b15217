"""Similarities of single tokens in the joint embedding space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr._utils.arguments import Normalization
from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr.second_order.base import BaselineFreeAttribution
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.wrapper import unit, widen


class TokenSimilarity(BaselineFreeAttribution):
    r"""Similarities of each token of a with each token of b, both embedded alone.

    The last hidden state of every token goes through the head of its tower. For the tokens of an
    image and of a text this is known as the image-text similarity map (ITSM):

    .. math::
        A_{ij} = \cos(e_i, f_j) , \qquad e_i = \mathrm{head}_a(h_i, h_i, \ldots, h_i) .

    A head pools its inputs, so it gets the state of one token at the place of every token. Where
    one token is pooled, as in CLIP, the result is the token's layer norm and projection; where
    states are averaged, it is the head's output for one of them; of attention pooling, the value
    projection remains. The model's own modules are used in all cases.

    The map shows which tokens are similar, not what the score consists of: it has no baseline, and
    its sum has no meaning. If the score is a sum over tokens, see
    :class:`~captum_interactions.attr.TokenDecomposition`.

    Tokens that determine the score need not be similar: Li et al. find that CLIP's background
    tokens are more similar to a text than the tokens of the object it names. On the bundled model
    (24 generated scenes, 53 phrases), too, the largest value lies on the named object in 17 % of
    the cases, and the share of positive values there is no larger than the object's area. Dot
    products instead of cosines, or no layer norm before the projection of the image, change little.

    Source: Li, Wang, Duan, Xu and Li, "Exploring visual interpretability for contrastive
    language-image pre-training", 2022 (arXiv 2209.07046). Other implementations omit the layer norm
    before the projection of image tokens; this one uses the model's own head.

    Args:
        normalization (str, optional): ``"cosine"``: cosines of tokens. ``"frozen"``: dot products
            over the norms of the embeddings of the pair. ``"none"``: dot products. Default:
            ``"cosine"``

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> similarity = TokenSimilarity(wrapper)
        >>> maps = similarity.attribute(batch.inputs, None, None, batch.additional_forward_args)
        >>> maps.shape == (1, len(batch.axes_a[0]), len(batch.axes_b[0]))
        True
    """

    needs = "two encoders with blocks"
    cost = "2 forward passes of each input, and its head for every token"

    def __init__(
        self, wrapper: DualEncoderWrapper, *, normalization: Normalization = "cosine"
    ) -> None:
        super().__init__(wrapper, None, normalization=normalization)

    def _default_layers(self, wrapper: DualEncoderWrapper) -> tuple[Layer, Layer]:
        for name, tower in (("a", wrapper.tower_a), ("b", wrapper.tower_b)):
            if not tower.n_blocks:
                raise ValueError(
                    f"{type(self).__name__} needs the last hidden states of both inputs, but "
                    f"tower {name} ({type(tower).__name__}) has no blocks"
                )
        return -1, -1

    @torch.no_grad()
    def _interactions(self, sides: tuple[LayerInputs, LayerInputs], **options: Any) -> Tensor:
        tokens = [self._tokens(side, **options) for side in sides]
        return tokens[0] @ tokens[1].transpose(1, 2)

    def _tokens(self, side: LayerInputs, **options: Any) -> Tensor:
        """Embeddings (B, T, K) of single tokens, whose products are the map."""
        tokens = widen(side.tower.embed_tokens(side.inputs, *side.extras, **options))
        if self.normalization == "cosine":
            tokens = unit(tokens)
        if self.normalization == "frozen":
            tokens = tokens / side.norms[0].unsqueeze(-1)
        return tokens * side.token_mask.unsqueeze(-1)
