"""COCO: the layout on disk, which words name which objects, crowds, splits, broken annotations."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captum_interactions.datasets import CocoRecords, DatasetError, Skipped, load_dataset
from tests.on_disk import NoImages, check, image_bytes, pack, write

CATEGORIES = [
    {"id": 1, "name": "person", "supercategory": "person"},
    {"id": 17, "name": "cat", "supercategory": "animal"},
    {"id": 18, "name": "dog", "supercategory": "animal"},
    {"id": 58, "name": "hot dog", "supercategory": "food"},
    {"id": 88, "name": "teddy bear", "supercategory": "indoor"},
    {"id": 7, "name": "train", "supercategory": "vehicle"},
]


def image(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": f"{number:012d}.jpg",
        "width": 64,
        "height": 48,
        "license": 1,
        "coco_url": f"http://images.cocodataset.org/val2017/{number:012d}.jpg",
        "date_captured": "2013-11-14 17:02:52",
        **changed,
    }


def thing(number: int, image_id: int, category: int, bbox: Any, iscrowd: int = 0) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "bbox": bbox,
        "area": 1.0,
        "iscrowd": iscrowd,
        "segmentation": {"counts": [9, 3], "size": [48, 64]} if iscrowd else [[1, 2, 3, 4, 5, 6]],
    }


def said(number: int, image_id: int, caption: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "caption": caption}


IMAGES = [image(139), image(285), image(632)]
THINGS = [
    thing(1, 139, 1, [10.5, 4, 20, 30.25]),
    thing(2, 139, 1, [40, 4, 10, 30]),
    thing(3, 139, 18, [1, 1, 9, 9]),
    thing(4, 139, 58, [30, 30, 8, 4]),
    thing(5, 139, 18, [1, 1, 0, 9]),  # COCO has a few without area
    thing(6, 285, 1, [0, 0, 5, 5]),
    thing(900100000285, 285, 1, [0, 0, 60, 40], iscrowd=1),
    thing(7, 285, 7, [5, 5, 50, 30]),
]
SAID = [
    said(38, 139, "A Man and two women feed hot dogs to a dog.\n"),
    said(67, 139, "A dogged cat beside some people "),
    said(70, 285, "People stand on the train tracks near a train."),
    said(71, 632, "A cat in an empty room"),
]


def files(part: str = "val2017", **changed: Any) -> dict[str, Any]:
    """``images``, ``things``, ``said``, ``categories`` in the place of those above."""
    images = changed.get("images", IMAGES)
    return {
        f"annotations/instances_{part}.json": {
            "info": {"year": 2017},
            "licenses": [],
            "images": images,
            "annotations": changed.get("things", THINGS),
            "categories": changed.get("categories", CATEGORIES),
        },
        f"annotations/captions_{part}.json": {
            "info": {"year": 2017},
            "licenses": [],
            "images": images,
            "annotations": changed.get("said", SAID),
        },
        **{
            f"{part}/{number:012d}.jpg": image_bytes(shade=number % 250)
            for number in (139, 285, 632)
        },
    }


LAYOUTS = [
    "folder",
    "zip files",
    "zip files without folders",
    "images below images",
    "one zip file",
]


@pytest.fixture(params=LAYOUTS)
def coco(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = write(tmp_path / "coco", files())
    if request.param.startswith("zip files"):
        without = request.param.endswith("without folders")
        pack(root / "val2017", top="" if without else None)
        pack(
            root / "annotations",
            root / "annotations_trainval2017.zip",
            top="" if without else "annotations",
        )
    elif request.param == "images below images":
        (root / "images").mkdir()
        (root / "val2017").rename(root / "images" / "val2017")
    elif request.param == "one zip file":
        return pack(root, top="")
    return root


def test_layouts(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with NoImages(monkeypatch):
        records = load_dataset("coco", coco, "val2017")
        captions = [record.caption for record in records]
    check(records)
    assert captions == [
        "A Man and two women feed hot dogs to a dog.",
        "A dogged cat beside some people",
        "People stand on the train tracks near a train.",
        "A cat in an empty room",
    ]
    assert [record.key for record in records] == ["38", "67", "70", "71"]
    assert records[0].source == "captions_val2017.json: annotation 38"
    assert [record.image.getpixel((0, 0))[0] // 10 for record in records[1:]] == [13, 3, 13]


def test_phrases_and_boxes_by_hand(tmp_path: Path) -> None:
    first, second, third, fourth = CocoRecords(write(tmp_path, files()))
    people = ((10.5, 4, 30.5, 34.25), (40, 4, 50, 34))
    assert [(p.text, p.label, p.boxes) for p in first.phrases] == [
        ("Man", "person", people),
        ("women", "person", people),
        ("hot dogs", "hot dog", ((30, 30, 38, 34),)),
        ("dog", "dog", ((1, 1, 10, 10),)),
    ]
    # No cat is annotated, and "dogged" is no dog.
    assert [(p.text, p.label, p.boxes) for p in second.phrases] == [("people", "person", people)]
    # A crowd is annotated loosely; train tracks are no train.
    assert [(p.text, p.label, p.boxes) for p in third.phrases] == [
        ("People", "person", ()),
        ("train", "train", ((5, 5, 55, 35),)),
    ]
    assert [p.text for p in third.grounded] == ["train"]
    assert fourth.phrases == ()
    # The two records of an image share it, and what one of them leaves unnamed.
    assert first.image_key == second.image_key != third.image_key
    assert first.unnamed == ()
    assert set(second.unnamed) == {(30, 30, 38, 34), (1, 1, 10, 10)}


def test_crowds_on_request(tmp_path: Path) -> None:
    records = CocoRecords(write(tmp_path, files()), crowds=True)
    assert records[2].phrases[0].boxes == ((0, 0, 5, 5), (0, 0, 60, 40))


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def test_masks_by_hand(tmp_path: Path) -> None:
    dog, person, crowd = (
        thing(1, 139, 18, [2, 3, 9, 9]),
        *(thing(k, 139, 1, [1, 1, 9, 9]) for k in (2, 3)),
    )
    dog["segmentation"] = [rectangle(2, 3, 6, 5), [10, 10, 14, 10, 10, 14]]
    person["segmentation"] = [rectangle(60.4, 40.6, 70, 50)]  # beyond the image
    crowd |= {"iscrowd": 1, "segmentation": {"counts": [49, 2, 64 * 48 - 51], "size": [48, 64]}}
    root = write(tmp_path, files(things=[dog, person, crowd], said=[said(1, 139, "a dog, a man")]))
    (record,) = CocoRecords(root, masks=True)
    expected = np.zeros((48, 64), bool)
    expected[3:5, 2:6] = True
    for k in range(4):  # a pixel counts if its centre is inside
        expected[10 + k, 10 : 13 - k] = True
    assert record.phrases[0].mask is not None
    assert np.array_equal(record.phrases[0].mask, expected)
    assert record.phrases[1].mask is None  # part of a crowd
    (record,) = CocoRecords(root, masks=True, crowds=True)
    expected = np.zeros((48, 64), bool)
    expected[41:, 60:] = True
    expected[1:3, 1] = True  # runs go down the columns
    assert record.phrases[1].mask is not None
    assert np.array_equal(record.phrases[1].mask, expected)
    check(CocoRecords(root, masks=True))
    assert CocoRecords(root)[0].phrases[0].mask is None


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (7, "expected a JSON object, but got 7"),
        ([[1, 2, 3, 4]], r"a polygon is \[x, y, x, y, ...\], but got \[1, 2, 3, 4\]"),
        ([[1, 2, 3, 4, 5, "6"]], "a polygon is"),
        ([[1, 2, 3, 4, 5, float("nan")]], "a polygon is"),
        ([[1, 2, 3, 4, 5, float("inf")]], "a polygon is"),
        ({"counts": "abc", "size": [48, 64]}, "'counts' must be of type list, but is 'abc'"),
        ({"counts": [3072], "size": [64, 48]}, "of another size than its image, 64x48"),
        ({"counts": [3071], "size": [48, 64]}, "of another size than its image, 64x48"),
    ],
)
def test_broken_masks(tmp_path: Path, segmentation: Any, reason: str) -> None:
    root = write(tmp_path, broken("things", 2, segmentation=segmentation))
    with pytest.raises(DatasetError, match=f"annotation 3: .*{reason}"):
        CocoRecords(root, masks=True)
    check(CocoRecords(root))


def test_categories_of_ones_own(tmp_path: Path) -> None:
    write(
        tmp_path,
        files(
            categories=[{"id": 3, "name": "Gear box"}],
            things=[thing(1, 139, 3, [1, 2, 3, 4])],
            said=[said(1, 139, "two gear boxes and a gear")],
        ),
    )
    (record,) = CocoRecords(tmp_path)
    assert [(p.text, p.label) for p in record.phrases] == [("gear boxes", "Gear box")]


def test_which_split(tmp_path: Path) -> None:
    root = write(tmp_path, {**files(), **files("train2017", said=SAID[:1])})
    assert len(CocoRecords(root, "train2017")) == 1
    with pytest.raises(ValueError, match="say which split of COCO: train2017, val2017"):
        CocoRecords(root)
    with pytest.raises(FileNotFoundError, match=r"no captions_test\.json .* is train2017, val2017"):
        CocoRecords(root, "test")
    with pytest.raises(FileNotFoundError, match=r"there is no captions_\*\.json"):
        CocoRecords(root / "val2017")


def test_images_elsewhere(tmp_path: Path) -> None:
    root = write(tmp_path / "coco", files())
    (root / "val2017").rename(tmp_path / "pictures")
    with pytest.raises(FileNotFoundError, match="with the images .* looked for 'val2017', 'images"):
        CocoRecords(root)
    check(CocoRecords(root, images=tmp_path / "pictures"))


def test_karpathys_split(tmp_path: Path) -> None:
    def chosen(split: str, part: str, number: int) -> dict[str, Any]:
        return {
            "filepath": part,
            "filename": f"COCO_{part}_{number:012d}.jpg",
            "cocoid": number,
            "split": split,
            "sentids": [1],
            "sentences": [{"raw": "A cat.", "tokens": ["a", "cat"], "sentid": 1, "imgid": 0}],
        }

    listed = [
        chosen("train", "train2014", 7),
        chosen("restval", "val2014", 139),
        chosen("test", "val2014", 285),
        chosen("val", "val2014", 632),
    ]
    train = files("train2014", images=[image(7)], things=[], said=[said(5, 7, "a cat")])
    split = {"dataset": "coco", "images": listed}
    root = write(
        tmp_path,
        {**files("val2014"), **train, "train2014/000000000007.jpg": image_bytes(), "k.json": split},
    )
    keys = {
        name: [record.key for record in CocoRecords(root, name, karpathy=root / "k.json")]
        for name in ("train", "restval", "train+restval", "test")
    }
    assert keys == {
        "train": ["5"],
        "restval": ["38", "67"],
        "train+restval": ["5", "38", "67"],
        "test": ["70"],
    }
    check(CocoRecords(root, "train+restval", karpathy=root / "k.json"))
    with pytest.raises(ValueError, match=r"k\.json has no split 'dev', but restval, test, train"):
        CocoRecords(root, "dev", karpathy=root / "k.json")
    with pytest.raises(ValueError, match="say which split of Karpathy's"):
        CocoRecords(root, karpathy=root / "k.json")


def broken(kind: str, position: int, **changed: Any) -> dict[str, Any]:
    """The files with one item changed; None takes a key away."""
    items = copy.deepcopy({"things": THINGS, "said": SAID, "images": IMAGES}[kind])
    for key, value in changed.items():
        items[position][key] = value
        if value is None:
            del items[position][key]
    return files(**{kind: items})


BROKEN = [
    ("said", 1, {"caption": 5}, "captions_val2017.json: annotation 67",
     "'caption' must be of type str, but is 5"),
    ("said", 1, {"caption": " \n"}, "captions_val2017.json: annotation 67", "its caption is empty"),
    ("said", 1, {"id": None}, "captions_val2017.json: annotation at position 1", "has no 'id'"),
    ("said", 1, {"image_id": 9}, "captions_val2017.json: annotation 67",
     "its image 9 is not among the images"),
    ("things", 2, {"bbox": [1, 2, 3]}, "instances_val2017.json: annotation 3",
     "a box is four numbers, but got [1, 2, 3]"),
    ("things", 2, {"bbox": [1, 2, -3, 4]}, "instances_val2017.json: annotation 3",
     "a box has a negative side: [x, y, w, h] = [1, 2, -3, 4]"),
    ("things", 2, {"category_id": 4}, "instances_val2017.json: annotation 3",
     "its category 4 is not among the categories"),
    ("said", 1, {"id": 38}, "captions_val2017.json: annotation 38",
     "has the key '38', which captions_val2017.json: annotation 38 has too"),
    *(("things", 2, {"iscrowd": value}, "instances_val2017.json: annotation 3",
       f"'iscrowd' must be 0 or 1, but is {value!r}") for value in ("0", 2, [0])),
    ("things", 2, {"image_id": "x"}, "instances_val2017.json: annotation 3",
     "'image_id' must be of type int, but is 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "position", "changed", "where", "reason"), BROKEN)
def test_broken_annotations(
    tmp_path: Path, kind: str, position: int, changed: dict[str, Any], where: str, reason: str
) -> None:
    write(tmp_path, broken(kind, position, **changed))
    with pytest.raises(DatasetError) as error:
        CocoRecords(tmp_path)
    assert str(error.value) == f"{where}: {reason}"
    with pytest.warns(UserWarning, match="COCO: 1 left out, the first being"):
        records = load_dataset("coco", tmp_path, on_error="skip")
    assert records.skipped == (Skipped(where, reason),)  # type: ignore[attr-defined]
    assert len(records) == (3 if kind == "said" else 4)
    check(records)


def test_a_missing_image(tmp_path: Path) -> None:
    write(tmp_path, files())
    (tmp_path / "val2017" / "000000000139.jpg").unlink()
    with pytest.raises(DatasetError, match=r"annotation 38: there is no image .*000000000139\.jpg"):
        CocoRecords(tmp_path)
    with pytest.warns(UserWarning, match="2 left out"):
        records = CocoRecords(tmp_path, on_error="skip")
    assert [record.key for record in records] == ["70", "71"]
    assert "2 records, 2 left out" in repr(records)
    (tmp_path / "val2017" / "000000000285.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file at .*000000000285\.jpg"):
        records[0].image  # noqa: B018


def test_an_image_of_another_size(tmp_path: Path) -> None:
    records = CocoRecords(write(tmp_path, broken("images", 0, width=640, height=480)))
    with pytest.raises(DatasetError, match=r"139\.jpg: the image is 64x48 .* says 640x480"):
        records[0].image  # noqa: B018


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_file_that_is_no_json(tmp_path: Path, on_error: str) -> None:
    text = '{"images": [],\n "annotations": [1,,]}'
    write(tmp_path, {**files(), "annotations/captions_val2017.json": text})
    with pytest.raises(DatasetError, match=r"captions_val2017\.json, line 2: not JSON"):
        CocoRecords(tmp_path, on_error=on_error)
