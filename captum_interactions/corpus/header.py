"""The header of a shard: plain values about its items, with their own checksum.

The header is read when an index is opened, the tensors only when they are used. Each has its own
checksum, which is verified first.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from reprlib import repr as shortened
from typing import Any

import torch
from torch import Tensor

from captum_interactions.corpus.settings import Settings, tensor_bytes

FORMAT = "captum_interactions.FactorIndex/1"
STORAGE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Types in which factors may be stored."""
_OWN, _ALL = "header_sha256", "sha256"


def _is_texts(value: Any, *, or_none: bool = False) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, str) or (or_none and one is None) for one in value
    )


def _is_length(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value < math.inf


_VALID: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "storage": lambda value: value in [*STORAGE],
    "error": lambda value: (
        isinstance(value, list) and len(value) == 2 and all(map(_is_length, value))
    ),
    "keys": lambda value: _is_texts(value) and len(set(value)) == len(value),
    "sources": lambda value: _is_texts(value, or_none=True),
    _ALL: lambda value: isinstance(value, str),
}
"""Checks of the fields of a header, except its settings."""


def sealed(header: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The header with its own checksum and that of all tensors."""
    header = {**header, _OWN: _digest(header).hexdigest()}
    return {**header, _ALL: content_checksum(header, tensors)}


def parse_header(text: str) -> tuple[dict[str, Any], Settings]:
    """Parse and check the header of a shard.

    Headers of version 0.2 have no checksum of their own; :func:`content_checksum` covers them, too.

    Returns:
        tuple: the header, and its settings.

    Raises:
        ValueError: If the text is not a header, does not have its checksum, or has an invalid
            field; the message names the field.
    """
    try:
        header = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"its header is no JSON: {error}") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"it is not a shard of an index: expected the format {FORMAT!r}, but found "
            f"{shortened(found)}"
        )
    if _OWN in header and header[_OWN] != _digest(header).hexdigest():
        raise ValueError("its header does not have the checksum that was written with it")
    for name, is_valid in _VALID.items():
        if name not in header:
            raise ValueError(f"its header has no {name!r}")
        if not is_valid(header[name]):
            raise ValueError(f"in its header, {name} cannot be {shortened(header[name])}")
    if len(header["sources"]) != len(header["keys"]):
        raise ValueError(
            f"in its header, sources are {len(header['sources'])} for {len(header['keys'])} keys"
        )
    return header, Settings.from_json(header.get("settings"))


def has_own_checksum(header: dict[str, Any]) -> bool:
    """Whether the header could be checked without the tensors."""
    return _OWN in header


def content_checksum(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of a header and all tensors, the value of the field ``"sha256"``."""
    digest = hashlib.sha256(_stated(header, _ALL))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _digest(header: dict[str, Any]) -> Any:
    return hashlib.sha256(_stated(header, _OWN, _ALL))


def _stated(header: dict[str, Any], *but: str) -> bytes:
    return json.dumps({name: value for name, value in header.items() if name not in but}).encode()
