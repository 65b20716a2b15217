"""MaskCLIP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr.first_order.attention_base import (
    AttentionAttribution,
    check_sees_all,
    recorded,
    token_embeddings,
)
from captum_interactions.attr.first_order.base import Side
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.model.attention import Recording, identity_weights


class MaskCLIP(AttentionAttribution):
    r"""Similarity of each token's own embedding to the other input.

    The attention that pools is taken out, so that each token keeps its own value vector on the way
    to an embedding. In a tower with a class token this is the last block's attention:

    .. math::
        u_j = h_j + W_o v_j , \qquad z_j = W \operatorname{LN}\big(u_j +
        \operatorname{MLP}(\operatorname{LN}(u_j))\big) , \qquad M_j = \cos(z_j, t) ,

    with t the embedding of the other input: the last block and the projection as the model has
    them, with an identity in the place of attention weights. A tower that pools behind its blocks,
    by attention from a probe (SigLIP) or by a mean, has its blocks untouched and each final state
    pooled alone, which for an attention head leaves its value path.

    Special tokens are zero. Not defined for causal towers, whose tokens stand for all that comes
    before them.

    Source: Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV 2022 (arXiv 2112.01071);
    for a pooling head, as Metagame's authors do (arXiv 2605.06295). The program of Grad-ECLIP
    multiplies its copy of this map by the cosine of keys; that is not done here.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> a, b = MaskCLIP(wrapper).attribute(
        ...     batch.inputs, additional_forward_args=batch.additional_forward_args
        ... )
        >>> bool(a.abs().max() <= 1), b is None
        (True, True)
    """

    needs = f"a tower that is not causal, with {AttentionAttribution.needs}"
    cost = "2 forward passes of each input, and its last block and projection once more"

    def __init__(self, wrapper: DualEncoderWrapper) -> None:
        super().__init__(wrapper, 1)

    def _map(
        self, side: Side, other: Side, recording: Recording, shown: Tensor, **_: Any
    ) -> Tensor:
        check_sees_all(recording)
        if recording.pooled is not None:
            recording = recorded(side, {recording.first: identity_weights})
        with torch.no_grad():
            embeddings = token_embeddings(side, recording.blocks[-1].output)
        return (embeddings * other.embedding.unsqueeze(1)).sum(-1)
