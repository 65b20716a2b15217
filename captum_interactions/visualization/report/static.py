"""What a page shows without its script: pictures, captions, the parts of the score, pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from captum_interactions.axes import AudioAxis, ImageAxis, TextAxis, TokenAxis
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.maps.orders import Map, values_of
from captum_interactions.maps.sides import SIDES, axis_of, side_names
from captum_interactions.visualization.lettering import format_number
from captum_interactions.visualization.palette import limit_of
from captum_interactions.visualization.report.data import (
    grid_data,
    tail,
    unit_place,
    words_data,
)
from captum_interactions.visualization.report.pictures import Pictures, heat_picture

N_PAIRS = 12
"""How many of the strongest pairs a page lists."""


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign and so many significant digits, as the script writes it."""
    specification = f"+.{digits}g" if 0 < abs(value) < 1e-4 else f"+#.{digits}g"
    return "0" if value == 0 else format_number(value, specification).rstrip(".")


def fixed(value: float) -> str:
    """A score, as people compare them: with three decimals."""
    return format_number(value, ".3f")


Scales: TypeAlias = dict[str, float]
"""Where the scales of images, sounds and texts end."""
Values: TypeAlias = NDArray[np.float32] | None
"""Values (T,) of an input's tokens, or None if the method has no map of it."""


def shared_scales(maps: Sequence[Map]) -> Scales:
    """One scale for all pictures of a sheet and one for all of its texts, by what inputs are.

    Values that are no larger than the rounding errors of their map set no scale.
    """
    largest: Scales = {}
    for imap in maps:
        for name, side in zip(_kinds(imap), SIDES, strict=True):
            values = values_of(imap, side)
            units = np.zeros(1) if values is None else axis_of(imap, side).sum_units(values)
            size = float(np.abs(units).max(initial=0.0))
            largest[name] = max(largest.get(name, 0.0), size if size > imap.rounding else 0.0)
    whole = max(imap.scale for imap in maps) or 1.0
    return {name: size or whole for name, size in largest.items()}


def scales_line(scales: Scales) -> str:
    """How strong the strongest colours of a sheet are."""
    ends = ", ".join(f"{name} ±{signed(limit, 2)[1:]}" for name, limit in scales.items())
    return f'<p class="scales">One scale for all pairs: {escape(ends)}.</p>'


def card(
    maps: Mapping[str, Map], label: str, pictures: Pictures, scales: Scales, *, is_open: bool
) -> str:
    """One pair: its inputs with the marginals of its first map, and the numbers of every map.

    Args:
        maps (mapping): Maps of the pair by their names.
        label (str): What it is called.
        pictures (Pictures): Where its images are embedded.
        scales (dict): Where the scales of the page end, see :func:`shared_scales`.
        is_open (bool): Whether its numbers are in view.
    """
    first = next(iter(maps.values()))
    names = side_names(first)
    limits = [scales[kind] for kind in _kinds(first)]
    sides = [
        _side(axis_of(first, side), values_of(first, side), limit, name, pictures)
        for side, limit, name in zip(SIDES, limits, names, strict=True)
    ]
    numbers = "\n".join(
        f'<div class="map" data-map="{index}">'
        f"{_parts(imap, name, names)}{_pairs(imap, names)}</div>"
        for index, (name, imap) in enumerate(maps.items())
    )
    opened = " open" if is_open else ""
    return (
        f'<li class="card" data-score="{first.score!r}">\n'
        f"<h2><span>{escape(label)}</span>"
        f'<span class="score">score {fixed(first.score)}</span></h2>\n'
        f"{''.join(sides)}\n"
        f'<details class="numbers"{opened}><summary>Numbers</summary>\n{numbers}\n</details>\n'
        "</li>"
    )


def _kinds(imap: Map) -> tuple[str, str]:
    """What the scales of a sheet call the parts of both inputs."""
    names = {ImageAxis: "patches", AudioAxis: "cells", TextAxis: "words"}
    a, b = (names.get(type(axis), "parts") for axis in (imap.axis_a, imap.axis_b))
    return a, b


