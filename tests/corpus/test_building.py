"""Builds of indexes: interrupted, shared by several processes, extended, damaged."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from captum_interactions import CallableTower, DualEncoderWrapper, wrap
from captum_interactions.corpus import (
    FactorIndex,
    ShardError,
    build_index,
    model_identity,
    pair_map,
)
from captum_interactions.corpus.folder import Part
from tests import corpora, models
from tests.children import forked, joined, needs_fork
from tests.families import FAMILIES


@pytest.fixture(scope="module")
def wrapper():
    return corpora.small_wrapper()


@pytest.fixture(scope="module")
def built(tmp_path_factory, wrapper):
    """The files of the images' index, built at once."""
    folder = tmp_path_factory.mktemp("whole")
    build(folder, wrapper)
    return folder


@pytest.fixture
def copy(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "copy"))


def build(folder, wrapper, items=None, side="a", **options):
    options = corpora.OPTIONS | {"storage": "float32"} | options
    return build_index(folder, wrapper, corpora.images() if items is None else items, side=side,
                       **options)  # fmt: skip


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


@needs_fork
def test_a_killed_build_goes_on_where_it_was(built, tmp_path, wrapper):
    folder = tmp_path / "index"
    process = forked(corpora.build_slowly, folder, 0.3)
    try:
        while not shards(folder):
            assert process.is_alive()
            time.sleep(0.02)
    finally:
        process.kill()
        process.join()
    finished = shards(folder)
    assert 0 < len(finished) < len(shards(built))
    with pytest.warns(UserWarning, match="lacks . of 3 files: its build is not finished"):
        partial = FactorIndex(folder)
    assert partial.missing
    assert partial.keys == tuple(corpora.images())[: 3 * len(finished)]
    times = {path: path.stat().st_mtime_ns for path in finished}
    opened = []
    images = {
        key: lambda key=key, opener=opener: opened.append(key) or opener()
        for key, opener in corpora.images().items()
    }
    index = build(folder, wrapper, images)
    assert opened == list(images)[3 * len(finished) :]  # what was finished is not done again
    assert {path: path.stat().st_mtime_ns for path in finished} == times
    assert not index.missing
    assert corpora.files(folder) == corpora.files(built)


def test_what_a_killed_writer_left_is_cleared(copy, wrapper):
    path = shards(copy)[0]
    left, recent = (path.with_name(f".{path.name}.{name}.tmp") for name in ("1", "2"))
    for begun in (left, recent):
        begun.write_bytes(path.read_bytes()[:100])
    os.utime(left, (0, 0))
    assert len(FactorIndex(copy)) == 8  # readers do not see it
    path.unlink()
    build(copy, wrapper)
    assert not left.exists()
    assert recent.exists()  # its writer may be at work


@needs_fork
def test_two_processes_write_what_one_writes(built, tmp_path):
    """At the same moment, with the variables that ``torchrun`` sets."""
    folder, both = tmp_path / "index", multiprocessing.get_context("fork").Barrier(2)
    workers = [
        forked(corpora.build_slowly, folder, 0.0, both.wait, RANK=rank, WORLD_SIZE="2")
        for rank in "01"
    ]
    assert [joined(worker) for worker in workers] == [0, 0]
    assert corpora.files(folder) == corpora.files(built)


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_workers_share_the_files_and_any_of_them_may_go_on(built, tmp_path, wrapper, world_size):
    for rank in reversed(range(world_size)):
        index = build(tmp_path, wrapper, rank=rank, world_size=world_size)
        assert len(index.missing) == 3 - len(shards(tmp_path))
    assert corpora.files(tmp_path) == corpora.files(built)
    shards(tmp_path)[1].unlink()
    build(tmp_path, wrapper)  # by one alone, after one of several was lost
    assert corpora.files(tmp_path) == corpora.files(built)
    with pytest.raises(ValueError, match="rank must be from 0 to 1, but got 2"):
        build(tmp_path, wrapper, rank=2, world_size=2)


def test_items_are_added(built, copy, wrapper):
    more = corpora.images(12)
    new = {key: more[key] for key in list(more)[8:]}
    index = build(copy, wrapper, new)
    assert index.keys == tuple(more)
    assert corpora.files(built).items() <= corpora.files(copy).items()
    before = corpora.files(copy)
    assert build(copy, wrapper, more).keys == tuple(more)  # nothing is left to do
    assert {k: v for k, v in corpora.files(copy).items() if not k.startswith("part")} == {
        k: v for k, v in before.items() if not k.startswith("part")
    }
    alone = build(copy.parent / "alone", wrapper, new)
    for key in new:
        assert torch.equal(alone[key].values, index[key].values)


