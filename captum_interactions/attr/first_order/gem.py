"""GEM: grounding everything with self-self attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from captum_interactions.attr._utils.attention_run import AttentionRun
from captum_interactions.attr.first_order.attention_base import AttentionAttribution, Blocks
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.attention import softmax_weights


class GEM(AttentionAttribution):
    r"""Similarity of tokens to the other input, embedded with attention between similar tokens.

    Beside the model's own states, the last blocks feed a second path without MLPs. In a head of
    size d, each projection p (queries, keys, values) of the normalised states x is replaced by
    averages over similar tokens, and gives weights A to attend to the values with:

    .. math::
        A(p) = \operatorname{softmax}\big(\hat p \hat p^\top / \tau\big) , \quad
        \hat p = p / \|p\| , \quad \tau = \sqrt d \, / \operatorname{mean}_i \|x_i\| , \quad
        p \leftarrow A(p) \, \hat p .

    The weights of the three projections are averaged. The map is the cosine of each final state's
    embedding with that of the other input. Special tokens are zero. Not defined for causal towers,
    nor for blocks that normalise after their parts.

    Source: Bousselham, Petersen, Ferrari and Kuehne, "Grounding Everything: Emerging Localization
    Properties in Vision-Language Transformers", CVPR 2024 (arXiv 2312.00878), with one iteration.

    Args:
        n_blocks (int or pair of int, optional): Number of last blocks that feed the second path, in
            each tower. Default: 6, as in the authors' implementation
    """

    needs = f"a tower that is not causal and normalises first, with {AttentionAttribution.needs}"
    cost = "3 forward passes of each input"

    def __init__(self, wrapper: DualEncoderWrapper, n_blocks: Blocks = 6) -> None:
        super().__init__(wrapper, n_blocks)

    def _attention_map(self, run: AttentionRun, **_: Any) -> Tensor:
        return run.token_scores(run.second_path(_self_self_attention))


def _self_self_attention(run: AttentionRun, states: Tensor, *args: Any) -> Tensor:
    *projections, mask = args
    norms = (states.norm(dim=-1) * run.token_mask).sum(1) / run.token_mask.sum(1)
    scale = (norms / projections[0].shape[-1] ** 0.5)[:, None, None, None].to(states.dtype)
    weights = []
    for p in (normalize(projection, dim=-1) for projection in projections):
        q = normalize(softmax_weights(scale * p, p, p, mask) @ p, dim=-1)
        weights.append(softmax_weights(scale * q, q, q, mask))
    return torch.stack(weights).mean(0)
