"""An index: a folder of factors, opened for reading."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from captum_interactions.callers import warn_caller
from captum_interactions.corpus.items import Item
from captum_interactions.corpus.settings import Settings, differences
from captum_interactions.corpus.shards import (
    FORMAT,
    SUFFIX,
    Shard,
    ShardError,
    StorageError,
    open_shard,
    write_atomically,
)
from captum_interactions.encoders import ImageAxis, TokenAxis
from captum_interactions.encoders.inputs.images import load_image
from captum_interactions.functional import Factors

_SETTINGS = "index.json"
_PART = "part-"

Id = str | int
"""A key, or the number of a row."""


class FactorIndex:
    """Factors of a collection, one side of a dual encoder, memory-mapped from a folder.

    Any number of processes may read a folder, also while it grows; each sees the files that were
    complete when it opened the folder.

    Args:
        folder (str or Path): What :func:`build_index` wrote.
        inputs (mapping, optional): The raw images by key, as :func:`build_index` takes them, to
            draw maps on; they are opened when needed. Default: None, the paths that were given
            when the index was built
        verify (bool): Hold each file against its checksum when it is first used, which reads all of
            it. Default: True
        allow_missing (bool): Do not warn if files of an unfinished build are missing. Default:
            False

    Raises:
        FileNotFoundError: If there is no index.
        ShardError: If a file is damaged or belongs to another index; the message names it. Headers
            and shapes are checked here, the content when it is first used.

    Warns:
        UserWarning: If files of an unfinished build are missing.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        inputs: Mapping[str, Any] | None = None,
        verify: bool = True,
        allow_missing: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.settings, self.storage = read_settings(self.folder)
        """How the factors were computed, and the type they are stored in."""
        parts, self._shards = read_folder(self.folder, self.settings)
        self._inputs = inputs
        self._verify = verify
        self._places: dict[str, tuple[Shard, int]] = {}
        for shard in self._shards:
            for row, key in enumerate(shard.keys):
                if key in self._places:
                    raise ShardError(
                        f"the key {key!r} is both in {str(self._places[key][0].path)!r} and in "
                        f"{str(shard.path)!r}"
                    )
                self._places[key] = (shard, row)
        self.keys: tuple[str, ...] = tuple(self._places)
        """Keys of all items; their order is that of all rows."""
        done = {shard.header["name"] for shard in self._shards}
        self.missing = tuple(name for part in parts for name in part.shards if name not in done)
        """Names of files that a build has not finished."""
        if self.missing and not allow_missing:
            warn_caller(
                f"{str(folder)!r} lacks {len(self.missing)} of {len(done) + len(self.missing)} "
                "files: its build is not finished. Call build_index again with the same items"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __getitem__(self, key: Id) -> Item:
        """One item, by its key or the number of its row.

        Raises:
            KeyError: If there is no such key or row.
            TypeError: If it is neither a key nor a number.

        Warns:
            UserWarning: If its image is not found any more, or has another size; the item has none
                then.
        """
        shard, row = self._place(key)
        item = self._checked(shard).item(row)
        if isinstance(item.axis, ImageAxis):
            item = replace(item, axis=replace(item.axis, image=self._image(shard, row, item.axis)))
        return item

    def axis(self, key: Id) -> TokenAxis:
        """What the tokens of an item stand for, without its image."""
        shard, row = self._place(key)
        return self._checked(shard).axis(row)

    def source(self, key: Id) -> str | None:
        """The path or text that an item was built from, if it was one."""
        shard, row = self._place(key)
        source: str | None = shard.header["sources"][row]
        return source

    @property
    def embeddings(self) -> Tensor:
        """Embeddings of all items as the score uses them, in float32, shape (N, K)."""
        return self._all("embedding")

    @property
    def references(self) -> Tensor:
        """Embeddings of their references, likewise."""
        return self._all("reference")

    @property
    def storage_error(self) -> StorageError:
        """What storing the factors in fewer bits has changed, over all items."""
        errors = [shard.error for shard in self._shards]
        return StorageError(
            max((error.absolute for error in errors), default=0.0),
            max((error.largest for error in errors), default=0.0),
        )

    def verify(self) -> None:
        """Hold every file against its checksum.

        Raises:
            ShardError: If one is damaged; the message names it.
        """
        for shard in self._shards:
            shard.verify()

    def factors(self, keys: Sequence[Id] | None = None) -> Factors:
        """Factors of some items, or of all, in memory; shorter ones get padding, which is zero."""
        places = [self._place(key) for key in (self.keys if keys is None else keys)]
        if not places:
            raise ValueError("expected at least one item, but got none")
        values = [self._checked(shard).values(row, row + 1) for shard, row in places]
        return Factors(
            pad_sequence(values, batch_first=True),
            torch.stack([shard.tensors["embedding"][row] for shard, row in places]),
            torch.stack([shard.tensors["reference"][row] for shard, row in places]),
        )

    def blocks(self, memory_mb: float = 256.0) -> Iterator[tuple[slice, Factors]]:
        """Factors of all items, some rows at a time.

        Args:
            memory_mb (float): How much a block may take, at least one item. Default: 256

        Yields:
            tuple: which rows these are, and their factors, padded to the longest among them.
        """
        for shard, rows, first in self._pieces(memory_mb):
            start, stop = rows.start, rows.stop
            offsets = shard.tensors["offsets"][start : stop + 1]
            values = shard.values(start, stop).split(offsets.diff().tolist())
            block = Factors(
                pad_sequence(list(values), batch_first=True),
                shard.tensors["embedding"][rows].clone(),
                shard.tensors["reference"][rows].clone(),
            )
            yield slice(first + start, first + stop), block

    def __repr__(self) -> str:
        n_tokens = sum(len(shard.tensors["values"]) for shard in self._shards)
        return (
            f"FactorIndex({str(self.folder)!r}: {len(self)} items of side {self.settings.side}, "
            f"{n_tokens} tokens in {self.storage}, {self.settings.model['name']}, layers "
            f"{self.settings.layers})"
        )

    def pieces(self, memory_mb: float) -> Iterator[tuple[Shard, slice, Tensor, Tensor]]:
        """Runs of items whose factors fit into memory: shard, rows in it, factors, which are parts.

        Factors are (tokens, K) in float32; tokens that are special or padding are no parts.
        """
        for shard, rows, _ in self._pieces(memory_mb):
            start, stop = shard.rows(rows.start, rows.stop)
            is_part = shard.tensors["is_part"][start:stop].bool()
            yield shard, rows, shard.values(rows.start, rows.stop), is_part

    def _pieces(self, memory_mb: float) -> Iterator[tuple[Shard, slice, int]]:
        """Runs of items of one shard, and the number of the shard's first row in the index."""
        first = 0
        for shard in self._shards:
            self._checked(shard)
            lengths = shard.tensors["offsets"].diff()
            bytes_a_token = 4 * shard.tensors["values"].shape[1]
            most = memory_mb * 2**20 / bytes_a_token
            start = 0
            while start < len(lengths):
                # Padded to the longest item, a run takes its length times that.
                longest = lengths[start:].cummax(0).values
                taken = longest * torch.arange(1, len(longest) + 1)
                stop = start + max(int((taken <= most).sum()), 1)
                yield shard, slice(start, stop), first
                start = stop
            first += len(lengths)

    def _place(self, key: Id) -> tuple[Shard, int]:
        if isinstance(key, str):
            if key not in self._places:
                raise KeyError(f"the index has no item {key!r}")
            return self._places[key]
        try:
            row = operator.index(key)
        except (TypeError, ValueError):
            shape = tuple(getattr(key, "shape", ()))
            came = f"an array of shape {shape}" if shape else repr(key)
            raise TypeError(
                "an id is a key or the number of a row, but got "
                f"{came}: ids of several queries, (queries, k), are taken query by query"
            ) from None
        if not 0 <= row < len(self):
            raise KeyError(f"the index has rows 0 to {len(self) - 1}, but no row {row}")
        return self._places[self.keys[row]]

    def _checked(self, shard: Shard) -> Shard:
        if self._verify:
            shard.verify()
        return shard

    def _all(self, name: str) -> Tensor:
        if not self._shards:
            return torch.zeros(0, 0)
        return torch.cat([self._checked(shard).tensors[name] for shard in self._shards])

    def _image(self, shard: Shard, row: int, axis: ImageAxis) -> Image.Image | None:
        key = shard.keys[row]
        if self._inputs is not None:
            raw = self._inputs.get(key)
            raw = raw() if callable(raw) else raw
        else:
            raw = shard.header["sources"][row]
        if raw is None or isinstance(raw, Tensor):
            return None
        try:
            image = load_image(raw)
        except OSError as error:
            warn_caller(f"the image of {key!r} is not shown: {error}")
            return None
        if (image.height, image.width) != axis.frame.original:
            warn_caller(
                f"the image of {key!r} is not shown: it has (height, width) "
                f"{(image.height, image.width)} now, but had {axis.frame.original}"
            )
            return None
        return image


@dataclass(frozen=True)
class Part:
    """What one build adds to an index: the files that it will have when it is done."""

    name: str
    """Its number among the parts, and a digest of its items."""
    shards: tuple[str, ...]

    @property
    def number(self) -> int:
        return int(self.name[:4])

    def write(self, folder: Path) -> None:
        content = {"format": FORMAT, "shards": list(self.shards)}
        write_atomically(folder / f"{_PART}{self.name}.json", json.dumps(content).encode())


def read_folder(folder: Path, settings: Settings) -> tuple[list[Part], list[Shard]]:
    """Parts and shards of an index, in the order of their items.

    Raises:
        ShardError: If a shard is damaged, or belongs to another index.
    """
    # A part is noted before its first shard is there, so shards are listed first.
    shards = sorted(folder.glob(f"*{SUFFIX}"))
    parts = []
    for path in sorted(folder.glob(f"{_PART}*.json")):
        listed = _read_json(path)["shards"]
        parts.append(Part(path.stem.removeprefix(_PART), tuple(listed)))
    known = {name for part in parts for name in part.shards}
    for path in shards:
        if path.name.removesuffix(SUFFIX) not in known:
            raise ShardError(f"{str(path)!r} belongs to no part of this index")
    return parts, [open_shard(path, settings) for path in shards]


def write_settings(folder: Path, settings: Settings, storage: str) -> None:
    """Note the settings of a new index, or see that those of an old one are the same.

    Raises:
        ValueError: If they differ; the message says in what.
    """
    folder.mkdir(parents=True, exist_ok=True)
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
    """
    path = folder / _SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f"there is no index at {str(folder)!r}: it has no {_SETTINGS}")
    content = _read_json(path)
    try:
        return Settings.from_json(content["settings"]), content["storage"]
    except (KeyError, TypeError) as error:
        raise ShardError(f"{str(path)!r} is damaged: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ShardError(f"{str(path)!r} is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ShardError(f"{str(path)!r} does not belong to an index of the format {FORMAT!r}")
    return content
