"""Attention rollout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr._utils.attention_run import AttentionRun
from captum_interactions.attr.first_order.attention_base import POOLED, AttentionAttribution
from captum_interactions.encoders.attention import Recording
from captum_interactions.encoders.wrapper import widen


class AttentionRollout(AttentionAttribution):
    r"""The attention that the pooled token pays to each token, through all blocks.

    With :math:`\bar A_l` the attention of block l, averaged over heads,

    .. math::
        R = \prod_{l = L}^{1} \tfrac 1 2 (\bar A_l + I) ,

    whose rows sum to one. The map is the row of the pooled token (class token, or end of text),
    without special tokens. It does not depend on the other input and is never negative, so any
    explanation of a pair should be better.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020 (arXiv
    2005.00928).

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> rollout = AttentionRollout(wrapper)
        >>> a, b = rollout.attribute(batch.inputs, None, batch.additional_forward_args)
        >>> bool(a.sum() <= 1)
        True
    """

    needs = f"{POOLED}, and {AttentionAttribution.needs}"
    cost = "2 forward passes of each input"

    def _attention_map(self, run: AttentionRun, **_: Any) -> Tensor:
        return run.pooled_row(rollout(run.recording))


def rollout(recording: Recording) -> Tensor:
    """The product over all recorded blocks of attention with a residual path, (B, T, T)."""
    flow: Tensor | None = None
    for block in recording.blocks:
        mean = widen(block.attention.weights.detach()).mean(1)
        step = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
        flow = step if flow is None else step @ flow
    assert flow is not None
    return flow
