"""CLIP Surgery."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr._utils.arguments import Baselines, Inputs
from captum_interactions.attr._utils.attention_run import AttentionRun
from captum_interactions.attr._utils.products import along_vector
from captum_interactions.attr.first_order.attention_base import AttentionAttribution, Blocks
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.attention import softmax_weights
from captum_interactions.encoders.wrapper import unit


class CLIPSurgery(AttentionAttribution):
    r"""Token embeddings from value-to-value attention, minus what all texts share.

    *Architecture surgery*: beside the model's own states :math:`h^l`, the last blocks feed a second
    path by attention of values to values, without MLPs,

    .. math::
        x^{l+1} = x^l + W_o \operatorname{softmax}(\tau v v^\top) v , \qquad x^{first} = h^{first} ,

    with values and scale :math:`\tau` of the model's own block. Its final states, pooled one by one
    and projected, are unit embeddings :math:`z_j`.

    *Feature surgery*: subtract what a token has in common with any text. With one redundant text,
    the baseline :math:`\varnothing`, whose embedding is subtracted from t,

    .. math::
        M_j = \langle z_j, t - t_\varnothing\rangle ,

    and with a set of redundant embeddings :math:`t_n` beside :math:`t_0 = t`, and c the embedding
    of the tower itself,

    .. math::
        w = \operatorname{softmax}_n(2 \langle c, t_n\rangle) , \qquad
        F_n = \frac{w_n}{\bar w} \, z_j \odot t_n , \qquad
        M_j = \sum_d \Big(F_0 - \frac 1 N \sum_n F_n\Big)_d .

    Special tokens are zero. Not defined for causal towers, nor for blocks that normalise after
    their parts, where a second path without MLPs has no meaning.

    Source: Li et al., "A Closer Look at the Explainability of Contrastive Language-Image
    Pre-training" (arXiv 2304.05653). From a single text the authors subtract the embedding of an
    empty string; here it is the wrapper's baseline (special tokens with padding between), or any
    other. They average each text over 85 prompts and use 59 class names as the redundant set: pass
    such embeddings as ``redundant``. They scale each map to [0, 1]; this implementation does not,
    and most tokens may be negative.

    Args:
        n_blocks (int or pair of int, optional): Number of last blocks that feed the second path, in
            each tower. Default: 6, as in the publication

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> a, b = CLIPSurgery(wrapper).attribute(batch.inputs, None, batch.additional_forward_args)
        >>> a.shape, b is None
        (torch.Size([1, 65]), True)
    """

    needs = (
        "a class token in a tower that is not causal and normalises before each part of a block, "
        f"and {AttentionAttribution.needs}"
    )
    cost = "3 forward passes of each input and 1 of its baseline"
    uses_baselines = True

    def __init__(self, wrapper: DualEncoderWrapper, n_blocks: Blocks = 6) -> None:
        super().__init__(wrapper, n_blocks)

    def attribute(
        self, inputs: Inputs, target: None = None, additional_forward_args: Any = None, *,
        baselines: Baselines = None, redundant: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
        """Attributions of the tokens of both inputs.

        Args:
            baselines (optional): The redundant inputs a and b: for each None (the wrapper's
                baseline), a number, or a tensor of the input's shape. That of b is used for the map
                of a, and the other way round. Default: None
            redundant (tuple, optional): Embeddings (N, K) of redundant inputs a and b, instead of
                the baselines. Those of b (``wrapper.encode_b`` of other texts) are used for the map
                of a. Default: none
        """
        if not isinstance(redundant, tuple) or len(redundant) != 2:
            raise ValueError("redundant must be a pair of embeddings (N, K) or None, for a and b")
        for name, embeddings in zip("ab", redundant, strict=True):
            if embeddings is not None and (embeddings.dim() != 2 or not len(embeddings)):
                raise ValueError(
                    f"redundant embeddings {name} must have shape (N, K), but have shape "
                    f"{tuple(embeddings.shape)}"
                )
        sets = {"a": redundant[0], "b": redundant[1]}
        return self._attribute(inputs, target, additional_forward_args, baselines, redundant=sets)

    def _attention_map(self, run: AttentionRun, **options: Any) -> Tensor:
        run.check_pooled()
        tokens, other = run.token_embeddings(run.second_path(_values_to_values)), run.other
        redundant = options["redundant"][other.name]
        if redundant is None:
            return along_vector(tokens, other.embedding - other.baseline_embedding)
        return feature_surgery(tokens, other.embedding, unit(redundant), run.side.embedding)


def feature_surgery(tokens: Tensor, target: Tensor, redundant: Tensor, own: Tensor) -> Tensor:
    """What tokens share with a target, minus what they share with redundant others.

    Args:
        tokens (Tensor): Unit embeddings of tokens, shape (B, T, K).
        target (Tensor): Unit embeddings to explain, shape (B, K).
        redundant (Tensor): Unit embeddings of others, shape (N, K).
        own (Tensor): Unit embedding of the input that the tokens are of, shape (B, K).

    Returns:
        Tensor: shape (B, T).
    """
    others = redundant.to(target).expand(len(target), -1, -1)
    every = torch.cat([target.unsqueeze(1), others], 1)
    weights = (2 * every @ own.unsqueeze(-1)).squeeze(-1).softmax(-1)
    weights = weights / weights.mean(-1, keepdim=True)
    weighted = every * weights.unsqueeze(-1)
    return along_vector(tokens, weighted[:, 0] - weighted.mean(1))


def _values_to_values(*args: Any) -> Tensor:
    *_, value, mask = args
    return softmax_weights(value, value, value, mask)
