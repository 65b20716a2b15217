"""Banzhaf and Shapley interactions of a dual encoder."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr._utils.coalition_games import Game, play
from captum_interactions.attr._utils.path import Groups, Normalization
from captum_interactions.attr._utils.players import Masking, open_players
from captum_interactions.attr.second_order.base import (
    Baselines,
    check_explainer,
    check_target,
    each_option,
    first_layers,
    resolve_layers,
)
from captum_interactions.encoders import DualEncoderWrapper, Layer, Tower
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.functional import Decomposition, Quadrature, quadrature

_SAMPLED_NODES = 8
"""Nodes of the Shapley integral over drawn coalitions. On the bundled model, where a player matters
changes so fast with p that five are too few."""


class InteractionIndex(PerturbationAttribution):
    """What Banzhaf and Shapley interactions have in common: players, masking and sampling."""

    order: ClassVar[Literal[1, 2]] = 2
    needs: ClassVar[str] = "two encoders"
    cost: ClassVar[str] = "n_samples forward passes of each encoder from the layer on"

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        normalization: Normalization = "cosine",
    ) -> None:
        check_explainer(type(self).__name__, wrapper, normalization)
        self.layers = resolve_layers(wrapper, first_layers(wrapper) if layers is None else layers)
        PerturbationAttribution.__init__(self, wrapper)
        self.wrapper = wrapper
        self.normalization: Normalization = normalization

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        target: None = None,
        additional_forward_args: Any = None,
        *,
        n_samples: int | tuple[int | None, int | None] | None = None,
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
        masking: Masking | tuple[Masking, Masking] = "reference",
        perturbations_per_eval: int = 64,
        seed: int = 0,
        show_progress: bool = False,
    ) -> Tensor:
        """Interaction maps of B aligned pairs.

        Players are tokens, or groups of them. A token with the features of its reference looks the
        same present or absent, so it is no player and its entries are zero. At the embeddings these
        are the special tokens, which references keep: they stay in place. So does padding. (Where
        blocks have mixed the tokens, the class token differs from its reference and is a player.)

        Args:
            inputs (tuple[Tensor, Tensor]): Input a and input b as the towers take them, B rows each
                (for CLIP: pixel values and token ids).
            baselines (None, scalar, Tensor or tuple, optional): What absent tokens look like. A
                tuple gives one for each input; each is None (the wrapper's own reference), a
                constant, or a tensor of the input's shape or with one row for all pairs. A bare
                scalar serves both inputs; a bare tensor serves input a alone. Default: None
            target: Must be None; a similarity has a single output. Default: None
            additional_forward_args (optional): What the towers take beside their inputs: those of
                a, then those of b (for CLIP: the attention mask), B rows each. Default: None
            n_samples (int or tuple, optional): At most this many coalitions of each input, or of a
                and of b, are encoded for a pair. If there are no more than that in all, every one
                is encoded and nothing is random; otherwise antithetic pairs are drawn. Default:
                1024, or more if that many players need it
            groups_a, groups_b (optional): Players that are groups of tokens (words, phrases, boxes,
                segments): a list of lists of token indices, or zeros and ones of shape (G, T) or
                (B, G, T). No token may be in two groups, and those in none are always present.
                Default: None, every token by itself
            masking (str or tuple, optional): How tokens are absent: ``"reference"`` puts the
                reference's features in their place, at the layer; ``"attention"`` takes them out of
                the tower's ``attention_mask``, in all blocks. A tuple gives one for each input.
                Default: ``"reference"``
            perturbations_per_eval (int, optional): At most this many masked inputs are encoded at
                once. Default: 64
            seed (int, optional): Seed of the coalitions; the global random numbers are left alone.
                Every pair of a batch gets the coalitions that it gets alone. Default: 0
            show_progress (bool, optional): Show a progress bar. Default: False

        Returns:
            Tensor: shape (B, Ta, Tb) over all tokens, or (B, Ga, Gb) with groups. In float32 or
            wider.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If shapes, values or options are not as described, a tower has no attention
                mask to take tokens out of, or the samples are too few for the players. No coalition
                has been encoded then.
        """
        check_target(target)
        return self.game(
            inputs,
            baselines,
            additional_forward_args,
            n_samples=n_samples,
            groups_a=groups_a,
            groups_b=groups_b,
            masking=masking,
            perturbations_per_eval=perturbations_per_eval,
            seed=seed,
            intra=False,
            show_progress=show_progress,
        ).interactions

    def game(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        additional_forward_args: Any = None,
        *,
        n_samples: int | tuple[int | None, int | None] | None = None,
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
        masking: Masking | tuple[Masking, Masking] = "reference",
        perturbations_per_eval: int = 64,
        seed: int = 0,
        intra: bool = True,
        show_progress: bool = False,
    ) -> Game:
        """All terms of first and second order of the joint games, with their standard errors.

        They come from the same coalitions as the interactions alone. The arguments are those of
        :meth:`attribute`, and

        Args:
            intra (bool, optional): Whether to read the interactions within each input too, which
                encodes nothing more. Default: True

        Returns:
            Game: values of single players, interactions across and within the inputs, standard
            errors, and the scores with all players and with none.
        """
        _check_count("perturbations_per_eval", perturbations_per_eval, least=1)
        limits = each_option("n_samples", n_samples)
        for limit in limits:
            if limit is not None:
                _check_count("n_samples", limit, least=2)
        with explaining(self.wrapper), torch.no_grad():
            _, sides = open_players(
                self.wrapper,
                self.layers,
                inputs,
                baselines,
                additional_forward_args,
                groups_a,
                groups_b,
                masking=masking,
                normalization=self.normalization,
            )
            return play(
                list(zip(*sides, strict=True)),
                self._rule,
                self._index,
                n_samples=limits,
                batch_size=perturbations_per_eval,
                seed=seed,
                intra=intra,
                show_progress=show_progress,
            )

    def decompose(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        additional_forward_args: Any = None,
        *,
        n_samples: int | tuple[int | None, int | None] | None = None,
        masking: Masking | tuple[Masking, Masking] = "reference",
        perturbations_per_eval: int = 64,
        seed: int = 0,
        show_progress: bool = False,
    ) -> Decomposition:
        """Constant, main effects and interactions that stand for the score.

        Their sum minus the score is the ``convergence_delta``; the class says what it means. The
        arguments are those of :meth:`attribute`.

        Returns:
            Decomposition: all parts, and the score.
        """
        game = self.game(
            inputs,
            baselines,
            additional_forward_args,
            n_samples=n_samples,
            masking=masking,
            perturbations_per_eval=perturbations_per_eval,
            seed=seed,
            intra=False,
            show_progress=show_progress,
        )
        # The value of a player holds its share of each interaction, which a map shows by itself.
        shares = self._share * game.interactions
        return Decomposition(
            constant=self._constant(game),
            main_effects_a=game.main_effects_a - shares.sum(2),
            main_effects_b=game.main_effects_b - shares.sum(1),
            interactions=game.interactions,
            score=game.score,
        )

    # What an index adds to this.

    _share: float
    """How much of each interaction is in the value of either player."""

    _index: str
    """What its interactions are called in shapiq."""

    @abstractmethod
    def _rule(self, n_players: int, is_exact: bool) -> Quadrature:
        """The probabilities of presence, and their weights."""

    @abstractmethod
    def _constant(self, game: Game) -> Tensor:
        """What a decomposition begins with, shape (B,)."""

    @property
    def _towers(self) -> tuple[Tower, Tower]:
        return self.wrapper.tower_a, self.wrapper.tower_b


class BanzhafInteractions(InteractionIndex):
    r"""Which part of input a matters to which part of b, when parts of both may be missing?

    For a dual encoder :math:`s(S, T) = \langle g(a_S), h(b_T)\rangle` that sees the tokens S of a
    and T of b only, each of them with probability p independently of all others, the weighted
    Banzhaf interaction of token i of a with token j of b is the expected difference of differences

    .. math::
        I_{ij} = E\big[s(S \cup i, T \cup j) - s(S \setminus i, T \cup j)
        - s(S \cup i, T \setminus j) + s(S \setminus i, T \setminus j)\big]
        = \langle E[\Delta_i g], E[\Delta_j h] \rangle .

    It is a product of two vector-valued Banzhaf values, one of each encoder alone, so m coalitions
    of a and n of b take m + n encoder calls, where scores of all combinations would take m · n. The
    values are read off by least squares on first-order terms; with drawn coalitions, that gives the
    very numbers of least squares over all m · n scores on the terms
    :math:`1, z_i, w_j, z_i w_j`. Few players are enumerated, which is exact.

    :meth:`game` returns the weighted Banzhaf values of all tokens and the interactions within each
    input as well. :meth:`decompose` returns the least-squares approximation
    :math:`s(S, T) \approx c + \sum_i \alpha_i z_i + \sum_j \beta_j w_j + \sum_{ij} I_{ij} z_i w_j`
    itself; its ``convergence_delta`` is its value for the whole pair minus the score. That is
    no error of computation: it holds all that a and b do within themselves, and can be large.

    Source: Baniecki, Muschalik, Fumagalli, Hammer, Hüllermeier and Biecek, "Explaining Similarity
    in Vision–Language Encoders with Weighted Banzhaf Interactions", 2025 (arXiv 2508.05430); the
    index is that of Marichal and Mathonet, EJOR 2011.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): ``(layer_a, layer_b)``, where absent tokens are replaced: k for
            the hidden state entering block k, or ``"input"`` for the raw tensor. Default: None, the
            embeddings (0), where no block has mixed the tokens yet, or the input of a tower whose
            blocks are closed
        p (float, optional): Probability that a token is present, in (0, 1). Default: 0.5
        normalization (str, optional): The score that is explained. ``"cosine"``: the embedding of
            every masked input has unit length, which is the score the wrapper gives. ``"frozen"``:
            the dot product over the norms of the whole pair. ``"none"``: the dot product. Default:
            ``"cosine"``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist, p is not between 0 and 1, or the normalization is
            unknown.

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


