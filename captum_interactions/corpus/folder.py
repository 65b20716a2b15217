"""The folder of an index: its settings, its parts, and the shards that are finished."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from captum_interactions.corpus.header import FORMAT, STORAGE
from captum_interactions.corpus.settings import Settings, differences
from captum_interactions.corpus.shards import SUFFIX, Shard, ShardError, open_shard
from captum_interactions.writing import write_atomically

_SETTINGS = "index.json"
_PART = "part-"


@dataclass(frozen=True)
class Part:
    """What one build adds to an index: the files that it will have when it is done."""

    name: str
    """Its number among the parts, and a digest of its items."""
    shards: tuple[str, ...]

    @property
    def number(self) -> int:
        return int(self.name.partition("-")[0])

    def write(self, folder: Path) -> None:
        content = {"format": FORMAT, "shards": list(self.shards)}
        write_atomically(folder / f"{_PART}{self.name}.json", json.dumps(content).encode())


def read_folder(
    folder: Path, settings: Settings, *, verify: bool = True
) -> tuple[list[Part], list[Shard]]:
    """Parts and shards of an index, in the order of their items.

    Args:
        folder (Path): Where they are.
        settings (Settings): Those of the index.
        verify (bool): See :func:`open_shard`. Default: True

    Raises:
        ShardError: If a shard or a part is damaged, or belongs to another index.
    """
    # A part is noted before its first shard is there, so shards are listed first.
    paths = {path.name.removesuffix(SUFFIX): path for path in folder.glob(f"*{SUFFIX}")}
    parts = [_read_part(path) for path in sorted(folder.glob(f"{_PART}*.json"))]
    parts.sort(key=lambda part: part.number)
    known = [name for part in parts for name in part.shards]
    foreign = sorted(paths.keys() - set(known))
    if foreign:
        raise ShardError(f"{str(paths[foreign[0]])!r} belongs to no part of this index")
    there = [paths[name] for name in known if name in paths]
    return parts, [open_shard(path, settings, verify=verify) for path in there]


def write_settings(folder: Path, settings: Settings, storage: str) -> None:
    """Note the settings of a new index, or see that those of an old one are the same.

    Raises:
        ValueError: If they differ; the message says in what.
    """
    path = folder / _SETTINGS
    if not path.exists():
        content = {"format": FORMAT, "settings": settings.to_json(), "storage": storage}
        write_atomically(path, json.dumps(content, indent=2).encode())
        return
    own, own_storage = read_settings(folder)
    found = differences(own, settings)
    if own_storage != storage:
        found.append(f"storage ({own_storage!r}, {storage!r})")
    if found:
        raise ValueError(
            f"{str(folder)!r} holds an index with other settings: {', '.join(found)} differ"
        )


def read_settings(folder: Path) -> tuple[Settings, str]:
    """Settings and storage type of an index.

    Raises:
        FileNotFoundError: If there is no index.
        ShardError: If they are damaged; the message names the field.
    """
    path = folder / _SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f"there is no index at {str(folder)!r}: it has no {_SETTINGS}")
    content = _read_json(path)
    try:
        settings = Settings.from_json(content.get("settings"))
        storage = content.get("storage")
        if storage not in [*STORAGE]:
            raise ValueError(f"storage must be one of {', '.join(STORAGE)}, but is {storage!r}")
    except ValueError as error:
        raise ShardError(f"{str(path)!r} is damaged: {error}") from error
    return settings, storage


def _read_part(path: Path) -> Part:
    name, shards = path.stem.removeprefix(_PART), _read_json(path).get("shards")
    if not re.fullmatch(r"\d{4,}-[0-9a-f]{12}", name):
        raise ShardError(f"{str(path)!r} has no name of a part, as in '{_PART}0000-0123456789ab'")
    if not isinstance(shards, list) or not all(
        isinstance(shard, str) and shard.startswith(f"{name}-") for shard in shards
    ):
        raise ShardError(
            f"{str(path)!r} is damaged: shards must be names that begin with {name!r}, but are "
            f"{shortened(shards)}"
        )
    return Part(name, tuple(shards))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{str(path)!r} is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ShardError(f"{str(path)!r} does not belong to an index of the format {FORMAT!r}")
    return content
