"""The players of one input: tokens or groups that can be masked, and embeddings without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch import Tensor
from tqdm import tqdm

from captum_interactions.attr._utils.arguments import (
    Baselines,
    Groups,
    Inputs,
    Normalization,
    each_baseline,
    each_option,
)
from captum_interactions.attr._utils.dropping import check_dropping, is_dropping
from captum_interactions.attr._utils.inputs import paths_of_pairs
from captum_interactions.attr._utils.path import Path
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.wrapper import widen

Masking = Literal["baseline", "attention"]


@dataclass(frozen=True)
class Players:
    """The players of one of B inputs of a tower."""

    path: Path
    row: int
    """Index of the input in the batch."""
    masking: Masking

    @cached_property
    def indices(self) -> Tensor:
        """Which tokens, or groups, are players, (n,).

        A token whose features equal those of its baseline has no effect, so it is not a player;
        leaving it out changes no value. At the embeddings this holds for special tokens, which
        baselines keep. Padding is not a player. Where tokens are dropped, all patches are players,
        since dropping one has an effect whatever its baseline.
        """
        effective = self._effective * self.path.token_mask[self.row]
        return (self._groups @ effective).nonzero().flatten()

    @property
    def _effective(self) -> Tensor:
        """Which tokens have an effect if they are masked, (T,)."""
        path = self.path
        if is_dropping(path.tower, self.masking):
            return path.content_mask[self.row] > 0
        end, start = widen(path.features), widen(path.baselines[0])
        difference = path.tower.fold(path.layer, (end - start).abs())[self.row]
        size = path.tower.fold(path.layer, end.abs() + start.abs())[self.row]
        # Equal features may differ by rounding, because inputs and baselines run in one batch.
        return difference > torch.finfo(path.features.dtype).eps * size

    @property
    def _groups(self) -> Tensor:
        """Groups as sets of tokens, (G, T) of zeros and ones."""
        groups = self.path.groups
        if groups is None:
            return torch.eye(self.path.n_outputs).to(self.path.token_mask)
        return groups[self.row if len(groups) > 1 else 0]

    def embed(self, coalitions: Tensor, batch_size: int, progress: tqdm[Any]) -> Tensor:
        """Scaled embeddings of the input with some players only.

        Args:
            coalitions (Tensor): Which players are present, bool, shape (m, n).
            batch_size (int): Maximum number of masked inputs that are encoded at once.
            progress (tqdm): Counts encoded inputs.

        Returns:
            Tensor: shape (m, K).

        Raises:
            ValueError: If an embedding is not finite, or is zero and has no cosine.
        """
        members = self._groups[self.indices]
        present = 1 - (~coalitions.to(members.device)).to(members) @ members
        embed: Callable[[Tensor], Tensor] = self._replaced
        batches = torch.arange(len(present), device=present.device).split(batch_size)
        if is_dropping(self.path.tower, self.masking):
            embed, present = self._dropped, self._kept(present)
            batches = _of_equal_sizes(present.sum(1), batch_size)
        elif self.masking == "attention":
            embed = self._without_attention
        parts = []
        for rows in batches:
            parts.append(embed(present[rows]))
            progress.update(len(rows))
        values = torch.cat(parts)[torch.cat(batches).argsort()]
        may_vanish = self.path.normalization != "cosine"
        if not torch.isfinite(values).all() or not (may_vanish or values.any(-1).all()):
            raise ValueError(
                f"input {self.path.name} without some of its players has an embedding that is zero "
                "or not finite: take another baseline, or keep some tokens out of the groups"
            )
        return values

    def _replaced(self, present: Tensor) -> Tensor:
        """Embeddings with the features of absent tokens replaced by the baseline's."""
        path = self.path
        baseline = path.baselines[0][self.row if len(path.baselines[0]) > 1 else 0]
        mask = path.tower.spread(path.layer, present, path.features.shape)
        features = torch.where(mask > 0, path.features[self.row], baseline)
        return path.function(features, *(self._repeat(v, len(present)) for v in path.context))

    def _without_attention(self, present: Tensor) -> Tensor:
        """Embeddings with absent tokens removed from the attention mask."""
        path, count = self.path, len(present)
        index = path.tower.extra_names.index("attention_mask")
        extras = [self._repeat(value, count) for value in path.extras]
        extras += [None] * (index + 1 - len(extras))
        mask = extras[index]
        extras[index] = present.long() if mask is None else mask * present.to(mask.dtype)
        inputs = self._repeat(path.inputs, count)
        features, context = path.tower.features(path.layer, inputs, *extras)
        norms = (self._repeat(value, count) for value in path.norms)
        return path.function(features, *norms, *context)

    def _kept(self, present: Tensor) -> Tensor:
        """Which tokens stay in the sequence, bool of shape (m, T): special tokens always do."""
        path, row = self.path, self.row
        return ((present > 0) | (path.content_mask[row] == 0)) & (path.token_mask[row] > 0)

    def _dropped(self, kept: Tensor) -> Tensor:
        """Embeddings of sequences of the tokens that are kept, as many in each row of (m, T)."""
        path, count = self.path, len(kept)
        tokens = kept.nonzero()[:, 1].reshape(count, -1)
        if not tokens.numel():
            return cast(Tensor, self._repeat(path.baseline_embeddings[0], count))
        features = path.features[self.row][tokens]
        return path.function(features, *(self._repeat(value, count) for value in path.context))

    def _repeat(self, value: Any, count: int) -> Any:
        """This input's row of a tensor, for every coalition."""
        if not isinstance(value, Tensor) or not value.dim():
            return value
        return value[self.row].expand(count, *value.shape[1:])


def players_of_pairs(
    wrapper: DualEncoderWrapper,
    layers: tuple[Layer, Layer],
    inputs: Inputs,
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
        ValueError: If shapes or values do not fit the towers, or tokens cannot be masked.
    """
    maskings: tuple[Masking, Masking] = each_option("masking", masking)
    for how in maskings:
        if how not in ("baseline", "attention"):
            raise ValueError(f"masking must be 'baseline' or 'attention', but got {how!r}")
    for name, baseline in zip("ab", each_baseline(baselines), strict=True):
        if isinstance(baseline, list):
            raise TypeError(f"absent tokens have one baseline {name}, but got a list of them")
    paths = paths_of_pairs(
        wrapper, layers, inputs, baselines, additional_forward_args, groups_a, groups_b,
        normalization=normalization,
    )  # fmt: skip
    for path, how in zip(paths, maskings, strict=True):
        check_groups(path)
        if is_dropping(path.tower, how):
            check_dropping(path)
    players_a, players_b = (
        tuple(Players(path, row, how) for row in range(len(path.features)))
        for path, how in zip(paths, maskings, strict=True)
    )
    return paths, (players_a, players_b)


def _of_equal_sizes(sizes: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Indices of equal sizes (m,), in batches."""
    order = sizes.argsort(stable=True)
    counts = sizes[order].unique_consecutive(return_counts=True)[1]
    return tuple(rows for same in order.split(counts.tolist()) for rows in same.split(batch_size))


def check_groups(path: Path) -> None:
    """Raise a ValueError unless every token is in at most one group, with weight 1."""
    if path.groups is None:
        return
    is_whole = ((path.groups == 0) | (path.groups == 1)).all()
    if not is_whole or path.groups.sum(1).max() > 1:
        raise ValueError(
            f"groups_{path.name} are players: each token must be in at most one group, with weight "
            "1; these overlap, or weigh tokens"
        )
