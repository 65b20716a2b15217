"""What a map of either order, or plain arrays, say about one of their two inputs."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from captum_interactions.axes import AudioAxis, ImageAxis, TextAxis, TokenAxis
from captum_interactions.maps.base import Side as Side
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.maps.interaction_map import InteractionMap


def is_map(source: Any) -> TypeGuard[InteractionMap | FirstOrderMap]:
    """Whether something is a map of this package, of either order."""
    return isinstance(source, (InteractionMap, FirstOrderMap))


def is_second_order(source: Any) -> TypeGuard[InteractionMap]:
    """Whether something is an interaction map."""
    return isinstance(source, InteractionMap)


def axis_of(imap: InteractionMap | FirstOrderMap, side: Side) -> TokenAxis:
    """The tokens of one input."""
    return imap.axis_a if side == "a" else imap.axis_b


def other(side: Side) -> Side:
    """The other input."""
    return "b" if side == "a" else "a"


def picture_side(imap: InteractionMap | FirstOrderMap, side: Side | None = None) -> Side:
    """The input that is an image or a sound: the one asked for, or a before b.

    Raises:
        TypeError: If it is neither.
        ValueError: If ``side`` is not ``"a"``, ``"b"`` or None.
    """
    return _side_of(imap, side, ("a", "b"), (ImageAxis, AudioAxis), "an image or a sound")


def text_side(imap: InteractionMap | FirstOrderMap, side: Side | None = None) -> Side:
    """The input that is a text: the one asked for, or b before a.

    Raises:
        TypeError: If it is none.
        ValueError: If ``side`` is not ``"a"``, ``"b"`` or None.
    """
    return _side_of(imap, side, ("b", "a"), (TextAxis,), "a text")


def values_of(
    imap: InteractionMap | FirstOrderMap, side: Side, selection: Any = None
) -> NDArray[np.float32] | None:
    """One value a token of an input, for a selection of the other one; None without a map of it."""
    if isinstance(imap, FirstOrderMap):
        own = imap.attributions_a if side == "a" else imap.attributions_b
        if own is None:
            return None
    return np.asarray(imap.marginal(side, selection).numpy())


def _side_of(
    imap: InteractionMap | FirstOrderMap,
    side: Side | None,
    order: tuple[Side, Side],
    kinds: tuple[type[TokenAxis], ...],
    what: str,
) -> Side:
    if side not in ("a", "b", None):
        raise ValueError(f"side must be 'a' or 'b', but got {side!r}")
    for candidate in order if side is None else (side,):
        if isinstance(axis_of(imap, candidate), kinds):
            return candidate
    subject = "neither input" if side is None else f"input {side}"
    raise TypeError(
        f"{subject} is {what}: the axes are {type(imap.axis_a).__name__} and "
        f"{type(imap.axis_b).__name__}"
    )
