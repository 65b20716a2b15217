"""Files of maps: what was edited or is foreign is refused, by the name of the field."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from captum_interactions import InteractionMap
from captum_interactions.encoders import AudioAxis, TokenAxis
from tests.maps.test_interaction_map import imap  # noqa: F401
from tests.pages import sound

FORMAT = "captum_interactions.InteractionMap/1"
MISSING = ...


def read(path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["json"])


def write(path, tensors, fields) -> None:
    text = fields if isinstance(fields, str) else json.dumps(fields)
    save_file(tensors, path, metadata={"format": FORMAT, "json": text})


def edited(fields, where, value):
    """The header with another value at ``axis_a.frame.scale`` or the like."""
    *path, last = where.split(".")
    inner = fields
    for key in path:
        inner = inner[key]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    return fields


BAD = {
    "constant": ["0.5", None, True, [0.5], 10**400, MISSING],
    "score": ["x", {}],
    "settings": [[], None, "x", MISSING],
    "axis_a": [None, [], "TextAxis", {}, {"kind": "Axis"}, {"kind": []}, MISSING],
    "axis_a.kind": ["ImageAxes", "TokenAxis", "TextAxis", 3],
    "axis_a.labels": ["abcdefg", [1] * 7, None, ["x"] * 6, MISSING],
    "axis_a.special": [[True] * 7, [0] * 7, [False] * 7, [True, False]],
    "axis_a.padding": [[False] * 6, "no", [True] * 7],
    "axis_a.grid": [[2, 2], [3, 3], [2.0, 3.0], [0, 6], [-2, -3], [6], "23", [True, 6]],
    "axis_a.cell": [[4], [0, 4], ["4", "4"]],
    "axis_a.frame": [None, [], {}, "frame"],
    "axis_a.frame.original": [[8, 13], [8.0, 12.0], MISSING],
    "axis_a.frame.scale": [[0, 0], [-1.0, 1.0], [float("nan")] * 2, [float("inf")] * 2],
    "axis_a.frame.offset": [[0.0], ["0", "0"], [10**400, 0]],
    "axis_a.more": [1],
    "axis_b.text": [None, 3, "a red"],
    "axis_b.spans": [
        [None] * 6, [[0, 1]] * 8, [[1, 0]] * 7, [[-1, 1]] * 7, [[0.0, 1.0]] * 7, [[0, 99]] * 7,
        [[0, 1, 2]] * 7, "none", MISSING,
    ],
    "more": [1],
}  # fmt: skip
CASES = [(where, value) for where, values in BAD.items() for value in values]


@pytest.mark.parametrize(("where", "value"), CASES, ids=lambda case: str(case)[:40])
def test_edited_headers_are_refused_by_the_name_of_the_field(imap, tmp_path, where, value):  # noqa: F811
    path = tmp_path / "map.safetensors"
    imap.save(path)
    tensors, fields = read(path)
    write(path, tensors, edited(fields, where, value))
    with pytest.raises(
        ValueError, match=r"map\.safetensors' is not a valid interaction map: "
    ) as e:
        InteractionMap.load(path)
    message = str(e.value)
    names = where.split(".")
    assert any(name in message for name in names[-2:]), message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("where", "value"),
    [("bands", [0, 0, 0, 1, 1, 2]), ("times", [[1.0, 0.5]] * 6), ("duration", 0), ("copies", 1.5)],
)
def test_edited_sounds(tmp_path, where, value):
    path = tmp_path / "map"
    sound().save(path)
    assert isinstance(InteractionMap.load(path).axis_a, AudioAxis)
    tensors, fields = read(path)
    write(path, tensors, edited(fields, f"axis_a.{where}", value))
    with pytest.raises(ValueError, match=rf"axis_a\.{where} must"):
        InteractionMap.load(path)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("interactions", None, "its tensors must be interactions, main_effects_a, main_effects_b"),
        ("more", torch.zeros(1), "its tensors must be interactions"),
        ("interactions", torch.zeros(7, 7, dtype=torch.int64), "interactions must be float32"),
        ("interactions", torch.zeros(7, 6), r"7 and 7 tokens.*\(7, 6\)"),
        ("main_effects_b", torch.zeros(3), r"7 and 7 tokens.*\(3,\)"),
        ("image_a", torch.zeros(8, 12), "image_a must be uint8 pixels"),
        ("image_a", torch.zeros(8, 12, 2, dtype=torch.uint8), "image_a must be uint8 pixels"),
        ("image_a", torch.zeros(9, 12, 3, dtype=torch.uint8), "axis_a.frame.original is"),
        ("image_b", torch.zeros(8, 12, dtype=torch.uint8), "image_b belongs to no image"),
    ],
)
def test_edited_tensors(imap, tmp_path, name, tensor, message):  # noqa: F811
    path = tmp_path / "map"
    imap.save(path)
    tensors, fields = read(path)
    tensors.pop(name, None)
    write(path, tensors if tensor is None else {**tensors, name: tensor}, fields)
    with pytest.raises(ValueError, match=message):
        InteractionMap.load(path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 10**5, '{"score": ' + "1" * 5000 + "}"])
def test_headers_that_are_no_json_object(imap, tmp_path, text):  # noqa: F811
    path = tmp_path / "map"
    imap.save(path)
    write(path, read(path)[0], text)
    with pytest.raises(ValueError, match="the JSON header of .*map' (cannot be read|must be an)"):
        InteractionMap.load(path)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LAB", "F"])
def test_images_of_any_mode_are_saved_as_they_look(imap, tmp_path, mode):  # noqa: F811
    image = Image.effect_noise((12, 8), 90).convert("RGB")
    image = image.convert("L").convert(mode) if mode == "F" else image.convert("RGB")
    image = image if mode in ("F", "LAB") else image.convert(mode)
    object.__setattr__(imap.axis_a, "image", image)
    imap.save(tmp_path / "map")
    loaded = InteractionMap.load(tmp_path / "map").axis_a.image
    shown = image.convert("RGB")
    assert np.array_equal(np.asarray(loaded.convert("RGB")), np.asarray(shown))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("x.png", r"plot\(\)\[0\]\.savefig\('.*x\.png'\)"),
        ("x.PDF", "savefig"),
        ("x.html", r"save_html\('.*x\.html'\)"),
        ("x.csv", "to_dataframe"),
        ("x.npy", "to_numpy"),
    ],
)
def test_names_of_other_kinds_of_files_are_refused(imap, tmp_path, name, advice):  # noqa: F811
    with pytest.raises(ValueError, match=f"save writes a safetensors file, but got .*{advice}"):
        imap.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_file_whole(imap, tmp_path, monkeypatch):  # noqa: F811
    def fail(_):
        raise OSError("no space left")

    path = tmp_path / "map"
    imap.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        replace(imap, score=imap.score + 1.0).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_values_that_are_not_finite_are_kept(tmp_path):
    axis = TokenAxis.numbered(1)
    values = torch.tensor([float("inf")])
    odd = InteractionMap(
        values.reshape(1, 1), values, -values, float("nan"), float("nan"), float("-inf"), axis, axis
    )
    odd.save(tmp_path / "map")
    loaded = InteractionMap.load(tmp_path / "map")
    assert np.isnan(loaded.score)
    assert loaded.convergence_delta == float("-inf")
    assert torch.equal(loaded.interactions, odd.interactions)
