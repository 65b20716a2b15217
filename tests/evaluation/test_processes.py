"""How processes wait for each other, and for how long."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed import HashStore

from captum_interactions.evaluation.processes import meetings, processes


def test_all_meet_however_long_one_takes():
    """A second is four times as long as silence would be borne."""
    store, seen = HashStore(), []

    def work(rank):
        wait = meetings(store, rank, 3, beat=0.02, silence=0.25)
        for number in range(3):
            time.sleep(1.0 if rank == number else 0.0)
            seen.append(number)
            wait()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))  # raises what one of them raised
    assert seen == sorted(seen)


def test_a_process_that_gives_no_sign_of_life_is_named_and_not_waited_for():
    store = HashStore()
    wait = meetings(store, 0, 3, beat=0.02, silence=0.3)
    meetings(store, 1, 3, beat=0.02)  # it computes
    store.add("signs of 2", 7)  # it did, until it was stopped
    with pytest.raises(
        RuntimeError, match=r"process 2 of 3 .* for 0\.3 seconds.* the same command"
    ):
        wait()


def test_variables_of_a_launcher_that_are_missing_are_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match="MASTER_ADDR"):
        processes()


@pytest.mark.parametrize(
    ("asked", "gpus", "device"),
    [(None, 2, "cuda:1"), ("cuda", 2, "cuda:1"), (None, 0, "cpu"), ("cpu", 2, "cpu")],
)
def test_each_process_has_its_device(monkeypatch, asked, gpus, device):
    """The CPU has no index: weights would be copied to it, and round otherwise."""
    module = sys.modules[meetings.__module__]
    monkeypatch.setattr(module, "rendezvous", lambda *_, **__: iter([(HashStore(), 7, 8)]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "3")
    own = processes(asked)
    assert (own.rank, own.count, own.device, own.is_first) == (7, 8, device, False)


def test_a_process_alone_waits_for_nobody():
    alone = processes("cpu")
    assert (alone.rank, alone.count, alone.device, alone.is_first) == (0, 1, "cpu", True)
    alone.wait()