class ShapleyInteractions(InteractionIndex):
    r"""Which part of input a matters to which part of b, in coalitions of all sizes alike?

    The Shapley interaction index of token i of a with token j of b in the game
    :math:`s(S, T) = \langle g(a_S), h(b_T)\rangle` of all tokens is the integral of the weighted
    Banzhaf interactions over p, so a few Gauss–Legendre nodes :math:`p_q` with weights :math:`w_q`
    give it:

    .. math::
        I_{ij} = \int_0^1 \langle E_p[\Delta_i g], E_p[\Delta_j h] \rangle \, dp
        = \sum_q w_q \langle E_{p_q}[\Delta_i g], E_{p_q}[\Delta_j h] \rangle .

    The integrand is a polynomial in p of a degree below the number n of players, so n / 2 nodes are
    exact. Coalitions that were drawn for one node serve all of them, by their probabilities.
    Drawn coalitions are many by default (32 times as many as players, and a few more), since they
    must tell the players apart at every node; nearly all of the time goes into encoding them. For
    a scene of the bundled model, half as many doubled the standard errors, to 45 % of the
    interactions (root mean square), and with a quarter there were only errors left.

    :meth:`game` returns the Shapley values of all tokens and the Shapley interactions within each
    input as well; values sum to ``score − baseline`` (efficiency). :meth:`decompose` splits the
    values: the main effect of a token is its Shapley value minus half of its interactions with the
    other input (interactions within its own input stay in it), as in the n-Shapley values of Bordt
    and von Luxburg (2023). So all parts sum to the score, and ``convergence_delta`` is the error of
    sampling and quadrature alone: zero when all coalitions are enumerated.

    Source: Grabisch and Roubens, Int. J. Game Theory 1999, for the index; see
    :class:`BanzhafInteractions` for the products.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): As of :class:`BanzhafInteractions`.
        n_nodes (int, optional): Nodes of the integral over p. Standard errors do not know what too
            few of them miss; the ``convergence_delta`` does. Default: None, as many as make it
            exact, but eight at most where coalitions are drawn
        normalization (str, optional): As of :class:`BanzhafInteractions`. Default: ``"cosine"``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist, there is no node, or the normalization is unknown.

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
            _check_count("n_nodes", n_nodes, least=1)
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


def _check_count(name: str, count: Any, *, least: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise ValueError(f"{name} must be an int of at least {least}, but got {count!r}")
