"""Pairwise ablation: the joint effect of two tokens beyond their individual effects."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import torch
from captum.attr import PerturbationAttribution
from torch import Tensor

from captum_interactions.attr._utils.arguments import Baselines, Groups, Inputs, Normalization
from captum_interactions.attr._utils.masking import masked_embeddings, removable
from captum_interactions.attr._utils.path import Path
from captum_interactions.attr._utils.products import along_vector
from captum_interactions.attr.second_order.base import SecondOrderAttribution, pair_score
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.functional import Decomposition, contract

Context = Literal["both", "present", "absent", "strength"]


class Archipelago(SecondOrderAttribution, PerturbationAttribution):
    r"""Differences of four scores: with both tokens, with either, and with neither of them.

    For token i of a and token j of b, in a context C of other tokens that are present,

    .. math::
        \omega_{ij}(C) = s(C + i + j) - s(C + i) - s(C + j) + s(C) ,

    where an absent token is replaced by its baseline. There are two contexts: all other tokens
    present, and all other tokens absent. The score may be any function, and no gradient is taken,
    so this method can check others. For a dual encoder each difference is a product,

    .. math::
        \omega_{ij}(C) = \langle g(C_a + i) - g(C_a), \; h(C_b + j) - h(C_b) \rangle ,

    so that ``2 (m_a + m_b) + 4`` embeddings of inputs with m tokens each give all ``2 m_a m_b``
    differences, instead of four scores each. If both encoders are additive in their tokens, both
    contexts give the same interaction.

    The published detector averages the squares of both, which gives a strength without a sign
    (``context="strength"``, with all distances h taken as 1); the default is their mean.

    Source: Tsang, Rambhatla and Liu, "How does this interaction affect me? Interpretable
    attribution for feature interactions", NeurIPS 2020 (arXiv 2006.10965), Sec. 3 and 4.

    Args:
        context (str, optional): ``"present"``, ``"absent"``, ``"both"`` for their mean, or
            ``"strength"`` for the mean of their squares. Default: ``"both"``

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> Archipelago(wrapper).attribute((torch.rand(2, 4), torch.rand(2, 5))).shape
        torch.Size([2, 4, 5])
    """

    cost = "2 forward passes of an input for each of its tokens, and 2 more; no backward pass"

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        normalization: Normalization = "cosine",
        context: Context = "both",
    ) -> None:
        super().__init__(wrapper, layers, normalization=normalization)
        if context not in get_args(Context):
            raise ValueError(
                f"context must be one of {', '.join(get_args(Context))}, but got {context!r}"
            )
        self.context = context

    def attribute(
        self, inputs: Inputs, baselines: Baselines = None, target: None = None,
        additional_forward_args: Any = None, *, groups_a: Groups | None = None,
        groups_b: Groups | None = None, internal_batch_size: int | None = 64,
        show_progress: bool = False,
    ) -> Tensor:  # fmt: skip
        """Interactions of every token of a with every token of b.

        Args:
            groups_a, groups_b (optional): Remove groups of tokens instead of tokens: a list of
                lists of token indices, or weights from 0 to 1 of shape (G, T) or (B, G, T). They
                must not share tokens; tokens in no group are always present. Default: None, every
                token by itself
            internal_batch_size (int, optional): Maximum number of rows that go through a tower at
                once; None for all. Default: 64
        """
        return self._attribute(
            inputs, baselines, target, additional_forward_args, groups_a, groups_b,
            internal_batch_size=internal_batch_size, show_progress=show_progress,
        )  # fmt: skip

    def decompose(
        self, inputs: Inputs, baselines: Baselines = None, additional_forward_args: Any = None, *,
        internal_batch_size: int | None = 64, show_progress: bool = False,
    ) -> Decomposition:  # fmt: skip
        """Interactions, and the effect of each token alone, ``s(i) - s()``.

        The constant is the score of both baselines. These parts do not add up to the score, unless
        both encoders are additive in their tokens.
        """
        return self._decompose(
            inputs, baselines, additional_forward_args,
            internal_batch_size=internal_batch_size, show_progress=show_progress,
        )  # fmt: skip

    def _interactions(self, sides: tuple[Path, Path], **options: Any) -> Tensor:
        return self._combined(*(_differences(path, **options) for path in sides))

    def _parts(self, sides: tuple[Path, Path], **options: Any) -> Decomposition:
        a, b = (_differences(path, **options) for path in sides)
        return Decomposition(
            constant=(a.empty * b.empty).sum(-1),
            main_effects_a=along_vector(a.absent, b.empty),
            main_effects_b=along_vector(b.absent, a.empty),
            interactions=self._combined(a, b),
            score=pair_score(sides),
        )

    def _combined(self, a: _Differences, b: _Differences) -> Tensor:
        if self.context == "absent":
            return contract(a.absent, b.absent)
        if self.context == "present":
            return contract(a.present, b.present)
        absent, present = contract(a.absent, b.absent), contract(a.present, b.present)
        if self.context == "strength":
            absent, present = absent.square(), present.square()
        return (absent + present) / 2


class _Differences(NamedTuple):
    """The effect of each token on the embedding of one input, in both contexts."""

    empty: Tensor
    """Embedding with no token, (B, K)."""
    absent: Tensor
    """With this token alone, minus with none, (B, G, K)."""
    present: Tensor
    """With all tokens, minus with all but this one, (B, G, K)."""


def _differences(path: Path, internal_batch_size: int | None, show_progress: bool) -> _Differences:
    own = removable(path)
    indices = own.any(0).nonzero().flatten()
    alone = torch.eye(own.shape[1], device=own.device)[indices]
    none, every = torch.zeros_like(alone[:1]), torch.ones_like(alone[:1])
    masks = torch.cat([alone, none, 1 - alone, every])
    masks = masks.unsqueeze(1).expand(-1, len(own), -1)
    embeddings = masked_embeddings(path, masks, internal_batch_size, show_progress)
    n = len(indices)
    with_one, empty, without, full = embeddings.split([n, 1, n, 1])

    def of_all(rows: Tensor) -> Tensor:
        values = rows.new_zeros((len(own), path.n_outputs, rows.shape[2]))
        return values.index_copy(1, indices, rows.transpose(0, 1)) * own.unsqueeze(-1)

    return _Differences(empty[0], of_all(with_one - empty), of_all(full - without))
