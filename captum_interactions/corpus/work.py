"""Locks of an index: only the workers of one build may write to it at a time.

A build that adds other items discards the missing files of an unfinished build. So each worker
holds a lock named after its part of the index, and a build of another part is refused meanwhile.
The locks of a process end with it, even if it is killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from captum_interactions.writing import locked

_PATIENCE = 600.0
"""Seconds to wait while other workers plan: each reads the headers of all files."""


def planning(folder: Path) -> AbstractContextManager[None]:
    """A lock under which a worker plans, and begins or ends its work.

    Raises:
        RuntimeError: If another worker holds the lock for longer than ten minutes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return locked(folder / ".lock", "another build", _PATIENCE)


@contextmanager
def work(folder: Path, part: str, rank: int) -> Iterator[None]:
    """Hold the lock of one worker on a part of the index. Enter it while :func:`planning`.

    Raises:
        RuntimeError: If workers of another part hold a lock, or a worker of the same rank.
    """
    own = folder / f".{part}-{rank}.lock"
    for path in folder.glob(".[0-9]*.lock"):
        if not path.name.startswith(f".{part}-"):
            _end(_taken(path))  # its worker was killed
    lock = _taken(own)
    try:
        yield
    finally:
        with suppress(RuntimeError), planning(folder):
            _end(lock)
        lock.release()


def _taken(path: Path) -> FileLock:
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(
            f"another build is at work in {str(path.parent)!r}: wait for its end"
        ) from None
    return lock


def _end(lock: FileLock) -> None:
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)
