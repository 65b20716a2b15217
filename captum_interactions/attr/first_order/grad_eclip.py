"""Grad-ECLIP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_interactions.attr._utils.attention_run import AttentionRun
from captum_interactions.attr.first_order.attention_base import POOLED, AttentionAttribution, Blocks
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.attention import Attention
from captum_interactions.encoders.wrapper import widen


class GradECLIP(AttentionAttribution):
    r"""Values of tokens, weighted by the gradient of the score and by scaled key similarities.

    In one block, let :math:`o = \sum_j A_{pj} v_j` be the output of attention for the pooled token
    p (class token, or end of text), before the output projection, and s the score. For every head
    h,

    .. math::
        w^h = \frac{\partial s}{\partial o^h} , \qquad
        \lambda^h_j = \operatorname{minmax}_j \cos(q^h_p, k^h_j) , \qquad
        M_j = \max\Big(0, \sum_l \sum_h \lambda^h_j \, \langle w^h, v^h_j\rangle\Big) .

    minmax scales the cosines of all tokens but special ones and padding to [0, 1]; if they are all
    equal, it is 1. Blocks l are summed before the ReLU.

    Source: Zhao et al., "Gradient-based Visual Explanation for Transformer-based CLIP", ICML 2024.
    This is their formula, applied to the model's own attention. The published implementation
    explains a different model: it recomputes the last block's attention with one head of the full
    width instead of the model's heads, so score and gradient are not the model's, and it applies
    the *output* projection to queries and keys before their cosine (see "Debunking Grad-ECLIP",
    arXiv 2605.12952). It also divides a text's map by its sum; this one does not. With one head,
    the formula above is the paper's.

    Args:
        n_blocks (int or pair of int, optional): Number of last blocks to sum, in each tower.
            Default: (1, 8), as in the publication for image and text

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> a, b = GradECLIP(wrapper).attribute(batch.inputs, None, batch.additional_forward_args)
        >>> bool((a >= 0).all() and (b >= 0).all())
        True
    """

    needs = f"{POOLED}, and {AttentionAttribution.needs}"
    cost = "2 forward passes of each input; a backward pass of its last blocks"

    def __init__(self, wrapper: DualEncoderWrapper, n_blocks: Blocks = (1, 8)) -> None:
        super().__init__(wrapper, n_blocks)

    def _attention_map(self, run: AttentionRun, **_: Any) -> Tensor:
        run.check_pooled()
        attentions = [block.attention for block in run.blocks]
        gradients = torch.autograd.grad(run.score, [attention.mixed for attention in attentions])
        total = torch.zeros_like(run.shown)
        for attention, gradient in zip(attentions, gradients, strict=True):
            weight = run.pooled_row(widen(gradient.detach()))
            gain = torch.einsum("bhd,bhjd->bhj", weight, widen(attention.value.detach()))
            total = total + (_scaled_cosines(run, attention) * gain).sum(1)
        return total.relu()


def _scaled_cosines(run: AttentionRun, attention: Attention) -> Tensor:
    """Cosines of the pooled token's query with all keys, scaled to [0, 1], (B, H, T)."""
    query = run.pooled_row(widen(attention.query.detach()).transpose(1, 2)).unsqueeze(2)
    cosine = F.cosine_similarity(query, widen(attention.key.detach()), dim=-1)
    hidden = run.shown.unsqueeze(1) == 0
    low = cosine.masked_fill(hidden, float("inf")).amin(-1, keepdim=True)
    high = cosine.masked_fill(hidden, float("-inf")).amax(-1, keepdim=True)
    scaled = torch.where(high > low, (cosine - low) / (high - low), torch.ones_like(cosine))
    return scaled.masked_fill(hidden, 0.0)
