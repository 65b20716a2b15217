"""One process or many: who does which share, and how they wait for each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch


@dataclass(frozen=True)
class Processes:
    """This process among those of a run."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"
    """Where this process computes."""
    wait: Callable[[], None] = lambda: None
    """Returns when every process has called it."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def processes(device: str | None = None) -> Processes:
    """The processes that ``accelerate launch`` or ``torchrun`` started, or this one alone.

    Args:
        device: Where a process alone computes. Default: ``"cuda"`` if there is one, else ``"cpu"``.
            Several processes take one GPU each, or the CPU with ``"cpu"`` or if there is none.

    Raises:
        ImportError: If there are several processes, but accelerate is not installed.
    """
    has_gpu = torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(device=device or ("cuda" if has_gpu else "cpu"))
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError(
            "several processes need accelerate: pip install 'captum-interactions[evaluation]'"
        ) from error
    # A process that has done its share may wait for the others for a long time.
    state = PartialState(cpu=device == "cpu" or not has_gpu, timeout=timedelta(days=7))
    return Processes(
        state.process_index, state.num_processes, str(state.device), state.wait_for_everyone
    )
