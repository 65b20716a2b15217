"""Curves of a score while parts of the inputs come or go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Score = Callable[[Tensor | None, Tensor | None], Tensor]
"""``score(present_a, present_b) -> (B, M)``: scores of B pairs for M choices of what is there.

``present_a`` is bool of shape (B, M, Ta), true for the parts of a that are there, or None for all
of a; ``present_b`` likewise, (B, M, Tb). The m-th choice of a meets the m-th of b."""

Mode = Literal["insertion", "deletion"]
"""Whether parts come, strongest first, to an input that has none, or go from one that has all."""


class Curve(NamedTuple):
    """Scores of B pairs while parts come or go."""

    present: Tensor
    """Share of the parts that are there, shape (B, S + 1): from 0 to 1 for insertion, from 1 to 0
    for deletion."""
    scores: Tensor
    """The score then, shape (B, S + 1)."""

    @property
    def area(self) -> Tensor:
        """Area under the curve by the trapezoid rule, shape (B,): the mean score along the way.

        High is good for insertion, low for deletion.
        """
        direction = (self.present[:, -1] - self.present[:, 0]).sign()
        return direction * torch.trapezoid(self.scores, self.present)

    @property
    def normalized_area(self) -> Tensor:
        """The area if the score with no part is called 0 and the score with all parts 1, (B,).

        It compares pairs whose scores differ. NaN where both scores are equal; of little worth
        where they are close, so take medians over pairs. Neither 0 nor 1 bounds it.
        """
        is_deletion = self.present[:, 0] > self.present[:, -1]
        first, last = self.scores[:, 0], self.scores[:, -1]
        whole, none = torch.where(is_deletion, first, last), torch.where(is_deletion, last, first)
        area = (self.area - none) / (whole - none)
        return area.masked_fill(whole == none, torch.nan)


_STAYS = torch.iinfo(torch.int64).max
"""When a part goes that always stays."""


def removal_times(values: Tensor, players: Tensor) -> Tensor:
    """When each part goes, from 0 on, int64 of the shape of ``values``."""
    order = values.masked_fill(~players, -torch.inf).argsort(stable=True, dim=1, descending=True)
    times: Tensor = order.argsort(dim=1)
    return times.masked_fill(~players, _STAYS)


def count_steps(n_steps: int | None, *times: Tensor) -> int:
    """Number of steps; by default one for each part of the pair with the most."""
    if n_steps is None:
        return max(int((t != _STAYS).sum(1).max()) for t in times)
    if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 1:
        raise ValueError(f"n_steps must be an int of at least 1, but got {n_steps!r}")
    return n_steps


def gone_at(times: Tensor, n_steps: int) -> Tensor:
    """How many parts are gone at each step: the same share in each, rounded, (B, S + 1)."""
    n_players = (times != _STAYS).sum(1, keepdim=True)
    steps = torch.arange(n_steps + 1, device=times.device)
    return (2 * n_players * steps + n_steps).div(2 * n_steps, rounding_mode="floor")


def cuts(times: Tensor, n_steps: int) -> Tensor:
    """Up to which time parts are gone at each step, (B, S + 1)."""
    gone = gone_at(times, n_steps)
    ordered = times.sort(1).values
    return torch.where(gone > 0, ordered.gather(1, (gone - 1).clamp(min=0)), -1)


def present_at(times: Tensor, cuts: Tensor, mode: Mode) -> tuple[Tensor, Tensor]:
    """What is there at each step, (B, S + 1, T), and the share of the players that is."""
    stays = (times == _STAYS).unsqueeze(1)
    gone = times.unsqueeze(1) <= cuts.unsqueeze(2)
    present = stays | (~gone if mode == "deletion" else gone)
    count = (present & ~stays).sum(2).double()
    return present, count / (~stays).sum(2)


def make_curve(shares: Tensor, scores: Tensor) -> Curve:
    """A curve, if the scores have the shape of the shares."""
    if scores.shape != shares.shape:
        raise ValueError(
            f"score must return {tuple(shares.shape)} scores, but returned shape "
            f"{tuple(scores.shape)}"
        )
    scores = scores.detach()
    return Curve(shares.to(scores), scores)


def check_values(name: str, values: Tensor, players: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values in float64 and players, of shape (B, T) both.

    Raises:
        ValueError: If they are not that, not finite, or a pair has no players.
    """
    values = values.detach().double()
    if values.dim() != 2 or not values.numel():
        raise ValueError(f"{name} must be of shape (B, T), but got {tuple(values.shape)}")
    if players is None:
        players = torch.ones_like(values, dtype=torch.bool)
    if players.shape != values.shape or players.dtype != torch.bool:
        raise ValueError(
            f"players of {name} must be bool of shape {tuple(values.shape)}, but are "
            f"{players.dtype} of shape {tuple(players.shape)}"
        )
    players = players.to(values.device)
    if not torch.isfinite(values[players]).all():
        raise ValueError(f"{name} hold NaN or infinite values")
    if not players.any(1).all():
        row = int((~players.any(1)).nonzero()[0])
        raise ValueError(f"{name}: pair {row} has no part that could come or go")
    return values, players
