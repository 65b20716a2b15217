r"""Coalition games with vector values: effects of players, and the products of two games.

A game maps every coalition S of n players to a vector ``g(S)`` of R^K, such as the embedding of an
input with only the tokens in S present. With every player in S independently with probability
p, and ``z_i`` the indicator of player i, the best linear approximation of the game is

    g(S) ≈ E[g] + Σᵢ (z_i − p) Δᵢ ,        Δᵢ = E[g(S ∪ i) − g(S \ i)] ,

and ``Δᵢ`` is the p-weighted Banzhaf value of player i. In the joint game ``<g(S), h(T)>`` of two
independent sets of players, the values are products: ``<E[g], E[h]>`` is the mean, ``<Δᵢ, E[h]>``
the Banzhaf value of player i, and ``<Δᵢ, Δⱼ>`` the Banzhaf interaction of i and j. Integrated over
p from 0 to 1, the last two are the Shapley value and the Shapley interaction index; both integrands
are polynomials of a degree below the number of players, so few Gauss–Legendre nodes are exact.

Sources: Marichal and Mathonet, "Weighted Banzhaf power and interaction indexes through weighted
approximations of games", EJOR 2011; Grabisch and Roubens, "An axiomatic approach to the concept of
interaction among players in cooperative games", Int. J. Game Theory 1999, for the integral.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Minimum eigenvalue of an invertible design matrix (ideal ones have eigenvalues of 1).
_SINGULAR = 1e-6
# Maximum number of elements of a temporary in the standard errors.
_CHUNK = 2**22


class Design(NamedTuple):
    """The linear maps from values of m coalitions to effects of n players, at Q probabilities."""

    members: Tensor
    """Membership of players in coalitions, bool, (m, n)."""
    nodes: Tensor
    """The probabilities, (Q,)."""
    weights: Tensor
    """Weight of each coalition at each probability, (Q, m)."""
    readout: Tensor
    """Maps values of coalitions to the mean and the effects, (Q, 1 + n, m)."""
    left_out: Tensor | None
    """Maps residuals of a pair of coalitions to those of a fit without it, (Q, m / 2, 2, 2); None
    if all coalitions are enumerated."""


class Effects(NamedTuple):
    """P effects on K outputs at Q probabilities: the mean and that of each player, or of pairs."""

    values: Tensor
    """shape (Q, P, K)."""
    readout: Tensor
    """Weight of each coalition's value in each effect, (Q, P, m)."""
    residuals: Tensor
    """Leave-one-pair-out residual of each coalition, (Q, m, K)."""
    is_exact: bool
    """Whether all coalitions were enumerated, so that there is no sampling error."""


def all_coalitions(n_players: int) -> Tensor:
    """Every coalition of n players, bool, (2^n, n)."""
    codes = torch.arange(2**n_players).unsqueeze(1)
    return (codes >> torch.arange(n_players)) % 2 == 1


def draw_coalitions(
    n_players: int, nodes: Tensor, n_samples: int, generator: torch.Generator
) -> Tensor:
    """Antithetic pairs of coalitions, equally many at each of Q inclusion probabilities.

    With uniform numbers ``u_i``, a pair is ``{i : u_i < p}`` and ``{i : 1 − u_i < p'}``, where p'
    is the node opposite p in the list of nodes. Within each coalition the players are independent;
    between the two, a player tends to be in only one. At p = p' = 1/2, and at Gauss–Legendre nodes,
    which are symmetric (p' = 1 − p), the two are complements: then interactions of an even number
    of players cancel in the errors of first-order effects, at p = 1/2 completely. At a single other
    p the reduction is small.

    The numbers of each player are stratified over the pairs (a Latin hypercube), so that the
    frequency of every player is close to p, also at an extreme p.

    Args:
        n_players (int): Number of players n.
        nodes (Tensor): Inclusion probabilities, shape (Q,).
        n_samples (int): Maximum number of coalitions.
        generator (torch.Generator): The random number generator.

    Returns:
        Tensor: bool, shape (m, n) with m the largest multiple of 2 Q up to ``n_samples``. Rows 2c
        and 2c + 1 are a pair.
    """
    n_pairs = n_samples // (2 * len(nodes))
    shape = (n_pairs, n_players)
    pairs = []
    for p, opposite in zip(nodes.tolist(), nodes.flip(0).tolist(), strict=True):
        strata = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(0)
        within = torch.rand(shape, generator=generator, dtype=torch.float64)
        u = (strata + within) / max(n_pairs, 1)
        pairs.append(torch.stack([u < p, u >= 1 - opposite], 1).flatten(0, 1))
    return torch.cat(pairs)


