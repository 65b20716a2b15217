"""CLIP Surgery."""

from __future__ import annotations

from typing import Any

import torch
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr.first_order.attention_base import (
    AttentionAttribution,
    check_sees_all,
    pooled_position,
    token_embeddings,
)
from captum_interactions.attr.first_order.base import Attributions, Side
from captum_interactions.attr.second_order.base import Baselines
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.model.attention import (
    Recording,
    UndefinedError,
    softmax_weights,
    states_with_attention,
)
from captum_interactions.encoders.wrapper import unit


class CLIPSurgery(AttentionAttribution):
    r"""Token embeddings from value-to-value attention, less what all texts share.

    *Architecture surgery*: beside the model's own states :math:`h^l`, the last blocks feed a second
    path by attention of values to values, without MLPs,

    .. math::
        x^{l+1} = x^l + W_o \operatorname{softmax}(\tau v v^\top) v , \qquad x^{first} = h^{first} ,

    with values and scale :math:`\tau` of the model's own block. Its final states, pooled one by one
    and projected, are unit embeddings :math:`z_j`.

    *Feature surgery*: what a token has in common with any text is taken off. With one redundant
    text, the reference :math:`\varnothing`, whose embedding is subtracted from t,

    .. math::
        M_j = \langle z_j, t - t_\varnothing\rangle ,

    and with a set of redundant embeddings :math:`t_n` beside :math:`t_0 = t`, and c the embedding
    of the tower itself,

    .. math::
        w = \operatorname{softmax}_n(2 \langle c, t_n\rangle) , \qquad
        F_n = \frac{w_n}{\bar w} \, z_j \odot t_n , \qquad
        M_j = \sum_d \Big(F_0 - \frac 1 N \sum_n F_n\Big)_d .

    Special tokens are zero. Not defined for causal towers, and only for blocks that normalise
    before their parts: elsewhere a second path without MLP has no meaning.

    Source: Li et al., "A Closer Look at the Explainability of Contrastive Language-Image
    Pre-training" (arXiv 2304.05653). The authors subtract the embedding of an empty string from a
    single text; here it is the wrapper's reference (special tokens with padding between), or any
    baseline. They average each text over 85 prompts and take 59 class names as the redundant set:
    pass such embeddings as ``redundant``.
    They stretch each map to [0, 1]; here it keeps its zero, below which most tokens may lie.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        n_blocks (int or pair of int, optional): How many of the last blocks feed the second path,
            in each tower. Default: 6, as the authors do

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a number of blocks is not positive.

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> a, b = CLIPSurgery(wrapper).attribute(
        ...     batch.inputs, additional_forward_args=batch.additional_forward_args
        ... )
        >>> a.shape, b is None
        (torch.Size([1, 145]), True)
    """

    needs = (
        "a class token in a tower that is not causal and normalises before each part of a block, "
        f"and {AttentionAttribution.needs}"
    )
    cost = "3 forward passes of each input and 1 of its reference"

    _with_references = True

    def __init__(
        self, wrapper: DualEncoderWrapper, n_blocks: int | tuple[int, int] | None = 6
    ) -> None:
        super().__init__(wrapper, n_blocks)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        target: None = None,
        additional_forward_args: Any = None,
        *,
        baselines: Baselines = None,
        redundant: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> Attributions:
        """Attributions of the tokens of both inputs.

        Args:
            inputs (tuple[Tensor, Tensor]): Aligned pairs as the towers take them, B rows each.
            target: Must be None; a similarity has a single output. Default: None
            additional_forward_args (optional): What the towers take beside their inputs: those of
                a, then those of b, B rows each. Default: None
            baselines (optional): The redundant inputs a and b: for each None (the wrapper's
                reference), a number, or a tensor of the input's shape. That of b serves the map
                of a, and the other way round. Default: None
            redundant (tuple, optional): Embeddings (N, K) of redundant inputs a and b, which take
                the place of the baseline. Those of b (``wrapper.encode_b`` of other texts) serve
                the map of a. Default: none

        Returns:
            tuple[Tensor | None, Tensor | None]: see :meth:`AttentionAttribution.attribute`.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If inputs are not what the towers take, or the method is defined for neither
                side.
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

    def _map(
        self, side: Side, other: Side, recording: Recording, shown: Tensor, **options: Any
    ) -> Tensor:
        pooled_position(recording)
        check_sees_all(recording)
        path = recording.blocks[0].states.detach()
        with torch.no_grad():
            for index, block in enumerate(recording.blocks, recording.first):
                if block.residual is None:
                    raise UndefinedError(
                        "its blocks do not normalise before their parts, so there is no residual "
                        "stream for a second path"
                    )
                states = block.states.detach()
                summed = states_with_attention(
                    side.tower, index, states, *side.context, residual=block.residual,
                    weigh=_of_values,
                )  # fmt: skip
                path = path + summed - states
            tokens = token_embeddings(side, path)
            redundant = options["redundant"][other.name]
            if redundant is None:
                difference = other.embedding - _reference(other)
                return (tokens @ difference.unsqueeze(-1)).squeeze(-1)
            return feature_surgery(tokens, other.embedding, unit(redundant), side.embedding)


def feature_surgery(tokens: Tensor, target: Tensor, redundant: Tensor, own: Tensor) -> Tensor:
    """What tokens share with a target and not with redundant others.

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
    return (tokens @ (weighted[:, 0] - weighted.mean(1)).unsqueeze(-1)).squeeze(-1)


def _reference(side: Side) -> Tensor:
    """Unit embeddings of a side's references, averaged, (B, K)."""
    embeddings = [
        unit(side.tower.embed(side.layer, start.expand_as(side.features), *side.context))
        for start in side.starts
    ]
    return torch.stack(embeddings).mean(0)


def _of_values(_: Tensor, __: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    return softmax_weights(value, value, value, mask)
