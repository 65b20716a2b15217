"""Runs a study: measures records in batches, and resumes an interrupted run."""

from __future__ import annotations

import re
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from captum_interactions.datasets import Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation import rows as files
from captum_interactions.evaluation.configuration import (
    CONFIG,
    configuration,
    known_variants,
    settle,
)
from captum_interactions.evaluation.processes import Processes
from captum_interactions.evaluation.rows import RESULTS, Row
from captum_interactions.evaluation.study import Study, remarks
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.writing import locked


def run_study(
    study: Study,
    wrapper: DualEncoderWrapper,
    records: Sequence[Record],
    output: str | Path,
    *,
    dataset: Mapping[str, Any] | None = None,
    batch_size: int = 8,
    retry_failed: bool = False,
    show_progress: bool = False,
    processes: Processes | None = None,
) -> Summary | None:
    """Measure the rows that are missing in a folder of results, then summarise all rows.

    Rows are appended batch by batch, so a run that is killed loses at most one batch and can be
    resumed. Rows of further variants or records are added to existing rows.

    Args:
        study: The study.
        wrapper: The model, on its device.
        records: The dataset, or a part of it.
        output: Folder for ``config.json``, ``results.jsonl`` and a folder of the study's name with
            the summary; created if missing.
        dataset: The arguments with which the dataset was opened; results of another dataset are
            refused.
        batch_size: Number of records that are explained together. Default: 8
        retry_failed: Measure records again that failed before. Default: False
        show_progress: Show a progress bar. Default: False
        processes: The processes that share the records. Default: this one alone

    Returns:
        Summary: of all rows of these records in the folder; None in all but the first process.

    Raises:
        ConfigurationError: If the folder has rows of other settings, another model or another
            dataset; the message names the differences.
        ValueError: If there are no records, the batch size is less than 1, or two records have the
            same key.
        RuntimeError: If another run writes to the folder.
    """
    if not len(records):
        raise ValueError("a study needs records, but the dataset has none")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but got {batch_size}")
    processes = processes or Processes()
    folder = Path(output)
    asked = study.records(records)
    with _alone(folder, processes):
        if processes.is_first:
            config = settle(folder / CONFIG, configuration(study, wrapper, records, dataset or {}))
            _tidy(folder, config["variants"], retry_failed=retry_failed)
        processes.wait()
        done = {row.identity: row.index for row in files.read(folder / RESULTS)}
        processes.wait()  # nobody writes before all have read
        own = folder / (RESULTS if processes.is_first else f"results-{processes.rank}.jsonl")
        _measure_all(study, wrapper, asked, own, done, batch_size, processes, show_progress)
        processes.wait()
        if not processes.is_first:
            return None
        _tidy(folder, config["variants"])
        return summarise(study, folder, records)


def declined(study: Study, records: Sequence[Record]) -> str | None:
    """Why a study declines the first record, if it declines all of them; needs no model.

    Reads records only until one can be measured.
    """
    first = None
    for record in study.records(records):
        reason = study.declines(record)
        if reason is None:
            return None
        first = first or reason
    return first


def summarise(study: Study, output: str | Path, records: Sequence[Record]) -> Summary:
    """Make tables and figures from a folder's rows of these records, without new measurements.

    The rows are those of all processes, even of a run that is in progress or was killed. Tables and
    figures are written to a folder of the study's name in ``output``. One table counts the rows,
    and another one lists the reasons why some have no values.

    Raises:
        FileNotFoundError: If the folder has no results.
    """
    folder = Path(output)
    records = study.records(records)
    rows = files.joined(folder, known_variants(folder / CONFIG))
    if not rows:
        raise FileNotFoundError(f"there are no results in {str(folder)!r}: run the study first")
    rows = [row for row in rows if row.index < len(records)]
    measured = [row for row in rows if row.status == "measured"]
    found = study.summarise(measured, records) if measured else Summary()
    tables = {**found.tables, "records": _counts(rows)}
    problems = _problems(rows, getattr(records, "skipped", ()))
    if problems.rows:
        tables["problems"] = problems
    summary = Summary(tables, found.figures, found.notes)
    summary.write(folder / study.name, study.title)
    return summary


def _measure_all(
    study: Study,
    wrapper: DualEncoderWrapper,
    records: Sequence[Record],
    path: Path,
    done: dict[tuple[str, str], int],
    batch_size: int,
    processes: Processes,
    show_progress: bool,
) -> None:
    """Measure this process's share: every n-th batch of consecutive records, for n processes."""
    starts = range(0, len(records), batch_size)[processes.rank :: processes.count]
    total = sum(min(batch_size, len(records) - start) for start in starts) * len(study.variants)
    failed = 0
    with tqdm(
        total=total, unit="row", desc=f"{study.name} {processes.rank + 1}/{processes.count}",
        disable=not show_progress, position=processes.rank, smoothing=0,
    ) as progress:  # fmt: skip
        for start in starts:
            batch = [(i, records[i]) for i in range(start, min(start + batch_size, len(records)))]
            for variant in study.variants:
                missing = _missing(variant, batch, done)
                if missing:
                    # The whole batch, so that numbers do not depend on where a run was killed.
                    rows = _measure(study, wrapper, variant, batch)
                    new = [row for row in rows if row.record in missing]
                    files.append(path, new)
                    failed += sum(row.status == "failed" for row in new)
                    progress.set_postfix(failed=failed, refresh=False)
                progress.total -= len(batch) - len(missing)  # what was there has no rate
                progress.update(len(missing))


