"""LeGrad."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr.first_order.attention_base import (
    AttentionAttribution,
    check_sees_all,
    pooled_position,
    token_embeddings,
)
from captum_interactions.attr.first_order.base import Side
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.model.attention import Recording
from captum_interactions.encoders.wrapper import widen


class LeGrad(AttentionAttribution):
    r"""Positive gradients of attention, where each block is asked for itself.

    Each of the last blocks l answers with the mean of the tokens that leave it,
    :math:`s_l = \cos(W \operatorname{LN}(\frac 1 T \sum_j h_j^{l+1}), t)`, projected as the pooled
    token is, with t the embedding of the other input. The map is

    .. math::
        M_j = \frac 1 L \sum_l \frac 1 {H T} \sum_{h, i}
        \max\Big(0, \frac{\partial s_l}{\partial A^{l, h}_{ij}}\Big) ,

    without special tokens. Padding counts in no mean. Not defined for causal towers, nor for those
    that pool several tokens: SigLIP's attention head would need its own gradient.

    Source: Bousselham, Boggust, Chaybouti, Strobelt and Kuehne, "LeGrad: An Explainability Method
    for Vision Transformers via Feature Formation Sensitivity" (arXiv 2404.03214). The published
    program stretches each map to [0, 1]; here it keeps its scale, so maps can be compared.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        n_blocks (int or pair of int, optional): How many of the last blocks count, in each tower.
            Default: 2, as in the authors' program

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a number of blocks is not positive.

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> a, b = LeGrad(wrapper).attribute(
        ...     batch.inputs, additional_forward_args=batch.additional_forward_args
        ... )
        >>> bool((a >= 0).all()), b is None
        (True, True)
    """

    needs = (
        "a class token or another token that is pooled alone, in a tower that is not causal, and "
        f"{AttentionAttribution.needs}"
    )
    cost = "2 forward passes of each input; a backward pass of one block for each block that counts"

    def __init__(
        self, wrapper: DualEncoderWrapper, n_blocks: int | tuple[int, int] | None = 2
    ) -> None:
        super().__init__(wrapper, n_blocks)

    def _map(
        self, side: Side, other: Side, recording: Recording, shown: Tensor, **_: Any
    ) -> Tensor:
        pooled_position(recording)
        check_sees_all(recording)
        length = recording.blocks[-1].output.shape[1]
        share = side.token_mask[:, :length]
        share = share / share.sum(1, keepdim=True)
        total = torch.zeros_like(share)
        for block in recording.blocks:
            mean = (block.output * share.to(block.output.dtype).unsqueeze(-1)).sum(1, keepdim=True)
            embedding = token_embeddings(side, mean).squeeze(1)
            score = (embedding * other.embedding).sum()
            (gradient,) = torch.autograd.grad(score, block.attention.weights, retain_graph=True)
            positive = widen(gradient.detach()).relu().mean(1)
            total = total + torch.einsum("bi,bij->bj", share, positive)
        return total / len(recording.blocks)