def test_parts_beyond_9999_come_after_those_before(copy, wrapper):
    more = corpora.images(11)
    Part("9998-0123456789ab", ()).write(copy)  # so the next one is 9999
    for key in list(more)[8:]:
        index = build(copy, wrapper, {key: more[key]})
    numbers = sorted(int(path.name.split("-")[1]) for path in copy.glob("part-*"))
    assert numbers == [0, 9998, 9999, 10000, 10001]
    assert index.keys == tuple(more)
    assert build(copy, wrapper, more).keys == tuple(more)


def test_a_build_that_was_given_up_is_no_longer_missed(copy, wrapper):
    shards(copy)[1].unlink()
    kept = [key for i, key in enumerate(corpora.images()) if i not in (3, 4, 5)]
    build(copy, wrapper, {"another": corpora.images(9)["image 8"]})
    assert FactorIndex(copy).keys == (*kept, "another")
    build(copy, wrapper)  # it may be taken up again
    assert FactorIndex(copy).keys == (*kept, "another", "image 3", "image 4", "image 5")
    files = corpora.files(copy)
    build(copy, wrapper)
    build(copy, wrapper, {"another": corpora.images(9)["image 8"]})
    assert corpora.files(copy) == files


def test_readers_keep_what_they_opened_while_an_index_grows(copy, wrapper):
    reader = FactorIndex(copy)
    values = reader["image 0"].values.clone()
    build(copy, wrapper, {"another": corpora.images(9)["image 8"]})
    assert len(reader) == 8
    assert torch.equal(reader["image 0"].values, values)
    reader["image 0"].values.zero_()  # a copy: neither the file nor other readers change
    reader.factors(["image 0"]).embedding.zero_()
    assert torch.equal(reader["image 0"].values, values)
    assert torch.equal(FactorIndex(copy)["image 0"].values, values)


def test_keys_belong_to_one_input(copy, wrapper, tmp_path):
    texts = tmp_path / "texts"
    build(texts, wrapper, {"one": "a red circle"}, "b")
    with pytest.raises(ValueError, match="'one' is in the index already, for 'a red circle', but"):
        build(texts, wrapper, {"one": "a red dot", "two": "red"}, "b")
    with pytest.raises(ValueError, match="the key 'x' comes twice"):
        build(texts, wrapper, [("x", "red"), ("y", "a red"), ("x", "red")], "b")
    with pytest.raises(TypeError, match="keys must be strings, but got 3"):
        build(texts, wrapper, {3: "red"}, "b")


def test_the_item_that_cannot_be_read_is_named_and_the_others_are_kept(tmp_path, wrapper):
    items = corpora.images()
    items["image 4"] = lambda: "no such file.png"
    with pytest.raises(ValueError, match=r"item 'image 4' cannot .* no image file at 'no such"):
        build(tmp_path, wrapper, items)
    with pytest.warns(UserWarning, match="lacks 2 of 3 files"):
        assert len(FactorIndex(tmp_path)) == 3
    texts = {"one": "red", "two": "red " * 50}
    with pytest.raises(
        ValueError, match="factors of item 'two' cannot be computed: text 0 has 5. tokens"
    ):
        build(tmp_path / "texts", wrapper, texts, "b")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"n_steps": 5}, r"n_steps \(4, 5\)"),
        ({"layers": (0, 2)}, r"layers \(\(2, 2\), \(0, 2\)\)"),
        ({"normalization": "frozen"}, "normalization"),
        ({"method": "riemann_left"}, "method"),
        ({"baseline": 0.5}, r"baseline \(None, 0.5\)"),
        ({"baseline": torch.zeros(1, 3, 12, 12)}, r"baseline \(None, .*sha256"),
        ({"storage": "float16"}, r"storage \('float32', 'float16'\)"),
        ({"side": "b", "items": {"one": "red"}}, r"side \('a', 'b'\)"),
    ],
)
def test_a_folder_holds_one_kind_of_factors(copy, wrapper, options, what):
    before = corpora.files(copy)
    with pytest.raises(ValueError, match=f"an index with other settings: {what}.* differ"):
        build(copy, wrapper, **options)
    assert corpora.files(copy) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"storage": "int8"}, "storage must be one of float32, float16, bfloat16, but got 'int8'"),
        ({"batch_size": 0}, "batch_size must be at least 1, but got 0"),
        ({"shard_size": 0}, "shard_size must be at least 1, but got 0"),
        ({"side": "c"}, "side must be 'a' or 'b', but got 'c'"),
        ({"layers": (9, 0)}, "layer must be an int from -3 to 2"),
        ({"n_steps": 0}, "n_steps must be an int of at least 1"),
        ({"n_steps": 99_999_999}, "n_steps must be at most 2000 for gausslegendre"),
        ({"method": "simpson"}, "method must be one of gausslegendre"),
    ],
)
def test_wrong_options_leave_no_folder(tmp_path, wrapper, options, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "index", wrapper, **options)
    assert not (tmp_path / "index").exists()


