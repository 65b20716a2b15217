"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that refer to one object each."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn

from captum_interactions.datasets.archive import Files, ImageFile, find_folder
from captum_interactions.datasets.problems import DatasetError, Problems, claim
from captum_interactions.datasets.reading import (
    box_from_xywh,
    image_size,
    need,
    need_image,
    read_json,
    shown,
)
from captum_interactions.datasets.record import Box, Phrase, Record
from captum_interactions.datasets.sequence import RecordSequence

_IMAGE_FOLDERS = (
    "train2014",
    "images/mscoco/images/train2014",
    "images/train2014",
    "coco/train2014",
    "mscoco/train2014",
    "images",
)


class Expression(NamedTuple):
    """An expression and the object that it refers to."""

    id: int
    ref: int
    text: str
    box: Box
    category: str
    image: str
    size: tuple[int, int]


class RefCocoRecords(RecordSequence[Expression]):
    """RefCOCO, RefCOCO+ and RefCOCOg: one record for each expression.

    On disk, as downloaded (https://github.com/lichengunc/refer), with COCO's images of 2014:

    .. code-block:: text

        PATH/refs(unc).p                   (or refs(google).p, refs(umd).p)
        PATH/instances.json
        PATH/train2014/COCO_train2014_000000581857.jpg

    The images may also be beside PATH, or at ``images/mscoco/images/train2014`` there, as in the
    authors' repository. The caption is the expression (``sent``). The whole caption is a phrase,
    with the box of the object that it refers to and the object's category as its label.

    ``refs(...).p`` is a pickle, a format that can run code. The unpickler used here creates only
    numbers, strings, lists, sets and dictionaries (a tuple becomes a list), and refuses a file that
    needs other objects.

    Args:
        path: The folder above, or a zip file of it.
        split: ``"train"``, ``"val"``, ``"testA"``, ``"testB"`` or ``"test"``, as in the file.
            Default: None, all splits
        split_by: Authors of the splits: ``"unc"``, ``"google"`` or ``"umd"``. Default: None, the
            only file ``refs(...).p``
        images: Folder or zip file with the images, if it is elsewhere. Default: None
        on_error: ``"raise"`` at the first invalid expression, or ``"skip"`` it and list it in
            ``.skipped``. Default: ``"raise"``

    Raises:
        FileNotFoundError: If a file is missing.
        DatasetError: If a file does not have this format, or an image is missing.
        ValueError: If there is no such split, or there are several files and ``split_by`` is None.
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        *,
        split_by: str | None = None,
        images: str | Path | None = None,
        on_error: str = "raise",
    ) -> None:
        problems, root = Problems(on_error), Files(path)
        home = find_folder(
            [root],
            ["", root.path.stem],
            "instances.json",
            lambda files: files.has("instances.json"),
        )
        self._file = _refs_file(home, split_by)
        data = home.read_bytes(self._file)
        refs = read_plain_pickle(data, home.where(self._file))
        if not isinstance(refs, list):
            raise DatasetError(home.where(self._file), f"expected a list, but got {shown(refs)}")
        instances = read_json(home, "instances.json")
        index = {
            kind: _by_id(need(instances, kind, list, "instances.json"), kind, problems)
            for kind in ("images", "annotations", "categories")
        }
        chosen = _of_split(refs, split, self._file)
        ids = [_get(ref, "image_id") for _, ref in chosen[:100]]  # some may be missing
        names = [index["images"].get(i, {}).get("file_name") for i in ids if isinstance(i, int)]
        first = [name for name in names if isinstance(name, str)]
        beside = [home, Files(root.path.parent)] if images is None else [Files(images)]
        self._images = find_folder(
            beside,
            _IMAGE_FOLDERS if images is None else ["", *_IMAGE_FOLDERS],
            "the images",
            lambda files: not first or any(map(files.has, first)),
        )
        entries: list[Expression] = []
        taken: dict[str, str] = {}
        for position, ref in chosen:
            number = _get(ref, "ref_id")
            named = f"at position {position}" if number is None else shown(number)
            with problems.one_record():
                where = f"{self._file}: ref {named}"
                for expression in _expressions(ref, index, self._images, where):
                    claim(str(expression.id), taken, f"{where}, sentence {expression.id}")
                    entries.append(expression)
        super().__init__(entries, problems.report(f"RefCOCO {home.path.name}"))

    def _record(self, entry: Expression) -> Record:
        phrase = Phrase(entry.text, (0, len(entry.text)), (entry.box,), entry.category)
        return Record(
            key=str(entry.id),
            caption=entry.text,
            phrases=(phrase,),
            open_image=ImageFile(self._images, entry.image, entry.size),
            source=f"{self._file}: ref {entry.ref}, sentence {entry.id}",
            image_key=entry.image,
        )


class _PlainUnpickler(pickle._Unpickler):
    """Reads plain data. Classes and functions, which a pickle may call, are refused.

    It derives from the unpickler in Python, since the one in C may allocate gigabytes for a number
    of ten bytes. Tuples become lists, since hashing deeply nested tuples overflows the stack.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.EMPTY_TUPLE[0]: lambda self: self.load_empty_list(),
        pickle.TUPLE[0]: lambda self: self.load_list(),
        pickle.TUPLE1[0]: lambda self: _pack(self.stack, 1),
        pickle.TUPLE2[0]: lambda self: _pack(self.stack, 2),
        pickle.TUPLE3[0]: lambda self: _pack(self.stack, 3),
        pickle.BYTEARRAY8[0]: lambda _: _refuse("a bytearray"),  # whose size is allotted unread
    }

    def find_class(self, module: str, name: str) -> NoReturn:
        _refuse(f"{module}.{name}")