def _missing(
    variant: str, batch: Sequence[tuple[int, Record]], done: dict[tuple[str, str], int]
) -> set[str]:
    """Keys of the records that have no row yet; they are registered as done.

    Raises:
        ValueError: If a key has a row of another record, since one of the two would be lost.
    """
    missing = set()
    for index, record in batch:
        if (variant, record.key) not in done:
            missing.add(record.key)
        first = done.setdefault((variant, record.key), index)
        if first != index:
            raise ValueError(
                f"records {first} and {index} have the same key, {record.key!r}: keys must differ, "
                "and a record that has rows must keep its place in the dataset"
            )
    return missing


def _measure(
    study: Study, wrapper: DualEncoderWrapper, variant: str, batch: Sequence[tuple[int, Record]]
) -> list[Row]:
    """One row per record, even if it fails."""
    rows: list[Row] = []
    wanted: list[tuple[int, Record]] = []
    for index, record in batch:
        try:
            _check_text(record)
            reason = study.declines(record)
        except Exception as error:  # noqa: BLE001  # a record's own trouble
            rows.append(_failure(record, variant, index, error))
            continue
        if reason is None:
            wanted.append((index, record))
        else:
            rows.append(Row(record.key, variant, index, "declined", message=reason))
    if wanted:
        try:
            rows += _together(study, wrapper, variant, wanted)
        except Exception:  # noqa: BLE001  # one of them, which is to be found
            rows += [_one(study, wrapper, variant, *one) for one in wanted]
    return sorted(rows, key=lambda row: row.index)


def _check_text(record: Record) -> None:
    """Raise a UnicodeEncodeError if a record has an unpaired surrogate, which is not text."""
    labels = [phrase.label for phrase in record.phrases if phrase.label is not None]
    negative = record.hard_negative.replaced if record.hard_negative is not None else None
    for text in (record.caption, *labels, *(negative or ())):
        text.encode()


def _one(
    study: Study, wrapper: DualEncoderWrapper, variant: str, index: int, record: Record
) -> Row:
    try:
        (row,) = _together(study, wrapper, variant, [(index, record)])
    except Exception as error:  # noqa: BLE001
        return _failure(record, variant, index, error)
    return row


def _together(
    study: Study, wrapper: DualEncoderWrapper, variant: str, batch: Sequence[tuple[int, Record]]
) -> list[Row]:
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # convergence is for the studies to report
        with remarks() as said:
            values = study.measure(wrapper, variant, [record for _, record in batch])
    seconds = (time.perf_counter() - start) / len(batch)
    return [
        Row(
            record.key,
            variant,
            index,
            "measured",
            found,
            said.get(record.key, ""),
            seconds,
            record.image_key,
        )
        for (index, record), found in zip(batch, values, strict=True)
    ]


def _failure(record: Record, variant: str, index: int, error: Exception) -> Row:
    message = f"{type(error).__name__}: {error}"
    return Row(record.key, variant, index, "failed", message=message)


def _alone(folder: Path, processes: Processes) -> AbstractContextManager[None]:
    """Lock the folder for the processes of one run; the first process holds the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    return locked(folder / ".lock", "another run") if processes.is_first else nullcontext()


def _tidy(folder: Path, variants: Mapping[str, Any], *, retry_failed: bool = False) -> None:
    """Clean up after a killed run, and join the files of all processes into one."""
    for path in (folder / RESULTS, *files.shards(folder)):
        files.cut_half_written(path)
    rows = files.merge(folder, variants)
    if retry_failed and any(row.status == "failed" for row in rows):
        kept = [row for row in rows if row.status != "failed"]
        files.write(folder / RESULTS, kept)


def _counts(rows: Sequence[Row]) -> Table:
    """Numbers of measured, declined and failed records of each variant."""
    cells = []
    for variant in dict.fromkeys(row.variant for row in rows):
        own = [row for row in rows if row.variant == variant]
        count = Counter(row.status for row in own)
        seconds = [row.seconds for row in own if row.seconds is not None]
        refused = is_refused(own)
        cells.append(
            [
                variant, count["measured"], count["declined"],
                0 if refused else count["failed"], count["failed"] if refused else 0,
                sum(seconds) / len(seconds) if seconds else None,
            ]
        )  # fmt: skip
    columns = ("variant", "measured", "declined", "failed", "refused", "seconds per record")
    return Table(
        columns, cells,
        "Records: *declined* where the study has nothing to ask of them, *refused* where the "
        "method is not defined for the model.",
    )  # fmt: skip


def is_refused(rows: Sequence[Row]) -> bool:
    """Whether all records of a variant failed with the same ValueError or TypeError.

    The method is then not defined for the model.
    """
    attempts = {_kind(row.message) for row in rows if row.status == "failed"}
    return (
        len(attempts) == 1
        and not any(row.status == "measured" for row in rows)
        and next(iter(attempts)).startswith(("ValueError", "TypeError"))
    )


def _kind(message: str) -> str:
    """A message without numbers, which may differ between records."""
    return re.sub(r"\d+(\.\d+)?", "#", message)


def _problems(rows: Sequence[Row], skipped: Sequence[Any]) -> Table:
    """The first message of each kind, and the number of its occurrences."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.status != "measured" or row.message:
            found.setdefault((row.variant, row.status, _kind(row.message)), []).append(row)
    cells = [
        [variant, status, alike[0].message, len(alike), alike[0].record]
        for (variant, status, _), alike in found.items()
    ]
    cells += [["dataset", "skipped", one.reason, 1, one.where] for one in skipped]
    return Table(
        ("variant", "what", "message", "records", "first"), cells,
        "What was not measured, or was measured on maps that say nothing, by its reason.",
    )  # fmt: skip
