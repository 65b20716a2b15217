"""Axes as plain fields that JSON can hold, and back."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from PIL import Image

from captum_interactions.axes.audio import AudioAxis
from captum_interactions.axes.image import Frame, ImageAxis
from captum_interactions.axes.text import TextAxis
from captum_interactions.axes.token import TokenAxis

_KINDS = {cls.__name__: cls for cls in (TokenAxis, TextAxis, ImageAxis, AudioAxis)}


def axis_to_fields(axis: TokenAxis) -> dict[str, Any]:
    """All of an axis but the image itself."""
    plain = replace(axis, image=None) if isinstance(axis, ImageAxis) else axis
    fields = asdict(plain)
    fields.pop("image", None)
    return {"kind": type(axis).__name__, **fields}


def axis_from_fields(fields: dict[str, Any], image: Image.Image | None = None) -> TokenAxis:
    """The axis that :func:`axis_to_fields` took apart, with the image if it is at hand."""
    values = {key: _tuples(value) for key, value in fields.items() if key not in ("kind", "frame")}
    kind = _KINDS[fields["kind"]]
    if kind is ImageAxis:
        frame = {key: _tuples(value) for key, value in fields["frame"].items()}
        values |= {"frame": Frame(**frame), "image": image}
    return kind(**values)


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