def _pack(stack: list[Any], count: int) -> None:
    stack[-count:] = [stack[-count:]]


def _refuse(what: str) -> NoReturn:
    raise pickle.UnpicklingError(f"it asks for {what}, which is not plain data")


def read_plain_pickle(data: bytes, where: str) -> Any:
    """Read a pickle of numbers, strings and containers.

    Byte strings of Python 2 are decoded as UTF-8, or else as Latin-1.

    Raises:
        DatasetError: If it is not a pickle, or contains anything else.
    """
    try:
        try:
            return _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
        except UnicodeDecodeError:
            return _PlainUnpickler(io.BytesIO(data), encoding="latin-1").load()
    except Exception as error:  # noqa: BLE001 - a broken pickle can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise DatasetError(where, f"cannot be read as a pickle of plain data: {reason}") from None


def _refs_file(home: Files, split_by: str | None) -> str:
    names = [name for name in home.names() if name.startswith("refs(") and name.endswith(").p")]
    found = ", ".join(names) or "no refs(...).p at all"
    if split_by is None and len(names) > 1:
        raise ValueError(f"say who split it (split_by), there are {found}")
    wanted = f"refs({split_by}).p" if split_by is not None else names[0] if names else "refs(unc).p"
    if wanted not in names:
        raise FileNotFoundError(f"there is no {wanted} at {home.where()}, but {found}")
    return wanted


def _by_id(items: Sequence[Any], kind: str, problems: Problems) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for i, item in enumerate(items):
        with problems.one_record():
            found[need(item, "id", int, f"instances.json: {kind}, position {i}")] = item
    return found


def _get(ref: Any, key: str, default: Any = None) -> Any:
    return ref.get(key, default) if isinstance(ref, dict) else default


def _of_split(refs: list[Any], split: str | None, file: str) -> list[tuple[int, Any]]:
    chosen = [(i, ref) for i, ref in enumerate(refs) if split in (None, _get(ref, "split", split))]
    if split is not None and not any(_get(ref, "split") == split for ref in refs):
        there = sorted({s for s in (_get(ref, "split") for ref in refs) if isinstance(s, str)})
        raise ValueError(f"{file} has no split {split!r}, but {', '.join(there)}")
    return chosen


def _expressions(
    ref: Any, index: dict[str, dict[int, dict[str, Any]]], images: Files, where: str
) -> Iterator[Expression]:
    def look_up(kind: str, key: str) -> tuple[dict[str, Any], str]:
        number = need(ref, key, int, where)
        if number not in index[kind]:
            raise DatasetError(where, f"its {key} {number} is not among the {kind}")
        return index[kind][number], f"instances.json: {kind}, id {number}"

    annotation, place = look_up("annotations", "ann_id")
    box = box_from_xywh(need(annotation, "bbox", list, place), place)
    if box is None:
        raise DatasetError(place, f"its box holds nothing: {shown(annotation['bbox'])}")
    category, place = look_up("categories", "category_id")
    label = need(category, "name", str, place)
    image, place = look_up("images", "image_id")
    name = need(image, "file_name", str, place)  # the name in the ref is that of no file
    size = image_size(image, place)
    need_image(images, name, where)
    for sentence in need(ref, "sentences", list, where):
        number = need(sentence, "sent_id", int, where)
        text = need(sentence, "sent", str, f"{where}, sentence {number}").strip()
        if not text:
            raise DatasetError(f"{where}, sentence {number}", "is empty")
        ref_id = need(ref, "ref_id", int, where)
        yield Expression(number, ref_id, text, box, label, name, size)
