"""Flickr30k Entities: markup, chains, boxes that count from 1, splits, broken files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from captum_interactions.datasets import DatasetError, Flickr30kRecords, Skipped, load_dataset
from captum_interactions.datasets.flickr30k import read_annotation, read_sentence
from tests.on_disk import NoImages, check, image_bytes, pack, write
from tests.shared_data import shared_data

SENTENCES = (
    "[/EN#1/people Two young guys] with [/EN#2/bodyparts shaggy hair] look at "
    "[/EN#3/bodyparts their hands] while in [/EN#4/scene the yard] .\n"
    "[/EN#1/people Two guys] saw [/EN#0/notvisual each other] and [/EN#5/other/clothing a hat] "
    "with [/EN#1/people Two guys] .\n"
)
OBJECT = (
    "<object>{names}<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    "</object>"
)


def boxed(*box: int, names: tuple[int, ...]) -> str:
    return OBJECT.format(*box, names="".join(f"<name>{name}</name>" for name in names))


ANNOTATION = (
    "<annotation>\n<filename>36979.jpg</filename>\n"
    "<size><width>64</width><height>48</height><depth>3</depth></size>\n"
    + boxed(1, 1, 20, 48, names=(1,))
    + boxed(30, 2, 64, 40, names=(1, 3))
    + boxed(7, 7, 7, 7, names=(2,))
    + "<object><name>4</name><scene>1</scene><nobndbox>0</nobndbox></object>"
    "<object><name>5</name><scene>0</scene><nobndbox>1</nobndbox></object>\n</annotation>"
)
FIRST, SECOND = (0.0, 0.0, 20.0, 48.0), (29.0, 1.0, 64.0, 40.0)


def files(**changed: Any) -> dict[str, Any]:
    return {
        "Sentences/36979.txt": SENTENCES,
        "Annotations/36979.xml": ANNOTATION,
        "Sentences/65567.txt": "A man .\n\n[/EN#9/people A man] .",
        "Annotations/65567.xml": ANNOTATION,
        "train.txt": "65567\n",
        "test.txt": "36979\n65567\n",
        "flickr30k-images/36979.jpg": image_bytes(shade=40),
        "flickr30k-images/65567.jpg": image_bytes(shade=90),
        **{name.replace("__", "/"): content for name, content in changed.items()},
    }


LAYOUTS = ["folder", "entities in a folder", "annotations.zip", "all zip files", "images in images"]


@pytest.fixture(params=LAYOUTS)
def flickr(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root, layout = write(tmp_path / "flickr", files()), request.param
    if layout in ("entities in a folder", "annotations.zip"):
        inner = root / ("flickr30k_entities" if layout == "entities in a folder" else "annotations")
        inner.mkdir()
        for name in ("Sentences", "Annotations"):
            (root / name).rename(inner / name)
        if layout == "annotations.zip":
            pack(inner, top="")
        else:
            (root / "test.txt").rename(inner / "test.txt")
    if layout == "all zip files":
        for name in ("Sentences", "Annotations", "flickr30k-images"):
            pack(root / name)
    if layout == "images in images":
        (root / "flickr30k_images").mkdir()
        (root / "flickr30k-images").rename(root / "flickr30k_images" / "images")
    return root


def test_layouts(flickr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with NoImages(monkeypatch):
        records = load_dataset("flickr30k", flickr, "test")
    check(records)
    assert [r.key for r in records] == ["36979#0", "36979#1", "65567#0", "65567#2"]
    assert records[3].source == "Sentences/65567.txt, line 3"
    assert abs(records[0].image.getpixel((0, 0))[0] - 40) < 5


def test_phrases_and_boxes_by_hand(tmp_path: Path) -> None:
    first, second, *_ = Flickr30kRecords(write(tmp_path, files()))
    assert first.caption == (
        "Two young guys with shaggy hair look at their hands while in the yard ."
    )
    assert [(p.text, p.span, p.label, p.boxes) for p in first.phrases] == [
        ("Two young guys", (0, 14), "people", (FIRST, SECOND)),
        ("shaggy hair", (20, 31), "bodyparts", ((6.0, 6.0, 7.0, 7.0),)),
        ("their hands", (40, 51), "bodyparts", (SECOND,)),
        ("the yard", (61, 69), "scene", ()),
    ]
    assert second.caption == "Two guys saw each other and a hat with Two guys ."
    assert [(p.text, p.span, p.label, p.boxes) for p in second.phrases] == [
        ("Two guys", (0, 8), "people", (FIRST, SECOND)),
        ("each other", (13, 23), "notvisual", ()),
        ("a hat", (28, 33), "other", ()),
        ("Two guys", (39, 47), "people", (FIRST, SECOND)),
    ]
    assert [p.text for p in second.grounded] == ["Two guys", "Two guys"]


def test_objects_that_no_phrase_names(tmp_path: Path) -> None:
    """Those of other captions, each once; an object of two chains is named by either."""
    first, second, bare, other = Flickr30kRecords(write(tmp_path, files()))
    hair = (6.0, 6.0, 7.0, 7.0)
    assert first.unnamed == ()
    assert second.unnamed == (hair,)
    assert bare.unnamed == other.unnamed == (FIRST, SECOND, hair)


def test_chain_0_is_never_boxed() -> None:
    _, (phrase,) = read_sentence("[/EN#0/notvisual it]", {"0": [FIRST]}, "here")
    assert phrase.boxes == ()


def test_splits(tmp_path: Path) -> None:
    root = write(tmp_path, files())
    assert [r.key for r in Flickr30kRecords(root, "train")] == ["65567#0", "65567#2"]
    assert len(Flickr30kRecords(root)) == 4
    with pytest.raises(FileNotFoundError, match=r"there is no split file dev\.txt"):
        Flickr30kRecords(root, "dev")


def test_an_image_that_a_split_lists_twice(tmp_path: Path) -> None:
    root = write(tmp_path, files())
    (root / "test.txt").write_text("36979 65567 36979")
    with pytest.raises(DatasetError, match=r"test\.txt, entry 3: has the key '36979', which test"):
        Flickr30kRecords(root, "test")
    with pytest.warns(UserWarning, match="1 left out"):
        check(Flickr30kRecords(root, "test", on_error="skip"))


def test_real_sentences() -> None:
    """Two files of the dataset itself: every phrase stands where its span says."""
    for path in sorted(shared_data("flickr30k_entities/Sentences").iterdir()):
        for line in path.read_text().splitlines():
            caption, phrases = read_sentence(line, {}, "here")
            assert len(phrases) == line.count("[/EN#") > 0
            assert "[" not in caption
            assert caption.replace(" ", "") == re.sub(r"\[/\S+|\]|\s", "", line)
            for phrase in phrases:
                assert caption[slice(*phrase.span)] == phrase.text


def test_images_elsewhere(tmp_path: Path) -> None:
    root = write(tmp_path / "f", files())
    (root / "flickr30k-images").rename(tmp_path / "pictures")
    with pytest.raises(FileNotFoundError, match="with the images at .* 'flickr30k-images'"):
        Flickr30kRecords(root)
    check(Flickr30kRecords(root, images=tmp_path / "pictures"))


LINE_2 = SENTENCES.splitlines()[0] + "\n"
BROKEN = [
    ("Sentences/36979.txt", LINE_2 + "[/EN#1/people] two", "Sentences/36979.txt, line 2",
     "broken markup at '[/EN#1/people] two'", 3),
    ("Sentences/36979.txt", LINE_2 + "[/EN#1/people two guys", "Sentences/36979.txt, line 2",
     "broken markup at '[/EN#1/people two guys'", 3),
    ("Annotations/36979.xml", "<annotation>\n<size>", "Annotations/36979.xml, line 2",
     "not XML", 2),
    ("Annotations/36979.xml", "<annotation><size><width>x</width></size></annotation>",
     "Annotations/36979.xml", "<size><width> must be a whole number: 'x'", 2),
    ("Annotations/36979.xml", ANNOTATION.replace("<xmin>30<", "<xmin>300<"),
     "Annotations/36979.xml: object 2",
     "a box ends before it begins: xmin, ymin, xmax, ymax = (300, 2, 64, 40)", 2),
    ("Annotations/36979.xml", ANNOTATION.replace("<ymin>2</ymin>", ""),
     "Annotations/36979.xml: object 2", "<bndbox><ymin> must be a whole number: None", 2),
    ("Annotations/36979.xml", ANNOTATION.replace("<name>2</name>", ""),
     "Annotations/36979.xml: object 3", "has no <name>", 2),
    ("Annotations/36979.xml", None, "image 36979", "there is no file", 2),
    ("Sentences/36979.txt", None, "image 36979", "there is no file", 2),
    ("flickr30k-images/36979.jpg", None, "Sentences/36979.txt", "there is no image", 2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "where", "reason", "left"), BROKEN)
def test_broken_files(
    tmp_path: Path, name: str, content: str | None, where: str, reason: str, left: int
) -> None:
    write(tmp_path, files())
    (tmp_path / name).unlink()
    if content is not None:
        write(tmp_path, {name: content})
    with pytest.raises(DatasetError) as error:
        Flickr30kRecords(tmp_path, "test")
    assert error.value.where.endswith(where)
    assert error.value.reason.startswith(reason)
    with pytest.warns(UserWarning, match="Flickr30k Entities: 1 left out"):
        records = Flickr30kRecords(tmp_path, "test", on_error="skip")
    assert records.skipped == (Skipped(error.value.where, error.value.reason),)
    assert len(records) == left
    check(records)


def test_entities_of_xml_are_no_way_in() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation>&f;</annotation>'
    with pytest.raises(DatasetError, match=r"here, line 1: not XML: undefined entity"):
        read_annotation(bomb, "here")
