"""Datasets by name, for the command line and the studies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captum_interactions.datasets.coco import CocoRecords
from captum_interactions.datasets.flickr30k import Flickr30kRecords
from captum_interactions.datasets.folder import FolderRecords
from captum_interactions.datasets.hnc import HNCRecords
from captum_interactions.datasets.jsonl import JsonLinesRecords
from captum_interactions.datasets.record import Record
from captum_interactions.datasets.refcoco import RefCocoRecords
from captum_interactions.datasets.scene_records import SceneRecords
from captum_interactions.datasets.winoground import WinogroundRecords


@dataclass(frozen=True)
class Source:
    """How a dataset is opened."""

    open: Callable[..., Sequence[Record]]
    on_disk: bool = True
    """Whether it is read from files, and so takes a path and ``on_error``."""
    has_splits: bool = True


DATASETS: Mapping[str, Source] = {
    "coco": Source(CocoRecords),
    "flickr30k": Source(Flickr30kRecords),
    "folder": Source(FolderRecords, has_splits=False),
    "hnc": Source(HNCRecords),
    "jsonl": Source(JsonLinesRecords, has_splits=False),
    "refcoco": Source(RefCocoRecords),
    "scenes": Source(SceneRecords, on_disk=False, has_splits=False),
    "winoground": Source(WinogroundRecords, has_splits=False),
}
"""Every dataset by name."""


def load_dataset(
    name: str,
    path: str | Path | None = None,
    split: str | None = None,
    *,
    on_error: str = "raise",
    **options: Any,
) -> Sequence[Record]:
    """Open a dataset by name.

    Args:
        name: A key of :data:`DATASETS`.
        path: Folder or zip file of its files; none for ``"scenes"``, which are generated.
        split: The dataset's own name of a split, such as ``"val2017"``. Default: None, the only or
            usual split
        on_error: ``"raise"`` at the first invalid record, or ``"skip"`` invalid records: a warning
            says how many, and ``.skipped`` lists them. Default: ``"raise"``
        options: Further arguments of the dataset's class.

    Returns:
        A sequence of records, which can be pickled. Images are opened when used.

    Raises:
        ValueError: If the name or the split is unknown, or a file does not have its format.
        TypeError: If the path is missing, or an option is unknown.
        FileNotFoundError: If the path does not exist, or a file of the dataset is missing.

    Examples:
        >>> load_dataset("scenes", n=1000, seed=3)[0].key
        'plain-3-0'
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}, expected one of {', '.join(sorted(DATASETS))}")
    source = DATASETS[name]
    given: dict[str, Any] = {}
    if source.on_disk:
        if path is None:
            raise TypeError(f"the dataset {name!r} is read from files: say where with path")
        given |= {"path": path, "on_error": on_error}
    elif path is not None:
        raise TypeError(f"the dataset {name!r} takes no path, but got {str(path)!r}")
    if source.has_splits and split is not None:
        given["split"] = split
    elif split is not None:
        raise TypeError(f"the dataset {name!r} has no splits, but got {split!r}")
    taken = ("path", "split", "on_error")
    known = [option for option in inspect.signature(source.open).parameters if option not in taken]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(
            f"unknown option {unknown[0]!r} of the dataset {name!r}, expected one of "
            f"{', '.join(known)}"
        )
    return source.open(**given, **options)
