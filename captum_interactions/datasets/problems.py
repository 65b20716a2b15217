"""Errors in a dataset's files: raised, or collected with their places."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from captum_interactions.user_warnings import warn_caller

ON_ERROR = ("raise", "skip")


@dataclass(frozen=True)
class Skipped:
    """A record that was left out."""

    where: str
    """File and line, or file and annotation."""
    reason: str


class DatasetError(ValueError):
    """A file of a dataset that does not have its format.

    Args:
        where: File and line, or file and annotation.
        reason: What was found, and what was expected. Both are shortened if they are long.
    """

    def __init__(self, where: str, reason: str) -> None:
        where, reason = _cut(where), _cut(reason)
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason

    def __reduce__(self) -> tuple[type[DatasetError], tuple[str, str]]:
        return type(self), (self.where, self.reason)


def claim(key: str, taken: dict[str, str], where: str) -> None:
    """Register the key of a record.

    Args:
        key: The key.
        taken: Places of earlier records by key; this record is added.
        where: The place of the record.

    Raises:
        DatasetError: If an earlier record has the same key.
    """
    if key in taken:
        raise DatasetError(where, f"has the key {key!r}, which {taken[key]} has too")
    taken[key] = where


def _cut(text: str) -> str:
    return text if len(text) <= 500 else f"{text[:250]}...{text[-247:]}"


class Problems:
    """Collects the errors found while a dataset is read.

    Args:
        on_error: ``"raise"`` stops at the first invalid record, ``"skip"`` leaves it out.

    Raises:
        ValueError: If ``on_error`` is neither.
    """

    def __init__(self, on_error: str) -> None:
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error must be 'raise' or 'skip', but got {on_error!r}")
        self._skip = on_error == "skip"
        self._found: list[Skipped] = []

    @contextmanager
    def one_record(self) -> Iterator[None]:
        """With ``on_error="skip"``, turn a :class:`DatasetError` into a skipped record."""
        try:
            yield
        except DatasetError as error:
            if not self._skip:
                raise
            self._found.append(Skipped(error.where, error.reason))

    def leave_out(self, where: str, reason: str) -> None:
        """Skip a valid record that is of no use, for both values of ``on_error``."""
        self._found.append(Skipped(where, reason))

    def report(self, dataset: str) -> tuple[Skipped, ...]:
        """Warn once of the number of skipped records and the first of them; return them all."""
        if self._found:
            first = self._found[0]
            warn_caller(
                f"{dataset}: {len(self._found)} left out, the first being {first.where}: "
                f"{first.reason} (all are in .skipped)"
            )
        return tuple(self._found)
