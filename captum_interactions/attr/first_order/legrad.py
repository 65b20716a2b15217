"""LeGrad."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr._utils.attention_run import AttentionRun
from captum_interactions.attr.first_order.attention_base import POOLED, AttentionAttribution, Blocks
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.wrapper import widen


class LeGrad(AttentionAttribution):
    r"""Positive gradients of attention, where each block has a score of its own.

    The score of block l is that of the mean of its output tokens,
    :math:`s_l = \cos(W \operatorname{LN}(\frac 1 T \sum_j h_j^{l+1}), t)`, projected as the pooled
    token is, with t the embedding of the other input. The map is

    .. math::
        M_j = \frac 1 L \sum_l \frac 1 {H T} \sum_{h, i}
        \max\Big(0, \frac{\partial s_l}{\partial A^{l, h}_{ij}}\Big) ,

    without special tokens. Means exclude padding. Not defined for causal towers, nor for towers
    that pool several tokens: SigLIP's attention head would need its own gradient.

    Source: Bousselham, Boggust, Chaybouti, Strobelt and Kuehne, "LeGrad: An Explainability Method
    for Vision Transformers via Feature Formation Sensitivity" (arXiv 2404.03214). The published
    implementation scales each map to [0, 1]; this one does not, so that maps can be compared.

    Args:
        n_blocks (int or pair of int, optional): Number of last blocks to use, in each tower.
            Default: 2, as in the authors' implementation

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> a, b = LeGrad(wrapper).attribute(batch.inputs, None, batch.additional_forward_args)
        >>> bool((a >= 0).all()), b is None
        (True, True)
    """

    needs = f"{POOLED}, in a tower that is not causal, and {AttentionAttribution.needs}"
    cost = "2 forward passes of each input; a backward pass of one block for each block used"

    def __init__(self, wrapper: DualEncoderWrapper, n_blocks: Blocks = 2) -> None:
        super().__init__(wrapper, n_blocks)

    def _attention_map(self, run: AttentionRun, **_: Any) -> Tensor:
        run.check_pooled()
        run.check_not_causal()
        share = run.token_mask / run.token_mask.sum(1, keepdim=True)
        total = torch.zeros_like(share)
        for block in run.blocks:
            mean = (block.output * share.to(block.output.dtype).unsqueeze(-1)).sum(1, keepdim=True)
            score = run.token_scores(mean).sum()
            (gradient,) = torch.autograd.grad(score, block.attention.weights, retain_graph=True)
            positive = widen(gradient.detach()).relu().mean(1)
            total = total + torch.einsum("bi,bij->bj", share, positive)
        return total / len(run.blocks)
