"""Real files beside the repository, which are no part of it: tests skip where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest


def shared_data(name: str) -> Path:
    """A file or folder of ``../shared/data``, as seen from the repository; skips the test if none.

    A worktree one folder deeper finds it too.
    """
    for folder in Path(__file__).resolve().parents[2:4]:
        path = folder / "shared" / "data" / name
        if path.exists():
            return path
    pytest.skip(f"needs shared/data/{name} beside the repository")
