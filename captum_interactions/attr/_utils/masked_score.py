"""The score of a pair with some tokens of its inputs masked, for metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_interactions.attr._utils.arguments import (
    Baselines,
    Groups,
    Inputs,
    Normalization,
    check_count,
    check_normalization,
    check_wrapper,
    first_layers,
    resolve_layers,
)
from captum_interactions.attr._utils.path import Path
from captum_interactions.attr._utils.players import Masking, Players, players_of_pairs
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining


@dataclass(frozen=True, eq=False, repr=False)
class MaskedScore:
    """Scores of B pairs with tokens masked: a :data:`~captum_interactions.metrics.Score`.

    The masked inputs of each side are encoded separately, equal ones once, and scores are products
    of their embeddings.
    """

    wrapper: DualEncoderWrapper
    paths: tuple[Path, Path]
    sides: tuple[tuple[Players, ...], tuple[Players, ...]]
    """The players of each pair's input, for either side."""
    perturbations_per_eval: int
    """Maximum number of masked inputs that are encoded at once."""

    @property
    def players_a(self) -> Tensor:
        """Which tokens or groups of a can change the score, bool of shape (B, Ta)."""
        return self._players(0)

    @property
    def players_b(self) -> Tensor:
        """Which tokens or groups of b can change the score, bool of shape (B, Tb)."""
        return self._players(1)

    def __call__(self, present_a: Tensor | None, present_b: Tensor | None) -> Tensor:
        """Scores of aligned choices of present tokens.

        Args:
            present_a (Tensor or None): True for present tokens or groups of a, bool of shape
                (B, M, Ta); None for all of a.
            present_b (Tensor or None): The same of b, (B, M, Tb).

        Returns:
            Tensor: shape (B, M), with M = 1 if both are None.

        Raises:
            ValueError: If a shape is not as described, or a masked input has an embedding that is
                zero or not finite.
        """
        if (
            present_a is not None
            and present_b is not None
            and present_a.shape[:2] != present_b.shape[:2]
        ):
            raise ValueError(
                "aligned choices need as many of a as of b, but got shapes "
                f"{tuple(present_a.shape)} and {tuple(present_b.shape)}"
            )
        return (self.embed(0, present_a) * self.embed(1, present_b)).sum(-1)

    def grid(self, present_a: Tensor | None, present_b: Tensor | None) -> Tensor:
        """Scores of every choice of a with every choice of b, shape (B, M, N).

        Args:
            present_a (Tensor or None): bool of shape (B, M, Ta), as above.
            present_b (Tensor or None): bool of shape (B, N, Tb).
        """
        return self.embed(0, present_a) @ self.embed(1, present_b).transpose(1, 2)

    def embed(self, side: int, present: Tensor | None) -> Tensor:
        """Scaled embeddings of one side's masked inputs.

        Args:
            side (int): 0 for a, 1 for b.
            present (Tensor or None): bool of shape (B, M, T); None for the whole inputs, M = 1.

        Returns:
            Tensor: shape (B, M, K).
        """
        path = self.paths[side]
        if present is None:
            return path.embedding.unsqueeze(1)
        expected = (len(path.features), path.n_outputs)
        if present.dim() != 3 or present.shape[::2] != expected or present.dtype != torch.bool:
            raise ValueError(
                f"present_{path.name} must be bool of shape ({expected[0]}, M, {expected[1]}), but "
                f"is {present.dtype} of shape {tuple(present.shape)}"
            )
        with explaining(self.wrapper), torch.no_grad(), tqdm(disable=True) as progress:
            rows = []
            for players, choices in zip(self.sides[side], present, strict=True):
                choices = choices.to(players.indices.device)[:, players.indices]
                distinct, which = torch.unique(choices, dim=0, return_inverse=True)
                rows.append(players.embed(distinct, self.perturbations_per_eval, progress)[which])
            return torch.stack(rows)

    def __repr__(self) -> str:
        a, b = self.paths
        masking = tuple(side[0].masking for side in self.sides)
        return (
            f"MaskedScore({len(a.features)} pairs of {a.n_outputs} × {b.n_outputs} tokens,\n"
            f"            layers {(a.layer, b.layer)}, masking {masking})"
        )

    def _players(self, side: int) -> Tensor:
        path = self.paths[side]
        shape = (len(path.features), path.n_outputs)
        result = torch.zeros(shape, dtype=torch.bool, device=path.features.device)
        for row, players in zip(result, self.sides[side], strict=True):
            row[players.indices] = True
        return result


def masked_score(
    wrapper: DualEncoderWrapper,
    inputs: Inputs,
    baselines: Baselines = None,
    additional_forward_args: Any = None,
    *,
    layers: tuple[Layer, Layer] | None = None,
    groups_a: Groups | None = None,
    groups_b: Groups | None = None,
    masking: Masking | tuple[Masking, Masking] = "baseline",
    normalization: Normalization = "cosine",
    perturbations_per_eval: int = 64,
) -> MaskedScore:
    """The scores of B pairs with tokens of either input masked.

    Tokens are masked as in :class:`~captum_interactions.attr.BanzhafInteractions`, whichever method
    the map under test comes from.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        inputs (tuple[Tensor, Tensor]): Input a and input b as the towers take them, B rows each.
        baselines (None, scalar, Tensor or tuple, optional): What absent tokens are replaced
            by, see there. Default: None
        additional_forward_args (optional): Further arguments of the towers: those of a, then those
            of b, B rows each. Default: None
        layers (tuple, optional): The layer of each tower whose tokens are replaced. Default: None,
            the embeddings (0), before the blocks mix the tokens, or the input of a tower without
            blocks
        groups_a, groups_b (optional): Players that are groups of tokens, see there. Default: None,
            every token by itself
        masking (str or tuple, optional): ``"baseline"`` or ``"attention"``, which hides absent
            tokens from all others, and drops absent patches without computing them, see there; a
            tuple gives one for each input. Default: ``"baseline"``
        normalization (str, optional): The score, see there. Default: ``"cosine"``
        perturbations_per_eval (int, optional): Maximum number of masked inputs that are encoded at
            once. Default: 64

    Returns:
        MaskedScore: to be called with the present tokens. Padding and tokens that equal their
        baseline are no players: masking them changes nothing. Where patches are dropped, all of
        them are players.

    Raises:
        TypeError: If inputs are not a pair of tensors, or are on another device.
        ValueError: If shapes, values or options are not as described, or tokens cannot be masked
            so. No masked input has been encoded then.

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> score = masked_score(wrapper, batch.inputs, None, batch.additional_forward_args)
        >>> no_words = torch.zeros_like(score.players_b)
        >>> bool(score(None, no_words[:, None]) < score(None, None))
        True
    """
    check_wrapper("masked_score", wrapper)
    check_normalization(normalization, wrapper)
    layers = resolve_layers(wrapper, first_layers(wrapper) if layers is None else layers)
    check_count("perturbations_per_eval", perturbations_per_eval)
    with explaining(wrapper), torch.no_grad():
        paths, sides = players_of_pairs(
            wrapper, layers, inputs, baselines, additional_forward_args, groups_a, groups_b,
            masking=masking, normalization=normalization,
        )  # fmt: skip
    return MaskedScore(wrapper, paths, sides, perturbations_per_eval)