def test_an_empty_collection(tmp_path, wrapper):
    index = build(tmp_path, wrapper, {})
    assert (len(index), index.embeddings.numel(), index.storage_error.relative) == (0, 0, 0.0)
    with pytest.raises(FileNotFoundError, match="there is no index at .*nowhere"):
        FactorIndex(tmp_path / "nowhere")


# Damage: every byte counts.


def test_a_changed_byte_is_refused_wherever_it_is(copy, wrapper):
    path = shards(copy)[1]
    content = path.read_bytes()
    assert len(content) > 5000
    for place in range(0, len(content), len(content) // 97):
        changed = bytearray(content)
        changed[place] ^= 0x10
        path.write_bytes(bytes(changed))
        with pytest.raises(ShardError, match=f"{path.name}.*(damaged|not a shard|another|written)"):
            FactorIndex(copy).verify()
    path.write_bytes(content)
    FactorIndex(copy).verify()


def test_damage_is_found_when_a_shard_is_used_and_mended_by_building(copy, built, wrapper):
    path = shards(copy)[1]
    content = bytearray(path.read_bytes())
    place = bytes(content).index(bytes(load_file(path)["values"][5:6].flatten().numpy().data))
    content[place] ^= 1  # the lowest bit of a number
    path.write_bytes(bytes(content))
    index = FactorIndex(copy)
    assert len(index["image 0"].values) == 10  # in another file
    for use in (lambda: index["image 3"], lambda: index.embeddings, lambda: list(index.blocks())):
        with pytest.raises(ShardError, match=f"{path.name}.*does not have the checksum"):
            use()
    assert len(FactorIndex(copy, verify=False)["image 3"].values) == 10
    path.unlink()
    build(copy, wrapper)
    assert corpora.files(copy) == corpora.files(built)


@pytest.mark.parametrize("keep", [0, 7, 500, -1])
def test_a_file_that_is_cut_off_is_refused(copy, keep):
    path = shards(copy)[2]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ShardError, match=f"{path.name}.* is damaged"):
        FactorIndex(copy)


def test_foreign_files_are_refused(copy, tmp_path, wrapper):
    def refused(message):
        return pytest.raises(ShardError, match=message)

    path = shards(copy)[0]
    own = path.read_bytes()
    other = build(tmp_path / "other", wrapper, n_steps=5)
    path.write_bytes(shards(other.folder)[0].read_bytes())
    with refused(rf"{path.name}.* belongs to another index: n_steps \(4, 5\) differ"):
        FactorIndex(copy)
    save_file({"values": torch.ones(2, 2)}, path)
    with refused(f"{path.name}.* is not a shard of an index: .*found None"):
        FactorIndex(copy)
    path.write_bytes(shards(copy)[1].read_bytes())
    with refused(f"{path.name}.* was written as .*00001'"):
        FactorIndex(copy)
    path.write_bytes(own)
    stray = copy / "stray.safetensors"
    stray.write_bytes(own)
    with refused("stray.safetensors.* belongs to no part of this index"):
        FactorIndex(copy)
    stray.unlink()
    (copy / "index.json").write_text("{")
    with refused("index.json.* is damaged"):
        FactorIndex(copy)


def test_a_key_in_two_files_is_refused(copy, wrapper, tmp_path):
    other = tmp_path / "other"
    build(other, wrapper, dict(list(corpora.images().items())[:1]))
    for path in other.iterdir():
        if path.name != "index.json":
            shutil.copy(path, copy)
    with pytest.raises(ShardError, match="'image 0' is both in .*00000.* and in .*00000"):
        FactorIndex(copy)


# Storage in fewer bits.


