"""The processes of a run, and how they wait for each other."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread, main_thread

import torch
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

_BEAT = 5.0
"""Seconds between two heartbeats of a process."""
_SILENCE = 300.0
"""Seconds without a heartbeat after which a process is lost."""


@dataclass(frozen=True)
class Processes:
    """This process among those of a run."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"
    """The device of this process."""
    wait: Callable[[], None] = lambda: None
    """Returns when every process has called it; raises a RuntimeError if one of them is lost."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def processes(device: str | None = None) -> Processes:
    """The processes that ``torchrun`` or ``accelerate launch`` started, or this one alone.

    They are read from the environment variables that launchers set for :mod:`torch.distributed`.

    Args:
        device: The device of a single process. Default: ``"cuda"`` if there is a GPU, else
            ``"cpu"``. Of several processes, each uses its own GPU, or all use the CPU if there is
            no GPU or ``device`` is ``"cpu"``.

    Raises:
        ValueError: If a launcher has set only some of its variables.
    """
    has_gpu = torch.cuda.is_available()
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(device=device or ("cuda" if has_gpu else "cpu"))
    timeout = timedelta(seconds=_SILENCE)
    store, rank, _ = next(rendezvous("env://", timeout=timeout))
    if device == "cpu" or not has_gpu:
        place = "cpu"  # with an index, weights would be copied, and round otherwise
    else:
        place = f"cuda:{int(os.environ.get('LOCAL_RANK', rank)) % torch.cuda.device_count()}"
    return Processes(rank, count, place, meetings(store, rank, count))


def meetings(
    store: Store, rank: int, count: int, *, beat: float = _BEAT, silence: float = _SILENCE
) -> Callable[[], None]:
    """A barrier without a time limit, which fails if a process is lost.

    Each process sends heartbeats from a thread while it computes. A process that has stopped sends
    none.

    Args:
        store: The store that the processes share.
        rank: The rank of this process.
        count: Number of processes.
        beat: Seconds between heartbeats.
        silence: Seconds without a heartbeat after which a process is lost.

    Returns:
        A function that returns when all processes have called theirs equally often, or raises a
        RuntimeError that names a lost process.
    """
    Thread(target=_give_signs, args=(store, rank, beat)).start()
    numbers = itertools.count()

    def wait() -> None:
        meeting = f"meeting {next(numbers)}"
        store.add(meeting, 1)
        heard = [(-1, 0.0)] * count
        while not _all_here(store, meeting, count, beat):
            for other in range(count):
                signs, now = store.add(f"signs of {other}", 0), time.monotonic()
                if signs != heard[other][0]:
                    heard[other] = signs, now
                elif now - heard[other][1] > silence:
                    raise RuntimeError(
                        f"process {other} of {count} has given no sign of life for {silence:g} "
                        "seconds: it was stopped, or its machine cannot be reached. Measured rows "
                        "are kept; rerun the same command to resume"
                    )

    return wait


def _give_signs(store: Store, rank: int, beat: float) -> None:
    """Send heartbeats until this program ends, or the process that keeps the store."""
    program = main_thread()
    with suppress(RuntimeError):
        while program.is_alive():
            store.add(f"signs of {rank}", 1)
            program.join(beat)


def _all_here(store: Store, meeting: str, count: int, seconds: float) -> bool:
    """Whether all processes reach a barrier within some seconds."""
    end = time.monotonic() + seconds
    while store.add(meeting, 0) < count:
        if time.monotonic() > end:
            return False
        time.sleep(min(0.1, seconds))
    return True
