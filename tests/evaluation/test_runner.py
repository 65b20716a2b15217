"""How studies run: nothing is lost, nothing counted twice, whatever happens meanwhile."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed import TCPStore

from captum_interactions.datasets import Phrase
from captum_interactions.evaluation import ConfigurationError, run_study, summarise
from captum_interactions.evaluation.configuration import hash_of_weights
from captum_interactions.evaluation.pictures import Picture, pictures
from captum_interactions.evaluation.rows import Row, append, cut_half_written, merge, read
from tests import evaluation_standin
from tests.children import end_with_parent, forked, joined, needs_fork
from tests.evaluation_standin import Lengths, captions, image, model, records

SAID = ["one two", "", "three", "fail", "five six seven"]


@pytest.fixture(scope="module")
def wrapper():
    return model()


def run(wrapper, folder, study=None, said=SAID, **options):
    options = {"dataset": {"name": "captions"}, "batch_size": 2, **options}
    return run_study(study or Lengths(), wrapper, records(said), folder, **options)


def lines(folder):
    """The rows as they are on file, but for their times."""
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds")
    return rows


def test_every_record_has_one_row_and_none_hides_its_fate(wrapper, tmp_path):
    run(wrapper, tmp_path)
    rows = [row for row in lines(tmp_path) if row["variant"] == "letters"]
    assert [row["record"] for row in rows] == ["r0", "r1", "r2", "r3", "r4"]
    assert [row["index"] for row in rows] == list(range(5))
    assert [row["status"] for row in rows] == [
        "measured", "declined", "measured", "failed", "measured",
    ]  # fmt: skip
    assert [row["values"].get("length") for row in rows] == [7, None, 5, None, 14]
    assert rows[0]["values"]["nothing"] is None
    assert rows[1]["message"] == "nothing is said"
    assert rows[3]["message"] == "RuntimeError: cannot read it, 1 of them"


def test_summary_counts_what_was_not_measured(wrapper, tmp_path):
    study = Lengths(names=("letters", "refused"))
    summary = run(wrapper, tmp_path, study, ["one", "three", "", "fail"])
    assert summary.tables["totals"].rows == [["letters", 8]]
    counts = [row[:5] for row in summary.tables["records"].rows]
    assert counts == [["letters", 2, 1, 1, 0], ["refused", 0, 1, 3, 0]]
    problems = {(row[0], row[1]): row[3:] for row in summary.tables["problems"].rows}
    assert problems["letters", "failed"] == [1, "r3"]
    assert problems["letters", "declined"] == [1, "r2"]


def test_a_method_that_refuses_every_record_alike_is_refused(wrapper, tmp_path):
    summary = run(wrapper, tmp_path, Lengths(names=("refused",)), ["one", "three"])
    assert [row[:5] for row in summary.tables["records"].rows] == [["refused", 0, 0, 0, 2]]
    assert [row[2:4] for row in summary.tables["problems"].rows] == [
        ["ValueError: not defined: 3 is no number of mine", 2]
    ]


def test_summary_is_written_for_people_and_programs(wrapper, tmp_path):
    run(wrapper, tmp_path)
    page = (tmp_path / "lengths" / "summary.md").read_text()
    assert page.startswith("# Lengths of captions\n\nAll counted.\n\n## Totals\n")
    assert "| letters | 26 |" in page
    assert (tmp_path / "lengths" / "totals.csv").read_text() == (
        "variant,total\nletters,26\nwords,6\n"
    )


def test_a_second_run_measures_nothing_anew(wrapper, tmp_path, monkeypatch):
    run(wrapper, tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    monkeypatch.setattr(Lengths, "measure", lambda *_: pytest.fail("measured again"))
    run(wrapper, tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_runs_in_parts_add_up_to_the_whole(wrapper, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(wrapper, whole)
    run(wrapper, parts, Lengths(names=("letters",)), SAID[:3])
    run(wrapper, parts, Lengths(names=("words",)))
    run(wrapper, parts, Lengths())
    assert lines(parts) == lines(whole)
    assert set(json.loads((parts / "config.json").read_text())["variants"]) == {"letters", "words"}


def test_failed_records_are_tried_again_on_request(wrapper, tmp_path, monkeypatch):
    said = ["one", "fail"]
    run(wrapper, tmp_path, said=said)
    run(wrapper, tmp_path, said=said)
    assert [row["status"] for row in lines(tmp_path)] == ["measured", "failed"] * 2
    monkeypatch.setattr(
        Lengths, "measure", lambda self, wrapper, variant, records: [{"length": 0}] * len(records)
    )
    run(wrapper, tmp_path, said=said, retry_failed=True)
    assert [row["status"] for row in lines(tmp_path)] == ["measured"] * 4
    assert lines(tmp_path)[0]["values"] == {"length": 3, "nothing": None}  # not measured again


def test_a_summary_needs_no_model_and_may_ask_otherwise(wrapper, tmp_path, monkeypatch):
    run(wrapper, tmp_path)
    monkeypatch.setattr(Lengths, "measure", lambda *_: pytest.fail("measured again"))
    summary = summarise(Lengths(digits=1), tmp_path, records(SAID))
    assert summary.tables["totals"].rows == [["letters", 26], ["words", 6]]
    run(wrapper, tmp_path, Lengths(digits=1))  # a view changes no row
    with pytest.raises(FileNotFoundError, match="there are no results"):
        summarise(Lengths(), tmp_path / "elsewhere", records(SAID))


def test_a_summary_of_fewer_records_leaves_out_the_rows_of_others(wrapper, tmp_path):
    run(wrapper, tmp_path)
    assert run(wrapper, tmp_path, said=SAID[:3]).tables["totals"].rows[0] == ["letters", 12]
    assert len(lines(tmp_path)) == 2 * len(SAID)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": Lengths(scale=2)}, r"settings.scale: 1 there, 2 now"),
        ({"study": Lengths(seed=1)}, r"settings.seed: 0 there, 1 now"),
        ({"dataset": {"name": "others"}}, r'dataset.name: "captions" there, "others" now'),
        ({"said": ["another", "one"]}, r"dataset.first_record"),
    ],
)
def test_another_configuration_is_refused(wrapper, tmp_path, change, message):
    run(wrapper, tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes(), (tmp_path / "config.json").read_bytes()
    with pytest.raises(ConfigurationError, match=message):
        run(wrapper, tmp_path, **change)
    after = (tmp_path / "results.jsonl").read_bytes(), (tmp_path / "config.json").read_bytes()
    assert after == before


def test_another_model_is_refused(wrapper, tmp_path):
    run(wrapper, tmp_path)
    other = model()
    next(iter(other.state_dict().values())).add_(1)
    with pytest.raises(ConfigurationError, match=r"model.weights"):
        run(other, tmp_path)


def test_a_model_may_have_an_empty_buffer():
    layer = torch.nn.Linear(1, 1)
    before = hash_of_weights(layer)
    layer.register_buffer("empty", torch.empty(0, 3))
    assert hash_of_weights(layer) != before


def test_an_interrupted_run_goes_on(wrapper, tmp_path, monkeypatch):
    measure, calls = Lengths.measure, []

    def interrupted(self, wrapper, variant, records):
        calls.append(variant)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, wrapper, variant, records)

    said = captions(9)
    monkeypatch.setattr(Lengths, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(wrapper, tmp_path / "cut", said=said)
    assert len(lines(tmp_path / "cut")) == 4
    run(wrapper, tmp_path / "cut", said=said)
    monkeypatch.setattr(Lengths, "measure", measure)
    run(wrapper, tmp_path / "whole", said=said)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def test_records_of_one_key_are_an_error(wrapper, tmp_path):
    """One of both would be lost."""
    said = records(["one", "two", "three"])
    said[2] = records(["three"])[0]
    with pytest.raises(ValueError, match=r"records 0 and 2 have the same key, 'r0'"):
        run_study(Lengths(), wrapper, said, tmp_path, batch_size=2)


def test_a_dataset_whose_records_moved_is_an_error(wrapper, tmp_path):
    said = records(["one", "two", "three"])
    run_study(Lengths(), wrapper, said, tmp_path)
    with pytest.raises(ValueError, match=r"records 2 and 1 have the same key, 'r2': .* its place"):
        run_study(Lengths(), wrapper, [said[0], said[2]], tmp_path)


def test_a_folder_serves_one_run_at_a_time(wrapper, tmp_path, monkeypatch):
    def another(self, *_):
        with pytest.raises(RuntimeError, match="another run is at work"):
            run(wrapper, tmp_path)
        return [{"length": 1}]

    monkeypatch.setattr(Lengths, "measure", another)
    run(wrapper, tmp_path, said=["one"])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"said": []}, "needs records"), ({"batch_size": 0}, "batch_size must be at least 1")],
)
def test_bad_calls_are_refused(wrapper, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(wrapper, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


# The file of results.


def row(key, variant="v", index=0, **values):
    return Row(key, variant, index, "measured", values)


@pytest.mark.parametrize("rest", ['{"record": "b", "vari', '{"record"', "x" * 5000])
def test_a_half_written_line_is_cut_off(tmp_path, rest):
    path = tmp_path / "results.jsonl"
    append(path, [row("a")])
    whole = path.read_bytes()
    with path.open("a") as file:
        file.write(rest)
    cut_half_written(path)
    assert path.read_bytes() == whole
    cut_half_written(path)
    assert path.read_bytes() == whole


def test_a_broken_line_within_the_file_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [row("a")])
    path.write_text(path.read_text() + "what?\n" + path.read_text())
    with pytest.raises(ValueError, match=r"results.jsonl: line 2 is no row"):
        read(path)


def test_a_row_knows_its_record():
    said = records(["one", "two"])
    assert row("r1", index=1).of(said).caption == "two"
    with pytest.raises(ValueError, match=r"record 1 was 'r7' when it was measured, but is 'r1'"):
        row("r7", index=1).of(said)


def test_merging_sorts_and_counts_once(tmp_path):
    target, shard = tmp_path / "results.jsonl", tmp_path / "results-1.jsonl"
    append(target, [row("c", "w", 2), row("a", "v", 0, x=1)])
    append(shard, [row("b", "v", 1), row("a", "v", 0, x=2), row("a", "w", 0)])
    merge(tmp_path, ["v", "w"])
    rows = read(target)
    assert [one.identity for one in rows] == [("v", "a"), ("v", "b"), ("w", "a"), ("w", "c")]
    assert rows[0].values == {"x": 1}
    assert not shard.exists()


def test_labels_that_are_no_text_fail_their_record(wrapper, tmp_path):
    said = records(["one", "two", "a \udfff"])
    said[1] = replace(said[1], phrases=(Phrase("two", (0, 3), (), "la\ud800bel"),))
    run_study(Lengths(names=("letters",)), wrapper, said, tmp_path)
    assert [(one.record, one.status) for one in read(tmp_path / "results.jsonl")] == [
        ("r0", "measured"), ("r1", "failed"), ("r2", "failed"),
    ]  # fmt: skip
    assert "can't encode character '\\ud800'" in read(tmp_path / "results.jsonl")[1].message


def test_pictures_say_what_is_no_text_otherwise():
    shown = Picture(image(), np.zeros((1, 1), np.float32), (0, 4, 4, 0), below="\udce9.jpg: one")
    pictures([shown], "Names").savefig(io.BytesIO())


def test_keys_that_are_no_text_are_kept_and_stop_nothing(wrapper, tmp_path):
    """Names of files may hold halves of surrogate pairs."""
    said = [replace(one, key=key) for one, key in zip(records(SAID), KEYS, strict=True)]

    def again():
        return run_study(Lengths(), wrapper, said, tmp_path, dataset={"path": "\udce9"})

    again()
    before = (tmp_path / "results.jsonl").read_bytes()
    assert [one.record for one in read(tmp_path / "results.jsonl")] == [*KEYS, *KEYS]
    assert "r\\udce9" in (tmp_path / "lengths" / "summary.md").read_text("utf-8")
    again()
    assert (tmp_path / "results.jsonl").read_bytes() == before


KEYS = ["\udce9.jpg#1", "r\udce9", "caf\xe9", "\ud800", "r4"]


def test_a_summary_after_a_kill_counts_the_rows_of_all_processes(wrapper, tmp_path):
    whole = run(wrapper, tmp_path / "whole", said=SAID).tables
    cut = tmp_path / "cut"
    run(wrapper, cut, said=SAID)
    rows = read(cut / "results.jsonl")
    (cut / "results.jsonl").unlink()
    append(cut / "results.jsonl", rows[5:7])
    append(cut / "results-1.jsonl", rows[:4])
    append(cut / "results-12.jsonl", [*rows[7:], rows[6]])
    files = sorted(cut.glob("results*.jsonl"))
    for path in files:  # as they were written when the run was killed
        path.write_bytes(path.read_bytes() + b'{"record": "r\xc3')
    append(cut / "results-3.jsonl", [rows[4]])
    before = {path: path.read_bytes() for path in files}
    summary = summarise(Lengths(), cut, records(SAID))
    assert summary.tables["totals"].rows == whole["totals"].rows
    assert [row[:5] for row in summary.tables["records"].rows] == [
        row[:5] for row in whole["records"].rows
    ]
    assert {path: path.read_bytes() for path in files} == before  # a run may be writing to them
    run(wrapper, cut, said=SAID)
    assert lines(cut) == lines(tmp_path / "whole")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"variants": 1, "made_with": []}', "[" * 9999]
)
def test_a_configuration_that_is_damaged_is_named(wrapper, tmp_path, content):
    run(wrapper, tmp_path)
    (tmp_path / "config.json").write_text(content)
    for use in (run, lambda *_: summarise(Lengths(), tmp_path, records(SAID))):
        with pytest.raises(ConfigurationError, match=r"config\.json is damaged: "):
            use(wrapper, tmp_path)


# Several processes, and their deaths.


def launched(folder, n, seconds):
    """Two processes under ``torchrun``, none of which outlives tests that are killed."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = ["-m", "tests.evaluation_standin", str(folder), str(n), str(seconds)]
    return subprocess.Popen(
        [sys.executable, *launcher, *program],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stderr=subprocess.DEVNULL,
        preexec_fn=end_with_parent,
    )