@pytest.mark.parametrize(("storage", "bits"), [("float16", 10), ("bfloat16", 7)])
def test_the_stated_error_bounds_every_map(tmp_path, storage, bits):
    exact, stored = (corpora.build_both(tmp_path / name, name) for name in ("float32", storage))
    assert all(index.storage_error.absolute == 0 for index in exact)
    lengths, relative = [], []
    for one, other in zip(exact, stored, strict=True):
        error = other.storage_error
        difference = (one.factors().values - other.factors().values).norm(dim=-1)
        length = one.factors().values.norm(dim=-1).max()
        assert error.absolute == pytest.approx(float(difference.max()), rel=1e-4)
        assert error.largest == pytest.approx(float(length), rel=1e-5)
        assert 0 < error.relative <= 2.0 ** -(bits + 1)
        lengths.append(error.largest)
        relative.append(error.relative)
    bound = (relative[0] + relative[1] + relative[0] * relative[1]) * lengths[0] * lengths[1]
    maps = [a.factors() @ b.factors() for a, b in (exact, stored)]
    assert 0 < float((maps[0] - maps[1]).abs().max()) <= bound
    sizes = [sum(path.stat().st_size for path in shards(a.folder)) for a, _ in (exact, stored)]
    assert sizes[1] < sizes[0]
    imap = pair_map(stored[0][0], stored[1][0])
    parts = imap.main_effects_a.sum() + imap.main_effects_b.sum() + imap.interactions.sum()
    assert imap.constant + float(parts) - imap.score == pytest.approx(
        imap.convergence_delta, abs=1e-6
    )


def test_factors_that_do_not_fit_are_refused(tmp_path):
    def large(x):
        return 1e5 * x

    wrapper = DualEncoderWrapper(CallableTower(large), CallableTower(large))
    items = {"one": torch.ones(1, 3)}
    options = {"side": "a", "normalization": "none"}
    with pytest.raises(ValueError, match=r"up to 1e\+05 do not fit into float16: take"):
        build_index(tmp_path / "half", wrapper, items, **options)
    index = build_index(tmp_path / "brain", wrapper, items, storage="bfloat16", **options)
    torch.testing.assert_close(index["one"].values, 1e5 * torch.eye(3), rtol=0.01, atol=0)


# Which model is it?


def test_the_identity_of_a_model(clip):
    same, again = (model_identity(wrap(models.clip())) for _ in range(2))
    assert same == again == model_identity(wrap(clip))
    assert same["name"] == "CLIPModel"
    changed = models.clip()
    with torch.no_grad():
        changed.logit_scale.mul_(1 + 1e-6)
    assert model_identity(wrap(changed))["weights"] != same["weights"]
    assert model_identity(wrap(models.clip().double()))["weights"] != same["weights"]
    changed = models.clip()
    changed.config.vision_config.hidden_act = "gelu"
    other = model_identity(wrap(changed))
    assert other["weights"] == same["weights"]
    assert other["configuration"] != same["configuration"]
    processors = [models.clip_with_processor(size={"shortest_edge": n}) for n in (12, 24)]
    first, second = (model_identity(wrap(*one)) for one in processors)
    assert first["weights"] == second["weights"]
    assert first["configuration"] != second["configuration"]


def test_the_identity_is_the_same_in_every_process():
    """Also of a model that pools by attention: addresses of functions are no part of it."""
    program = (
        "from captum_interactions import wrap\n"
        "from captum_interactions.corpus import model_identity\n"
        "from tests.families import FAMILIES\n"
        "family = next(f for f in FAMILIES if f.name.startswith('SigLIP'))\n"
        "print(model_identity(wrap(family.build()))['configuration'])\n"
    )
    # Addresses in this process, with all that pytest imports, are others than there.
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "1"},
    ).stdout.split()[-1]  # fmt: skip
    family = next(f for f in FAMILIES if f.name.startswith("SigLIP"))
    assert found == model_identity(wrap(family.build()))["configuration"]


def test_the_identity_holds_the_limit_of_texts():
    model, processor = models.clip_with_processor()
    wrapper = wrap(model, processor)
    before = model_identity(wrapper)["configuration"]
    wrapper.tower_b._context_length = wrapper.tower_b.context_length - 1
    assert model_identity(wrapper)["configuration"] != before


def test_token_ids_are_items_of_one_row(wrapper, tmp_path):
    """Rows of several lengths are items of one build; other shapes are refused by their shape."""
    ids = {text: wrapper.tower_b.prepare(text).inputs for text in corpora.TEXTS[:3]}
    index = build_index(tmp_path / "index", wrapper, ids, side="b", **corpora.OPTIONS)
    assert [len(index[key].values) for key in ids] == [row.shape[1] for row in ids.values()]
    for name, shape in (("two rows", (2, 4)), ("no batch axis", (4,))):
        bad = {"red": ids["red"], "bad": torch.ones(shape, dtype=torch.long)}
        message = "the factors of item 'bad' cannot be computed: an item is a single input"
        with pytest.raises(ValueError, match=message) as caught:
            build_index(tmp_path / name, wrapper, bad, side="b", **corpora.OPTIONS)
        assert f"got shape {shape}" in str(caught.value)
