"""Phrases and their regions on a map: the measurements of the grounding studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from captum_interactions.datasets import Phrase, Record
from captum_interactions.encoders import ImageAxis, TextAxis
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import Difference, paired_difference
from captum_interactions.evaluation.study import Map
from captum_interactions.metrics import (
    Sign,
    best_level,
    chance_level,
    point_game_accuracy,
    point_game_energy,
)

REGIONS = ("boxes", "masks")


def check_regions(regions: str) -> None:
    """Raise a ValueError if regions are neither boxes nor masks."""
    if regions not in REGIONS:
        raise ValueError(f"regions must be 'boxes' or 'masks', but got {regions!r}")


def image_axis(imap: Map) -> ImageAxis:
    """The axis of the image of a pair.

    Raises:
        TypeError: If the first input is not an image.
    """
    if not isinstance(imap.axis_a, ImageAxis):
        raise TypeError(
            "the study looks for objects in images, but the first input is "
            f"{type(imap.axis_a).__name__}"
        )
    return imap.axis_a


def covered(axis: ImageAxis, phrase: Phrase, regions: str = "boxes") -> NDArray[np.float32]:
    """Share of each patch that a phrase's boxes or mask cover, (rows, columns).

    Raises:
        ValueError: If a box lies outside of the image, or ``regions`` is ``"masks"`` and the phrase
            has none.
    """
    if regions == "boxes":
        _check_boxes(phrase, axis.frame.original)
        return axis.coverage(*phrase.boxes)
    if phrase.mask is None:
        raise ValueError(
            "a phrase has no mask: take regions=boxes, or ask the dataset for masks if it has any "
            "(masks=true of coco)"
        )
    return axis.coverage(phrase.mask)


def _check_boxes(phrase: Phrase, size: tuple[int, int]) -> None:
    """Raise a ValueError if a box lies outside of the image; boxes in a cropped part are valid."""
    height, width = size
    for box in phrase.boxes:
        if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
            raise ValueError(
                f"a box of {phrase.text!r} lies outside of the image of {width} × {height} pixels: "
                f"{list(box)}"
            )


def readable(imap: Map, record: Record) -> tuple[Phrase, ...]:
    """The grounded phrases whose words are all within the text's limit.

    A caption that is longer than the limit is cut; a phrase that is cut, wholly or in part, has no
    map.
    """
    return tuple(phrase for phrase in record.grounded if is_read(imap, phrase.span))


def phrase_spans(records: Sequence[Record]) -> list[list[tuple[int, int]]]:
    """The character spans of the grounded phrases of each caption, as ``explain`` takes them."""
    return [[phrase.span for phrase in record.grounded] for record in records]


def is_read(imap: Map, span: tuple[int, int]) -> bool:
    """Whether tokens cover every word of a span of characters, and at least one."""
    axis = imap.axis_b
    if not isinstance(axis, TextAxis) or not axis.text:
        return True  # selecting the span will say what is wrong
    words = [word.span for word in axis.words]
    if not any(start < span[1] and span[0] < stop for start, stop in words):
        return False
    return not any(map(str.isalnum, axis.text[max(words[-1][1], span[0]) : span[1]]))


def unread_notes(rows: Iterable[Row]) -> list[str]:
    """A note for the summary on phrases that were left out; none if there are none."""
    unread = {row.record: row.values.get("unread", 0) for row in rows}
    n_phrases, n_captions = sum(unread.values()), sum(map(bool, unread.values()))
    if not n_phrases:
        return []
    counts = f"{n_phrases} (captions: {n_captions})"
    return [f"Phrases that stand beyond the text's limit, left out: {counts}."]


def pointing(
    imap: Map, record: Record, *, regions: str = "boxes", sign: Sign = "positive"
) -> list[Mapping[str, Any]]:
    """Localisation of the map of each :func:`readable` phrase.

    Returns:
        list: one mapping per phrase: its text and label; ``pge`` and ``pga`` (None if undefined: no
        mass of that sign, or a region that was cropped away); the levels ``chance`` and ``best`` of
        both; ``area``, the share of the image that its boxes cover; ``n_boxes``; ``n_alike``, the
        number of boxes of the record with its label; and ``named``, the number of objects that the
        caption names.
    """
    axis = image_axis(imap)
    labels = Counter(
        phrase.label for phrase in record.grounded for _ in phrase.boxes if phrase.label is not None
    )
    found: list[Mapping[str, Any]] = []
    for phrase in readable(imap, record):
        region = torch.from_numpy(covered(axis, phrase, regions)).unsqueeze(0)
        heat = torch.from_numpy(np.ascontiguousarray(imap.heatmap(phrase.span))).unsqueeze(0)
        found.append(
            {
                "text": phrase.text,
                "label": phrase.label,
                "pge": float(point_game_energy(heat, region, sign)),
                "pga": float(point_game_accuracy(heat, region, sign)),
                "chance": float(chance_level(region)),
                "best": float(best_level(region)),
                "area": area_share(phrase, axis.frame.original),
                "n_boxes": len(phrase.boxes),
                "n_alike": labels[phrase.label] if phrase.label is not None else len(phrase.boxes),
                "named": len(record.grounded),
            }
        )
    return found


def counted(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The phrases whose regions were not cropped away.

    A map without mass of the counted sign is undefined and gets the chance level; otherwise methods
    would be compared on different phrases.

    Returns:
        list: the results of :func:`pointing`, with ``key``, the same for all variants, ``cluster``,
        see :attr:`Row.cluster`, and ``defined``.
    """
    found = []
    for row in rows:
        for place, phrase in enumerate(row.values["phrases"]):
            if phrase["chance"] is None:  # the crop cut its region off
                continue
            own = {"key": (row.record, place), "cluster": row.cluster, "defined": True}
            if phrase["pge"] is None:
                own |= dict.fromkeys(("pge", "pga"), phrase["chance"])
                own["defined"] = False
            found.append({**phrase, **own})
    return found


def paired(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], measure: str = "pge"
) -> Difference:
    """The difference of a measure of two variants on their common phrases, by ``key``."""
    others = {one["key"]: one[measure] for one in second}
    common = [one for one in first if one["key"] in others]
    return paired_difference(
        [one[measure] for one in common],
        [others[one["key"]] for one in common],
        [one["cluster"] for one in common],
    )


def area_share(phrase: Phrase, size: tuple[int, int]) -> float:
    """Share of an image of (height, width) that lies in a phrase's boxes; overlaps count once."""
    height, width = size
    inside = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in phrase.boxes:
        inside[round(y0) : round(y1), round(x0) : round(x1)] = True
    return float(inside.mean())