def _side(axis: TokenAxis, values: Values, limit: float, name: str, pictures: Pictures) -> str:
    if isinstance(axis, (ImageAxis, AudioAxis)):
        return _stage(axis, values, limit, name, pictures)
    zeros = np.zeros(len(axis), np.float32)
    weights = axis.sum_units(zeros if values is None else values).tolist()
    pieces: list[str] = []
    for word, weight in zip(words_data(axis), weights, strict=True):
        sign = "match" if weight > 0 else "clash" if weight < 0 else ""
        space = "" if word["glued"] or not pieces else " "
        pieces.append(
            f'{space}<span class="word {sign}" style="--w:{abs(weight) / limit:.3f}">'
            f"{escape(word['text'])}</span>"
        )
    rest = f' <span class="tail">{escape(tail(axis))}</span>' if tail(axis) else ""
    return f'<p class="line" dir="auto">{"".join(pieces)}{rest}</p>'


def _stage(
    axis: ImageAxis | AudioAxis, values: Values, limit: float, name: str, pictures: Pictures
) -> str:
    place = grid_data(axis)
    (width, height), (x0, y0, x1, y1) = place["size"], place["extent"]
    rows, columns = place["grid"]
    picture = heat = ""
    if isinstance(axis, ImageAxis) and axis.image is not None:
        picture = f'<div class="picture picture-{pictures.add(axis.image)}"></div>'
    if values is not None:
        grid = values[place["tokens"]].reshape(rows, columns)
        position = (
            f"left:{100 * x0 / width:.3f}%;top:{100 * y0 / height:.3f}%;"
            f"width:{100 * (x1 - x0) / width:.3f}%;height:{100 * (y1 - y0) / height:.3f}%"
        )
        source = heat_picture(grid, limit)
        heat = f'<img class="heat" alt="" src="{source}" style="{position}">'
    if "cropped" in place:
        heat += f'<div class="cropped" style="clip-path:{place["cropped"]}"></div>'
    about = f"The {name}, {rows} × {columns} parts: red raises the score, blue lowers it"
    shape = f"{width}/{height}" if isinstance(axis, ImageAxis) else "2/1"
    return (
        f'<div class="stage" role="img" aria-label="{about}" style="aspect-ratio:{shape}">'
        f"{picture}{heat}</div>"
    )


def _parts(imap: Map, name: str, names: tuple[str, str]) -> str:
    """The score as a sum: a waterfall in a table."""
    if isinstance(imap, FirstOrderMap):
        return _first_order_parts(imap, name, names)
    a, b = names
    interactions = float(imap.interactions.sum())
    terms = [
        ("constant", imap.constant, ""),
        (f"main effects, {a}", float(imap.main_effects_a.sum()), ""),
        (f"main effects, {b}", float(imap.main_effects_b.sum()), ""),
        ("interactions", interactions, "match" if interactions >= 0 else "clash"),
    ]
    ends = np.cumsum([0.0, *(value for _, value, _ in terms)])
    delta = (imap.score, imap.score + imap.convergence_delta)
    low, high = min(0.0, *ends, *delta), max(0.0, *ends, *delta)
    rows = [
        _row(title, value, (start, end), (low, high), colour)
        for (title, value, colour), start, end in zip(terms, ends, ends[1:], strict=False)
    ]
    rows.append(_row("score", imap.score, (0.0, imap.score), (low, high), "", "sum"))
    rows.append(_row("convergence delta", imap.convergence_delta, delta, (low, high), ""))
    note = '<p class="note">Convergence delta: the sum of the parts minus the score.</p>'
    if abs(imap.convergence_delta) > 0.1 * max(abs(imap.score), abs(interactions)):
        cause = "too few steps"
        if "n_steps" not in imap.settings:
            cause = "the parts of this method need not add up to the score"
        note += f'<p class="note warning">The delta is more than a tenth of the score: {cause}.</p>'
    return _facts(f"The score and its parts, {name}", rows, note + _rounding(imap, names))


def _first_order_parts(imap: FirstOrderMap, name: str, names: tuple[str, str]) -> str:
    sums = [
        (f"sum over the {side}", float(values.sum()))
        for side, values in zip(names, (imap.attributions_a, imap.attributions_b), strict=True)
        if values is not None
    ]
    ends = [0.0, imap.score, *(value for _, value in sums)]
    reach = (min(ends), max(ends))
    rows = [
        _row(title, value, (0.0, value), reach, "match" if value >= 0 else "clash")
        for title, value in sums
    ]
    rows.append(_row("score", imap.score, (0.0, imap.score), reach, "", "sum"))
    note = "A first-order method: one value for each part, whatever is selected in the other input."
    notes = f'<p class="note">{note}</p>{_rounding(imap, names)}'
    return _facts(f"The score, {name} (first order)", rows, notes)


