"""Files that somebody wrote to do harm: each is refused by its place, and can be skipped."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from captum_interactions.datasets import (
    CocoRecords,
    DatasetError,
    Flickr30kRecords,
    JsonLinesRecords,
    RefCocoRecords,
    archive,
)
from captum_interactions.datasets.archive import Files, ImageFile
from captum_interactions.datasets.flickr30k import read_annotation, read_sentence
from captum_interactions.datasets.reading import shown
from captum_interactions.datasets.refcoco import read_plain_pickle
from tests.datasets import test_coco, test_flickr30k, test_refcoco
from tests.on_disk import check, image_bytes, pack, write

posix = pytest.mark.skipif(os.name != "posix", reason="pipes and links are those of POSIX")
DIGITS_400, DIGITS_5000 = "1" * 400, "1" * 5000
SAFE = '{"image": "photos/1.jpg", "caption": "a dog"}'


def line(image: str = "photos/1.jpg", phrases: str = "[]", key: str = "x") -> str:
    return f'{{"image": "{image}", "caption": "a cat", "key": "{key}", "phrases": {phrases}}}'


def boxed(number: str) -> str:
    return line(phrases=f'[{{"text": "cat", "boxes": [[0, 0, 1, {number}]]}}]')


LINES = {
    "a path that leads out": (line("../../../dev/zero"), r"its image .*dev/zero is not below"),
    "an absolute path": (line("/dev/zero"), r"its image /dev/zero is not below"),
    "a file beside the folder": (line("../secret.jpg"), r"secret\.jpg is not below .*mine, whose"),
    "the folder itself": (line("photos/.."), "is not below"),
    "an overlong path": (line("x" * 10_000 + ".jpg"), "there is no image"),
    "an overlong path of folders": (line("x/" * 10_000 + ".jpg"), "there is no image"),
    "a path with NUL": (line("photos/\\u0000.jpg"), "there is no image"),
    "a path with a surrogate": (line("photos/\\ud800.jpg"), "'image' holds half of a surrogate"),
    "a folder": (line("photos"), r"its image .*photos is not a regular file"),
    "links in a circle": (line("photos/circle.jpg"), r"circle\.jpg is not a regular file"),
    "a pipe": (line("photos/pipe.jpg"), r"pipe\.jpg is not a regular file"),
    "a device": (line("photos/zero.jpg"), r"zero\.jpg is not a regular file"),
    "a box of 400 digits": (boxed(DIGITS_400), r"a box is four numbers, .*integer of 1326 bits"),
    "a box of 5000 digits": (boxed(DIGITS_5000), "cannot be read: .*4300"),
    "a box of 1e300": (boxed("1e300"), "a box is four numbers"),
    "an infinite box": (boxed("Infinity"), "a box is four numbers"),
    "lists without end": (line(phrases="[" * 100_000 + "]" * 100_000), "cannot be read: .*recurs"),
    "a surrogate in a key": (line(key="\\ud800"), "'key' holds half of a surrogate pair"),
    "a surrogate in a label": (
        line(phrases='[{"text": "cat", "label": "\\udfff"}]'), "'label' holds half of a surrogate",
    ),
}  # fmt: skip


def own(folder: Path, *lines: str) -> Path:
    write(folder, {"pairs.jsonl": "\n".join(lines), "photos/1.jpg": image_bytes()})
    return folder / "pairs.jsonl"


@posix
@pytest.mark.parametrize("name", LINES)
def test_lines(tmp_path: Path, name: str) -> None:
    text, reason = LINES[name]
    path = own(tmp_path / "mine", SAFE, text, SAFE.replace("dog", "bird"))
    write(tmp_path, {"secret.jpg": image_bytes()})
    photos = path.parent / "photos"
    os.mkfifo(photos / "pipe.jpg")
    (photos / "circle.jpg").symlink_to("circle.jpg")
    (photos / "zero.jpg").symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match=reason) as error:
        JsonLinesRecords(path)
    assert error.value.where.startswith(f"{path}, line 2")
    assert len(str(error.value)) < 1100
    with pytest.warns(UserWarning, match=r"pairs\.jsonl: 1 left out"):
        records = JsonLinesRecords(path, on_error="skip")
    check(records)
    assert [record.caption for record in records] == ["a dog", "a bird"]


@posix
def test_what_may_be_read_is_said_by_the_user(tmp_path: Path) -> None:
    write(tmp_path / "photos", {"1.jpg": image_bytes()})
    texts = (line("../photos/1.jpg"), line(str(tmp_path / "photos" / "1.jpg"), key="y"))
    path = own(tmp_path / "annotations", *texts)
    for within in (tmp_path, "/", tmp_path / "annotations" / ".."):
        check(JsonLinesRecords(path, within=within))
    with pytest.raises(ValueError, match=r"within must be a folder around .*annotations', but is"):
        JsonLinesRecords(path, within=tmp_path / "photos")
    (path.parent / "linked").symlink_to(tmp_path / "photos")
    check(JsonLinesRecords(own(tmp_path / "annotations", line("linked/1.jpg"), SAFE)))
    images = [{**image, "file_name": str(tmp_path / "photos" / "1.jpg")} for image in IMAGES]
    root = write(tmp_path / "coco", test_coco.files(images=images))
    with pytest.raises(DatasetError, match=r"annotation 38: its image .* is not below .*coco"):
        CocoRecords(root)
    check(CocoRecords(root, images="/"))


def test_folders_lead_nowhere_else(tmp_path: Path) -> None:
    """Karpathy's file names folders, too."""
    write(tmp_path, {"own/1.jpg": b"", "beside/1.jpg": b"", "zip/1.jpg": b""})
    pack(tmp_path / "zip")
    files = Files(tmp_path / "own")
    assert all(files.folder(name) is None for name in ("../beside", "../zip", str(tmp_path)))


