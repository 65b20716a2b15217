"""Insertion and deletion: what becomes of the score as the strongest parts come or go?

Nothing here knows a model: a :data:`~captum_interactions.metrics.Score` says what is left of it
when parts of the inputs are missing, and :func:`captum_interactions.attr.masked_score` makes one
from a wrapper and a pair. A map is right if the score rises fast as its strongest parts are
inserted, and falls fast as they are deleted. The chance level is what random maps have.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from captum_interactions.metrics.curves import (
    Curve,
    Mode,
    Score,
    check_values,
    count_steps,
    cuts,
    make_curve,
    present_at,
    removal_times,
)


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
        maps (Tensor): One value per part, shape (B, T), T parts of this input. Of equally strong
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

        >>> import torch
        >>> weights = torch.tensor([3.0, 1.0, 2.0])
        >>> def score(present_a, present_b):
        ...     return present_a.float() @ weights
        >>> conditional_curve(score, weights[None], "a", "deletion").scores
        tensor([[6., 3., 1., 0.]])
    """
    if side not in ("a", "b"):
        raise ValueError(f"side must be 'a' or 'b', but got {side!r}")
    _check_mode(mode)
    times = removal_times(*check_values(f"maps of {side}", maps, players))
    steps = count_steps(n_steps, times)
    present, shares = present_at(times, cuts(times, steps), mode)
    scores = score(present, None) if side == "a" else score(None, present)
    return make_curve(shares, scores)


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
        maps_a, maps_b (Tensor): One value per part, shapes (B, Ta) and (B, Tb).
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
    times_a = removal_times(*check_values("maps of a", maps_a, players_a))
    times_b = removal_times(*check_values("maps of b", maps_b, players_b))
    _check_rows(maps_a, maps_b)
    steps = count_steps(n_steps, times_a, times_b)
    present_a, shares_a = present_at(times_a, cuts(times_a, steps), mode)
    present_b, shares_b = present_at(times_b, cuts(times_b, steps), mode)
    return make_curve((shares_a + shares_b) / 2, score(present_a, present_b))


def _check_rows(maps_a: Tensor, maps_b: Tensor) -> None:
    if len(maps_a) != len(maps_b):
        raise ValueError(
            f"aligned pairs need as many maps of a as of b, but got {len(maps_a)} and {len(maps_b)}"
        )


def _check_mode(mode: str) -> None:
    if mode not in ("insertion", "deletion"):
        raise ValueError(f"mode must be 'insertion' or 'deletion', but got {mode!r}")
