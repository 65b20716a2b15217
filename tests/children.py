"""Programs that tests start, and that must not outlive them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs fork"
)


def forked(function: Callable[..., Any], *args: Any, **environment: str) -> BaseProcess:
    """A process that runs a function at once, as it imports nothing; it ends with this one."""

    def run() -> None:
        end_with_parent()
        os.environ.update(environment)
        function(*args)

    process = multiprocessing.get_context("fork").Process(target=run)
    with warnings.catch_warnings():
        # Python warns of other threads, which do not exist in the child.
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        process.start()
    return process


def joined(process: BaseProcess, seconds: float = 120) -> int | None:
    """The exit status of a process that has this time to end."""
    process.join(seconds)
    process.kill()
    return process.exitcode


def end_with_parent():
    """Let the kernel kill this process when the one that started it has ended (Linux)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def end_if_alone():
    """As :func:`end_with_parent`, in a program itself, whose parent may have ended already."""
    end_with_parent()
    if os.getppid() == 1:
        sys.exit("nobody waits for this program")
