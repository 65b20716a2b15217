"""Shapley interactions of a dual encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_interactions.attr._utils.arguments import Normalization, check_count
from captum_interactions.attr._utils.coalition_games import Game
from captum_interactions.attr.second_order.interaction_index import InteractionIndex
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.functional import Quadrature, quadrature

_SAMPLED_NODES = 8
"""Nodes of the Shapley integral over drawn coalitions. On the bundled model, the effect of a player
changes so fast with p that five are too few."""


class ShapleyInteractions(InteractionIndex):
    r"""The joint effect of two tokens, with equal weight for coalitions of all sizes.

    The Shapley interaction index of token i of a with token j of b in the game
    :math:`s(S, T) = \langle g(a_S), h(b_T)\rangle` of all tokens is the integral of the weighted
    Banzhaf interactions over p, a sum over a few Gauss–Legendre nodes :math:`p_q` with weights
    :math:`w_q`:

    .. math::
        I_{ij} = \int_0^1 \langle E_p[\Delta_i g], E_p[\Delta_j h] \rangle \, dp
        = \sum_q w_q \langle E_{p_q}[\Delta_i g], E_{p_q}[\Delta_j h] \rangle .

    The integrand is a polynomial in p of a degree below the number n of players, so n / 2 nodes are
    exact. Coalitions that were drawn for one node are used for all of them, weighted by their
    probabilities. By default many are drawn (32 times the number of players, and a few more), since
    they must distinguish the players at every node; encoding them takes nearly all of the time. For
    a scene of the bundled model, half as many doubled the standard errors, to 45 % of the
    interactions (root mean square), and with a quarter they hid the interactions.

    :meth:`game` returns the Shapley values of all tokens and the Shapley interactions within each
    input as well; values sum to ``score − baseline`` (efficiency). :meth:`decompose` splits the
    values: the main effect of a token is its Shapley value minus half of its interactions with the
    other input (interactions within its own input stay in it), as in the n-Shapley values of Bordt
    and von Luxburg (2023). All parts sum to the score, and ``convergence_delta`` is the error of
    sampling and quadrature only: zero when all coalitions are enumerated.

    Source: Grabisch and Roubens, Int. J. Game Theory 1999, for the index; see
    :class:`BanzhafInteractions` for the products.

    Args:
        n_nodes (int, optional): Nodes of the integral over p. The error of too few nodes is in the
            ``convergence_delta``, not in the standard errors. Default: None, as many as make it
            exact, but at most eight for drawn coalitions

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> game = ShapleyInteractions(wrapper).game((torch.rand(1, 4), torch.rand(1, 5)))
        >>> values = game.main_effects_a.sum() + game.main_effects_b.sum()
        >>> torch.allclose(values, game.score - game.baseline, atol=1e-5)
        True
    """

    _share = 0.5
    _index = "SII"

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        n_nodes: int | None = None,
        normalization: Normalization = "cosine",
    ) -> None:
        super().__init__(wrapper, layers, normalization=normalization)
        if n_nodes is not None:
            check_count("n_nodes", n_nodes)
        self.n_nodes = n_nodes

    def _rule(self, n_players: int, is_exact: bool) -> Quadrature:
        n_nodes = self.n_nodes
        if n_nodes is None:
            # q nodes are exact up to the degree 2 q − 1.
            n_nodes = max(1, (n_players + 1) // 2)
            n_nodes = n_nodes if is_exact else min(n_nodes, _SAMPLED_NODES)
        return quadrature("gausslegendre", n_nodes, dtype=torch.float64)

    def _constant(self, game: Game) -> Tensor:
        return game.baseline
