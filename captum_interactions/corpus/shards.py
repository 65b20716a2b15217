"""One file of an index: the factors of some items, written at once and read through a memory map.

A shard is a safetensors file. Its header holds the settings, the keys and a checksum; its tensors
are the factors of all tokens, one item after the other without padding, and the axes as JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_interactions.axes.fields import axis_from_fields, axis_to_fields
from captum_interactions.corpus.items import Item
from captum_interactions.corpus.settings import Settings, differences, tensor_bytes
from captum_interactions.encoders import TokenAxis
from captum_interactions.writing import write_atomically

FORMAT = "captum_interactions.FactorIndex/1"
STORAGE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Types that factors may be stored in."""
SUFFIX = ".safetensors"
_DIMENSIONS = {
    "values": 2, "embedding": 2, "reference": 2, "offsets": 1, "is_part": 1, "axes": 1,
    "axis_offsets": 1, "axis_of_item": 1,
}  # fmt: skip
"""Tensors of a shard, and their numbers of dimensions."""


class StorageError(NamedTuple):
    """What storing factors in fewer bits has changed, measured when they were written."""

    absolute: float
    """Largest length of the difference between a token's factor as stored and as computed."""
    largest: float
    """Largest length of a token's factor."""

    @property
    def relative(self) -> float:
        """The error of any factor as a share of the largest factor.

        With shares ``e_a`` and ``e_b`` on both sides, no value of a map is off by more than
        ``e_a + e_b + e_a * e_b`` of the product of both largest lengths.
        """
        return self.absolute / self.largest if self.largest else 0.0


class ShardError(ValueError):
    """A file that is not the shard it should be: damaged, incomplete, or of another index."""


def write_shard(
    path: Path, items: Sequence[Item], sources: Sequence[str | None], storage: str
) -> None:
    """Write items to one file, which is there as a whole or not at all.

    Args:
        path (Path): The file. What is there already is replaced.
        items (sequence of Item): At least one, all with the same settings.
        sources (sequence): Where each item came from, if that can be said in a string.
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
        "reference": torch.stack([item.reference for item in items]).float(),
        "offsets": _offsets([len(item.values) for item in items]),
        "is_part": torch.tensor(is_part, dtype=torch.uint8),
        "axes": torch.from_numpy(np.frombuffer(b"".join(encoded), np.uint8).copy()),
        "axis_offsets": _offsets([len(text) for text in encoded]),
        "axis_of_item": torch.tensor([distinct[text] for text in texts]),
    }
    header: dict[str, Any] = {
        "format": FORMAT,
        "name": path.name.removesuffix(SUFFIX),
        "settings": items[0].settings.to_json(),
        "storage": storage,
        "error": list(error),
        "keys": [item.key for item in items],
        "sources": list(sources),
    }
    header["sha256"] = _checksum(header, tensors)
    # The order of several entries would be another one in every process.
    write_atomically(path, save(tensors, {"json": json.dumps(header)}))


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard on disk. Nothing but its header is read before it is used."""

    path: Path
    header: dict[str, Any]
    settings: Settings
    tensors: dict[str, Tensor]
    """Views of the file, mapped privately: writing to them never changes it."""
    _verified: list[bool] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """Keys of the items, in their order."""
        keys: list[str] = self.header["keys"]
        return keys

    @property
    def error(self) -> StorageError:
        return StorageError(*self.header["error"])

    def verify(self) -> None:
        """Hold the content against the checksum, at the first call.

        Raises:
            ShardError: If anything in the header or a tensor has changed.
        """
        if not self._verified:
            if _checksum(self.header, self.tensors) != self.header["sha256"]:
                raise ShardError(
                    f"{str(self.path)!r} is damaged: its content does not have the checksum that "
                    "was written with it. Delete it and build again: only its items are computed"
                )
            self._verified.append(True)

    def rows(self, first: int, last: int) -> tuple[int, int]:
        """Where the tokens of items ``first`` to ``last - 1`` lie among all tokens."""
        offsets = self.tensors["offsets"]
        return int(offsets[first]), int(offsets[last])

    def values(self, first: int, last: int) -> Tensor:
        """Factors of the tokens of some items, in float32, shape (tokens, K)."""
        start, stop = self.rows(first, last)
        # Also float32 is copied, so that nobody writes into what others read.
        return self.tensors["values"][start:stop].to(torch.float32, copy=True)

    def axis(self, row: int) -> TokenAxis:
        """What the tokens of an item stand for; an image is not part of it."""
        index = int(self.tensors["axis_of_item"][row])
        start, stop = self.tensors["axis_offsets"][index : index + 2].tolist()
        return axis_from_fields(json.loads(self.tensors["axes"][start:stop].numpy().tobytes()))

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


def open_shard(path: Path, settings: Settings | None = None) -> Shard:
    """Open a shard and check its header and the shapes of its tensors.

    Args:
        path (Path): The file.
        settings (Settings, optional): Those of the index that it should belong to.

    Raises:
        ShardError: If it is no shard, is cut off, contradicts itself, or belongs to another index;
            the message names the file.
    """
    from safetensors import SafetensorError, safe_open

    name = str(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("json", "{}"))
            if header.get("format") != FORMAT:
                raise ShardError(
                    f"{name!r} is not a shard of an index: expected the format {FORMAT!r}, but "
                    f"found {header.get('format')!r}"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        own = Settings.from_json(header["settings"])
        _check_shapes(header, tensors)
    except (SafetensorError, OSError, LookupError, TypeError, AttributeError) as error:
        raise ShardError(f"{name!r} is damaged: {type(error).__name__}: {error}") from error
    except ShardError:
        raise
    except ValueError as error:
        raise ShardError(f"{name!r} is damaged: {error}") from error
    if settings is not None:
        found = differences(settings, own)
        if found:
            raise ShardError(f"{name!r} belongs to another index: {', '.join(found)} differ")
    if header["name"] != path.name.removesuffix(SUFFIX):
        raise ShardError(f"{name!r} was written as {header['name']!r}: it has been renamed")
    return Shard(path, header, own, tensors)


def _check_shapes(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    dimensions = {name: tensor.dim() for name, tensor in tensors.items()}
    if dimensions != _DIMENSIONS:
        raise ValueError(f"expected tensors {_DIMENSIONS}, but found {dimensions}")
    n_items, (n_tokens, dimension) = len(header["keys"]), tensors["values"].shape
    expected = {
        "embedding": (n_items, dimension),
        "reference": (n_items, dimension),
        "offsets": (n_items + 1,),
        "is_part": (n_tokens,),
        "axis_of_item": (n_items,),
    }
    shapes = {name: tuple(tensors[name].shape) for name in expected}
    if shapes != expected or int(tensors["offsets"][-1]) != n_tokens:
        raise ValueError(
            f"{n_items} keys and {n_tokens} tokens need shapes {expected}, but found {shapes}"
        )
    if tensors["values"].dtype != STORAGE[header["storage"]]:
        raise ValueError(f"expected {header['storage']}, but found {tensors['values'].dtype}")
    if not len(header["sources"]) == n_items == len(set(header["keys"])):
        raise ValueError("keys occur twice, or there are not as many sources as keys")


def _checksum(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    stated = {name: value for name, value in header.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(stated).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def _is_part(axis: TokenAxis) -> list[bool]:
    """Whether a token stands for a part of the input: it is neither special nor padding."""
    return [not (s or p) for s, p in zip(axis.special, axis.padding, strict=True)]
