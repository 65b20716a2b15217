"""Pairwise ablation: what two parts do together that neither does alone."""

from __future__ import annotations

from typing import Any, Literal

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr._utils.masking import masked_embeddings, players
from captum_interactions.attr._utils.path import Groups, Normalization, Path
from captum_interactions.attr.second_order.base import Baselines, PairAttribution, check_target
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.functional import Decomposition, contract

Context = Literal["both", "present", "absent", "strength"]
_CONTEXTS = ("both", "present", "absent", "strength")


class Archipelago(PairAttribution, PerturbationAttribution):
    r"""Four scores a pair of parts: with both, with either, and with neither of them.

    For part i of a and part j of b, in a context C of other parts that are present,

    .. math::
        \omega_{ij}(C) = s(C + i + j) - s(C + i) - s(C + j) + s(C) ,

    where a part that is absent is at its reference. Two contexts are looked at: all others are
    present, and all others are absent. Nothing is assumed of the score and no gradient is taken,
    which makes this a check of other methods. For a dual encoder each of the differences is a
    product,

    .. math::
        \omega_{ij}(C) = \langle g(C_a + i) - g(C_a), \; h(C_b + j) - h(C_b) \rangle ,

    so that ``2 (m_a + m_b) + 4`` embeddings of m parts each give all ``2 m_a m_b`` of them, in
    place of four scores each. If both encoders are additive in their parts, both contexts are the
    interaction itself.

    The published detector takes the mean of both squares as a strength, which has no sign
    (``context="strength"``, with all distances h taken as 1); by default the mean itself is given.

    Source: Tsang, Rambhatla and Liu, "How does this interaction affect me? Interpretable
    attribution for feature interactions", NeurIPS 2020 (arXiv 2006.10965), Sec. 3 and 4.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers, normalization (optional): As of
            :class:`~captum_interactions.attr.InteractionLIME`.
        context (str, optional): ``"present"``, ``"absent"``, ``"both"`` for their mean, or
            ``"strength"`` for the mean of their squares. Default: ``"both"``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist, or the normalization or context is unknown.

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> Archipelago(wrapper).attribute((torch.rand(2, 4), torch.rand(2, 5))).shape
        torch.Size([2, 4, 5])
    """

    cost = "2 forward passes of an input for each of its parts, and 2 more; no backward pass"

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        normalization: Normalization = "cosine",
        context: Context = "both",
    ) -> None:
        PairAttribution.__init__(self, wrapper, layers, normalization)
        if context not in _CONTEXTS:
            raise ValueError(f"context must be one of {', '.join(_CONTEXTS)}, but got {context!r}")
        self.context = context

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        target: None = None,
        additional_forward_args: Any = None,
        *,
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
        internal_batch_size: int | None = 64,
        show_progress: bool = False,
    ) -> Tensor:
        """Interactions of every part of a with every part of b.

        Args:
            inputs (tuple[Tensor, Tensor]): Input a and input b, B rows each.
            baselines (None, scalar, Tensor or tuple, optional): The references, as in
                :meth:`SecondOrderIntegratedGradients.attribute
                <captum_interactions.SecondOrderIntegratedGradients.attribute>`. Default: None
            target: Must be None. Default: None
            additional_forward_args (optional): What the towers take beside their inputs. Default:
                None
            groups_a, groups_b (optional): Parts that are groups of tokens: a list of lists of
                token indices, or weights from 0 to 1 of shape (G, T) or (B, G, T). They must not
                share tokens; tokens in no group are always present. Default: None, every token
            internal_batch_size (int, optional): At most this many rows go through a tower at once;
                None for all. Default: 64
            show_progress (bool, optional): Show progress bars. Default: False

        Returns:
            Tensor: shape (B, Ta, Tb), or (B, Ga, Gb) with groups. Padding is exactly zero.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If shapes, values or options are not as described, or groups share tokens.
        """
        check_target(target)
        with explaining(self.wrapper):
            paths = self._open(inputs, baselines, additional_forward_args, groups_a, groups_b)
            a, b = _both_sides(paths, internal_batch_size, show_progress)
            return self._interactions(a, b)

    def decompose(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        additional_forward_args: Any = None,
        *,
        internal_batch_size: int | None = 64,
        show_progress: bool = False,
    ) -> Decomposition:
        """Interactions, with what each part does alone: ``s(i) - s()``, when all else is absent.

        The constant is the score of both references. These parts do not add up to the score,
        unless both encoders are additive in their parts; the arguments are those of
        :meth:`attribute`.
        """
        with explaining(self.wrapper):
            path_a, path_b = paths = self._open(inputs, baselines, additional_forward_args)
            a, b = _both_sides(paths, internal_batch_size, show_progress)
            return Decomposition(
                constant=(a.empty * b.empty).sum(-1),
                main_effects_a=(a.absent @ b.empty.unsqueeze(-1)).squeeze(-1),
                main_effects_b=(b.absent @ a.empty.unsqueeze(-1)).squeeze(-1),
                interactions=self._interactions(a, b),
                score=(path_a.embedding * path_b.embedding).sum(-1),
            )

    def _interactions(self, a: _Differences, b: _Differences) -> Tensor:
        if self.context == "absent":
            return contract(a.absent, b.absent)
        if self.context == "present":
            return contract(a.present, b.present)
        absent, present = contract(a.absent, b.absent), contract(a.present, b.present)
        if self.context == "strength":
            absent, present = absent.square(), present.square()
        return (absent + present) / 2


class _Differences:
    """What each part of B inputs of one tower adds to the embedding, in both contexts."""

    def __init__(
        self, path: Path, mine: Tensor, internal_batch_size: int | None, show_progress: bool
    ) -> None:
        live = mine.any(0).nonzero().flatten()
        alone = torch.eye(mine.shape[1], device=mine.device)[live]
        none, every = torch.zeros_like(alone[:1]), torch.ones_like(alone[:1])
        masks = torch.cat([alone, none, 1 - alone, every])
        masks = masks.unsqueeze(1).expand(-1, len(mine), -1)
        embeddings = masked_embeddings(path, masks, internal_batch_size, show_progress)
        alone, empty, without, full = embeddings.split([len(live), 1, len(live), 1])
        self.empty = empty[0]
        """Embedding with no part, (B, K)."""
        self.absent = _of_all(alone - empty, path, live, mine)
        """From no part to this one alone, (B, G, K)."""
        self.present = _of_all(full - without, path, live, mine)
        """From all parts but this one to all, (B, G, K)."""


def _of_all(rows: Tensor, path: Path, live: Tensor, mine: Tensor) -> Tensor:
    """Rows (G', B, K) of some parts as those of all parts, (B, G, K); others are zero."""
    values = rows.new_zeros((rows.shape[1], path.n_outputs, rows.shape[2]))
    return values.index_copy(1, live, rows.transpose(0, 1)) * mine.unsqueeze(-1)


def _both_sides(
    paths: tuple[Path, Path], internal_batch_size: int | None, show_progress: bool
) -> tuple[_Differences, _Differences]:
    mine_a, mine_b = (players(path) for path in paths)
    return (
        _Differences(paths[0], mine_a, internal_batch_size, show_progress),
        _Differences(paths[1], mine_b, internal_batch_size, show_progress),
    )
