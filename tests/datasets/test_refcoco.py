"""RefCOCO: the pickle is read without running anything, boxes, splits, broken references."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from captum_interactions.datasets import DatasetError, RefCocoRecords, Skipped, load_dataset
from captum_interactions.datasets.refcoco import read_plain_pickle
from tests.on_disk import NoImages, check, image_bytes, pack, write

NAME = "COCO_train2014_000000581857.jpg"
OTHER_NAME = "COCO_train2014_000000000009.jpg"


def ref(number: int, ann_id: int, split: str, *sentences: str, image_id: int = 581857) -> Any:
    return {
        "sent_ids": [10 * number + k for k in range(len(sentences))],
        "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",  # the name of no file
        "ann_id": ann_id,
        "ref_id": number,
        "image_id": image_id,
        "split": split,
        "category_id": 1,
        "sentences": [
            {"tokens": text.split(), "raw": text.upper(), "sent_id": 10 * number + k, "sent": text}
            for k, text in enumerate(sentences)
        ],
    }


REFS = [
    ref(0, 1719310, "train", "the lady with the blue shirt", "lady in blue "),
    ref(1, 1719311, "testA", "man on the left"),
    ref(2, 22, "testA", "bowl", image_id=9),
]
INSTANCES = {
    "info": {},
    "licenses": [],
    "images": [
        {"id": 581857, "file_name": NAME, "width": 64, "height": 48},
        {"id": 9, "file_name": OTHER_NAME, "width": 20, "height": 30},
    ],
    "annotations": [
        {"id": 1719310, "image_id": 581857, "category_id": 1, "bbox": [10.5, 2, 20, 30]},
        {"id": 1719311, "image_id": 581857, "category_id": 1, "bbox": [0, 0, 5, 6]},
        {"id": 22, "image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4]},
    ],
    "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
}


def files(refs: Any = REFS, name: str = "refs(unc).p", **changed: Any) -> dict[str, Any]:
    return {
        f"refcoco/{name}": pickle.dumps(refs, protocol=2),
        "refcoco/instances.json": {**INSTANCES, **changed},
        f"refcoco/train2014/{NAME}": image_bytes(),
        f"refcoco/train2014/{OTHER_NAME}": image_bytes((20, 30)),
    }


@pytest.mark.parametrize(
    "layout", ["folder", "train2014.zip", "one zip file", "authors'", "beside"]
)
def test_layouts(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, files()) / "refcoco"
    if layout == "train2014.zip":
        pack(path / "train2014")
    elif layout == "one zip file":
        path = pack(path)
    elif layout == "authors'":
        (tmp_path / "images" / "mscoco" / "images").mkdir(parents=True)
        (path / "train2014").rename(tmp_path / "images" / "mscoco" / "images" / "train2014")
    elif layout == "beside":
        (path / "train2014").rename(tmp_path / "train2014")
    with NoImages(monkeypatch):
        records = load_dataset("refcoco", path)
    check(records)
    assert [r.key for r in records] == ["0", "1", "10", "20"]


def test_records_by_hand(tmp_path: Path) -> None:
    first, second, third, fourth = RefCocoRecords(write(tmp_path, files()) / "refcoco")
    assert first.caption == "the lady with the blue shirt"
    assert [(p.span, p.boxes, p.label) for p in first.phrases] == [
        ((0, 28), ((10.5, 2, 30.5, 32),), "person")
    ]
    assert second.caption == "lady in blue"
    assert third.phrases[0].boxes == ((0, 0, 5, 6),)
    assert third.source == "refs(unc).p: ref 1, sentence 10"
    assert fourth.image.size == (20, 30)


def test_splits(tmp_path: Path) -> None:
    path = write(tmp_path, files()) / "refcoco"
    assert [r.key for r in RefCocoRecords(path, "testA")] == ["10", "20"]
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p has no split 'test', but testA, train"):
        RefCocoRecords(path, "test")
    write(tmp_path, files(REFS[:1], "refs(google).p"))
    assert len(RefCocoRecords(path, split_by="google")) == 2
    with pytest.raises(ValueError, match=r"who split it .* refs\(google\)\.p, refs\(unc\)\.p"):
        RefCocoRecords(path)
    with pytest.raises(FileNotFoundError, match=r"there is no refs\(umd\)\.p at"):
        RefCocoRecords(path, split_by="umd")


STOLEN: list[str] = []


def steal(what: str) -> None:
    STOLEN.append(what)


class Thief:
    def __reduce__(self) -> Any:
        return steal, ("everything",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_something_is_refused(tmp_path: Path, protocol: int) -> None:
    path = write(tmp_path, files()) / "refcoco"
    (path / "refs(unc).p").write_bytes(pickle.dumps([Thief()], protocol))
    with pytest.raises(DatasetError, match=r"refs\(unc\)\.p: .* asks for .*, which is not plain"):
        RefCocoRecords(path)
    assert STOLEN == []
    pickle.loads(pickle.dumps(Thief()))
    assert [STOLEN.pop()] == ["everything"]  # as pickle itself would have let it


def test_plain_pickles_of_python_2_and_3() -> None:
    data = [{"a": [1, 2.5, None, True], "caf\xe9": b"raw", 2**70: [(1,) * n for n in range(5)]}]
    expected = [{**data[0], 2**70: [[1] * n for n in range(5)]}]
    for protocol in (3, 4, 5):  # bytes for Python 2 are the result of a function
        assert read_plain_pickle(pickle.dumps(data, protocol), "here") == expected
    assert read_plain_pickle(pickle.dumps({1, 2}, 4), "here") == {1, 2}
    assert read_plain_pickle(b"(lp0\nS'caf\\xc3\\xa9'\np1\na.", "here") == ["caf\xe9"]
    assert read_plain_pickle(b"(lp0\nS'caf\\xe9'\np1\na.", "here") == ["caf\xe9"]
    with pytest.raises(DatasetError, match="here: cannot be read as a pickle of plain data"):
        read_plain_pickle(b"no pickle", "here")


REF = "refs(unc).p: ref 0"
BROKEN = [
    ("refs", {"ann_id": 5}, REF, "its ann_id 5 is not among the annotations"),
    ("refs", {"image_id": 5}, REF, "its image_id 5 is not among the images"),
    ("refs", {"category_id": 5}, REF, "its category_id 5 is not among the categories"),
    ("refs", {"sentences": [{"sent_id": 3}]}, REF + ", sentence 3", "has no 'sent'"),
    ("refs", {"sentences": [{"sent_id": 3, "sent": " "}]}, REF + ", sentence 3", "is empty"),
    ("refs", {"sentences": [{"sent_id": 3, "sent": "a"}] * 2}, REF + ", sentence 3",
     f"has the key '3', which {REF}, sentence 3 has too"),
    ("annotations", {"bbox": [1, 2, 0, 4]}, "instances.json: annotations, id 1719310",
     "its box holds nothing: [1, 2, 0, 4]"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changed", "where", "reason"), BROKEN)
def test_broken_references(
    tmp_path: Path, kind: str, changed: dict[str, Any], where: str, reason: str
) -> None:
    refs, instances = copy.deepcopy(REFS), copy.deepcopy(INSTANCES)
    (refs if kind == "refs" else instances[kind])[0].update(changed)
    path = write(tmp_path, files(refs, **instances)) / "refcoco"
    with pytest.raises(DatasetError) as error:
        RefCocoRecords(path)
    assert str(error.value) == f"{where}: {reason}"
    with pytest.warns(UserWarning, match="RefCOCO refcoco: 1 left out"):
        records = RefCocoRecords(path, on_error="skip")
    assert records.skipped == (Skipped(where, reason),)
    assert [r.key for r in records][-2:] == ["10", "20"]
    assert len({r.key for r in records}) == len(records)


def test_a_missing_image(tmp_path: Path) -> None:
    path = write(tmp_path, files()) / "refcoco"
    (path / "train2014" / OTHER_NAME).unlink()
    with pytest.raises(DatasetError, match=r"ref 2: there is no image .*000000000009\.jpg"):
        RefCocoRecords(path)
    (path / "train2014" / NAME).unlink()
    with pytest.raises(FileNotFoundError, match="no folder or zip file with the images"):
        RefCocoRecords(path)
