"""Map-style datasets of records."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar, overload

from captum_interactions.datasets.problems import Skipped
from captum_interactions.datasets.record import Record

Entry = TypeVar("Entry")


class RecordSequence(Sequence[Record], Generic[Entry]):
    """Base class of datasets: entries in memory, from which records are made at each access.

    It holds no open file and can be pickled.

    Args:
        entries: The data from which each record is made.
        skipped: Records that were left out.
    """

    def __init__(self, entries: Sequence[Entry], skipped: Sequence[Skipped] = ()) -> None:
        self._entries = entries
        self.skipped = tuple(skipped)
        """The records that were left out, each with its place and the reason."""

    @abstractmethod
    def _record(self, entry: Entry) -> Record:
        """The record of one entry."""

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self._record(entry) for entry in self._entries[index]]
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return self._record(self._entries[index])

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, self._entries)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} records, {len(self.skipped)} left out>"
