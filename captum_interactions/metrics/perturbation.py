"""Insertion and deletion: what becomes of the score as the strongest parts come or go?

Nothing here knows a model: a :data:`Score` says what is left of it when parts of the inputs are
missing. :func:`captum_interactions.attr.masked_score` makes one from a wrapper and a pair.

A map is right if the score rises fast as its strongest parts are inserted, and falls fast as they
are deleted. The chance level of all curves here is that of random maps of the same shape.
"""

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
        return torch.trapezoid(self.scores, self.present).abs()

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


def conditional_curve(
    score: Score,
    maps: Tensor,
    side: Literal["a", "b"],
    mode: Mode,
    players: Tensor | None = None,
    n_steps: int | None = None,
) -> Curve:
    """Insert or delete the parts of one input by its map, while the other input stays whole.

    The map of an image for a caption is that of the whole caption, such as the sum of an
    interaction map over its words.

    Source: conditional insertion and deletion of Sammani et al., "Visualizing and Understanding
    Contrastive Learning", TIP 2023 (arXiv 2206.09753); insertion and deletion of Petsiuk et al.,
    "RISE", BMVC 2018 (arXiv 1806.07421).

    Args:
        score (Callable): See :data:`Score`.
        maps (Tensor): One value a part, shape (B, T), T parts of this input. Of equally strong
            parts the first goes first.
        side (str): ``"a"`` or ``"b"``, the input whose parts come or go.
        mode (str): ``"insertion"`` or ``"deletion"``, see :data:`Mode`.
        players (Tensor, optional): Which parts come or go, bool, shape (B, T); the others are
            always there, whatever their values. Default: None, all of them
        n_steps (int, optional): Number of steps S, in which the same share of each pair's parts
            comes or goes. Default: None, one part at a time (of the pair with the most)

    Returns:
        Curve: present shares and scores, (B, S + 1) each.

    Raises:
        ValueError: If shapes do not fit, a map is not finite, a pair has no players, or an option
            is unknown.

    Examples::

        >>> weights = torch.tensor([3.0, 1.0, 2.0])
        >>> def score(present_a, present_b):
        ...     return present_a.float() @ weights
        >>> conditional_curve(score, weights[None], "a", "deletion").scores
        tensor([[6., 3., 1., 0.]])
    """
    if side not in ("a", "b"):
        raise ValueError(f"side must be 'a' or 'b', but got {side!r}")
    _check_mode(mode)
    times = _times(*_checked(f"maps of {side}", maps, players))
    steps = _steps(n_steps, times)
    present, shares = _present(times, _cuts(times, steps), mode)
    scores = score(present, None) if side == "a" else score(None, present)
    return _curve(shares, scores)


def simultaneous_curve(
    score: Score,
    maps_a: Tensor,
    maps_b: Tensor,
    mode: Mode,
    players_a: Tensor | None = None,
    players_b: Tensor | None = None,
    n_steps: int | None = None,
) -> Curve:
    """Insert or delete the parts of both inputs at once, each by its own map.

    At each step the same share of the parts of either input comes or goes.

    Source: simultaneous insertion and deletion of Sammani et al., as above.

    Args:
        score (Callable): See :data:`Score`.
        maps_a, maps_b (Tensor): One value a part, shapes (B, Ta) and (B, Tb).
        mode (str): ``"insertion"`` or ``"deletion"``, see :data:`Mode`.
        players_a, players_b (Tensor, optional): Which parts come or go, bool, of the shapes of the
            maps. Default: None, all of them
        n_steps (int, optional): Number of steps S. Default: None, as many as the longer input has
            parts

    Returns:
        Curve: present shares (the mean of both inputs' shares) and scores, (B, S + 1) each.

    Raises:
        ValueError: In the same cases as :func:`conditional_curve`.
    """
    _check_mode(mode)
    times_a = _times(*_checked("maps of a", maps_a, players_a))
    times_b = _times(*_checked("maps of b", maps_b, players_b))
    _check_rows(maps_a, maps_b)
    steps = _steps(n_steps, times_a, times_b)
    present_a, shares_a = _present(times_a, _cuts(times_a, steps), mode)
    present_b, shares_b = _present(times_b, _cuts(times_b, steps), mode)
    return _curve((shares_a + shares_b) / 2, score(present_a, present_b))


