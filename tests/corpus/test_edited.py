"""Indexes that somebody has edited, checksums and all: refused by the name of the field."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from captum_interactions.corpus import FactorIndex, ShardError, build_index
from captum_interactions.corpus.header import content_checksum, sealed
from tests import corpora


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    build_index(folder, corpora.small_wrapper(), corpora.texts(), side="b", **corpora.OPTIONS)
    return folder


@pytest.fixture
def copy(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "copy"))


def read(path):
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["json"]), tensors


def write(path, header, tensors, *, seal=True):
    save_file(tensors, path, {"json": json.dumps(sealed(header, tensors) if seal else header)})


def shard(folder, number=0):
    return sorted(folder.glob("*.safetensors"))[number]


HEADER = [
    ("storage", "float8", "storage"), ("storage", ["float16"], "storage"),
    ("error", [1.0], "error"), ("error", [float("nan"), 1.0], "error"), ("error", "x", "error"),
    ("keys", "abc", "keys"), ("keys", ["a", "a", "b"], "keys"), ("keys", [1, 2, 3], "keys"),
    ("sources", None, "sources"), ("sources", ["red"], "sources are 1 for 3 keys"),
    ("sources", [1, 2, 3], "sources"), ("name", 3, "name"), ("settings", None, "settings"),
    ("settings", [], "settings"), ("settings", {"side": "b"}, "settings"),
]  # fmt: skip
SETTINGS = [
    ("side", "c"), ("layers", 3), ("layers", [1]), ("layers", [1, "output"]), ("layers", [1, True]),
    ("normalization", "euclid"), ("normalization", ["cosine"]), ("n_steps", 0), ("n_steps", 2.5),
    ("method", None), ("truncation", 1), ("model", {}), ("model", {"name": 1}), ("model", "CLIP"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "message"), HEADER)
def test_headers(copy, field, value, message):
    header, tensors = read(shard(copy))
    write(shard(copy), header | {field: value}, tensors)
    with pytest.raises(ShardError, match=rf"{shard(copy).name}.* is damaged: .*{message}"):
        FactorIndex(copy)
    header.pop(field)
    write(shard(copy), header, tensors)
    with pytest.raises(ShardError, match=rf"{shard(copy).name}.* is damaged: .*{field}"):
        FactorIndex(copy)


@pytest.mark.parametrize(("field", "value"), SETTINGS)
def test_settings(copy, field, value):
    header, tensors = read(shard(copy))
    write(shard(copy), header | {"settings": header["settings"] | {field: value}}, tensors)
    with pytest.raises(ShardError, match=rf"{shard(copy).name}.* settings: {field} cannot be"):
        FactorIndex(copy)
    shutil.copy(copy / "index.json", copy / "index")
    content = json.loads((copy / "index.json").read_text())
    content["settings"][field] = value
    (copy / "index.json").write_text(json.dumps(content))
    with pytest.raises(ShardError, match=rf"index\.json.* settings: {field} cannot be"):
        FactorIndex(copy)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("index.json", {"storage": "int8"}, "storage must be one of float32"),
        ("index.json", {"storage": []}, "storage must be one of float32"),
        ("index.json", {"settings": None}, "settings must be side, layers"),
        ("part", {"shards": "abc"}, "shards must be names that begin with"),
        ("part", {"shards": ["../x"]}, "shards must be names that begin with"),
        ("part", {"shards": None}, "shards must be names"),
        ("part", {"format": None}, "does not belong to an index"),
        ("part", "[" * 9999, "is damaged"),
        ("index.json", "\ud800", "is damaged"),
    ],
)
def test_files_of_json(copy, name, content, message):
    (path,) = copy.glob(f"{name}*")
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content)
    path.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(ShardError, match=rf"{path.name}.*{message}"):
        FactorIndex(copy)


def test_names_of_parts(copy):
    (path,) = copy.glob("part*")
    shutil.copy(path, copy / "part-x.json")
    with pytest.raises(ShardError, match=r"part-x\.json' has no name of a part"):
        FactorIndex(copy)


TENSORS = [
    ("offsets", lambda x: x.flip(0), "offsets do not span its values"),
    ("offsets", lambda x: x[[0, 2, 1, 3]], "offsets do not rise"),
    ("offsets", lambda x: x - 1, "offsets do not span"),
    ("axis_offsets", lambda x: x * 2, "axis_offsets do not span its axes"),
    ("axis_of_item", lambda x: x + 1, "axis_of_item names axes it lacks"),
    ("axis_of_item", lambda x: x - 1, "axis_of_item names axes it lacks"),
    ("axis_of_item", lambda x: x.flip(0), "the axis of 'text 0' has .* tokens, but there are"),
    ("axes", lambda x: x * 0 + 91, "the axis of 'text 0'"),
    ("axes", lambda x: x * 0 + 49, "the axis of 'text 0'"),
]


@pytest.mark.parametrize(("name", "change", "message"), TENSORS)
def test_tensors(copy, name, change, message):
    header, tensors = read(shard(copy))
    write(shard(copy), header, tensors | {name: change(tensors[name]).contiguous()})
    index = FactorIndex(copy)
    with pytest.raises(ShardError, match=rf"{shard(copy).name}.* is damaged: {message}"):
        index["text 0"]
    assert len(index["text 3"].values)


@pytest.mark.parametrize("name", ["offsets", "is_part", "embedding", "values"])
def test_types_of_tensors(copy, name):
    header, tensors = read(shard(copy))
    write(shard(copy), header, tensors | {name: tensors[name].to(torch.float64)})
    with pytest.raises(ShardError, match=rf"types .*'{name}'.*torch\.float64"):
        FactorIndex(copy)


def test_what_a_checksum_protects_is_read_after_it(copy):
    """Keys, sources and errors are read when an index is opened: so is the header's checksum."""
    header, tensors = read(shard(copy))
    for field, value in (("keys", ["x", "y", "z"]), ("sources", ["x"] * 3), ("error", [0.0, 9.0])):
        write(shard(copy), header | {field: value}, tensors, seal=False)
        with pytest.raises(ShardError, match="header does not have the checksum"):
            FactorIndex(copy)


def test_files_of_version_0_2(copy):
    """Their headers are covered by the checksum of all, which is read at once then."""
    path = shard(copy)
    header, tensors = read(path)
    header = {k: v for k, v in header.items() if k not in ("header_sha256", "sha256")}
    old = header | {"sha256": content_checksum(header, tensors)}
    write(path, old, tensors, seal=False)
    assert FactorIndex(copy).source("text 0") == corpora.TEXTS[0]
    write(path, old | {"sources": ["x"] * 3}, tensors, seal=False)
    with pytest.raises(ShardError, match=f"{path.name}.*does not have the checksum"):
        FactorIndex(copy)
    assert FactorIndex(copy, verify=False).source("text 0") == "x"
