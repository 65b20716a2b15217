"""Files that are written as a whole or not at all, and by one process at a time."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

_ABANDONED = 3600.0
"""Seconds after which what a writer has begun is not of one that is still at work."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers, and whoever comes after a crash, see all of it or nothing.

    What is there already stays until all is written beside it. A link stays a link, and what is no
    regular file (a pipe, a terminal) is written to as it is.

    Raises:
        OSError: If it cannot be written; nothing has changed then.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = path.resolve()
    # Other workers, maybe on other machines, may be writing the same file, and the same content.
    start = f".{path.name[:50]}."  # of a name that may be as long as names can be
    temporary = path.with_name(f"{start}{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        written = temporary.stat().st_mtime  # by the clock of the folder, which may be remote
        if path.exists():
            temporary.chmod(path.stat().st_mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    for left in path.parent.glob(f"{escape(start)}*.tmp"):
        with suppress(FileNotFoundError):
            if left.stat().st_mtime < written - _ABANDONED:
                left.unlink()
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def locked(path: Path, holder: str, timeout: float = 0.0) -> Iterator[None]:
    """Hold a lock file, which goes with the process that holds it.

    Args:
        path: The file, which stays.
        holder: What else may hold it, for the message.
        timeout: Seconds to wait for it. Default: 0

    Raises:
        RuntimeError: If it is held.
    """
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(
            f"{holder} is at work in {str(path.parent)!r}: wait for its end"
        ) from None
    try:
        yield
    finally:
        lock.release()
