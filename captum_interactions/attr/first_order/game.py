"""Generic attention attribution (GAME)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr._utils.attention_run import AttentionRun
from captum_interactions.attr.first_order.attention_base import POOLED, AttentionAttribution, Blocks
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.wrapper import widen


class GAME(AttentionAttribution):
    r"""Generic attention-model explainability: attention weighted by its gradient, block by block.

    With :math:`A_l` the attention of block l and s the score, the relevance of one tower starts as
    :math:`R = I` and is propagated through the last blocks by

    .. math::
        \bar A_l = \frac 1 H \sum_h \max\Big(0, \frac{\partial s}{\partial A_l^h} \odot A_l^h\Big) ,
        \qquad R \leftarrow R + \bar A_l R .

    The map is the row of R of the pooled token (class token, or end of text), without special
    tokens.

    Source: Chefer, Gur and Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal
    and Encoder-Decoder Transformers", ICCV 2021 (arXiv 2103.15679). As there, heads are
    averaged after product and ReLU. The authors' implementation for CLIP divides a text's map by
    its sum; this one does not.

    Args:
        n_blocks (int or pair of int, optional): Number of last blocks that relevance is propagated
            through, in each tower. Default: 1, as in the authors' implementation for CLIP

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> a, b = GAME(wrapper).attribute(batch.inputs, None, batch.additional_forward_args)
        >>> bool((a >= 0).all() and (b >= 0).all())
        True
    """

    needs = f"{POOLED}, and {AttentionAttribution.needs}"
    cost = "2 forward passes of each input; a backward pass of its last blocks"

    def __init__(self, wrapper: DualEncoderWrapper, n_blocks: Blocks = 1) -> None:
        super().__init__(wrapper, n_blocks)

    def _attention_map(self, run: AttentionRun, **_: Any) -> Tensor:
        run.check_pooled()
        weights = [block.attention.weights for block in run.blocks]
        gradients = torch.autograd.grad(run.score, weights)
        relevance = torch.eye(weights[0].shape[-1]).to(widen(weights[0]))
        relevance = relevance.expand(len(weights[0]), -1, -1)
        for attention, gradient in zip(weights, gradients, strict=True):
            mean = (widen(gradient) * widen(attention)).relu().mean(1)
            relevance = relevance + mean @ relevance
        return run.pooled_row(relevance)