def pair_deletion_curve(
    score: Score,
    interactions: Tensor,
    players_a: Tensor | None = None,
    players_b: Tensor | None = None,
    n_steps: int | None = None,
) -> Curve:
    """Delete pairs of parts, the strongest first: both parts of a pair go together.

    A pair of which one part is gone takes the other with it; one that is gone already changes
    nothing. Rankings are compared at the same share of parts, where each input counts half. A
    ranking by interactions ought to beat the one that first-order maps give,
    :func:`first_order_pairs`.

    Args:
        score (Callable): See :data:`Score`.
        interactions (Tensor): One value a pair, shape (B, Ta, Tb): the pairs with the highest
            values go first. Take magnitudes to delete what matches or clashes most.
        players_a, players_b (Tensor, optional): Which parts go, bool, shapes (B, Ta) and (B, Tb).
            Default: None, all of them
        n_steps (int, optional): Number of steps S. Default: None, as many as both inputs have parts

    Returns:
        Curve: present shares (the mean of both inputs' shares) and scores, (B, S + 1) each.

    Raises:
        ValueError: In the same cases as :func:`conditional_curve`.
    """
    if interactions.dim() != 3:
        raise ValueError(
            f"interactions must be of shape (B, Ta, Tb), but got {tuple(interactions.shape)}"
        )
    n_b = interactions.shape[2]
    rows, columns = interactions.detach().amax(2), interactions.detach().amax(1)
    _, players_a = _checked("interactions of a", rows, players_a)
    _, players_b = _checked("interactions of b", columns, players_b)
    pairs = players_a.unsqueeze(2) & players_b.unsqueeze(1)
    values, pairs = _checked("interactions", interactions.flatten(1), pairs.flatten(1))
    times = _times(values, pairs).unflatten(1, (-1, n_b))
    # A part goes with the first pair that it is in.
    times_a, times_b = times.amin(2), times.amin(1)
    both = torch.cat([times_a, times_b], 1)
    cuts = _cuts(both, _steps(n_steps, both))
    present_a, shares_a = _present(times_a, cuts, "deletion")
    present_b, shares_b = _present(times_b, cuts, "deletion")
    return _curve((shares_a + shares_b) / 2, score(present_a, present_b))


def first_order_pairs(maps_a: Tensor, maps_b: Tensor) -> Tensor:
    """Pairs as first-order maps rank them: the product of both parts' values.

    The product of two negative values is taken as negative, or parts that both speak against the
    score would rank first.

    Args:
        maps_a (Tensor): shape (B, Ta).
        maps_b (Tensor): shape (B, Tb).

    Returns:
        Tensor: shape (B, Ta, Tb).
    """
    a, b = maps_a.unsqueeze(2), maps_b.unsqueeze(1)
    product = a * b
    return torch.where((a < 0) & (b < 0), -product, product)


_STAYS = torch.iinfo(torch.int64).max
"""When a part goes that always stays."""


def _times(values: Tensor, players: Tensor) -> Tensor:
    """When each part goes, from 0 on, int64 of the shape of ``values``."""
    order = values.masked_fill(~players, -torch.inf).argsort(stable=True, dim=1, descending=True)
    times: Tensor = order.argsort(1)
    return times.masked_fill(~players, _STAYS)


def _steps(n_steps: int | None, *times: Tensor) -> int:
    if n_steps is None:
        return max(int((t != _STAYS).sum(1).max()) for t in times)
    if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 1:
        raise ValueError(f"n_steps must be an int of at least 1, but got {n_steps!r}")
    return n_steps


def _cuts(times: Tensor, n_steps: int) -> Tensor:
    """Up to which time parts are gone at each step, so that their number grows evenly, (B, S+1)."""
    n_players = (times != _STAYS).sum(1, keepdim=True)
    steps = torch.arange(n_steps + 1, device=times.device)
    gone = (2 * n_players * steps + n_steps).div(2 * n_steps, rounding_mode="floor")
    ordered = times.sort(1).values
    return torch.where(gone > 0, ordered.gather(1, (gone - 1).clamp(min=0)), -1)


def _present(times: Tensor, cuts: Tensor, mode: Mode) -> tuple[Tensor, Tensor]:
    """What is there at each step, (B, S + 1, T), and the share of the players that is."""
    stays = (times == _STAYS).unsqueeze(1)
    gone = times.unsqueeze(1) <= cuts.unsqueeze(2)
    present = stays | (~gone if mode == "deletion" else gone)
    count = (present & ~stays).sum(2).double()
    return present, count / (~stays).sum(2)


def _curve(shares: Tensor, scores: Tensor) -> Curve:
    if scores.shape != shares.shape:
        raise ValueError(
            f"score must return {tuple(shares.shape)} scores, but returned shape "
            f"{tuple(scores.shape)}"
        )
    scores = scores.detach()
    return Curve(shares.to(scores), scores)


def _checked(name: str, values: Tensor, players: Tensor | None) -> tuple[Tensor, Tensor]:
    values = values.detach()
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


def _check_rows(maps_a: Tensor, maps_b: Tensor) -> None:
    if len(maps_a) != len(maps_b):
        raise ValueError(
            f"aligned pairs need as many maps of a as of b, but got {len(maps_a)} and {len(maps_b)}"
        )


def _check_mode(mode: str) -> None:
    if mode not in ("insertion", "deletion"):
        raise ValueError(f"mode must be 'insertion' or 'deletion', but got {mode!r}")