def enough_coalitions(n_players: int, n_nodes: int) -> int:
    """Number of drawn coalitions that determines the effects of n players at Q probabilities.

    There are ``1 + n`` effects at each. The minimum is half as many pairs; twice that number leaves
    enough residuals to estimate errors.
    """
    return 4 * n_nodes * (n_players + 2)


def design(members: Tensor, nodes: Tensor, *, is_exact: bool) -> Design:
    r"""Weighted least squares of values on ``1, z_1 − p, ..., z_n − p``, at each probability.

    If all 2^n coalitions are enumerated, the weights are their probabilities ``P_p(S)``, and the
    effects are exact. Coalitions of :func:`draw_coalitions` have weights
    ``P_p(S) / mean_q P_q(S)``: a coalition that was drawn for one node is used for all of them
    (multiple importance sampling with the balance heuristic, Veach and Guibas 1995). The weights do
    not exceed Q, and with a single node all are equal.

    Args:
        members (Tensor): All coalitions, or pairs of them, shape (m, n).
        nodes (Tensor): Inclusion probabilities, shape (Q,), in (0, 1).
        is_exact (bool): Whether these are all coalitions.

    Returns:
        Design: in float64 on the CPU. It does not depend on the values of the game.

    Raises:
        ValueError: If the coalitions do not determine the effects.
    """
    n_coalitions, n_players = members.shape
    nodes = nodes.double()
    p = nodes[:, None, None]
    sizes = members.sum(1)
    log_probability = sizes * nodes.log()[:, None] + (n_players - sizes) * (-nodes).log1p()[:, None]
    if is_exact:
        weights = log_probability.exp()
    else:
        weights = log_probability.softmax(0) * len(nodes) / max(n_coalitions, 1)
    scale = (p * (1 - p)).sqrt()
    ones = torch.ones(len(nodes), n_coalitions, 1, dtype=torch.float64)
    columns = torch.cat([ones, (members.double() - p) / scale], 2)
    weighted = (columns * weights.unsqueeze(2)).transpose(1, 2)
    normal = weighted @ columns
    is_singular = torch.linalg.eigvalsh(normal).amin() < _SINGULAR
    left_out = None
    if not is_singular:
        readout = torch.linalg.solve(normal, weighted)
        if not is_exact:
            pairs = columns.unflatten(1, (-1, 2))
            leverage = pairs @ readout.unflatten(2, (-1, 2)).permute(0, 2, 1, 3)
            left_out = torch.eye(2, dtype=torch.float64) - leverage
            is_singular = torch.linalg.det(left_out).amin() < _SINGULAR
    if is_singular:
        raise ValueError(
            f"{n_coalitions} coalitions at {len(nodes)} probabilities are too few to tell the "
            f"effects of {n_players} players apart: take n_samples of at least "
            f"{enough_coalitions(n_players, len(nodes))}"
        )
    if left_out is not None:
        left_out = torch.linalg.inv(left_out)
    readout[:, 1:] /= scale
    return Design(members, nodes, weights, readout, left_out)


