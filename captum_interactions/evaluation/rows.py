"""The results file: one line per record and variant, appended as it is measured."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from captum_interactions.datasets import Record
from captum_interactions.writing import write_atomically

RESULTS = "results.jsonl"
"""The file of the first process; after a run, of all processes."""
Status = Literal["measured", "declined", "failed"]
"""``measured``: with values. ``declined``: the study does not apply to the record. ``failed``: the
record raised an exception, whose message is kept."""


@dataclass(frozen=True)
class Row:
    """The result of a study for one record and one variant."""

    record: str
    """The record's key."""
    variant: str
    """Usually the method."""
    index: int
    """The record's index in its dataset, by which results are sorted."""
    status: Status
    values: Mapping[str, Any] = field(default_factory=dict)
    """The measured values, as the study describes them."""
    message: str = ""
    """The reason why there are no values, or a problem with them."""
    seconds: float | None = None
    """Time of the batch divided by its records: the only field that differs between runs."""
    image: str = ""
    """The record's ``image_key``."""

    @property
    def identity(self) -> tuple[str, str]:
        """Variant and record, which identify a row."""
        return self.variant, self.record

    @property
    def cluster(self) -> str:
        """The cluster of dependent rows: the image, or else the record."""
        return self.image or self.record

    def of(self, records: Sequence[Record]) -> Record:
        """The record of the row.

        Raises:
            ValueError: If the dataset has another record at this index.
        """
        record = records[self.index]
        if record.key != self.record:
            raise ValueError(
                f"record {self.index} was {self.record!r} when it was measured, but is "
                f"{record.key!r}: the dataset has changed"
            )
        return record

    def line(self) -> str:
        """The row as a line of JSON; NaN and infinities become null."""
        return json_text(plain(asdict(self))) + "\n"


def by_variant(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each variant, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.variant, []).append(row)
    return found


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that can be encoded in UTF-8."""
    return escaped(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))


def escaped(text: str) -> str:
    """A text whose unpaired surrogates, which names of files may have, are escaped as in JSON."""
    return text.encode(errors="backslashreplace").decode()


def plain(value: Any) -> Any:
    """A value of JSON types: arrays and tensors as lists, NaN and infinities as None."""
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def append(path: Path, rows: Iterable[Row]) -> None:
    """Append rows to a file in one write, and flush them to disk."""
    data = "".join(row.line() for row in rows).encode()
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def cut_half_written(path: Path) -> None:
    """Remove an incomplete last line, which a killed run leaves."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            file.truncate(end)


def read(path: Path) -> list[Row]:
    """All rows of a file in order; none if there is no file.

    An incomplete last line is ignored: it is being written, or its run was killed.

    Raises:
        ValueError: If a line is not a row; the message names file and line.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [_row(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]


def shards(folder: Path) -> list[Path]:
    """The files of all processes except the first, which exist until a run ends."""
    return sorted(folder.glob("results-*.jsonl"))


def _row(line: bytes, where: str) -> Row:
    try:
        return Row(**json.loads(line))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no row of results: {error}") from error


def joined(folder: Path, variants: Iterable[str]) -> list[Row]:
    """The rows of all processes, each once, in the order of variants and records."""
    unique: dict[tuple[str, str], Row] = {}
    # A run that ends moves rows to the first file, which is therefore read last. Its rows count.
    for path in reversed((folder / RESULTS, *shards(folder))):
        unique |= {row.identity: row for row in reversed(read(path))}
    order = {variant: place for place, variant in enumerate(variants)}
    return sorted(
        unique.values(),
        key=lambda row: (order.get(row.variant, len(order)), row.variant, row.index),
    )


def merge(folder: Path, variants: Iterable[str]) -> list[Row]:
    """Join the rows of all processes in one file, in the order of records, each row once.

    The new file replaces the old one atomically, and the others are removed after that, so no rows
    are lost if the process is killed.
    """
    others = shards(folder)
    rows = joined(folder, variants)
    write(folder / RESULTS, rows)
    for path in others:
        path.unlink()
    return rows


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a file of rows atomically."""
    write_atomically(path, "".join(row.line() for row in rows).encode())
