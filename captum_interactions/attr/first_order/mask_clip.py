"""MaskCLIP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr._utils.attention_run import AttentionRun, run_with_attention
from captum_interactions.attr.first_order.attention_base import AttentionAttribution
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.attention import identity_weights


class MaskCLIP(AttentionAttribution):
    r"""Similarity of each token's own embedding to the other input.

    The attention that pools is replaced by an identity, so that the embedding of each token comes
    from its own value vector. In a tower with a class token this is the last block's attention:

    .. math::
        u_j = h_j + W_o v_j , \qquad z_j = W \operatorname{LN}\big(u_j +
        \operatorname{MLP}(\operatorname{LN}(u_j))\big) , \qquad M_j = \cos(z_j, t) ,

    with t the embedding of the other input: the model's own last block and projection, with an
    identity instead of its attention weights. In a tower that pools after its blocks, by attention
    from a probe (SigLIP) or by a mean, the blocks are unchanged and each final state is pooled
    alone, which for an attention head leaves its value path.

    Special tokens are zero. Not defined for causal towers, whose tokens also stand for all
    tokens before them.

    Source: Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV 2022 (arXiv 2112.01071);
    for a pooling head, as in Metagame (arXiv 2605.06295). The implementation of Grad-ECLIP
    multiplies its copy of this map by the cosine of keys; this one does not.

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> a, b = MaskCLIP(wrapper).attribute(batch.inputs, None, batch.additional_forward_args)
        >>> bool(a.abs().max() <= 1), b is None
        (True, True)
    """

    needs = f"a tower that is not causal, with {AttentionAttribution.needs}"
    cost = "2 forward passes of each input, and its last block and projection once more"

    def __init__(self, wrapper: DualEncoderWrapper) -> None:
        super().__init__(wrapper, 1)

    def _attention_map(self, run: AttentionRun, **_: Any) -> Tensor:
        run.check_not_causal()
        if run.recording.pooled is not None:
            last = {run.recording.first: identity_weights}
            run = run_with_attention(run.side, run.other, last)
        with torch.no_grad():
            return run.token_scores(run.blocks[-1].output)
