"""Atomic writes, and locks between processes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

_ABANDONED = 3600.0
"""Age in seconds at which a temporary file counts as abandoned."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: after a crash, it is either complete or unchanged.

    The content is written to a temporary file, which then replaces the file. A symbolic link is
    followed. If the path is not a regular file (a pipe, a terminal), it is written directly.

    Raises:
        FileNotFoundError: If its folder does not exist.
        OSError: If it cannot be written; the old file is then unchanged.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = path.resolve()
    if not path.parent.is_dir():  # or the error would name the temporary file
        raise FileNotFoundError(f"no folder {str(path.parent)!r} to write {path.name!r} to")
    # Other workers, maybe on other machines, may write the same file with the same content.
    start = f".{path.name[:50]}."  # the name may already have the maximum length
    temporary = path.with_name(f"{start}{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        written = temporary.stat().st_mtime  # by the clock of the file system, which may be remote
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
    """Hold a lock file, which the system releases when the process ends.

    Args:
        path: The lock file. It is not deleted.
        holder: Description of other holders, for the message.
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
