"""Steps that readers of annotations share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from captum_interactions.datasets.archive import Files
from captum_interactions.datasets.problems import DatasetError, Problems
from captum_interactions.datasets.record import Box

Kind = TypeVar("Kind")


def read_json(files: Files, name: str) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        DatasetError: If it is not JSON; it names the line.
    """
    return parse_json(files.read_text(name), files.where(name))


def parse_json(text: str, where: str, line: int = 0) -> Any:
    """Parse JSON that stands in a file ``line`` lines below its beginning."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{where}, line {line + error.lineno}", f"not JSON: {error.msg}"
        ) from None


def need(holder: Any, key: str, kind: type[Kind], where: str) -> Kind:
    """The value at a key, which must be of a type.

    Raises:
        DatasetError: If it is missing or of another type, or ``holder`` is no JSON object.
    """
    if not isinstance(holder, Mapping):
        raise DatasetError(where, f"expected a JSON object, but got {shown(holder)}")
    if key not in holder:
        raise DatasetError(where, f"has no {key!r}")
    value = holder[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DatasetError(where, f"{key!r} must be of type {kind.__name__}, but is {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value for a message, not too long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def numbers(value: Any, where: str) -> tuple[float, float, float, float]:
    """Four finite numbers.

    Raises:
        DatasetError: If they are not.
    """
    is_four = isinstance(value, list) and len(value) == 4
    if not is_four or not all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in value
    ):
        raise DatasetError(where, f"a box is four numbers, but got {shown(value)}")
    a, b, c, d = map(float, value)
    return a, b, c, d


def box_from_xywh(value: Any, where: str) -> Box | None:
    """A box from ``[x, y, width, height]``; None if it holds nothing, which names no pixel.

    Raises:
        DatasetError: If it is not four numbers, or a side is negative.
    """
    x, y, width, height = numbers(value, where)
    if width < 0 or height < 0:
        raise DatasetError(where, f"a box has a negative side: [x, y, w, h] = {shown(value)}")
    return (x, y, x + width, y + height) if width and height else None


def box_from_corners(value: Any, where: str) -> Box:
    """A box from ``[x0, y0, x1, y1]``, half-open.

    Raises:
        DatasetError: If it is not four numbers, or holds nothing.
    """
    x0, y0, x1, y1 = numbers(value, where)
    if x1 <= x0 or y1 <= y0:
        raise DatasetError(
            where, f"a box holds nothing: [x0, y0, x1, y1] = {shown(value)} (x1, y1 are its end)"
        )
    return x0, y0, x1, y1


def json_lines(files: Files, name: str, problems: Problems) -> Iterator[tuple[int, str, Any]]:
    """The lines of a JSONL file that are not empty.

    Yields:
        The line's number, from 1, its place for messages, and what it says. A line that is not JSON
        is a problem of its own.
    """
    place = files.where(name)
    for line, text in enumerate(files.read_text(name).split("\n"), start=1):
        if text.strip():
            parsed = []
            with problems.one_record():
                parsed.append(parse_json(text, place, line - 1))
            for value in parsed:
                yield line, f"{place}, line {line}", value
