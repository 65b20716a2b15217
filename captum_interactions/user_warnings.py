"""Warnings that name the line of the user's own program."""

from __future__ import annotations

import sys
import warnings

_PASSED = {
    "captum_interactions",
    "captum",
    "concurrent",
    "contextlib",
    "threading",
    "torch",
    "tqdm",
}
"""Packages whose lines say nothing to the user."""


def warn_caller(message: str) -> None:
    """Warn at the line outside of this package, and of what it is called through."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _package(frame.f_globals) in _PASSED:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _package(names: dict[str, object]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
