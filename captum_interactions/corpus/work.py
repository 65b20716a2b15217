"""Who is at work on an index: the workers of one build, and nobody beside them.

A build that adds other items gives up what an unfinished one has not finished. So each worker holds
a lock named after its part of the index, and a build of another part is refused while there is one.
Locks go with the process that holds them, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from captum_interactions.writing import locked

_PATIENCE = 600.0
"""Seconds to wait for other workers that plan: each reads the headers of all files."""


def planning(folder: Path) -> AbstractContextManager[None]:
    """Nobody else plans, begins or ends work meanwhile.

    Raises:
        RuntimeError: If somebody else takes longer than ten minutes to do so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return locked(folder / ".lock", "another build", _PATIENCE)


@contextmanager
def work(folder: Path, part: str, rank: int) -> Iterator[None]:
    """The work of a worker at a part. It begins while planning, and ends however the block does.

    Raises:
        RuntimeError: If workers of another part are at work, or one of the same rank.
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
