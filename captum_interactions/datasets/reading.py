"""Functions that readers of annotations share."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from PIL import Image

from captum_interactions.datasets.archive import Files
from captum_interactions.datasets.problems import DatasetError, Problems
from captum_interactions.datasets.record import Box

Kind = TypeVar("Kind")

_MOST = 2**31
"""Maximum of coordinates, in pixels: images have shorter sides."""


def read_json(files: Files, name: str) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        DatasetError: If it is not JSON; the message names the line.
    """
    return parse_json(files.read_text(name), files.where(name))


def parse_json(text: str, where: str, line: int = 0) -> Any:
    """Parse JSON that begins ``line`` lines below the beginning of its file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{where}, line {line + error.lineno}", f"not JSON: {error.msg}"
        ) from None
    except (RecursionError, ValueError) as error:  # nested too deep, or numbers of too many digits
        raise DatasetError(f"{where}, line {line + 1}", f"cannot be read: {error}") from None


def need(holder: Any, key: str, kind: type[Kind], where: str) -> Kind:
    """The value at a key, checked to be of a type.

    Raises:
        DatasetError: If it is missing or of another type, is an integer of more than 64 bits or
            text with half of a surrogate pair, or ``holder`` is not a JSON object.
    """
    if not isinstance(holder, Mapping):
        raise DatasetError(where, f"expected a JSON object, but got {shown(holder)}")
    if key not in holder:
        raise DatasetError(where, f"has no {key!r}")
    value = holder[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DatasetError(where, f"{key!r} must be of type {kind.__name__}, but is {shown(value)}")
    if isinstance(value, int) and value.bit_length() > 63:
        raise DatasetError(where, f"{key!r} must be an integer of 64 bits, but is {shown(value)}")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DatasetError(
                where, f"{key!r} holds half of a surrogate pair, which is no text: {shown(value)}"
            ) from None
    return value


class _Short(reprlib.Repr):
    """Shortens values that are deeply nested, or have more digits than Python writes."""

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 128 else f"an integer of {x.bit_length()} bits"


def shown(value: Any) -> str:
    """A value as text for a message, shortened."""
    short = _Short()
    short.maxlevel, short.maxstring, short.maxother = 3, 60, 60
    text = short.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def numbers(value: Any, where: str) -> tuple[float, float, float, float]:
    """Check that a value is four coordinates.

    Raises:
        DatasetError: If it is not.
    """
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_coordinate, value)):
        raise DatasetError(where, f"a box is four numbers, but got {shown(value)}")
    a, b, c, d = map(float, value)
    return a, b, c, d


def is_coordinate(value: Any) -> bool:
    """Whether a value is a finite number that can be a coordinate in an image, in pixels."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and -_MOST <= value <= _MOST


def image_size(holder: Any, where: str) -> tuple[int, int]:
    """The (width, height) of an image according to its annotation.

    Raises:
        DatasetError: If they are missing, or Pillow would not open an image of this size.
    """
    size = need(holder, "width", int, where), need(holder, "height", int, where)
    check_size(size, where)
    return size


def check_size(size: tuple[int, int], where: str) -> None:
    """Check that an image can have this (width, height).

    Raises:
        DatasetError: If it cannot: masks of this size would not fit into memory.
    """
    most = 2 * (Image.MAX_IMAGE_PIXELS or _MOST)  # what Pillow refuses as a bomb
    if min(size) < 1 or size[0] * size[1] > most:
        raise DatasetError(where, f"no image that can be opened has {size[0]}x{size[1]} pixels")


def need_image(files: Files, name: str, where: str) -> str:
    """Check that an image exists.

    Raises:
        DatasetError: If there is no regular file of this name, or it is not below the folder.
    """
    reason = files.lacks(name, "image")
    if reason:
        raise DatasetError(where, reason)
    return name


def box_from_xywh(value: Any, where: str) -> Box | None:
    """A box from ``[x, y, width, height]``; None if it is empty.

    Raises:
        DatasetError: If the value is not four numbers, or a side is negative.
    """
    x, y, width, height = numbers(value, where)
    if width < 0 or height < 0:
        raise DatasetError(where, f"a box has a negative side: [x, y, w, h] = {shown(value)}")
    return (x, y, x + width, y + height) if width and height else None


def box_from_corners(value: Any, where: str) -> Box:
    """A box from ``[x0, y0, x1, y1]``, half-open.

    Raises:
        DatasetError: If the value is not four numbers, or the box is empty.
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
        The line's number, from 1, its place for messages, and its value. A line that is not JSON is
        an invalid record.
    """
    place = files.where(name)
    for line, text in enumerate(files.read_text(name).split("\n"), start=1):
        if text.strip():
            parsed = []
            with problems.one_record():
                parsed.append(parse_json(text, place, line - 1))
            for value in parsed:
                yield line, f"{place}, line {line}", value