def test_a_file_that_changes_behind_the_reader(tmp_path: Path) -> None:
    records = JsonLinesRecords(own(tmp_path, SAFE))
    photo = tmp_path / "photos" / "1.jpg"
    with photo.open("wb") as file:
        file.truncate(archive.MOST_IMAGE_BYTES + 1)  # it takes no space
    with pytest.raises(DatasetError, match=r"1\.jpg: cannot be read: it has 536870913 bytes"):
        records[0].image  # noqa: B018
    photo.unlink()
    photo.mkdir()
    with pytest.raises(DatasetError, match=r"1\.jpg: cannot be read: it is not a regular file"):
        records[0].image  # noqa: B018


# Zip files.


def bad_checksum(data: bytearray) -> None:
    data[data.index(b"PK\x01\x02") + 16] ^= 1


def bad_method(data: bytearray) -> None:
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", data, data.index(mark) + place, 77)


def encrypted(data: bytearray) -> None:
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1


def another_name(data: bytearray) -> None:
    data[data.index(b"PK\x03\x04") + 30] ^= 1


def broken_stream(data: bytearray) -> None:
    data[data.index(b"PK\x03\x04") + 30 + len("photos/1.jpg")] = 0xFF


def wrong_place(data: bytearray) -> None:
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 42, 2**20)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (bad_checksum, "Bad CRC-32"),
        (bad_method, "compression"),
        (encrypted, "encrypted, password required"),
        (another_name, "differ"),
        (broken_stream, "rror -3 while decompressing"),
        (wrong_place, ""),
    ],
)
def test_members_of_zip_files(
    tmp_path: Path, damage: Callable[[bytearray], None], reason: str
) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("photos/1.jpg", image_bytes())
    data = bytearray(content.getvalue())
    damage(data)
    write(tmp_path, {"photos.zip": bytes(data)})
    files = Files(tmp_path / "photos.zip")
    assert files.has("photos/1.jpg")
    with pytest.raises(DatasetError, match=rf"photos/1\.jpg: cannot be read: .*{reason}"):
        ImageFile(files, "photos/1.jpg")()


def test_a_zip_file_without_its_list(tmp_path: Path) -> None:
    write(tmp_path, {"a.zip": b"PK\x05\x06" + bytes([0] * 8) + b"\xff" * 8 + bytes(2)})
    with pytest.raises(DatasetError, match=r"a\.zip"):
        Files(tmp_path / "a.zip").names()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("honest", [True, False])
