"""HNC: both layouts, foils and their true captions, replaced words, broken captions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from captum_interactions.datasets import DatasetError, HNCRecords, Skipped, load_dataset
from captum_interactions.datasets.hnc import phrases_of, replaced_span
from tests.on_disk import NoImages, check, image_bytes, pack, write


def thing(name: str, *xywh: int) -> dict[str, Any]:
    return {"bbox": dict(zip("xywh", xywh, strict=True)), "name": name}


SOCKS, SHORTS, HAT = (
    thing("socks", 20, 7, 8, 9), thing("shorts", 30, 5, 4, 4), thing("hat", 1, 2, 3, 4),
)  # fmt: skip


def caption(text: str, label: int, kind: str, bboxes: Any, **more: Any) -> dict[str, Any]:
    return {
        "caption": text,
        "label": label,
        "type": kind,
        "textual_label": None,
        "bboxes": bboxes,
        "ambiguity": {"ambiguous": False, "count": 0},
        "noisy": False,
        "replaced": None,
        "cpt_p_id": None,
        **more,
    }


BOTH = {"2795769": SOCKS, "2795770": SHORTS}
CAPTIONS = {
    "0": caption("The white socks are to the left of the shorts.", 1, "attribute_subg", BOTH),
    "1": caption("The black socks are to the left of the shorts.", 0, "attribute_subg", BOTH,
                 textual_label="white", replaced=["white", "black"], cpt_p_id=0),
    "2": caption("The socks are to the left of the shorts.", 1, "relation_obj", BOTH),
    "3": caption("The socks are to the left of the hat.", 0, "relation_obj",
                 {**BOTH, "2795771": HAT}, replaced=["shorts", "hat"], cpt_p_id=2),
    "4": caption("The hat is white.", 1, "attribute", {"2795771": HAT}),
    "5": caption("The hat is red.", 0, "attribute", {"2795771": HAT},
                 replaced=["white", "red"], cpt_p_id=4),
    "6": caption("There are two hats.", 1, "obj_count", {"1": HAT, "2": thing("hat", 9, 9, 5, 5)}),
    "7": caption("There is one hat.", 0, "obj_count", {"1": HAT, "2": thing("hat", 9, 9, 5, 5)},
                 replaced=["two", "one"], cpt_p_id=6),
    "8": caption("The socks are right of the shorts.", 0, "relation_pred", BOTH,
                 replaced=["to the left of", "right of"], cpt_p_id=2),
    "9": caption("Something else entirely.", 0, "and_logic_rel", None,
                 replaced=[None, None], cpt_p_id=2),
}  # fmt: skip
OTHER = {"0": caption("The hat is white.", 1, "attribute", {"5": HAT})}


def files(captions: Any = None, *, level: bool = True) -> dict[str, Any]:
    held = {"2353884": CAPTIONS if captions is None else captions, "7": OTHER}
    if level:
        held = {image: {"captions": found} for image, found in held.items()}
    return {
        "hnc_clean_strict_val.json": held,
        "images/2353884.jpg": image_bytes(),
        "images/7.jpg": image_bytes(shade=3),
    }


@pytest.mark.parametrize("level", [True, False])
@pytest.mark.parametrize("layout", ["folder", "images.zip", "one zip file", "JSON file"])
def test_layouts(tmp_path: Path, level: bool, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "hnc", files(level=level))
    path = root
    if layout == "images.zip":
        pack(root / "images")
    elif layout == "one zip file":
        path = pack(root, top="")
    elif layout == "JSON file":
        path = root / "hnc_clean_strict_val.json"
    with NoImages(monkeypatch):
        records = load_dataset("hnc", path, "val")
    check(records)
    assert [r.key for r in records] == [*(f"2353884-{k}" for k in range(10)), "7-0"]
    assert records[1].source == (
        "hnc_clean_strict_val.json: image 2353884, caption 1 (attribute_subg)"
    )


def test_phrases_by_hand(tmp_path: Path) -> None:
    records = HNCRecords(write(tmp_path, files()))
    socks, shorts, hat = ((20, 7, 28, 16),), ((30, 5, 34, 9),), ((1, 2, 4, 6),)
    assert [(p.text, p.span, p.label, p.boxes) for p in records[0].phrases] == [
        ("socks", (10, 15), "socks", socks),
        ("shorts", (39, 45), "shorts", shorts),
    ]
    # The false word names another object of the image.
    assert [(p.text, p.boxes) for p in records[3].phrases] == [("socks", socks), ("hat", hat)]
    assert [(p.text, p.label, p.boxes) for p in records[6].phrases] == [
        ("hats", "hat", (*hat, (9, 9, 14, 14)))
    ]
    assert records[9].phrases == ()


def test_foils_by_hand(tmp_path: Path) -> None:
    records = HNCRecords(write(tmp_path, files()))
    foils = {i: record.foil for i, record in enumerate(records) if record.foil is not None}
    socks, shorts, hat = ((20, 7, 28, 16),), ((30, 5, 34, 9),), ((1, 2, 4, 6),)
    found = {i: (f.positive_key, f.span, f.replaced, f.boxes) for i, f in foils.items()}
    assert found == {
        1: ("2353884-0", (4, 9), ("white", "black"), socks),  # 0 is the id of a caption
        3: ("2353884-2", (33, 36), ("shorts", "hat"), shorts),
        5: ("2353884-4", (11, 14), ("white", "red"), hat),
        7: ("2353884-6", (9, 12), ("two", "one"), ()),
        8: ("2353884-2", (14, 22), ("to the left of", "right of"), ()),
        9: ("2353884-2", None, None, ()),
    }


def test_where_words_were_replaced() -> None:
    # Of two places, the one where putting back gives the true caption.
    assert replaced_span("a red hat, a red cap", "red", "a red hat, a white cap", "white") == (
        13,
        16,
    )
    assert replaced_span("The hats are red.", "red", "The hat is white.", "white") == (13, 16)
    assert replaced_span("red and red", "red", "white", "white") is None
    assert replaced_span("a reddish hat", "red", "a white hat", "white") is None
    assert replaced_span("a hat", "", "a white hat", "white") is None


def test_names_within_names() -> None:
    boxes = {
        "light": ((0.0, 0.0, 1.0, 1.0),),
        "traffic light": ((2.0, 2.0, 3.0, 3.0),),
        "glass": (),
    }
    found = phrases_of("A Traffic light, lights and glasses.", boxes)
    assert [(p.text, p.label) for p in found] == [
        ("Traffic light", "traffic light"), ("lights", "light"), ("glasses", "glass"),
    ]  # fmt: skip
    named = phrases_of("the glasses", {"glass": (), "glasses": ()})
    assert [p.label for p in named] == ["glasses"]


def test_which_file(tmp_path: Path) -> None:
    root = write(tmp_path, {**files(), "hnc_clean_strict_train.json": {}})
    assert len(HNCRecords(root, "train")) == 0
    with pytest.raises(
        ValueError, match="several JSON files without a split .*_train.json, .*_val"
    ):
        HNCRecords(root)
    with pytest.raises(
        FileNotFoundError, match="no JSON file for the split 'test' .* but hnc_clean"
    ):
        HNCRecords(root, "test")


PLACE = "hnc_clean_strict_val.json: image 2353884, caption "
BROKEN = [
    ("1", {"cpt_p_id": None}, PLACE + "1", "is false, but 'cpt_p_id' does not say of which"),
    ("1", {"cpt_p_id": 99}, PLACE + "1", "'cpt_p_id' is 99, but no true caption has this id"),
    ("1", {"cpt_p_id": 3}, PLACE + "1", "'cpt_p_id' is 3, but no true caption has this id"),
    ("1", {"replaced": "white"}, PLACE + "1", "'replaced' must be [true words, false words], but"),
    ("4", {"label": 2}, PLACE + "4", "'label' must be 1 (true) or 0 (false), but is 2"),
    ("9", {"caption": None}, PLACE + "9", "'caption' must be of type str, but is None"),
    ("7", {"bboxes": [1]}, PLACE + "7", "'bboxes' must be objects by their ids, but is [1]"),
    ("7", {"bboxes": {"8": {"bbox": {"x": 1, "y": 2, "w": 3}, "name": "hat"}}},
     PLACE + "7, object 8", "a box is four numbers, but got [1, 2, 3, None]"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "changed", "where", "reason"), BROKEN)
def test_broken_captions(
    tmp_path: Path, number: str, changed: dict[str, Any], where: str, reason: str
) -> None:
    captions = copy.deepcopy(CAPTIONS)
    captions[number].update(changed)
    write(tmp_path, files(captions))
    with pytest.raises(DatasetError) as error:
        HNCRecords(tmp_path)
    assert error.value.where == where
    assert error.value.reason.startswith(reason)
    with pytest.warns(UserWarning, match=r"HNC: \d left out"):
        records = HNCRecords(tmp_path, on_error="skip")
    assert records.skipped[0] == Skipped(where, error.value.reason)
    assert f"2353884-{number}" not in {record.key for record in records}
    check(records)


def test_a_missing_image(tmp_path: Path) -> None:
    write(tmp_path, files())
    (tmp_path / "images" / "2353884.jpg").unlink()
    with pytest.raises(DatasetError, match=r"image 2353884: there is no image .*2353884\.jpg"):
        HNCRecords(tmp_path)
    with pytest.warns(UserWarning, match="1 left out"):
        assert [r.key for r in HNCRecords(tmp_path, on_error="skip")] == ["7-0"]
