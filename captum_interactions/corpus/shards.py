"""A file of an index: the factors of some items, written as a whole and memory-mapped to read.

A shard is a safetensors file. Its header holds the settings, the keys and a checksum; its tensors
are the factors of all tokens, one item after the other without padding, and the axes as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_interactions.axes.fields import axis_from_fields, axis_to_fields
from captum_interactions.corpus.header import (
    FORMAT,
    STORAGE,
    content_checksum,
    has_own_checksum,
    parse_header,
    sealed,
)
from captum_interactions.corpus.items import Item
from captum_interactions.corpus.settings import Settings, differences
from captum_interactions.encoders import TokenAxis
from captum_interactions.writing import write_atomically

SUFFIX = ".safetensors"
_TENSORS = {
    "values": (2, None),
    "embedding": (2, torch.float32),
    "reference": (2, torch.float32),
    "offsets": (1, torch.int64),
    "is_part": (1, torch.uint8),
    "axes": (1, torch.uint8),
    "axis_offsets": (1, torch.int64),
    "axis_of_item": (1, torch.int64),
}
"""Tensors of a shard: number of dimensions and type; None is the type of the storage.

``"reference"`` holds the embeddings of the baselines; files of this format keep the name."""


class StorageError(NamedTuple):
    """The rounding error of stored factors, measured when they were written."""

    absolute: float
    """Largest length of the difference between a token's factor as stored and as computed."""
    largest: float
    """Largest length of a token's factor."""

    @property
    def relative(self) -> float:
        """The error of any factor as a share of the largest factor.

        With the errors ``e_a`` and ``e_b`` of both sides, the error of a map's values is at most
        ``e_a + e_b + e_a * e_b`` times the product of both largest lengths.
        """
        return self.absolute / self.largest if self.largest else 0.0


class ShardError(ValueError):
    """A shard that is damaged, incomplete, or of another index."""


