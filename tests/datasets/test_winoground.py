"""Winoground: each image with either caption, layouts, broken examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from captum_interactions.datasets import DatasetError, Skipped, WinogroundRecords, load_dataset
from tests.on_disk import NoImages, check, image_bytes, pack, write


def example(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_0": f"ex_{number}_img_0",
        "image_1": f"ex_{number}_img_1",
        "caption_0": "an old person kisses a young person",
        "caption_1": "a young person kisses an old person",
        "tag": "Adjective-Age",
        "secondary_tag": "",
        "num_main_preds": 1,
        "collapsed_tag": "Object",
        **changed,
    }


def files(*examples: Any) -> dict[str, Any]:
    lines = "".join(json.dumps(e) + "\n" for e in examples or (example(0), example(171)))
    images = {
        f"images/ex_{n}_img_{k}.png": image_bytes(shade=100 * k + 20, kind="PNG")
        for n in (0, 171)
        for k in (0, 1)
    }
    return {"examples.jsonl": lines, **images}


@pytest.mark.parametrize("layout", ["folder", "images.zip", "in data", "one zip file"])
def test_layouts(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "w" / "data" if layout == "in data" else tmp_path / "w"
    path = tmp_path / "w"
    write(home, files())
    if layout in ("images.zip", "in data"):
        pack(home / "images")
    elif layout == "one zip file":
        path = pack(path, top="")
    with NoImages(monkeypatch):
        records = load_dataset("winoground", path)
    check(records)
    assert len(records) == 8


def test_records_by_hand(tmp_path: Path) -> None:
    records = WinogroundRecords(write(tmp_path, files()))[:4]
    old, young = "an old person kisses a young person", "a young person kisses an old person"
    found = [
        (
            r.key,
            r.caption,
            r.image.getpixel((0, 0))[0],
            r.hard_negative and r.hard_negative.positive_key,
        )
        for r in records
    ]
    assert found == [
        ("0-image0-caption0", old, 20, None),
        ("0-image0-caption1", young, 20, "0-image0-caption0"),
        ("0-image1-caption1", young, 120, None),
        ("0-image1-caption0", old, 120, "0-image1-caption1"),
    ]
    assert all(record.phrases == () for record in records)
    assert records[1].hard_negative is not None
    assert (records[1].hard_negative.span, records[1].hard_negative.positive_caption) == (None, old)
    assert records[3].source == "examples.jsonl, line 1"


def test_names_with_their_endings(tmp_path: Path) -> None:
    named = example(0, image_0="ex_0_img_0.png", image_1="other")
    write(tmp_path, {**files(named), "images/other.jpg": image_bytes()})
    check(WinogroundRecords(tmp_path))


BROKEN = [
    ("{broken", "examples.jsonl, line 2", "not JSON"),
    (json.dumps(example(0)), "examples.jsonl, line 2", "has the id 0 of line 1"),
    (json.dumps(example(1)), "examples.jsonl, line 2", "there is no image"),
    (json.dumps(example(171, caption_1=None)), "examples.jsonl, line 2",
     "'caption_1' must be of type str, but is None"),
    ("[1]", "examples.jsonl, line 2", "expected a JSON object, but got [1]"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "where", "reason"), BROKEN)
def test_broken_lines(tmp_path: Path, line: str, where: str, reason: str) -> None:
    write(tmp_path, {**files(), "examples.jsonl": json.dumps(example(0)) + "\n" + line + "\n\n"})
    with pytest.raises(DatasetError) as error:
        WinogroundRecords(tmp_path)
    assert error.value.where.endswith(where)
    assert error.value.reason.startswith(reason)
    with pytest.warns(UserWarning, match="Winoground: 1 left out"):
        records = WinogroundRecords(tmp_path, on_error="skip")
    assert records.skipped == (Skipped(error.value.where, error.value.reason),)
    check(records)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"with examples\.jsonl .* looked for '\.', 'data'"):
        WinogroundRecords(tmp_path)
    write(tmp_path, {"examples.jsonl": json.dumps(example(0))})
    with pytest.raises(FileNotFoundError, match="with the images .* looked for 'images'"):
        WinogroundRecords(tmp_path)
