"""An index: a folder of factors, opened for reading."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from captum_interactions.corpus.folder import read_folder, read_settings
from captum_interactions.corpus.items import Item
from captum_interactions.corpus.shards import Shard, ShardError, StorageError
from captum_interactions.encoders import ImageAxis, TokenAxis
from captum_interactions.encoders.inputs.loading import load_image
from captum_interactions.functional import Factors
from captum_interactions.user_warnings import warn_caller

_IMAGES = (str, Path, Image.Image, np.ndarray)

Id = str | int
"""A key or a row number."""


class FactorIndex:
    """The factors of a collection, one side of a dual encoder, memory-mapped from a folder.

    Any number of processes may read a folder, even during a build; each sees the files that were
    complete when it opened the folder.

    Args:
        folder (str or Path): A folder that :func:`build_index` wrote.
        inputs (mapping, optional): Raw images by key, as :func:`build_index` takes them, on which
            maps are drawn; they are opened when needed. Default: None, the paths from which the
            index was built
        verify (bool): Verify the checksum of each file at its first use, which reads the whole
            file. Default: True
        allow_missing (bool): Do not warn if files of an unfinished build are missing. Default:
            False

    Raises:
        FileNotFoundError: If there is no index.
        ShardError: If a file is damaged or belongs to another index; the message names it. Headers
            and shapes are checked when the index is opened, contents at their first use.

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
        """How the factors were computed, and the type in which they are stored."""
        parts, self._shards = read_folder(self.folder, self.settings, verify=verify)
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
        """Keys of all items, in the order of rows."""
        done = {shard.header["name"] for shard in self._shards}
        self.missing = tuple(name for part in parts for name in part.shards if name not in done)
        """Names of the files that an unfinished build lacks."""
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
        """Get an item by its key or row number.

        Raises:
            KeyError: If there is no such key or row.
            TypeError: If ``key`` is neither a string nor an int.

        Warns:
            UserWarning: If its image is missing, cannot be read, or has another size than before;
                the item is then returned without an image.
        """
        shard, row = self._place(key)
        item = self._checked(shard).item(row)
        if isinstance(item.axis, ImageAxis):
            item = replace(item, axis=replace(item.axis, image=self._image(shard, row, item.axis)))
        return item

    def axis(self, key: Id) -> TokenAxis:
        """The axis of an item (what its tokens stand for), without its image."""
        shard, row = self._place(key)
        return self._checked(shard).axis(row)

    def source(self, key: Id) -> str | None:
        """The path or text from which an item was built; None for other inputs."""
        shard, row = self._place(key)
        source: str | None = shard.header["sources"][row]
        return source

    @property
    def embeddings(self) -> Tensor:
        """Embeddings of all items as the score uses them, in float32, shape (N, K)."""
        return self._all("embedding")

    @property
    def baselines(self) -> Tensor:
        """Embeddings of the baselines of all items, in float32, shape (N, K)."""
        return self._all("reference")

    @property
    def storage_error(self) -> StorageError:
        """The rounding error of the stored factors, over all items."""
        errors = [shard.error for shard in self._shards]
        return StorageError(
            max((error.absolute for error in errors), default=0.0),
            max((error.largest for error in errors), default=0.0),
        )

    def verify(self) -> None:
        """Verify the checksum of every file.

        Raises:
            ShardError: If a file is damaged; the message names it.
        """
        for shard in self._shards:
            shard.verify()

    def factors(self, keys: Sequence[Id] | None = None) -> Factors:
        """Factors of some items, or of all, in memory, padded with zeros to equal lengths."""
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
        """Factors of all items, in blocks of rows.

        Args:
            memory_mb (float): Maximum size of a block, which has at least one item. Default: 256

        Yields:
            tuple: the rows of the block, and their factors, padded to the longest item among them.
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
            f"FactorIndex({str(self.folder)!r}: {len(self)} items of side {self.settings.side},\n"
            f"            {n_tokens} tokens in {self.storage},\n"
            f"            {self.settings.model['name']}, layers {self.settings.layers})"
        )

    def pieces(self, memory_mb: float) -> Iterator[tuple[Shard, slice, Tensor, Tensor]]:
        """Runs of items whose factors fit into memory.

        Yields:
            tuple: shard, rows of the shard, factors (tokens, K) in float32, and a mask (tokens,)
            that is False for special tokens and padding.
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
        raw = shard.header["sources"][row] if self._inputs is None else self._inputs.get(key)
        try:
            raw = raw() if callable(raw) else raw
            if not isinstance(raw, _IMAGES):  # pixel values
                return None
            image = load_image(raw)
        except (OSError, ValueError) as error:  # missing, or broken by now
            warn_caller(f"the image of {key!r} is not shown: {error}")
            return None
        if (image.height, image.width) != axis.frame.original:
            warn_caller(
                f"the image of {key!r} is not shown: it has (height, width) "
                f"{(image.height, image.width)} now, but had {axis.frame.original}"
            )
            return None
        return image
