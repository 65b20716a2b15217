"""Attention rollout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr.first_order.attention_base import (
    AttentionAttribution,
    pooled_position,
    row_of,
)
from captum_interactions.attr.first_order.base import Side
from captum_interactions.encoders.model.attention import Recording
from captum_interactions.encoders.wrapper import widen


class AttentionRollout(AttentionAttribution):
    r"""How much attention the pooled token pays to each token, through all blocks.

    With :math:`\bar A_l` the attention of block l, averaged over heads,

    .. math::
        R = \prod_{l = L}^{1} \tfrac 1 2 (\bar A_l + I) ,

    whose rows sum to one. The map is the pooled token's row (class token, or end of text), without
    special tokens. It does not depend on the other input, and by construction is not negative: a
    baseline that any explanation of a pair should beat.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020 (arXiv
    2005.00928).

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        n_blocks (int or pair of int, optional): How many of the last blocks count, in each tower.
            Default: None, all

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a number of blocks is not positive.

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> a, b = AttentionRollout(wrapper).attribute(
        ...     batch.inputs, additional_forward_args=batch.additional_forward_args
        ... )
        >>> bool(a.sum() <= 1)
        True
    """

    needs = f"a class token or another token that is pooled alone, and {AttentionAttribution.needs}"
    cost = "2 forward passes of each input"

    def _map(
        self, side: Side, other: Side, recording: Recording, shown: Tensor, **_: Any
    ) -> Tensor:
        return row_of(rollout(recording), pooled_position(recording))


def rollout(recording: Recording) -> Tensor:
    """The product of all recorded blocks' attention with their residual paths, (B, T, T)."""
    flow: Tensor | None = None
    for block in recording.blocks:
        mean = widen(block.attention.weights.detach()).mean(1)
        step = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
        flow = step if flow is None else step @ flow
    assert flow is not None
    return flow