def _rounding(imap: Map, names: tuple[str, str]) -> str:
    """A warning where there is nothing to be read from the values of a map."""
    if not imap.at_rounding:
        return ""
    said = {"input a": f"values of the {names[0]}", "input b": f"values of the {names[1]}"}
    which = " and ".join(said.get(name, name) for name in imap.at_rounding)
    return (
        f'<p class="note warning">The {which} are no larger than rounding errors (up to '
        f"{imap.rounding:.0e}), so they have no colour.</p>"
    )


def _facts(title: str, rows: list[str], note: str) -> str:
    table = f'<table class="parts"><caption>{escape(title)}</caption>{"".join(rows)}</table>'
    return f'<div class="facts">{table}{note}</div>'


def _row(
    title: str,
    value: float,
    span: tuple[float, float],
    reach: tuple[float, float],
    colour: str,
    kind: str = "",
) -> str:
    low, high = reach
    scale = 100.0 / ((high - low) or 1.0)
    left, width = (min(span) - low) * scale, abs(span[1] - span[0]) * scale
    bar = f'<i class="{colour}" style="left:{left:.2f}%;width:{width:.2f}%"></i>'
    zero = f'<i class="zero" style="left:{-low * scale:.2f}%"></i>'
    number = fixed(value) if kind else signed(value)
    return (
        f'<tr class="{kind}"><th scope="row">{escape(title)}</th>'
        f'<td><div class="track">{zero}{bar}</div></td><td class="number">{number}</td></tr>'
    )


def _pairs(imap: Map, names: tuple[str, str]) -> str:
    """The strongest pairs of an interaction map; the strongest parts of a first-order one."""
    if isinstance(imap, FirstOrderMap):
        return _parts_of_sides(imap, names)
    by_unit = imap.by_unit()
    flat = by_unit.flatten()
    order = flat.abs().argsort(descending=True)[:N_PAIRS].tolist()
    units = imap.axis_a.units, imap.axis_b.units
    limit = limit_of(flat, source=imap)
    rows = []
    for index in order:
        i, j = divmod(index, len(units[1]))
        value = float(by_unit[i, j])
        rows.append(
            f'<tr data-a="{unit_place(imap.axis_a, i)}" data-b="{unit_place(imap.axis_b, j)}">'
            f'<td class="pair"><bdi>{escape(units[1][j].label)}</bdi> × '
            f"<bdi>{escape(units[0][i].label)}</bdi></td>{_bar(value, limit)}</tr>"
        )
    return _table(f"Strongest pairs, {names[1]} × {names[0]}", rows)


def _parts_of_sides(imap: FirstOrderMap, names: Sequence[str]) -> str:
    strongest = []
    for side, name in zip(SIDES, names, strict=True):
        axis, values = axis_of(imap, side), values_of(imap, side)
        if values is not None:
            sums = axis.sum_units(values).tolist()
            strongest += [(v, name, u.label) for v, u in zip(sums, axis.units, strict=True)]
    strongest.sort(key=lambda item: -abs(item[0]))
    limit = limit_of([value for value, _, _ in strongest], source=imap)
    rows = [
        f"<tr><td><bdi>{escape(label)}</bdi> ({name})</td>{_bar(value, limit)}</tr>"
        for value, name, label in strongest[:N_PAIRS]
    ]
    return _table("Strongest parts", rows)


def _bar(value: float, limit: float) -> str:
    share = 50.0 * abs(value) / (limit or 1.0)
    left = 50.0 if value >= 0 else 50.0 - share
    sign = "match" if value >= 0 else "clash"
    return (
        f'<td><div class="track"><i class="zero" style="left:50%"></i>'
        f'<i class="{sign}" style="left:{left:.2f}%;width:{share:.2f}%"></i></div></td>'
        f'<td class="number">{signed(value, 4)}</td>'
    )


def _table(title: str, rows: list[str]) -> str:
    table = f"<table><caption>{escape(title)}</caption>{''.join(rows)}</table>"
    return f'<div class="strongest">{table}</div>'
