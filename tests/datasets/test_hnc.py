"""HNC: both layouts, foils and their true captions, replaced words, broken captions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from captum_interactions.datasets import DatasetError, HNCRecords, Skipped, load_dataset
from captum_interactions.datasets.hnc import phrases_of
from captum_interactions.datasets.hnc_foils import described, words_that_differ
from tests.on_disk import NoImages, check, image_bytes, pack, write
from tests.shared_data import shared_data


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


def test_objects_that_no_phrase_names(tmp_path: Path) -> None:
    """Objects of all captions of the image are known, each with one box here."""
    *records, other = HNCRecords(write(tmp_path, files()))
    socks, shorts, hat, second = (20, 7, 28, 16), (30, 5, 34, 9), (1, 2, 4, 6), (9, 9, 14, 14)
    assert set(records[0].unnamed) == {hat, second}
    assert set(records[4].unnamed) == {socks, shorts, second}
    assert set(records[9].unnamed) == {socks, shorts, hat, second}
    assert other.unnamed == ()


def test_foils_by_hand(tmp_path: Path) -> None:
    records = HNCRecords(write(tmp_path, files()))
    foils = {
        i: record.hard_negative
        for i, record in enumerate(records)
        if record.hard_negative is not None
    }
    socks, shorts, hat = ((20, 7, 28, 16),), ((30, 5, 34, 9),), ((1, 2, 4, 6),)
    found = {i: (f.positive_key, f.span, f.replaced, f.boxes) for i, f in foils.items()}
    nothing_alike = "The socks are to the left of the shorts", "Something else entirely"
    assert found == {
        1: ("2353884-0", (4, 9), ("white", "black"), socks),  # 0 is the id of a caption
        3: ("2353884-2", (33, 36), ("shorts", "hat"), shorts),
        5: ("2353884-4", (11, 14), ("white", "red"), hat),
        7: ("2353884-6", (9, 12), ("two", "one"), ()),
        8: ("2353884-2", (14, 22), ("to the left of", "right of"), ()),
        9: ("2353884-2", (0, 23), nothing_alike, ()),
    }


def in_words(true: str, false: str, replaced: tuple[str, str] | None = None) -> list[str | None]:
    spans = words_that_differ(true, false, replaced)
    return [span and text[slice(*span)] for text, span in zip((true, false), spans, strict=True)]


def test_where_words_were_replaced() -> None:
    # Of two places, the one where putting back gives the true caption.
    found = words_that_differ("a red hat, a white cap", "a red hat, a red cap", ("white", "red"))
    assert found == ((13, 18), (13, 16))
    # Nouns and verbs follow in number.
    hats = ("The hat is white.", "The hats are red.")
    assert in_words(*hats, ("white", "red")) == ["white", "red"]
    assert in_words("The Rice is white.", "The onions are white.", ("rice", "onions")) == [
        "Rice", "onions",
    ]  # fmt: skip
    assert in_words("a red hat", "an orange hat", ("red", "orange")) == ["red", "orange"]
    assert in_words("one hat", "one hats", ("hat", "hats")) == ["hat", "hats"]


@pytest.mark.parametrize("replaced", [("straw", "bowl"), ("straw", "cup"), ("", "bowl"), None])
def test_replaced_words_that_do_not_lead_back_are_not_believed(
    replaced: tuple[str, str] | None,
) -> None:
    """HNC's generator notes another object than the one that it replaced."""
    true, false = "The banana is left of the straw.", "The bowl is left of the straw."
    assert in_words(true, false, replaced) == ["banana", "bowl"]


def test_differences_by_hand() -> None:
    assert in_words("The banana is by it.", "The bowls are by it.") == ["banana", "bowls"]
    assert in_words("a a b", "a b") == ["a", None]
    assert in_words("a b", "a a b") == [None, "a"]
    assert in_words("a b c d", "a x c y") == ["b c d", "x c y"]
    assert in_words("a reddish hat", "a red hat", ("red", "white")) == ["reddish", "red"]
    assert in_words("A hat.", "a hat.") == [None, None]


def test_boxes_of_what_was_replaced() -> None:
    caption = "The white straw is left of the bowl."
    phrases = phrases_of(
        caption, {"straw": ((0.0, 0.0, 1.0, 1.0),), "bowl": ((2.0, 2.0, 3.0, 3.0),)}
    )
    straw, bowl = (phrase.boxes for phrase in phrases)
    assert described("attribute_subg", caption, (31, 35), phrases) == bowl
    assert described("attribute_subg", caption, (4, 9), phrases) == straw
    assert described("relation_subj", caption, (4, 9), phrases) == ()
    assert described("xor_logic_attr", caption, (4, 9), phrases) == ()
    assert described("attribute_subg", caption, None, phrases) == ()


def test_false_captions_that_are_true_are_left_out(tmp_path: Path) -> None:
    captions = {
        **CAPTIONS,
        "10": caption("the hat is  white.", 0, "object", {"2795771": HAT},
                      replaced=["hat", "hat"], cpt_p_id=6),
    }  # fmt: skip
    message = "'the hat is  white.'"
    with pytest.warns(UserWarning, match=f"HNC: 1 left out, .* true caption 4: {message}"):
        records = HNCRecords(write(tmp_path, files(captions)))
    assert records.skipped[0].where.endswith("image 2353884, caption 10")
    assert "2353884-10" not in {record.key for record in records}


def test_real_captions(tmp_path: Path) -> None:
    """The authors' own generator on a real scene graph: 177 pairs, all read by hand."""
    source = shared_data("hnc/gqa_captions_s0_val.json")
    write(
        tmp_path, {source.name: source.read_text(), "images/2386621.jpg": image_bytes((500, 375))}
    )
    with pytest.warns(UserWarning, match="HNC: 8 left out"):
        records = HNCRecords(tmp_path)
    left_out = {one.where.rpartition(" ")[2] for one in records.skipped}
    assert left_out == {"61", "69", "93", "95", "143", "257", "259", "313"}
    by_key = {record.key: record for record in records}
    for foil in (record.hard_negative for record in records if record.hard_negative is not None):
        assert foil.replaced is not None
        named = {p.text.lower(): p.boxes for p in by_key[foil.positive_key].phrases}
        if foil.replaced[0].lower() in named and "either" not in foil.positive_caption:
            assert foil.boxes == named[foil.replaced[0].lower()]
    # Where the file says ["straw", "bowl"], but the banana was replaced.
    banana = by_key["2386621-1"].hard_negative
    assert banana is not None
    assert (banana.replaced, banana.span) == (("banana", "bowl"), (11, 15))
    assert banana.boxes == ((248, 55, 312, 89),)


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
