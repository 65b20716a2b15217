"""The base class of interaction indices of game theory, whose players are tokens."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from captum.attr import PerturbationAttribution
from torch import Tensor

from captum_interactions.attr._utils.arguments import (
    Baselines,
    Groups,
    Inputs,
    check_count,
    check_target,
    each_option,
    first_layers,
)
from captum_interactions.attr._utils.coalition_games import Game, play
from captum_interactions.attr._utils.players import Masking, players_of_pairs
from captum_interactions.attr.second_order.base import SecondOrderAttribution
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.functional import Decomposition, Quadrature

Samples = int | tuple[int | None, int | None] | None


class InteractionIndex(SecondOrderAttribution, PerturbationAttribution):
    """Base class of Banzhaf and Shapley interactions: players, masking and sampling.

    Args:
        layers (tuple, optional): ``(layer_a, layer_b)``, the layer of each tower whose tokens are
            replaced: k for the hidden state entering block k, or ``"input"`` for the raw tensor.
            Default: None, the embeddings (0), before the blocks mix the tokens, or the input of a
            tower without blocks
    """

    cost = "n_samples forward passes of each encoder from the layer on"
    _default_layers = staticmethod(first_layers)
    _share: float
    """The share of each interaction that is contained in the value of either player."""
    _index: str
    """Name of the interactions in shapiq."""

    def attribute(
        self, inputs: Inputs, baselines: Baselines = None, target: None = None,
        additional_forward_args: Any = None, *, n_samples: Samples = None,
        groups_a: Groups | None = None, groups_b: Groups | None = None,
        masking: Masking | tuple[Masking, Masking] = "baseline", perturbations_per_eval: int = 64,
        seed: int = 0, show_progress: bool = False,
    ) -> Tensor:  # fmt: skip
        """Interaction maps of B aligned pairs.

        Players are tokens, or groups of them. A token whose features equal those of its baseline
        has no effect, so it is not a player and its entries are zero. At the embeddings these are
        the special tokens, which baselines keep: they stay in place, and so does padding. (After
        blocks have mixed the tokens, the class token differs from its baseline and is a player.)

        Args:
            baselines (None, scalar, Tensor or tuple, optional): What absent tokens are replaced by.
                A tuple gives one for each input; each is None (the wrapper's own baseline), a
                constant, or a tensor of the input's shape or with one row for all pairs. A bare
                scalar serves both inputs; a bare tensor serves input a only. Default: None
            n_samples (int or tuple, optional): Maximum number of coalitions of each input, or of a
                and of b, that are encoded for a pair. If there are no more than that in all, every
                one is encoded and nothing is random; otherwise antithetic pairs are drawn. Default:
                1024, or more if that many players need it
            groups_a, groups_b (optional): Players that are groups of tokens (words, phrases, boxes,
                segments): a list of lists of token indices, or zeros and ones of shape (G, T) or
                (B, G, T). No token may be in two groups, and those in none are always present.
                Default: None, every token by itself
            masking (str or tuple, optional): How absent tokens are masked: ``"baseline"`` replaces
                them by the baseline's features, at the layer; ``"attention"`` hides them from all
                other tokens, in all blocks. It removes them from the tower's ``attention_mask``. If
                the tower takes none, as most image encoders, it drops them from the sequence behind
                the embeddings, which has the same result, and does not compute them. Then all
                patches are players, special tokens stay, and a mean is that of the tokens that are
                left; without any token, which a tower without special tokens meets if all patches
                are absent, the embedding is that of the baseline. Only layer 0 of towers that treat
                the patches as a set after their embeddings can drop them; it is tried on the first
                input. A tuple gives one for each input. Default: ``"baseline"``
            perturbations_per_eval (int, optional): Maximum number of masked inputs that are encoded
                at once. Default: 64
            seed (int, optional): Seed of the coalitions; the global random state is not used. A
                pair gets the same coalitions in any batch. Default: 0

        Raises:
            ValueError: If shapes, values or options are not as described, a tower takes no
                attention mask and cannot drop tokens (rotary or relative positions, windows,
                feature maps), or the samples are too few for the players. No coalition has been
                encoded then.
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
        self, inputs: Inputs, baselines: Baselines = None, additional_forward_args: Any = None, *,
        n_samples: Samples = None, groups_a: Groups | None = None, groups_b: Groups | None = None,
        masking: Masking | tuple[Masking, Masking] = "baseline", perturbations_per_eval: int = 64,
        seed: int = 0, intra: bool = True, show_progress: bool = False,
    ) -> Game:  # fmt: skip
        """All terms of first and second order of the joint games, with their standard errors.

        They come from the same coalitions as the interactions alone.

        Args:
            intra (bool, optional): Whether to compute the interactions within each input too, which
                needs no further encoding. Default: True

        Returns:
            Game: values of single players, interactions across and within the inputs, standard
            errors, and the scores with all players and with none.
        """
        check_count("perturbations_per_eval", perturbations_per_eval)
        limits = each_option("n_samples", n_samples)
        for limit in limits:
            if limit is not None:
                check_count("n_samples", limit, least=2)
        with explaining(self.wrapper), torch.no_grad():
            _, players = players_of_pairs(
                self.wrapper, self.layers, inputs, baselines, additional_forward_args, groups_a,
                groups_b, masking=masking, normalization=self.normalization,
            )  # fmt: skip
            return play(
                list(zip(*players, strict=True)),
                self._rule,
                self._index,
                n_samples=limits,
                batch_size=perturbations_per_eval,
                seed=seed,
                intra=intra,
                show_progress=show_progress,
            )

    def decompose(
        self, inputs: Inputs, baselines: Baselines = None, additional_forward_args: Any = None, *,
        n_samples: Samples = None, masking: Masking | tuple[Masking, Masking] = "baseline",
        perturbations_per_eval: int = 64, seed: int = 0, show_progress: bool = False,
    ) -> Decomposition:  # fmt: skip
        """Constant, main effects and interactions that approximate the score.

        Their sum minus the score is the ``convergence_delta``; the class says what it means.

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
        # The value of a player contains its share of each interaction, which the map shows too.
        shares = self._share * game.interactions
        return Decomposition(
            constant=self._constant(game),
            main_effects_a=game.main_effects_a - shares.sum(2),
            main_effects_b=game.main_effects_b - shares.sum(1),
            interactions=game.interactions,
            score=game.score,
        )

    @abstractmethod
    def _rule(self, n_players: int, is_exact: bool) -> Quadrature:
        """Probabilities that a player is present, and their weights in the index."""

    @abstractmethod
    def _constant(self, game: Game) -> Tensor:
        """The constant of a decomposition, shape (B,)."""