def wait_for_rows(path, n, is_running):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and is_running():
        if path.exists() and path.read_bytes().count(b"\n") >= n:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {n} rows in {path}")


@needs_fork
def test_a_killed_run_loses_nothing_and_repeats_nothing(wrapper, tmp_path):
    n = 40
    said = captions(n)
    run(wrapper, tmp_path / "whole", said=said, batch_size=3)
    cut = tmp_path / "cut"
    process = forked(evaluation_standin.run, cut, n, 0.05)
    try:
        wait_for_rows(cut / "results.jsonl", 12, process.is_alive)
    finally:
        process.kill()
        process.join()
    done = read(cut / "results.jsonl")
    assert 12 <= len(done) < 2 * n
    with (cut / "results.jsonl").open("a") as file:
        file.write('{"record": "r39", "variant": "let')
    run(wrapper, cut, said=said, batch_size=3)
    assert lines(cut) == lines(tmp_path / "whole")
    again = {one.identity: one for one in read(cut / "results.jsonl")}
    assert all(again[one.identity].seconds == one.seconds for one in done)  # the very same rows


@needs_fork
def test_two_processes_find_what_one_finds_even_after_a_death(wrapper, tmp_path):
    """A worker is killed, the launcher ends the other, and two new ones go on."""
    n = 24
    said = captions(n)
    run(wrapper, tmp_path / "one", said=said, batch_size=3)
    two = tmp_path / "two"
    process = launched(two, n, 0.25)
    try:
        wait_for_rows(two / "results-1.jsonl", 6, lambda: process.poll() is None)
        worker = next(pid for pid in children(process.pid) if "RANK=1" in environment_of(pid))
        os.kill(worker, signal.SIGKILL)
        assert process.wait(timeout=60) != 0
    finally:
        process.kill()
        process.wait()
    partial = read(two / "results.jsonl") + read(two / "results-1.jsonl")
    assert 6 <= len(partial) < 2 * n
    store = TCPStore("localhost", 0, is_master=True)  # the launcher's, which its workers share
    variables = {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": "2",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    workers = [forked(evaluation_standin.run, two, n, 0, RANK=rank, **variables) for rank in "01"]
    assert [joined(worker) for worker in workers] == [0, 0]
    assert lines(two) == lines(tmp_path / "one")
    assert not list(two.glob("results-*.jsonl"))
    assert (two / "lengths" / "totals.csv").read_text() == (
        (tmp_path / "one" / "lengths" / "totals.csv").read_text()
    )


def children(pid):
    """Ids of the processes that a process has started (Linux)."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for one in lists for child in one.read_text().split()]


def environment_of(pid):
    return Path(f"/proc/{pid}/environ").read_text().split("\0")
