"""Files in folders and zip files, images, words, and how broken records are dealt with."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captum_interactions.datasets.archive import Files, ImageFile
from captum_interactions.datasets.coco_words import COCO_DECOYS, COCO_WORDS
from captum_interactions.datasets.problems import DatasetError, Problems, Skipped
from captum_interactions.datasets.reading import box_from_corners, box_from_xywh
from captum_interactions.datasets.words import WordFinder, plurals
from tests.on_disk import image_bytes, pack, write


@pytest.fixture(params=["folder", "zip", "zip without a folder"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    write(tmp_path, {"val/a.txt": "one", "val/deep/b.txt": "two", "val/c.png": image_bytes()})
    if request.param != "folder":
        pack(tmp_path / "val", top="val" if request.param == "zip" else "")
    found = Files(tmp_path).folder("val")
    assert found is not None
    return found


def test_folders_and_zip_files_read_alike(files: Files) -> None:
    assert files.names() == ["a.txt", "c.png"]
    assert [files.has(n) for n in ("a.txt", "deep/b.txt", "b.txt", "no/b.txt")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert files.read_text("deep/b.txt") == "two"
    deep = files.folder("deep")
    assert deep is not None
    assert deep.names() == ["b.txt"]
    assert deep.read_bytes("b.txt") == b"two"
    assert files.folder("shallow") is None
    with pytest.raises(FileNotFoundError, match=r"there is no file at .*val.*nothing\.txt"):
        files.read_bytes("nothing.txt")


def read_in_a_worker(files: Files) -> str:
    return files.read_text("a.txt")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_files_are_read_in_other_processes(files: Files) -> None:
    assert files.read_text("a.txt") == "one"  # the zip file is open when the process forks
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(read_in_a_worker, [files] * 8) == ["one"] * 8


def test_a_forked_process_opens_its_own_zip_file(files: Files, monkeypatch) -> None:
    files.read_text("a.txt")
    before = files._zip
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert files.read_text("a.txt") == "one"
    assert (files._zip is not before) == files.is_zip
    assert pickle.loads(pickle.dumps(files))._zip is None


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nor a zip file at '.*gone'"):
        Files(tmp_path / "gone")
    write(tmp_path, {"text.zip": "not a zip file", "latin.txt": "caf\xe9".encode("latin-1")})
    with pytest.raises(DatasetError, match=r"text\.zip: neither a folder nor a zip file"):
        Files(tmp_path / "text.zip")
    with pytest.raises(DatasetError, match=r"latin\.txt: not text in UTF-8"):
        Files(tmp_path).read_text("latin.txt")


def test_images(tmp_path: Path) -> None:
    write(
        tmp_path, {"a.jpg": image_bytes((6, 4)), "b.jpg": "words", "half.jpg": image_bytes()[:300]}
    )
    files = Files(tmp_path)
    assert ImageFile(files, "a.jpg", (6, 4))().size == (6, 4)
    with pytest.raises(DatasetError, match=r"a\.jpg: the image is 6x4 .* annotation says 4x6"):
        ImageFile(files, "a.jpg", (4, 6))()
    for name, why in {"b.jpg": " of any known format$", "half.jpg": ": .*[Tt]runcated"}.items():
        with pytest.raises(DatasetError, match=rf"{name}: cannot be read as an image{why}"):
            ImageFile(files, name)()
    with pytest.raises(FileNotFoundError, match=r"there is no file at .*c\.jpg"):
        ImageFile(files, "c.jpg")()


def test_photographs_are_turned_only_where_boxes_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    stored = ImageFile(Files(tmp_path), "a.jpg")()
    upright = ImageFile(Files(tmp_path), "a.jpg", upright=True)()
    assert (stored.size, upright.size) == ((8, 4), (4, 8))
    assert [dict(image.getexif()) for image in (stored, upright)] == [{}, {}]  # not turned again


def test_modes_are_made_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / "grey.png")
    assert ImageFile(Files(tmp_path), "grey.png")().mode == "RGB"


def test_boxes_by_hand() -> None:
    assert box_from_xywh([10, 20.5, 3, 4], "here") == (10, 20.5, 13, 24.5)
    assert box_from_xywh([10, 20, 0, 4], "here") is None
    assert box_from_corners([1, 2, 3, 4], "here") == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (box_from_xywh, [1, 2, 3], r"here: a box is four numbers, but got \[1, 2, 3\]"),
        (box_from_xywh, [1, 2, 3, "4"], "a box is four numbers"),
        (box_from_xywh, [1, 2, 3, float("nan")], "a box is four numbers"),
        (box_from_xywh, {"x": 1}, "a box is four numbers"),
        (box_from_xywh, [1, 2, -3, 4], r"negative side: \[x, y, w, h\] = \[1, 2, -3, 4\]"),
        (box_from_corners, [5, 2, 5, 4], r"holds nothing: \[x0, y0, x1, y1\] = \[5, 2, 5, 4\]"),
        (box_from_corners, [5, 9, 7, 4], "holds nothing"),
    ],
)
def test_bad_boxes(read, value, message) -> None:
    with pytest.raises(DatasetError, match=message):
        read(value, "here")


def test_whole_words_only_and_the_longest() -> None:
    finder = WordFinder(["cat", "hot dog", "dog", "dog house"])
    found = finder.find("Cat, hot-dog category; HOT  dogs, a hot  dog house. dog's")
    assert found == [
        ((0, 3), "cat"), ((5, 12), "hot dog"), ((36, 44), "hot dog"), ((52, 55), "dog"),
    ]  # fmt: skip
    assert WordFinder(["t-shirt"]).find("a T-shirt - t shirt") == [
        ((2, 9), "t-shirt"), ((12, 19), "t-shirt"),
    ]  # fmt: skip
    assert WordFinder([]).find("a dog") == []


def test_plurals() -> None:
    assert [plurals(w)[1] for w in ("box", "bench", "brush", "toy", "baby", "bear")] == [
        "boxes", "benches", "brushes", "toys", "babies", "bears",
    ]  # fmt: skip


def test_the_table_of_coco_words() -> None:
    assert len(COCO_WORDS) == 80
    words = [word for category in COCO_WORDS.values() for word in category]
    assert len(words) == len(set(words))  # no word names two categories
    assert all(category in COCO_WORDS[category] for category in COCO_WORDS)
    assert all(word == " ".join(word.lower().split()) for word in [*words, *COCO_DECOYS])
    assert not COCO_DECOYS & set(words)
    parts = WordFinder(words)
    assert [d for d in sorted(COCO_DECOYS) if not parts.find(d)] == []  # each would mislead


def test_broken_records_are_raised_or_gathered() -> None:
    problems = Problems("skip")
    for number in range(3):
        with problems.one_record():
            if number:
                raise DatasetError(f"file, line {number}", "is broken")
    with pytest.warns(
        UserWarning, match=r"mine: 2 left out, the first being file, line 1: is broken"
    ):
        skipped = problems.report("mine")
    assert skipped == (Skipped("file, line 1", "is broken"), Skipped("file, line 2", "is broken"))
    with (
        pytest.raises(DatasetError, match="file, line 1: is broken"),
        Problems("raise").one_record(),
    ):
        raise DatasetError("file, line 1", "is broken")
    with pytest.raises(RuntimeError), Problems("skip").one_record():
        raise RuntimeError("no problem of the data")
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip', but got 'ignore'"):
        Problems("ignore")
    assert Problems("skip").report("mine") == ()
    error = pickle.loads(pickle.dumps(DatasetError("file, line 1", "is broken")))
    assert (error.where, error.reason) == ("file, line 1", "is broken")
