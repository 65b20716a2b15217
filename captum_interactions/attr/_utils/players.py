"""The players of one input: groups of tokens that can be taken away, and what is then left."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from captum_interactions.attr._utils.path import Groups, Normalization, Path
from captum_interactions.attr.second_order.base import (
    Baselines,
    each_baseline,
    each_option,
    open_pair,
)
from captum_interactions.encoders import DualEncoderWrapper, Layer, Tower
from captum_interactions.encoders.wrapper import widen

Masking = Literal["reference", "attention"]


@dataclass(frozen=True)
class Players:
    """The players of one of B inputs of a tower."""

    path: Path
    row: int
    """Which of the inputs."""
    inputs: Tensor
    """The B inputs as the tower takes them."""
    extras: tuple[Any, ...]
    """Further arguments of the tower."""
    masking: Masking
    normalization: Normalization

    @cached_property
    def indices(self) -> Tensor:
        """Which tokens, or groups, are players, (n,).

        A token with the features of its reference looks the same present or absent: it cannot
        change anything, so it is no player, which spares the game one and changes no value. At the
        embeddings that holds for special tokens, which references keep. Padding is no player.
        """
        path = self.path
        end, start = widen(path.end), widen(path.starts[0])
        difference = path.tower.fold(path.layer, (end - start).abs())[self.row]
        size = path.tower.fold(path.layer, end.abs() + start.abs())[self.row]
        # Equal features may differ by rounding, because inputs and references run as one batch.
        differs = difference > torch.finfo(path.end.dtype).eps * size
        return (self._groups @ (differs * path.token_mask[self.row])).nonzero().flatten()

    @property
    def _groups(self) -> Tensor:
        """Groups as sets of tokens, (G, T) of zeros and ones."""
        groups = self.path.groups
        if groups is None:
            return torch.eye(self.path.n_outputs).to(self.path.token_mask)
        return groups[self.row if len(groups) > 1 else 0]

    def embed(self, coalitions: Tensor, batch_size: int, progress: tqdm[Any]) -> Tensor:
        """Embeddings, scaled as the score wants them, of the input with some players only.

        Args:
            coalitions (Tensor): Which players are there, bool, shape (m, n).
            batch_size (int): At most this many masked inputs are encoded at once.
            progress (tqdm): Counts encoded inputs.

        Returns:
            Tensor: shape (m, K).

        Raises:
            ValueError: If an embedding is not finite, or is zero and has no cosine.
        """
        members = self._groups[self.indices]
        parts = []
        for part in coalitions.to(members.device).split(batch_size):
            kept = 1 - (~part).to(members) @ members
            if self.masking == "attention":
                parts.append(self._unattended(kept))
            else:
                parts.append(self._replaced(kept))
            progress.update(len(part))
        values = torch.cat(parts)
        may_vanish = self.normalization != "cosine"
        if not torch.isfinite(values).all() or not (may_vanish or values.any(-1).all()):
            raise ValueError(
                f"input {self.path.name} without some of its players has an embedding that is zero "
                "or not finite: take another baseline, or keep some tokens out of the groups"
            )
        return values

    def _replaced(self, kept: Tensor) -> Tensor:
        """Embeddings with absent tokens' features replaced by the reference's."""
        path = self.path
        start = path.starts[0][self.row if len(path.starts[0]) > 1 else 0]
        mask = path.tower.spread(path.layer, kept, path.end.shape)
        features = torch.where(mask > 0, path.end[self.row], start)
        return path.function(features, *(self._repeat(value, len(kept)) for value in path.context))

    def _unattended(self, kept: Tensor) -> Tensor:
        """Embeddings with absent tokens taken out of the attention mask."""
        path, count = self.path, len(kept)
        place = path.tower.extra_names.index("attention_mask")
        extras = [self._repeat(value, count) for value in self.extras]
        extras += [None] * (place + 1 - len(extras))
        mask = extras[place]
        extras[place] = kept.long() if mask is None else mask * kept.to(mask.dtype)
        inputs = self._repeat(self.inputs, count)
        features, context = path.tower.features(path.layer, inputs, *extras)
        if self.normalization == "frozen":
            # The norm of the whole input leads what the function takes.
            context = (self._repeat(path.context[0], count), *context)
        return path.function(features, *context)

    def _repeat(self, value: Any, count: int) -> Any:
        """This input's row of a tensor, for every coalition."""
        if not isinstance(value, Tensor) or not value.dim():
            return value
        return value[self.row].expand(count, *value.shape[1:])


def open_players(
    wrapper: DualEncoderWrapper,
    layers: tuple[Layer, Layer],
    inputs: tuple[Tensor, Tensor],
    baselines: Baselines,
    additional_forward_args: Any,
    groups_a: Groups | None,
    groups_b: Groups | None,
    *,
    masking: Masking | tuple[Masking, Masking],
    normalization: Normalization,
) -> tuple[tuple[Path, Path], tuple[tuple[Players, ...], tuple[Players, ...]]]:
    """The paths of both inputs of B aligned pairs, and the players of each input.

    Raises:
        TypeError: If inputs are not a pair of tensors, or on another device, or a side has several
            baselines.
        ValueError: If shapes or values do not fit the towers, or tokens cannot be taken away.
    """
    maskings: tuple[Masking, Masking] = each_option("masking", masking)
    towers = (wrapper.tower_a, wrapper.tower_b)
    for name, tower, how in zip("ab", towers, maskings, strict=True):
        check_masking(name, tower, how)
    for name, baseline in zip("ab", each_baseline(baselines), strict=True):
        if isinstance(baseline, list):
            raise TypeError(f"absent tokens have one baseline {name}, but got a list of them")
    paths = open_pair(
        wrapper,
        layers,
        inputs,
        baselines,
        additional_forward_args,
        groups_a,
        groups_b,
        normalization=normalization,
    )
    for path in paths:
        check_groups(path)
    extras = wrapper.split_additional(additional_forward_args)
    side_a, side_b = (
        tuple(Players(path, row, whole, extra, how, normalization) for row in range(len(whole)))
        for path, whole, extra, how in zip(paths, inputs, extras, maskings, strict=True)
    )
    return paths, (side_a, side_b)


def check_masking(name: str, tower: Tower, masking: str) -> None:
    """Raise a ValueError if a tower's tokens cannot be taken away like that."""
    if masking not in ("reference", "attention"):
        raise ValueError(f"masking must be 'reference' or 'attention', but got {masking!r}")
    if masking == "attention" and "attention_mask" not in tower.extra_names:
        known = ", ".join(tower.extra_names) or "none"
        raise ValueError(
            f"masking='attention' takes tokens out of the attention mask, but encoder {name} "
            f"({type(tower).__name__}) takes no attention_mask (its further arguments: {known}): "
            "take 'reference' there, a pair gives one masking for each input"
        )


def check_groups(path: Path) -> None:
    """Raise a ValueError unless every token is in one group at most, and wholly."""
    if path.groups is None:
        return
    is_whole = ((path.groups == 0) | (path.groups == 1)).all()
    if not is_whole or path.groups.sum(1).max() > 1:
        raise ValueError(
            f"groups_{path.name} are players: each token must be in at most one group, with weight "
            "1; these overlap, or weigh tokens"
        )
