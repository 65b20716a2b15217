"""Data of one's own: a folder with captions beside the images, and JSONL, read and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captum_interactions.datasets import (
    DatasetError,
    FolderRecords,
    JsonLinesRecords,
    Record,
    SceneRecords,
    Skipped,
    load_dataset,
    write_jsonl,
)
from tests.on_disk import NoImages, check, image_bytes, pack, write

PICTURES = {
    "beach.jpg": image_bytes(),
    "beach.txt": "a dog on a beach\n\n  two dogs \n",
    "attic.PNG": image_bytes(shade=7, kind="PNG"),
    "attic.txt": "an attic",
    "notes.md": "not a picture",
}


@pytest.mark.parametrize("layout", ["folder", "zip file"])
def test_a_folder(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "mine", PICTURES)
    if layout == "zip file":
        path = pack(path, top="")
    with NoImages(monkeypatch):
        records = load_dataset("folder", path)
    check(records)
    assert [(r.key, r.caption, r.source) for r in records] == [
        ("attic.PNG#1", "an attic", "attic.txt, line 1"),
        ("beach.jpg#1", "a dog on a beach", "beach.txt, line 1"),
        ("beach.jpg#3", "two dogs", "beach.txt, line 3"),
    ]
    assert records[0].phrases == ()


@pytest.mark.parametrize(
    ("files", "where", "reason"),
    [
        ({"cat.png": image_bytes()}, "cat.png", "there is no caption cat.txt beside it"),
        ({"cat.txt": "a cat"}, "cat.txt", "there is no image cat beside it"),
        ({"beach.png": image_bytes()}, "beach.txt", "several images beside it: beach.jpg, beach"),
        ({"cat.png": image_bytes(), "cat.txt": " \n"}, "cat.txt", "is empty, but should hold"),
        ({"cat.png": image_bytes(), "cat.txt": b"\xe9"}, "cat.txt", "not text in UTF-8"),
    ],
)
def test_broken_folders(tmp_path: Path, files: dict[str, Any], where: str, reason: str) -> None:
    write(tmp_path, {**PICTURES, **files})
    with pytest.raises(DatasetError) as error:
        FolderRecords(tmp_path)
    assert error.value.where == str(tmp_path / where)
    assert error.value.reason.startswith(reason)
    with pytest.warns(UserWarning, match="folder .*: 1 left out"):
        records = FolderRecords(tmp_path, on_error="skip")
    assert records.skipped == (Skipped(error.value.where, error.value.reason),)
    assert "attic.PNG#1" in {record.key for record in records}


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no image at .* \(\.jpg, "):
        FolderRecords(tmp_path)


LINES: list[dict[str, Any]] = [
    {
        "image": "photos/1.jpg",
        "caption": "a dog by a red bicycle",
        "phrases": [
            {"span": [11, 22], "boxes": [[1, 2, 30, 40], [5.5, 6, 7, 8]], "label": "bicycle"},
            {"text": "dog", "boxes": [[10, 20, 11, 21]]},
            {"text": "by", "span": [6, 8]},
        ],
        "unnamed": [[3, 4, 5, 6]],
        "photographer": "somebody",
    },
    {
        "image": "photos/1.jpg",
        "key": "wrong",
        "caption": "a cat by a red bicycle",
        "hard_negative": {
            "positive": "1",
            "span": [2, 5],
            "replaced": ["dog", "cat"],
            "boxes": [[10, 20, 11, 21]],
        },
    },
]


def lines(*values: Any) -> str:
    return "\n".join(v if isinstance(v, str) else json.dumps(v) for v in values) + "\n"


def files(*values: Any) -> dict[str, Any]:
    return {"pairs.jsonl": lines(*(values or LINES)), "photos/1.jpg": image_bytes()}


@pytest.mark.parametrize("layout", ["JSONL file", "folder", "zip file"])
def test_jsonl(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "mine", files())
    if layout == "zip file":
        path = pack(path, top="")
    elif layout == "JSONL file":
        path = path / "pairs.jsonl"
    with NoImages(monkeypatch):
        records = load_dataset("jsonl", path)
    check(records)
    first, second = records
    assert [(p.text, p.span, p.boxes, p.label) for p in first.phrases] == [
        ("dog", (2, 5), ((10, 20, 11, 21),), None),
        ("by", (6, 8), (), None),
        ("red bicycle", (11, 22), ((1, 2, 30, 40), (5.5, 6, 7, 8)), "bicycle"),
    ]
    assert (first.unnamed, second.unnamed) == (((3, 4, 5, 6),), ())
    assert (first.key, second.key) == ("1", "wrong")
    assert second.source == "pairs.jsonl, line 2"
    assert second.hard_negative is not None
    assert second.hard_negative.replaced == ("dog", "cat")
    assert second.hard_negative.boxes == ((10, 20, 11, 21),)


def one(**changed: Any) -> dict[str, Any]:
    return {"image": "photos/1.jpg", "caption": "a dog and a dog", **changed}


def phrased(**phrase: Any) -> dict[str, Any]:
    return one(phrases=[{"text": "and"}, phrase])


BROKEN = [
    ("{", "", "not JSON"),
    ("3", "", "expected a JSON object, but got 3"),
    (one(image="photos/2.jpg"), "", "there is no image"),
    (one(caption=3), "", "'caption' must be of type str, but is 3"),
    (one(key="wrong"), "", "has the key 'wrong' of line 2"),
    (one(phrases={}), "", "'phrases' must be of type list, but is {}"),
    (phrased(text="dog"), ": phrase 2",
     "its text 'dog' stands 2 times in the caption 'a dog and a dog', expected once: give its spa"),
    (phrased(text="cat"), ": phrase 2", "its text 'cat' stands 0 times"),
    (phrased(text="dog", span=[0, 3]), ": phrase 2", "its span holds 'a d', but its text is 'dog'"),
    (phrased(span=[3, 16]), ": phrase 2", "a span is [start, stop] with 0 <= start < stop <= 15"),
    (phrased(span=[3, 3]), ": phrase 2", "a span is [start, stop]"),
    (phrased(span=[-3, 3]), ": phrase 2", "a span is [start, stop]"),
    (phrased(boxes=[]), ": phrase 2", "has neither a text nor a span"),
    (phrased(text="and", box=[]), ": phrase 2", "unknown key 'box', expected one of text, span, b"),
    (phrased(text="and", boxes=[[1, 2, 1, 4]]), ": phrase 2", "a box holds nothing"),
    (phrased(text="and", boxes=[1, 2, 3, 4]), ": phrase 2", "a box is four numbers, but got 1"),
    (one(unnamed=[[1, 2, 1, 4]]), "", "a box holds nothing"),
    (one(phrases=["dog"]), ": phrase 1", "expected a JSON object, but got 'dog'"),
    (
        one(hard_negative={"positive": "9"}),
        ": hard_negative",
        "no line with a true caption has the key '9'",
    ),
    (
        one(hard_negative={"positive": "wrong"}),
        ": hard_negative",
        "no line with a true caption has the key 'wrong'",
    ),
    (
        one(hard_negative={"positive": "1", "replaced": ["dog"]}),
        ": hard_negative",
        "'replaced' must be [true words",
    ),
    (
        one(hard_negative={"positive": "1", "span": [0, 99]}),
        ": hard_negative",
        "a span is [start, stop]",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "where", "reason"), BROKEN)
def test_broken_lines(tmp_path: Path, line: Any, where: str, reason: str) -> None:
    path = write(tmp_path, files(*LINES, line)) / "pairs.jsonl"
    with pytest.raises(DatasetError) as error:
        JsonLinesRecords(path)
    assert error.value.where == f"{path}, line 3{where}"
    assert error.value.reason.startswith(reason)
    with pytest.warns(UserWarning, match=r"pairs\.jsonl: 1 left out"):
        records = JsonLinesRecords(path, on_error="skip")
    assert records.skipped == (Skipped(error.value.where, error.value.reason),)
    assert len(records) == 2
    check(records)


def test_which_jsonl(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected one JSONL file at .* but there is none"):
        JsonLinesRecords(tmp_path)
    write(tmp_path, {"a.jsonl": "", "b.jsonl": ""})
    with pytest.raises(FileNotFoundError, match=r"but there is a\.jsonl, b\.jsonl"):
        JsonLinesRecords(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no file at .*c\.jsonl"):
        JsonLinesRecords(tmp_path / "c.jsonl")


def test_scenes_written_and_read(tmp_path: Path) -> None:
    scenes = SceneRecords(12, seed=3, hard_negatives=True)
    path = write_jsonl(scenes, tmp_path / "scenes")
    records = JsonLinesRecords(path)
    check(records)
    for before, after in zip(scenes, records, strict=True):
        assert (before.key, before.caption, before.hard_negative) == (
            after.key,
            after.caption,
            after.hard_negative,
        )
        assert before.phrases == after.phrases
        assert np.array_equal(np.asarray(before.image), np.asarray(after.image))
    assert [record.unnamed for record in records] == [scene.unnamed for scene in scenes]
    assert any(record.unnamed for record in records)
    with pytest.raises(FileExistsError):
        write_jsonl(scenes, tmp_path / "scenes")


def test_records_share_an_image_as_before(tmp_path: Path) -> None:
    scenes = SceneRecords(4, hard_negatives=True)
    assert len(scenes) > 4
    records = JsonLinesRecords(write_jsonl(scenes, tmp_path / "scenes"))
    assert alike(records) == alike(scenes)
    assert len(list((tmp_path / "scenes/images").iterdir())) == 4
    own = [replace(scene, image_key="", hard_negative=None) for scene in scenes]
    apart = JsonLinesRecords(write_jsonl(own, tmp_path / "own"))
    assert alike(apart) == [[i] for i in range(len(own))]


def alike(records: Sequence[Record]) -> list[list[int]]:
    """The places of the records of each image."""
    keys = [record.image_key for record in records]
    return [[i for i, one in enumerate(keys) if one == key] for key in dict.fromkeys(keys)]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("folder", {}, "the dataset 'folder' is read from files: say where with path"),
        ("folder", {"path": ".", "split": "val"}, "the dataset 'folder' has no splits"),
        ("coco", {"path": ".", "crowd": True}, "unknown option 'crowd' .* one of karpathy, images"),
    ],
)
def test_load_dataset_says_what_is_missing(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        load_dataset(name, **options)