def test_members_that_unpack_to_gigabytes(
    tmp_path: Path, method: int, honest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaled down: beyond 64 KiB, instead of MiB, no member may grow a hundredfold."""
    monkeypatch.setattr(archive, "_SMALL", 2**16)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as file:
        file.writestr("bomb.jsonl", bytes(2**23))
    data = bytearray(content.getvalue())
    if not honest:
        struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 1000)
    write(tmp_path, {"a.zip": bytes(data)})
    reason = "unpack to 8388608, more than 100 times" if honest else "Bad CRC-32"
    with pytest.raises(DatasetError, match=rf"bomb\.jsonl: cannot be read: .*{reason}"):
        JsonLinesRecords(tmp_path / "a.zip")


def test_zip_files_lead_nowhere_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("../1.jpg", "/etc/1.jpg"):
            file.writestr(name, image_bytes())
        file.writestr("pairs.jsonl", "\n".join([line("../1.jpg"), line("/etc/1.jpg"), SAFE]))
    with pytest.warns(UserWarning, match="3 left out"):
        records = JsonLinesRecords(tmp_path / "a.zip", on_error="skip")
    assert ["is not below" in skipped.reason for skipped in records.skipped] == [True, True, False]


# COCO.


IMAGES = test_coco.IMAGES
RUNS = {"size": [48, 64]}


@pytest.mark.parametrize(
    ("kind", "changed", "reason"),
    [
        ("things", {"bbox": [0, 0, 1, int(DIGITS_400)]}, "a box is four numbers"),
        ("things", {"image_id": int(DIGITS_400)}, "'image_id' must be an integer of 64 bits"),
        ("things", {"id": [[]] * 999, "image_id": "x"}, "'image_id' must be of type int"),
        ("things", {"segmentation": RUNS | {"counts": [3073, -1]}}, "runs are whole numbers"),
        ("things", {"segmentation": RUNS | {"counts": [int(DIGITS_400)]}}, "runs are whole"),
        ("things", {"segmentation": RUNS | {"counts": [3072.0]}}, "runs are whole numbers"),
        ("things", {"segmentation": RUNS | {"counts": ["3072"]}}, "runs are whole numbers"),
        ("things", {"segmentation": RUNS | {"counts": [2**62] * 4}}, "runs are whole numbers"),
        ("things", {"segmentation": [[1, 2, 3, 4, 5, int(DIGITS_400)]]}, "a polygon is"),
        ("said", {"id": int(DIGITS_400)}, "'id' must be an integer of 64 bits"),
        ("said", {"caption": "\ud83d dogs"}, "'caption' holds half of a surrogate pair"),
    ],
)
def test_annotations_of_coco(
    tmp_path: Path, kind: str, changed: dict[str, Any], reason: str
) -> None:
    outline = [[1, 2, 3, 4, 5, 6]]  # that of the crowd would not fit
    items = {
        "things": [thing | {"segmentation": outline} for thing in test_coco.THINGS],
        "said": [dict(caption) for caption in test_coco.SAID],
    }
    items[kind][1] |= changed
    root = write(tmp_path, test_coco.files(**items))
    with pytest.raises(DatasetError, match=rf"2017\.json: annotation .*: {reason}") as error:
        CocoRecords(root, masks=True)
    assert len(str(error.value)) < 300
    with pytest.warns(UserWarning, match="COCO: 1 left out"):
        check(CocoRecords(root, masks=True, on_error="skip"))


@pytest.mark.parametrize("side", [0, -5, 10**6, int(DIGITS_400)])
def test_sizes_that_no_image_has(tmp_path: Path, side: int) -> None:
    """Masks of them would not fit into memory."""
    root = write(tmp_path, test_coco.broken("images", 1, width=side, height=side))
    with pytest.raises(DatasetError, match=r"image (1|285): (no image that can be opened|'width')"):
        CocoRecords(root)
    with pytest.warns(UserWarning, match="left out"):
        records = CocoRecords(root, masks=True, on_error="skip")
    assert [record.key for record in records] == ["38", "67", "71"]


# Flickr30k Entities.


@pytest.mark.parametrize("encoding", ["bogus", "utf-7", "idna", "hex"])
def test_encodings_of_xml(tmp_path: Path, encoding: str) -> None:
    annotation = f'<?xml version="1.0" encoding="{encoding}"?>{test_flickr30k.ANNOTATION}'
    root = write(tmp_path, test_flickr30k.files() | {"Annotations/36979.xml": annotation})
    with pytest.raises(DatasetError, match=r"36979\.xml, line 1: not XML"):
        Flickr30kRecords(root, "test")
    with pytest.warns(UserWarning, match="Flickr30k Entities: 1 left out"):
        check(Flickr30kRecords(root, "test", on_error="skip"))


@pytest.mark.parametrize("number", [DIGITS_400, DIGITS_5000, "999999999", "0"])
def test_numbers_of_xml(number: str) -> None:
    annotation = test_flickr30k.ANNOTATION.replace("<width>64<", f"<width>{number}<")
    with pytest.raises(DatasetError, match="here: (<size><width> must be|no image)") as error:
        read_annotation(annotation.encode(), "here")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        "[/EN#1/people" + " " * 300_000,
        "[/EN#1/people" + " " * 300_000 + "[",
        "[/EN#1/people" + "x" * 300_000,
        "[/EN#1/" * 50_000,
        "[/" + "x" * 300_000,
        "[/EN#" + "1" * 300_000,
    ],
)
def test_sentences_take_time_by_their_length(text: str) -> None:
    """By its square, each would take hours."""
    with pytest.raises(DatasetError, match="here: broken markup at"):
        read_sentence(text, {}, "here")


# The pickle of RefCOCO.


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x80\x05\x96" + struct.pack("<Q", 2**28) + b".", "asks for a bytearray"),
        (b"\x80\x05\x8d" + struct.pack("<Q", 2**40) + b"x.", "EOFError"),
        (b"\x80\x05\x95" + struct.pack("<Q", 2**40) + b"x.", ""),
        (pickle.dumps({((),): 1}), "unhashable"),
        (b"\x80\x04K\x01", "EOFError"),
    ],
)
def test_pickles(data: bytes, reason: str) -> None:
    with (
        little_memory(),
        pytest.raises(DatasetError, match=f"here: cannot be read as a pickle .*{reason}"),
    ):
        read_plain_pickle(data, "here")


def test_a_pickle_of_ten_bytes_takes_no_gigabytes() -> None:
    with little_memory():
        assert read_plain_pickle(b"\x80\x05Nr" + struct.pack("<I", 2**24) + b".", "here") is None


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def endless() -> list[Any]:
    """Lists of ten lists each, a hundred deep: the same ones, in a few bytes."""
    nested: list[Any] = []
    for _ in range(100):
        nested = [nested] * 10
    return nested


@pytest.mark.parametrize(
    "changed",
    [
        {"ref_id": endless()},
        {"image_id": endless()},
        {"ann_id": [1]},
        {"category_id": {"a": 1}},
        {"sentences": endless()},
        {"sentences": [{"sent_id": endless(), "sent": "x"}]},
        {"sentences": [{"sent_id": 10**5000, "sent": "x"}]},
        {"sentences": [{"sent_id": 1, "sent": endless()}]},
    ],
)
def test_references(tmp_path: Path, changed: dict[str, Any]) -> None:
    refs = [{**test_refcoco.REFS[0], **changed}, *test_refcoco.REFS[1:]]
    path = write(tmp_path, test_refcoco.files(refs)) / "refcoco"
    with pytest.raises(DatasetError) as error:
        RefCocoRecords(path)
    assert len(str(error.value)) < 300
    with pytest.warns(UserWarning, match="RefCOCO refcoco: 1 left out"):
        check(RefCocoRecords(path, on_error="skip"))


def test_splits_that_are_no_names(tmp_path: Path) -> None:
    refs = [{**test_refcoco.REFS[0], "split": endless()}, *test_refcoco.REFS[1:]]
    path = write(tmp_path, test_refcoco.files(refs)) / "refcoco"
    check(RefCocoRecords(path))
    check(RefCocoRecords(path, "testA"))
    with pytest.raises(ValueError, match=r"has no split 'train', but testA$"):
        RefCocoRecords(path, "train")


def test_references_that_share_their_sentences(tmp_path: Path) -> None:
    """A million expressions in some bytes."""
    one = test_refcoco.REFS[0]
    refs = [{**one, "sentences": one["sentences"][:1] * 1000}] * 1000
    path = write(tmp_path, test_refcoco.files(refs)) / "refcoco"
    with pytest.raises(DatasetError, match=r"refs\(unc\)\.p.* (share their lists|has the key)"):
        RefCocoRecords(path)


def test_values_in_messages_are_short() -> None:
    values = [endless(), 10**5000, "x" * 10**6, {"k": endless()}, b"x" * 10**6, json, [1, 2, 3]]
    assert all(len(shown(value)) <= 60 for value in values)
    assert shown([1, 2.5, "a", None, {"b": True}]) == "[1, 2.5, 'a', None, {'b': True}]"