def write_shard(
    path: Path, items: Sequence[Item], sources: Sequence[str | None], storage: str
) -> None:
    """Write items to one file atomically.

    Args:
        path (Path): The file; an existing one is replaced.
        items (sequence of Item): At least one, all with the same settings.
        sources (sequence): The path or text of each item, or None.
        storage (str): A key of :data:`STORAGE`.

    Raises:
        ValueError: If a factor is too large for the type.
    """
    from safetensors.torch import save

    computed = torch.cat([item.values for item in items])
    stored = computed.to(STORAGE[storage])
    if not torch.isfinite(stored).all():
        raise ValueError(
            f"factors up to {float(computed.abs().max()):.3g} do not fit into {storage}: take "
            "storage='bfloat16' or 'float32'"
        )
    error = StorageError(
        float((stored.double() - computed.double()).norm(dim=1).max()),
        float(computed.double().norm(dim=1).max()),
    )
    # Most images of a collection have the same axis: each is kept once.
    texts = [json.dumps(axis_to_fields(item.axis), ensure_ascii=False) for item in items]
    distinct = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    encoded = [text.encode() for text in distinct]
    is_part = [part for item in items for part in _is_part(item.axis)]
    tensors = {
        "values": stored,
        "embedding": torch.stack([item.embedding for item in items]).float(),
        "reference": torch.stack([item.baseline for item in items]).float(),
        "offsets": _offsets([len(item.values) for item in items]),
        "is_part": torch.tensor(is_part, dtype=torch.uint8),
        "axes": torch.from_numpy(np.frombuffer(b"".join(encoded), np.uint8).copy()),
        "axis_offsets": _offsets([len(text) for text in encoded]),
        "axis_of_item": torch.tensor([distinct[text] for text in texts]),
    }
    header = {
        "format": FORMAT,
        "name": path.name.removesuffix(SUFFIX),
        "settings": items[0].settings.to_json(),
        "storage": storage,
        "error": list(error),
        "keys": [item.key for item in items],
        "sources": list(sources),
    }
    # The order of several entries would be another one in every process.
    write_atomically(path, save(tensors, {"json": json.dumps(sealed(header, tensors))}))


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard on disk. Only its header is read before it is used."""

    path: Path
    header: dict[str, Any]
    settings: Settings
    tensors: dict[str, Tensor]
    """Views of the file, mapped privately: writing to them does not change the file."""
    _verified: list[bool] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """Keys of the items, in order."""
        keys: list[str] = self.header["keys"]
        return keys

    @property
    def error(self) -> StorageError:
        return StorageError(*self.header["error"])

    def verify(self) -> None:
        """Verify the checksum of the content, at the first call only.

        Raises:
            ShardError: If the header or a tensor has changed.
        """
        if not self._verified:
            if content_checksum(self.header, self.tensors) != self.header["sha256"]:
                raise ShardError(
                    f"{str(self.path)!r} is damaged: its content does not have the checksum that "
                    "was written with it. Delete it and build again: only its items are computed"
                )
            self._check_places()
            self._verified.append(True)

    def _check_places(self) -> None:
        """Check the offsets of tokens and axes, since a valid checksum does not make them valid."""
        of_item, axes = self.tensors["axis_of_item"], self.tensors["axis_offsets"]
        for name, target in (("offsets", "values"), ("axis_offsets", "axes")):
            offsets = self.tensors[name].tolist()
            if offsets[:1] != [0] or offsets[-1] != len(self.tensors[target]):
                raise ShardError(f"{str(self.path)!r} is damaged: {name} do not span its {target}")
            if offsets != sorted(offsets):
                raise ShardError(f"{str(self.path)!r} is damaged: {name} do not rise")
        if len(of_item) and not 0 <= int(of_item.min()) <= int(of_item.max()) < len(axes) - 1:
            raise ShardError(f"{str(self.path)!r} is damaged: axis_of_item names axes it lacks")

    def rows(self, first: int, last: int) -> tuple[int, int]:
        """The range of tokens of the items ``first`` to ``last - 1``."""
        offsets = self.tensors["offsets"]
        return int(offsets[first]), int(offsets[last])

    def values(self, first: int, last: int) -> Tensor:
        """Factors of the tokens of some items, in float32, shape (tokens, K)."""
        start, stop = self.rows(first, last)
        # Also float32 is copied, so that nobody writes into what others read.
        return self.tensors["values"][start:stop].to(torch.float32, copy=True)

    def axis(self, row: int) -> TokenAxis:
        """The axis of an item, without an image."""
        index = int(self.tensors["axis_of_item"][row])
        start, stop = self.tensors["axis_offsets"][index : index + 2].tolist()
        try:
            axis = axis_from_fields(json.loads(self.tensors["axes"][start:stop].numpy().tobytes()))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ShardError(
                f"{str(self.path)!r} is damaged: the axis of {self.keys[row]!r}: {error}"
            ) from error
        first, last = self.rows(row, row + 1)
        if len(axis) != last - first:
            raise ShardError(
                f"{str(self.path)!r} is damaged: the axis of {self.keys[row]!r} has {len(axis)} "
                f"tokens, but there are {last - first}"
            )
        return axis

    def item(self, row: int) -> Item:
        """One item with its own copy of the factors."""
        return Item(
            self.keys[row],
            self.values(row, row + 1),
            self.tensors["embedding"][row].clone(),
            self.tensors["reference"][row].clone(),
            self.axis(row),
            self.settings,
        )


def open_shard(path: Path, settings: Settings, *, verify: bool = True) -> Shard:
    """Open a shard and check its header and the shapes of its tensors.

    Args:
        path (Path): The file.
        settings (Settings): The settings of its index.
        verify (bool): Read all of a file of version 0.2, whose header has no checksum of its own.
            Default: True

    Raises:
        ShardError: If the file is not a shard, is truncated or inconsistent, or belongs to another
            index; the message names the file and the invalid field.
    """
    from safetensors import SafetensorError, safe_open

    name = str(path)
    try:
        with safe_open(path, framework="pt") as file:
            header, own = parse_header((file.metadata() or {}).get("json", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        _check_shapes(header, tensors)
    except (SafetensorError, OSError, ValueError) as error:
        raise ShardError(f"{name!r} is damaged: {error}") from error
    found = differences(settings, own)
    if found:
        raise ShardError(f"{name!r} belongs to another index: {', '.join(found)} differ")
    if header["name"] != path.name.removesuffix(SUFFIX):
        raise ShardError(f"{name!r} was written as {header['name']!r}: it has been renamed")
    shard = Shard(path, header, own, tensors)
    if verify and not has_own_checksum(header):
        shard.verify()
    return shard


def _check_shapes(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    storage = STORAGE[header["storage"]]
    wanted = {name: (n_axes, dtype or storage) for name, (n_axes, dtype) in _TENSORS.items()}
    kinds = {name: (tensor.dim(), tensor.dtype) for name, tensor in tensors.items()}
    if kinds != wanted:
        raise ValueError(f"expected tensors of dimensions and types {wanted}, but found {kinds}")
    n_items, (n_tokens, dimension) = len(header["keys"]), tensors["values"].shape
    expected = {
        "embedding": (n_items, dimension),
        "reference": (n_items, dimension),
        "offsets": (n_items + 1,),
        "is_part": (n_tokens,),
        "axis_of_item": (n_items,),
    }
    shapes = {name: tuple(tensors[name].shape) for name in expected}
    if shapes != expected:
        raise ValueError(
            f"{n_items} keys and {n_tokens} tokens need shapes {expected}, but found {shapes}"
        )


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def _is_part(axis: TokenAxis) -> list[bool]:
    """Whether each token stands for a part of the input, and is neither special nor padding."""
    return [not (s or p) for s, p in zip(axis.special, axis.padding, strict=True)]
