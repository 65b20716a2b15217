"""Interaction maps in files: safetensors with a JSON header, validated on reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_interactions.axes import ImageAxis, TokenAxis
from captum_interactions.axes.fields import axis_from_fields, axis_to_fields
from captum_interactions.writing import write_atomically

_FORMAT = "captum_interactions.InteractionMap/1"
_IMAGES = ("image_a", "image_b")
_MODES = ("L", "RGB", "RGBA")
_PICTURE = "draw a picture with plot()[0].savefig({path!r})"
_TABLE = "export the values with to_numpy() or to_dataframe()"
_OTHERS = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".svg", ".pdf", ".webp", ".gif", ".tif"), _PICTURE),
    **dict.fromkeys((".html", ".htm"), "write the page with save_html({path!r})"),
    **dict.fromkeys((".npy", ".npz", ".csv", ".json", ".parquet", ".pkl", ".pt", ".pth"), _TABLE),
}
"""Advice for files of other kinds, by suffix."""


def write_map(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],
    axes: Mapping[str, TokenAxis],
) -> None:
    """Write a map to a file; one that is there stays if this fails.

    Args:
        path: The file to write.
        tensors (mapping): Its tensors by name.
        header (mapping): Its numbers and settings by name, JSON-serialisable.
        axes (mapping): ``axis_a`` and ``axis_b``. Their images are included.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the file has the suffix of a picture, a page or a table.
    """
    from safetensors.torch import save

    advice = _OTHERS.get(Path(path).suffix.lower())
    if advice is not None:
        raise ValueError(
            f"save writes a safetensors file, but got the path {str(path)!r}: "
            + advice.format(path=str(path))
        )
    contents = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    fields = dict(header)
    for name, axis in axes.items():
        fields[name] = axis_to_fields(axis)
        if isinstance(axis, ImageAxis) and axis.image is not None:
            image = axis.image if axis.image.mode in _MODES else axis.image.convert("RGB")
            contents[_image_name(name)] = torch.from_numpy(np.array(image))
    metadata = {"format": _FORMAT, "json": json.dumps(fields)}
    write_atomically(Path(path), save(contents, metadata))


def read_map(
    path: str | Path, tensors: tuple[str, ...], numbers: tuple[str, ...]
) -> dict[str, Any]:
    """Read and validate a file of :func:`write_map`.

    Args:
        path: The file to read.
        tensors, numbers (tuple of str): Names of the tensors and the numbers of a map.

    Returns:
        dict: tensors, numbers, settings and axes by their names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a map, or a field is invalid; the message names the field.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no interaction map at {str(path)!r}")
    found, fields = _contents(path)
    try:
        images = {name: _image(name, found.pop(name, None)) for name in _IMAGES}
        axes = {name: fields.pop(name, None) for name in ("axis_a", "axis_b")}
        _check_names("tensors", found, tensors)
        _check_names("fields", fields, (*numbers, "settings"))
        for name in tensors:
            if found[name].dtype != torch.float32:
                raise ValueError(f"{name} must be float32, but is {found[name].dtype}")
        for name in numbers:
            fields[name] = _number(name, fields[name])
        if not isinstance(fields["settings"], dict):
            raise ValueError(f"settings must be an object, but got {shortened(fields['settings'])}")
        read = {
            name: axis_from_fields(value, images[_image_name(name)], name)
            for name, value in axes.items()
        }
        for name, axis in read.items():
            if images[_image_name(name)] is not None and not isinstance(axis, ImageAxis):
                raise ValueError(f"{_image_name(name)} belongs to no image: {name} is another kind")
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not a valid interaction map: {error}") from error
    return {**found, **fields, **read}


def _contents(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(
                    f"{str(path)!r} is not an interaction map: expected the format {_FORMAT!r}, "
                    f"but found {metadata.get('format')!r}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is not a safetensors file: {error}") from error
    try:
        fields = json.loads(metadata.get("json", ""))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the JSON header of {str(path)!r} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"the JSON header of {str(path)!r} must be an object")
    return tensors, fields


def _check_names(what: str, found: Mapping[str, Any], expected: tuple[str, ...]) -> None:
    if found.keys() != set(expected):
        raise ValueError(
            f"its {what} must be {', '.join(expected)}, but are {shortened(sorted(found))}"
        )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, but got {shortened(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} is too large for a float") from error


def _image_name(axis: str) -> str:
    return f"image_{axis[-1]}"


def _image(name: str, pixels: Tensor | None) -> Image.Image | None:
    if pixels is None:
        return None
    shape = tuple(pixels.shape)
    is_grey, is_coloured = len(shape) == 2, len(shape) == 3 and shape[-1] in (3, 4)
    if pixels.dtype != torch.uint8 or not (is_grey or is_coloured) or not pixels.numel():
        raise ValueError(
            f"{name} must be uint8 pixels of shape (height, width) or (height, width, 3 or 4), but "
            f"is {pixels.dtype} of shape {shape}"
        )
    return Image.fromarray(pixels.numpy())
