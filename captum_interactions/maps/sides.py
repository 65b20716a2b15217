"""The two inputs of a map: which one is a picture or a text, and what readers call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from captum_interactions.axes import AudioAxis, ImageAxis, TextAxis, TokenAxis

if TYPE_CHECKING:
    from captum_interactions.maps.base import AttributionMap

Side = Literal["a", "b"]
SIDES: tuple[Side, Side] = ("a", "b")


def axis_of(imap: AttributionMap, side: Side) -> TokenAxis:
    """The tokens of one input."""
    return imap.axis_a if side == "a" else imap.axis_b


def other(side: Side) -> Side:
    """The other input."""
    return "b" if side == "a" else "a"


def picture_side(imap: AttributionMap, side: Side | None = None) -> Side:
    """The input that is an image or a sound: the one asked for, or a before b.

    Raises:
        TypeError: If it is neither.
        ValueError: If ``side`` is not ``"a"``, ``"b"`` or None.
    """
    return _side_of(imap, side, ("a", "b"), (ImageAxis, AudioAxis), "an image or a sound")


def text_side(imap: AttributionMap, side: Side | None = None) -> Side:
    """The input that is a text: the one asked for, or b before a.

    Raises:
        TypeError: If it is none.
        ValueError: If ``side`` is not ``"a"``, ``"b"`` or None.
    """
    return _side_of(imap, side, ("b", "a"), (TextAxis,), "a text")


def side_names(imap: AttributionMap) -> tuple[str, str]:
    """What readers call both inputs: "image" and "text", or "first text" and "second text"."""
    kinds = {ImageAxis: "image", AudioAxis: "sound", TextAxis: "text"}
    a, b = (kinds.get(type(axis), "input") for axis in (imap.axis_a, imap.axis_b))
    return (f"first {a}", f"second {b}") if a == b else (a, b)


def _side_of(
    imap: AttributionMap,
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
