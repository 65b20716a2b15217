"""How processes wait for each other, and for how long."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
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


def test_a_process_alone_waits_for_nobody():
    alone = processes("cpu")
    assert (alone.rank, alone.count, alone.device, alone.is_first) == (0, 1, "cpu", True)
    alone.wait()
