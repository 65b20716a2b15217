"""What commands print, and the files they write."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def print_json(value: Any) -> None:
    """Print a value as a line of JSON in ASCII; numbers that are not finite become null."""
    from captum_interactions.evaluation.rows import plain

    print(json.dumps(plain(value), allow_nan=False), flush=True)


def check_output(path: Path, endings: Sequence[str]) -> None:
    """See that a file can be written, before its content is computed.

    Raises:
        ValueError: If its ending is not one of these, or its folder cannot be written to.
    """
    if path.suffix.lower() not in endings:
        raise ValueError(f"--output must end in {', '.join(endings)}, but got {str(path)!r}")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"the folder of --output does not exist: {str(path.parent)!r}")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise ValueError(f"--output cannot be written to: {str(path)!r}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors inside say that the file of ``--output`` could not be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"--output {str(path)!r} could not be written: {reason}") from error
