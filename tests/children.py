"""Programs that tests start, and that must not outlive them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


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
