"""Pairs of one's own in a JSONL file, with phrases and boxes; and writing one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from captum_interactions.datasets.archive import Files, ImageFile, absolute
from captum_interactions.datasets.problems import DatasetError, Problems
from captum_interactions.datasets.reading import (
    box_from_corners,
    json_lines,
    need,
    need_image,
    shown,
)
from captum_interactions.datasets.record import Box, HardNegative, Phrase, Record
from captum_interactions.datasets.sequence import RecordSequence
from captum_interactions.datasets.words import Span

_PHRASE_KEYS = ("text", "span", "boxes", "label")


class Line(NamedTuple):
    """What a line says."""

    number: int
    key: str
    image: str
    caption: str
    phrases: tuple[Phrase, ...]
    unnamed: tuple[Box, ...]
    hard_negative: HardNegative | None


class JsonLinesRecords(RecordSequence[Line]):
    """Pairs of one's own: one record for each line of a JSONL file.

    Each line is a JSON object::

        {"image": "photos/1.jpg", "caption": "a dog by a red bicycle",
         "phrases": [{"text": "dog", "boxes": [[10, 20, 110, 90]], "label": "dog"},
                     {"span": [11, 22], "boxes": []}]}

    - ``image``: path of the image, relative to the file's folder and below it, unless ``within``
      allows more;
    - ``phrases`` (optional): each with its ``text``, which must stand in the caption exactly once,
      or its ``span``, the half-open range of its characters, or both; with ``boxes`` (optional) as
      [x0, y0, x1, y1] in pixels, half-open; with a ``label`` (optional). Photographs are turned
      upright, and boxes are in the pixels of the upright image;
    - ``unnamed`` (optional): boxes of objects that no phrase names;
    - ``key`` (optional): text that no other line has as its key. Default: the line's number;
    - ``hard_negative`` (optional), for a caption that is false: ``{"positive": KEY}`` with the key
      of the line with the true caption, and optionally ``span``, ``replaced`` ([true words, false
      words]) and ``boxes`` as in :class:`HardNegative`.

    Other keys of a line are passed over.

    Args:
        path: The JSONL file; or a zip file, or a folder, with one JSONL file at its top.
        within: A folder around ``path``: images may lie anywhere below it, so that ``"/"`` allows
            every path. Default: None, the file's own folder
        on_error: ``"raise"`` at the first broken line, or ``"skip"`` it and list it in
            ``.skipped``. Default: ``"raise"``

    Raises:
        FileNotFoundError: If the path does not exist, or has no JSONL file.
        DatasetError: If a line is not as above, or an image is missing.
        ValueError: If ``within`` is not a folder around ``path``.
    """

    def __init__(
        self, path: str | Path, *, within: str | Path | None = None, on_error: str = "raise"
    ) -> None:
        problems, path = Problems(on_error), Path(path)
        is_archive = path.is_dir() or path.suffix == ".zip"
        folder = path if is_archive else path.parent
        self._files = Files(folder) if within is None else _below(Path(within), folder)
        self._name = _only_jsonl(self._files) if is_archive else path.name
        parsed: dict[str, tuple[Line, Any, str]] = {}
        for number, where, value in json_lines(self._files, self._name, problems):
            with problems.one_record():
                line = self._line(number, value, where)
                if line.key in parsed:
                    first = parsed[line.key][0].number
                    raise DatasetError(where, f"has the key {line.key!r} of line {first}")
                parsed[line.key] = line, value.get("hard_negative"), where
        true = {line.key: line.caption for line, negative, _ in parsed.values() if negative is None}
        entries: list[Line] = []
        for line, negative, where in parsed.values():
            with problems.one_record():
                entries.append(
                    line._replace(hard_negative=_hard_negative(negative, line.caption, true, where))
                )
        super().__init__(entries, problems.report(self._name))

    def _line(self, number: int, value: Any, where: str) -> Line:
        image = need_image(self._files, need(value, "image", str, where), where)
        caption = need(value, "caption", str, where)
        phrases = need(value, "phrases", list, where) if "phrases" in value else []
        key = need(value, "key", str, where) if "key" in value else str(number)
        found = [
            _phrase(phrase, caption, f"{where}: phrase {k}")
            for k, phrase in enumerate(phrases, start=1)
        ]
        found.sort(key=lambda phrase: phrase.span)
        unnamed = _boxes(value, where, "unnamed")
        return Line(number, key, image, caption, tuple(found), unnamed, None)

    def _record(self, entry: Line) -> Record:
        return Record(
            key=entry.key,
            caption=entry.caption,
            phrases=entry.phrases,
            open_image=ImageFile(self._files, entry.image, upright=True),
            source=f"{self._name}, line {entry.number}",
            hard_negative=entry.hard_negative,
            image_key=entry.image,
            unnamed=entry.unnamed,
        )


def _below(within: Path, folder: Path) -> Files:
    """The files of a folder, whose names may lead to all that is below another one around it."""
    if not absolute(folder).is_relative_to(absolute(within)):
        raise ValueError(f"within must be a folder around {str(folder)!r}, but is {str(within)!r}")
    return Files(within, absolute(folder).relative_to(absolute(within)).as_posix())


def _only_jsonl(files: Files) -> str:
    names = [name for name in files.names() if name.endswith(".jsonl")]
    if len(names) != 1:
        raise FileNotFoundError(
            f"expected one JSONL file at {files.where()}, but there is {', '.join(names) or 'none'}"
        )
    return names[0]


def _phrase(phrase: Any, caption: str, where: str) -> Phrase:
    if not isinstance(phrase, dict):
        raise DatasetError(where, f"expected a JSON object, but got {shown(phrase)}")
    unknown = sorted(set(phrase) - set(_PHRASE_KEYS))
    if unknown:
        raise DatasetError(
            where, f"unknown key {unknown[0]!r}, expected one of {', '.join(_PHRASE_KEYS)}"
        )
    text = need(phrase, "text", str, where) if "text" in phrase else None
    if "span" in phrase:
        span = _span(phrase["span"], caption, where)
        if text not in (None, caption[slice(*span)]):
            raise DatasetError(
                where, f"its span holds {caption[slice(*span)]!r}, but its text is {text!r}"
            )
    elif text:
        count = caption.count(text)
        if count != 1:
            raise DatasetError(
                where,
                f"its text {text!r} stands {count} times in the caption {caption!r}, expected once"
                + (": give its span" if count else ""),
            )
        span = (caption.index(text), caption.index(text) + len(text))
    else:
        raise DatasetError(where, "has neither a text nor a span")
    label = need(phrase, "label", str, where) if phrase.get("label") is not None else None
    return Phrase(caption[slice(*span)], span, _boxes(phrase, where), label)


def _span(value: Any, caption: str, where: str) -> Span:
    is_pair = isinstance(value, list) and [type(v) for v in value] == [int, int]
    if not is_pair or not 0 <= value[0] < value[1] <= len(caption):
        raise DatasetError(
            where,
            "a span is [start, stop] with 0 <= start < stop <= "
            f"{len(caption)}, the caption's length, but got {shown(value)}",
        )
    return value[0], value[1]


def _boxes(holder: Any, where: str, key: str = "boxes") -> tuple[Box, ...]:
    boxes = need(holder, key, list, where) if key in holder else []
    return tuple(box_from_corners(box, where) for box in boxes)


def _hard_negative(
    negative: Any, caption: str, true: dict[str, str], where: str
) -> HardNegative | None:
    if negative is None:
        return None
    where = f"{where}: hard_negative"
    positive = need(negative, "positive", str, where)
    if positive not in true:
        raise DatasetError(where, f"no line with a true caption has the key {positive!r}")
    span = _span(negative["span"], caption, where) if negative.get("span") is not None else None
    replaced = negative.get("replaced")
    if replaced is not None and (
        not isinstance(replaced, list) or [type(words) for words in replaced] != [str, str]
    ):
        raise DatasetError(
            where, f"'replaced' must be [true words, false words], but is {shown(replaced)}"
        )
    words = (replaced[0], replaced[1]) if replaced else None
    return HardNegative(positive, true[positive], span, words, _boxes(negative, where))


def write_jsonl(records: Iterable[Record], folder: str | Path) -> Path:
    """Write records as :class:`JsonLinesRecords` reads them.

    The lines go to ``records.jsonl``, the images to ``images``: one file for all records with the
    same ``image_key``, so that they share an image again when they are read. Masks are not written.

    Args:
        records: Records with different keys.
        folder: Where to write; made if it is missing.

    Returns:
        Path of ``records.jsonl``.

    Raises:
        FileExistsError: If ``records.jsonl`` is there already.

    Examples::

        >>> import tempfile
        >>> from captum_interactions.datasets import JsonLinesRecords, SceneRecords, write_jsonl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = JsonLinesRecords(write_jsonl(SceneRecords(3), folder))
        ...     [a == b for a, b in zip(again[0].phrases, SceneRecords(3)[0].phrases)]
        [True, True]
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    path = folder / "records.jsonl"
    images: dict[str | int, str] = {}
    with path.open("x", encoding="utf-8") as file:
        for i, record in enumerate(records):
            key = record.image_key or i  # without a key, the image is this record's alone
            if key not in images:
                images[key] = f"images/{i:06d}.png"
                record.image.save(folder / images[key])
            file.write(json.dumps(_written(record, images[key]), ensure_ascii=False) + "\n")
    return path


def _written(record: Record, image: str) -> dict[str, Any]:
    written: dict[str, Any] = {
        "key": record.key,
        "image": image,
        "caption": record.caption,
        "phrases": [
            {"text": p.text, "span": p.span, "boxes": p.boxes, "label": p.label}
            for p in record.phrases
        ],
        "unnamed": record.unnamed,
    }
    if record.hard_negative is not None:
        negative = record.hard_negative
        written["hard_negative"] = {
            "positive": negative.positive_key,
            "span": negative.span,
            "replaced": negative.replaced,
            "boxes": negative.boxes,
        }
    return written
