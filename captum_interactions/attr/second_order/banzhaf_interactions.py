"""Banzhaf interactions of a dual encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_interactions.attr._utils.arguments import Normalization
from captum_interactions.attr._utils.coalition_games import Game
from captum_interactions.attr.second_order.interaction_index import InteractionIndex
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.functional import Quadrature


class BanzhafInteractions(InteractionIndex):
    r"""The joint effect of two tokens, averaged over random coalitions of the other tokens.

    For a dual encoder :math:`s(S, T) = \langle g(a_S), h(b_T)\rangle` of inputs with only the
    tokens S of a and T of b, each of them present with probability p independently of all others,
    the weighted Banzhaf interaction of token i of a with token j of b is the expected difference of
    differences

    .. math::
        I_{ij} = E\big[s(S \cup i, T \cup j) - s(S \setminus i, T \cup j)
        - s(S \cup i, T \setminus j) + s(S \setminus i, T \setminus j)\big]
        = \langle E[\Delta_i g], E[\Delta_j h] \rangle .

    It is a product of two vector-valued Banzhaf values, one of each encoder alone, so m coalitions
    of a and n of b take m + n encoder calls, where scores of all combinations would take m · n. The
    values come from least squares on first-order terms; with drawn coalitions, the result is that
    of least squares over all m · n scores on the terms :math:`1, z_i, w_j, z_i w_j`. If there are
    few players, all coalitions are enumerated, which is exact.

    :meth:`game` returns the weighted Banzhaf values of all tokens and the interactions within each
    input as well. :meth:`decompose` returns the least-squares approximation
    :math:`s(S, T) \approx c + \sum_i \alpha_i z_i + \sum_j \beta_j w_j + \sum_{ij} I_{ij} z_i w_j`
    itself; its ``convergence_delta`` is its value for the whole pair minus the score. This is not a
    numerical error: it contains all interactions within a and within b, and can be large.

    Source: Baniecki, Muschalik, Fumagalli, Hammer, Hüllermeier and Biecek, "Explaining Similarity
    in Vision–Language Encoders with Weighted Banzhaf Interactions", 2025 (arXiv 2508.05430); the
    index is that of Marichal and Mathonet, EJOR 2011.

    Args:
        p (float, optional): Probability that a token is present, in (0, 1). Default: 0.5

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> banzhaf = BanzhafInteractions(wrapper, p=0.3)
        >>> banzhaf.attribute((torch.rand(2, 4), torch.rand(2, 5))).shape
        torch.Size([2, 4, 5])
    """

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        p: float = 0.5,
        normalization: Normalization = "cosine",
    ) -> None:
        super().__init__(wrapper, layers, normalization=normalization)
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 < p < 1:
            raise ValueError(f"p must be a probability between 0 and 1, but got {p!r}")
        self.p = self._share = float(p)
        self._index = "BII" if p == 0.5 else "weighted BII"

    def _rule(self, n_players: int, is_exact: bool) -> Quadrature:
        one = torch.ones(1, dtype=torch.float64)
        return Quadrature(self.p * one, one)

    def _constant(self, game: Game) -> Tensor:
        """The least-squares approximation at the empty coalition, from that at the mean one."""
        effects = game.main_effects_a.sum(1) + game.main_effects_b.sum(1)
        return game.mean - self.p * effects + self.p**2 * game.interactions.sum((1, 2))
