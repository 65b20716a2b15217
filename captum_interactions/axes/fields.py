"""Convert axes to JSON-serialisable fields, and back, with validation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from reprlib import repr as shortened
from typing import Any, NamedTuple

from PIL import Image

from captum_interactions.axes.audio import AudioAxis
from captum_interactions.axes.image import Frame, ImageAxis
from captum_interactions.axes.text import TextAxis
from captum_interactions.axes.token import TokenAxis

_KINDS = {cls.__name__: cls for cls in (TokenAxis, TextAxis, ImageAxis, AudioAxis)}


def axis_to_fields(axis: TokenAxis) -> dict[str, Any]:
    """The fields of an axis, without the image."""
    plain = replace(axis, image=None) if isinstance(axis, ImageAxis) else axis
    found = asdict(plain)
    found.pop("image", None)
    return {"kind": type(axis).__name__, **found}


def axis_from_fields(found: Any, image: Image.Image | None = None, name: str = "axis") -> TokenAxis:
    """The axis from the fields of :func:`axis_to_fields`.

    Args:
        found: The parsed JSON value.
        image (PIL image, optional): The image of an ImageAxis, if it is known.
        name (str, optional): Name of the axis in messages. Default: ``"axis"``

    Raises:
        ValueError: If a field is missing, unknown or invalid; the message names it.
    """
    kind = _KINDS.get(str(found.get("kind"))) if isinstance(found, dict) else None
    if kind is None:
        raise ValueError(
            f"{name} must be an object whose kind is one of {', '.join(_KINDS)}, but got "
            f"{shortened(found)}"
        )
    values = {key: value for key, value in found.items() if key != "kind"}
    if kind is ImageAxis:
        values["frame"] = Frame(**_checked(Frame, found.get("frame"), f"{name}.frame"))
    values = _checked(kind, values, name)
    axis = kind(**values, image=image) if kind is ImageAxis else kind(**values)
    problem = _problem(axis)
    if problem:
        raise ValueError(f"{name}.{problem}")
    return axis


class _Rule(NamedTuple):
    expects: str
    holds: Callable[[Any], bool]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 1e300 and math.isfinite(value)


def _each(holds: Callable[[Any], bool], count: int | None = None) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return isinstance(value, tuple) and count in (None, len(value)) and all(map(holds, value))

    return check


def _interval(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: _each(holds, 2)(value) and 0 <= value[0] < value[1]


_SIZE = _Rule("two positive integers", _each(lambda v: _whole(v) and v > 0, 2))
_BOOLEANS = _Rule("a list of booleans", _each(lambda v: isinstance(v, bool)))
_SPAN = _interval(_whole)
_RULES = {
    "labels": _Rule("a list of strings", _each(lambda v: isinstance(v, str))),
    "special": _BOOLEANS,
    "padding": _BOOLEANS,
    "text": _Rule("a string", lambda v: isinstance(v, str)),
    "spans": _Rule("a list of character spans or null", _each(lambda v: v is None or _SPAN(v))),
    "grid": _SIZE,
    "cell": _SIZE,
    "frame": _Rule("a frame", lambda v: isinstance(v, Frame)),
    "original": _SIZE,
    "size": _SIZE,
    "scale": _Rule("two positive numbers", _each(lambda v: _finite(v) and v > 0, 2)),
    "offset": _Rule("two numbers", _each(_finite, 2)),
    "times": _Rule("a list of (start, stop) in seconds", _each(_interval(_finite))),
    "bands": _Rule("a list of integers from 0 on", _each(lambda v: _whole(v) and v >= 0)),
    "duration": _Rule("a positive number", lambda v: _finite(v) and v > 0),
    "copies": _Rule("an integer from 1 to 10**6", lambda v: _whole(v) and 0 < v <= 10**6),
}


def _checked(kind: type[Any], found: Any, name: str) -> dict[str, Any]:
    """The values of the fields of a dataclass, without an image."""
    expected = [field.name for field in fields(kind) if field.name != "image"]
    if not isinstance(found, dict) or found.keys() != set(expected):
        came = sorted(found) if isinstance(found, dict) else found
        raise ValueError(
            f"{name} must have the fields {', '.join(expected)}, but has {shortened(came)}"
        )
    values: dict[str, Any] = {key: _tuples(value) for key, value in found.items()}
    for key, value in values.items():
        if not _RULES[key].holds(value):
            raise ValueError(
                f"{name}.{key} must be {_RULES[key].expects}, but got {shortened(value)}"
            )
    return values


def _problem(axis: TokenAxis) -> str:
    """Description of inconsistent fields of an axis; empty if they are consistent."""
    for key in ("special", "padding", "spans", "times", "bands"):
        count = len(getattr(axis, key, axis.labels))
        if count != len(axis):
            return f"{key} must have one value per token, but has {count} for {len(axis)} tokens"
    if isinstance(axis, TextAxis):
        beyond = [span for span in axis.spans if span and span[1] > len(axis.text)]
        if beyond:
            return f"spans holds {beyond[0]}, but the text has {len(axis.text)} characters"
    if isinstance(axis, ImageAxis):
        rows, columns = axis.grid
        patches = [t for t, unit in enumerate(map(max, axis.special, axis.padding)) if not unit]
        run = list(range(len(axis)))[axis.patches] if patches else []
        if len(patches) != rows * columns or patches != run:
            return f"grid must hold all {len(patches)} patches in one run, but is {axis.grid}"
        size = axis.image and axis.image.size[::-1]
        if size and size != axis.frame.original:
            return f"frame.original is {axis.frame.original}, but the image's size is {size}"
    if isinstance(axis, AudioAxis):
        counts = Counter(axis.bands)
        if len(counts) != max(counts, default=-1) + 1 or len({*counts.values()}) != 1:
            return "bands must hold each of 0, 1, ... equally often, but does not"
    return ""


def _tuples(value: Any) -> Any:
    """Convert the lists of JSON back to tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
