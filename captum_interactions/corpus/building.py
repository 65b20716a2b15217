"""Build an index: the factors of a collection, in shards, so that a build can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from captum_interactions.attr._utils.arguments import Baseline, Normalization
from captum_interactions.corpus.folder import Part, read_folder, write_settings
from captum_interactions.corpus.header import STORAGE
from captum_interactions.corpus.index import FactorIndex
from captum_interactions.corpus.items import FactorEncoder, Item
from captum_interactions.corpus.shards import SUFFIX, Shard, write_shard
from captum_interactions.corpus.work import planning, work
from captum_interactions.encoders import DualEncoderWrapper, Layer

Items = Mapping[str, Any] | Iterable[tuple[str, Any]]


def build_index(
    folder: str | Path,
    wrapper: DualEncoderWrapper,
    items: Items,
    *,
    side: Literal["a", "b"],
    layers: tuple[Layer, Layer] | None = None,
    normalization: Normalization = "cosine",
    n_steps: int | Literal["auto"] | None = None,
    method: str = "gausslegendre",
    baseline: Baseline = None,
    truncation: bool = False,
    storage: str = "float16",
    batch_size: int = 16,
    shard_size: int = 256,
    internal_batch_size: int | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    show_progress: bool = False,
) -> FactorIndex:
    """Write the factors of items of one side of a dual encoder to a folder, or resume a build.

    Items are taken in their order, ``shard_size`` to a file; a file appears when it is complete.
    Called again with the same items after an interruption, it computes the files that are missing.
    With other items, it adds those whose keys are new; so a folder grows by calls with new items
    alone, or with the whole collection. One such call may run at a time; another is refused.

    Under ``torchrun`` or ``accelerate launch``, each of W workers writes every W-th file. Files do
    not depend on who writes them: on machines that compute alike, any number of workers leaves the
    same files, byte for byte. A worker does not wait for the others, so open the index when all
    have ended.

    Args:
        folder (str or Path): Where the index is, or will be.
        wrapper (DualEncoderWrapper): The model, on this worker's device.
        items (mapping or iterable of pairs): Keys and raw inputs: paths or images, texts, whatever
            the tower prepares. A function without arguments is called when its input is needed. A
            tensor has a batch axis of length one.
        side (str): ``"a"`` or ``"b"``: which tower takes the items.
        layers, normalization, n_steps, method, baseline, truncation, internal_batch_size: See
            :class:`FactorEncoder`.
        storage (str): ``"float32"``, ``"float16"`` or ``"bfloat16"``; what it changes is measured,
            see :attr:`FactorIndex.storage_error`. Default: ``"float16"``
        batch_size (int): Items in a batch of the encoder. Default: 16
        shard_size (int): Items a file: what an interruption can lose. Default: 256
        rank, world_size (int, optional): Which worker this is, and of how many. Default: the
            environment variables ``RANK`` and ``WORLD_SIZE``, or the only one
        show_progress (bool): Show a progress bar of this worker's items. Default: False

    Returns:
        FactorIndex: the index, with all that is finished.

    Raises:
        ValueError: If the folder's index has other settings, a key comes twice or belongs to
            another input, an item cannot be prepared (the message has its key), or an option is
            wrong.
        ShardError: If a file in the folder is damaged or foreign.
        RuntimeError: If another build is at work in the folder.
    """
    if storage not in STORAGE:
        raise ValueError(f"storage must be one of {', '.join(STORAGE)}, but got {storage!r}")
    for name, value in (("batch_size", batch_size), ("shard_size", shard_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, but got {value}")
    rank, world_size = _worker(rank, world_size)
    raw = _as_mapping(items)
    encoder = FactorEncoder(
        wrapper,
        side,
        layers=layers,
        normalization=normalization,
        n_steps=n_steps,
        method=method,
        baseline=baseline,
        truncation=truncation,
        internal_batch_size=internal_batch_size,
    )
    folder = Path(folder)
    with ExitStack() as stack:
        with planning(folder):
            write_settings(folder, encoder.settings, storage)
            parts, shards = read_folder(folder, encoder.settings)
            part, chunks = _plan(parts, shards, raw, shard_size)
            stack.enter_context(work(folder, part.name, rank))
            _write_parts(folder, parts, shards, part)
        done = {shard.header["name"] for shard in shards}
        planned = list(zip(part.shards, chunks, strict=True))[rank::world_size]
        mine = {name: keys for name, keys in planned if name not in done}
        progress = stack.enter_context(
            tqdm(desc="items", total=sum(map(len, mine.values())), disable=not show_progress)
        )
        for name, keys in mine.items():
            made: list[Item] = []
            for start in range(0, len(keys), batch_size):
                batch = keys[start : start + batch_size]
                made += _items(encoder, batch, [raw[key] for key in batch])
                progress.update(len(batch))
            sources = [_source(raw[key]) for key in keys]
            write_shard(folder / f"{name}{SUFFIX}", made, sources, storage)
    return FactorIndex(folder, inputs=raw, allow_missing=True)


def _worker(rank: int | None, world_size: int | None) -> tuple[int, int]:
    rank = int(os.environ.get("RANK", "0")) if rank is None else rank
    world_size = int(os.environ.get("WORLD_SIZE", "1")) if world_size is None else world_size
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be from 0 to {world_size - 1}, but got {rank}")
    return rank, world_size


def _as_mapping(items: Items) -> Mapping[str, Any]:
    raw: dict[str, Any] = {}
    for key, one in items.items() if isinstance(items, Mapping) else items:
        if not isinstance(key, str):
            raise TypeError(f"keys must be strings, but got {key!r}")
        if key in raw:
            raise ValueError(f"the key {key!r} comes twice")
        raw[key] = one
    return raw


def _plan(
    parts: Sequence[Part], shards: Sequence[Shard], raw: Mapping[str, Any], shard_size: int
) -> tuple[Part, list[list[str]]]:
    """The part of the index that these items are, and its keys, shard by shard.

    It follows from the items and from earlier parts alone, so all workers of a build, and a build
    that goes on with another, come to the same plan.
    """
    described = [[key, _source(one)] for key, one in raw.items()]
    digest = hashlib.sha256(json.dumps([shard_size, described]).encode()).hexdigest()[:12]
    numbers = [part.number for part in parts if part.name.endswith(digest)][-1:]
    numbers.append(max((part.number + 1 for part in parts), default=0))
    for number in numbers:
        earlier = {name for part in parts if part.number < number for name in part.shards}
        old = [shard for shard in shards if shard.header["name"] in earlier]
        chunks = _chunks(old, described, shard_size)
        name = f"{number:04d}-{digest}"
        own = Part(name, tuple(f"{name}-{i:05d}" for i in range(len(chunks))))
        # A part that was given up does not go on: its items may have come to others.
        if own in parts:
            break
    return own, chunks


def _chunks(
    old: Sequence[Shard], described: Sequence[Sequence[Any]], shard_size: int
) -> list[list[str]]:
    """Keys that no shard of an earlier part has, shard by shard."""
    earlier = {
        key: source
        for shard in old
        for key, source in zip(shard.keys, shard.header["sources"], strict=True)
    }
    for key, source in described:
        if key in earlier and earlier[key] != source:
            raise ValueError(
                f"the key {key!r} is in the index already, for {earlier[key]!r}, but was given for "
                f"{source!r}: take another key, or another folder"
            )
    keys = [key for key, _ in described if key not in earlier]
    return [keys[i : i + shard_size] for i in range(0, len(keys), shard_size)]


def _write_parts(folder: Path, parts: Sequence[Part], shards: Sequence[Shard], own: Part) -> None:
    """Note which files this part will have; earlier parts will get none that they lack."""
    if own in parts or not own.shards:
        return
    done = {shard.header["name"] for shard in shards}
    for part in parts:
        kept = tuple(name for name in part.shards if name in done)
        if kept != part.shards:
            Part(part.name, kept).write(folder)
    own.write(folder)


def _items(encoder: FactorEncoder, keys: Sequence[str], raw: Sequence[Any]) -> list[Item]:
    try:
        return encoder.batch(keys, [one() if callable(one) else one for one in raw])
    except (ValueError, TypeError, OSError) as error:
        if len(keys) == 1:
            raise ValueError(
                f"the factors of item {keys[0]!r} cannot be computed: {error}"
            ) from error
        for key, one in zip(keys, raw, strict=True):  # which of them is it?
            _items(encoder, [key], [one])
        raise


def _source(raw: Any) -> str | None:
    """Where an input is from, or what it is, if a string says so."""
    return str(raw) if isinstance(raw, (str, Path)) else None