def effects(design: Design, values: Tensor) -> Effects:
    """Mean ``E[g]`` and effects ``Δᵢ`` of all players, at each probability.

    Args:
        design (Design): The coalitions and their regression.
        values (Tensor): Their values ``g(S)``, shape (m, K).

    Returns:
        Effects: P = 1 + n, the mean first.
    """
    # A constant in all coalitions is a part of the mean only. It is subtracted before sums are
    # rounded, because embeddings may hardly differ.
    common = values.mean(0)
    values = values - common
    readout = design.readout.to(values)
    fitted = readout @ values
    residuals = values - fitted[:, :1] - _centred(design, values) @ fitted[:, 1:]
    fitted[:, 0] += common
    if design.left_out is not None:
        pairs = residuals.unflatten(1, (-1, 2))
        residuals = (design.left_out.to(values) @ pairs).flatten(1, 2)
    return Effects(fitted, readout, residuals, design.left_out is None)


def pair_effects(design: Design, effects: Effects, player: int) -> Effects:
    r"""Interactions of one player with each player of its own game.

    .. math:: \Delta_{ij} = E[(z_i - p)(z_j - p) \, g(S)] \, / \, (p (1 - p))^2

    The estimate replaces g by its residuals from the linear effects, fitted without the pair of
    coalitions in question. This changes no expectation and removes most of the noise.

    Args:
        design (Design): The coalitions.
        effects (Effects): The effects of :func:`effects`.
        player (int): The player i.

    Returns:
        Effects: P = n, one for each player j; zero at i itself.
    """
    p = design.nodes.to(effects.values)[:, None, None]
    centred = _centred(design, effects.values) / (p * (1 - p))
    weighted = centred * centred[..., player, None] * design.weights.to(p).unsqueeze(2)
    weighted[..., player] = 0
    readout = weighted.transpose(1, 2)
    return Effects(readout @ effects.residuals, readout, effects.residuals, effects.is_exact)


def products(a: Effects, b: Effects, weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Integrals over p of products of effects of two independent games, with standard errors.

    .. math::
        M_{ij} = \sum_q w_q \langle a_i(p_q), b_j(p_q) \rangle , \qquad
        \sigma_{ij}^2 = \sum_c \Big( \sum_q w_q \langle a_i^c(p_q), b_j(p_q) \rangle \Big)^2
        + \sum_d \Big( \sum_q w_q \langle a_i(p_q), b_j^d(p_q) \rangle \Big)^2 ,

    where :math:`a^c` is the change of a without the pair of coalitions c (the jackknife). The
    estimates of the two games are independent, so their variances add. The product of both errors
    is not subtracted; it is small, and the standard errors are slightly too large without it. The
    error of quadrature is not included.

    Args:
        a (Effects): Effects of the first game.
        b (Effects): Effects of the second game, at the same probabilities.
        weights (Tensor): Weight of each probability, shape (Q,).

    Returns:
        2-element tuple: ``M`` and ``σ``, each of shape (Pa, Pb).
    """
    weights = weights.to(a.values)
    values = torch.einsum("q,qik,qjk->ij", weights, a.values, b.values)
    variance = _variance(a, b.values, weights) + _variance(b, a.values, weights).T
    return values, variance.sqrt()


def _variance(sampled: Effects, fixed: Tensor, weights: Tensor) -> Tensor:
    """Variance of products by the sampling of one side, (P of sampled, P of fixed)."""
    n_sampled, n_fixed = sampled.values.shape[1], fixed.shape[1]
    total = fixed.new_zeros(n_sampled, n_fixed)
    if sampled.is_exact:
        return total
    scores = sampled.residuals @ fixed.transpose(1, 2) * weights[:, None, None]
    readout = sampled.readout.unflatten(2, (-1, 2))
    scores = scores.unflatten(1, (-1, 2))
    size = max(1, _CHUNK // max(1, n_sampled * n_fixed))
    for some, their in zip(readout.split(size, 2), scores.split(size, 1), strict=True):
        total += torch.einsum("qicr,qcrj->cij", some, their).square().sum(0)
    return total


def _centred(design: Design, like: Tensor) -> Tensor:
    """``z_i − p``, (Q, m, n)."""
    return design.members.to(like) - design.nodes.to(like)[:, None, None]
