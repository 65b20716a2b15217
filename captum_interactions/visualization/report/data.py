"""What the script of a page reads: axes, values and selections as plain JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from captum_interactions.axes import AudioAxis, ImageAxis, TextAxis, TokenAxis
from captum_interactions.axes.text import shorten
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.maps.interaction_map import InteractionMap
from captum_interactions.maps.orders import Map, is_map
from captum_interactions.maps.sides import SIDES, Side, axis_of, side_names
from captum_interactions.visualization.report.pictures import Pictures

Json: TypeAlias = dict[str, Any]


def check_finite(imap: Map) -> None:
    """Raise if a map holds a value that no page can show.

    Raises:
        ValueError: If a value is not finite.
    """
    if isinstance(imap, InteractionMap):
        numbers = [imap.constant, imap.score, imap.convergence_delta]
        tensors = [imap.interactions, imap.main_effects_a, imap.main_effects_b]
    else:
        numbers = [imap.score]
        tensors = [v for v in (imap.attributions_a, imap.attributions_b) if v is not None]
    if not (np.isfinite(numbers).all() and all(bool(torch.isfinite(t).all()) for t in tensors)):
        raise ValueError(f"the map of {imap.method} holds values that are not finite")


def about(imap: Map, name: str) -> str:
    """The model and the method of a map, as a line for readers."""
    model = imap.settings.get("model")
    order = " (first order)" if isinstance(imap, FirstOrderMap) else ""
    return (f"Model: {model}. " if model else "") + f"Method: {name}{order}."


def map_data(imap: Map, name: str, pictures: Pictures) -> Json:
    """One map: its axes, and its values as base64 of little-endian float32.

    Padding tokens without any value are left out.
    """
    keep_a, keep_b = (_kept(axis_of(imap, side), _along(imap, side)) for side in SIDES)
    names = side_names(imap)
    data: Json = {
        "name": name,
        "about": about(imap, name),
        "tokens": [len(keep_a), len(keep_b)],
        "a": axis_data(imap.axis_a, names[0], keep_a, pictures),
        "b": axis_data(imap.axis_b, names[1], keep_b, pictures),
        "rounding": imap.rounding,
        "scale": imap.scale or 1.0,
    }
    if isinstance(imap, InteractionMap):
        return data | {"order": 2, "values": _base64(imap.interactions[keep_a][:, keep_b])}
    first: Json = {"order": 1}
    for side, keep in zip(SIDES, (keep_a, keep_b), strict=True):
        values = _along(imap, side)
        first[f"values_{side}"] = None if values is None else _base64(values[keep])
    return data | first


def axis_data(axis: TokenAxis, name: str, keep: Sequence[int], pictures: Pictures) -> Json:
    """One axis: a grid of cells or a line of words, each with its tokens among those kept."""
    position = {token: index for index, token in enumerate(keep)}
    if isinstance(axis, (ImageAxis, AudioAxis)):
        grid = grid_data(axis)
        cells = [position.get(token, -1) for token in grid.pop("tokens")]
        index = pictures.add(axis.image) if isinstance(axis, ImageAxis) and axis.image else None
        return {"kind": "grid", "name": name, "cells": cells, "picture": index, **grid}
    words = words_data(axis)
    for word in words:
        word["tokens"] = [position[token] for token in word["tokens"] if token in position]
    return {"kind": "words", "name": name, "words": words, "tail": tail(axis)}


def grid_data(axis: ImageAxis | AudioAxis) -> Json:
    """Where the cells of a grid lie, and the token of each, row by row from the top left.

    An image is measured in pixels of the original, a sound in cells: columns of time, and bands
    with the highest at the top.
    """
    tokens = axis.to_grid(np.arange(len(axis)))
    if isinstance(axis, ImageAxis):
        left, right, bottom, top = axis.extent()
        height, width = axis.frame.original
        place: Json = {"size": [width, height], "extent": [left, top, right, bottom]}
        if axis.is_cropped:
            place["cropped"] = _around(axis)
    else:
        tokens = tokens[::-1]
        rows, columns = tokens.shape
        place = {"size": [columns, rows], "extent": [0, 0, columns, rows]}
        place["labels"] = [axis.labels[token] for token in tokens.ravel()]
    return {"grid": list(tokens.shape), "tokens": tokens.ravel().tolist(), **place}


def _around(axis: ImageAxis) -> str:
    """What the model does not see of an image, as a CSS shape: all of it but a box."""
    height, width = axis.frame.original
    x0, y0, x1, y1 = axis.visible
    box = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    corners = [(0, 0), (width, 0), (width, height), (0, height), (0, 0)]
    points = (f"{100 * x / width:.2f}% {100 * y / height:.2f}%" for x, y in [*corners, *box])
    return f"polygon(evenodd, {', '.join(points)})"


def words_data(axis: TokenAxis) -> list[Json]:
    """The words of a text in reading order; the units of any other axis without a grid."""
    words = axis.words if isinstance(axis, TextAxis) else ()
    starts = [before.span[1] == after.span[0] for before, after in pairwise(words)]
    glued = [False, *starts] if words else [False] * len(axis.units)
    return [
        {"text": unit.label, "tokens": list(unit.tokens), "glued": glue}
        for unit, glue in zip(axis.units, glued, strict=True)
    ]


def tail(axis: TokenAxis) -> str:
    """What follows the last word that the model read."""
    if isinstance(axis, TextAxis) and axis.words:
        return axis.text[axis.words[-1].span[1] :].strip()
    return ""


def unit_place(axis: TokenAxis, unit: int) -> int:
    """The number of a unit on the page: of its word, or of its cell in the grid; -1 if in none."""
    if isinstance(axis, (ImageAxis, AudioAxis)):
        tokens = grid_data(axis)["tokens"]
        token = axis.units[unit].tokens[0]
        return tokens.index(token) if token in tokens else -1
    return unit


def start_data(axis: TokenAxis, selection: Any) -> Sequence[float] | None:
    """A selection as the script has it: numbers of words, or a box (x0, y0, x1, y1).

    Raises:
        TypeError: If the page cannot select such a thing.
        ValueError: If there is no such part.
    """
    if selection is None:
        return None
    weights = axis.select(selection)  # raises
    if isinstance(axis, ImageAxis) and isinstance(selection, tuple):
        return [float(value) for value in selection]
    if isinstance(axis, TextAxis) and isinstance(selection, (str, tuple)):
        # Words are chosen as wholes, also where a phrase is a part of one.
        chosen = [i for i, unit in enumerate(axis.units) if weights[list(unit.tokens)].any()]
        if not chosen:
            raise ValueError(f"{selection!r} selects no word of {shorten(axis.text)!r}")
        return chosen
    raise TypeError(
        "a page opens with a phrase or a character span of a text, or with a box of an image, but "
        f"got {selection!r} for {type(axis).__name__}"
    )


def unique_names(maps: Sequence[Map]) -> list[str]:
    """A name a map; those that would be the same are numbered."""
    names = [imap.method for imap in maps]
    return [
        f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def as_maps(entry: Map | Sequence[Map] | Mapping[str, Map]) -> dict[str, Map]:
    """The maps of one pair by their names.

    Raises:
        TypeError: If something is no map.
        ValueError: If there is none.
    """
    many = isinstance(entry, (Sequence, Mapping)) and not isinstance(entry, str)
    maps: Any = entry if many else [entry]
    values = list(maps.values()) if isinstance(maps, Mapping) else list(maps)
    for imap in values:
        if not is_map(imap):
            raise TypeError(
                "a report takes InteractionMaps and FirstOrderMaps, several of one pair as a list "
                f"or as a mapping from names, but got {type(imap).__name__}"
            )
    if not values:
        raise ValueError("a pair needs at least one map, but got none")
    names = map(str, maps) if isinstance(maps, Mapping) else unique_names(values)
    return dict(zip(names, values, strict=True))


def _along(imap: Map, side: Side) -> Tensor | None:
    """One number a token of a side: its value, or the largest in its row or column."""
    if isinstance(imap, InteractionMap):
        return imap.interactions.abs().amax(1 if side == "a" else 0)
    return imap.attributions_a if side == "a" else imap.attributions_b


def _kept(axis: TokenAxis, values: Tensor | None) -> list[int]:
    empty = [True] * len(axis) if values is None else (values == 0).tolist()
    return [i for i in range(len(axis)) if not (axis.padding[i] and empty[i])]


def _base64(values: Tensor) -> str:
    array = values.detach().cpu().numpy().astype("<f4")
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
