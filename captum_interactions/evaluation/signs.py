"""Signs of maps on named objects and on background of the same shape, and their causes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captum_interactions.datasets import Phrase, Record
from captum_interactions.datasets.shapes import COLOURS
from captum_interactions.evaluation.phrases import covered, image_axis, readable
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import (
    holm,
    holm_note,
    mean,
    median,
    paired_difference,
    proportion,
)
from captum_interactions.evaluation.study import Map
from captum_interactions.evaluation.summary import Table

Case = Mapping[str, Any]
Grid = NDArray[np.float32]
COLOUR_WORDS = frozenset({*COLOURS, "brown", "gray", "grey", "golden", "silver"})
OWN, OTHER = "own object positive", "other object negative"
CLEAR = 0.1
"""Maximum share of a background region that may lie on objects."""


def signs(imap: Map, record: Record, regions: str = "boxes") -> dict[str, Any]:
    """Sums of each phrase's map over its own object and over each other visible object.

    Returns:
        dict: ``own``, one mapping per phrase: its text, the sum, and the share of background of the
        same shape that is positive (None if no background has room for it); ``cross``, one mapping
        per phrase and other object: both, the sum, the share of background that is negative, and
        possible causes: the same class, the same colour (None if a phrase names none), the distance
        of both objects in diagonals of the image, and their overlap.
    """
    axis = image_axis(imap)
    seen = [(phrase, covered(axis, phrase, regions)) for phrase in readable(imap, record)]
    seen = [(phrase, region) for phrase, region in seen if region.any()]
    heats = [imap.heatmap(phrase.span) for phrase, _ in seen]
    objects = occupied(imap, record)
    own = [
        {
            "text": phrase.text,
            "value": total(heat, region),
            "background": share_of(background(heat, region, objects), lambda sums: sums > 0),
        }
        for heat, (phrase, region) in zip(heats, seen, strict=True)
    ]
    cross = [
        {
            "phrase": i,
            "other": j,
            "value": total(heats[i], seen[j][1]),
            "background": share_of(
                background(heats[i], seen[j][1], objects), lambda sums: sums < 0
            ),
            "same_class": seen[i][0].label is not None and seen[i][0].label == seen[j][0].label,
            "same_colour": _same_colour(seen[i][0], seen[j][0]),
            "distance": _distance(seen[i][1], seen[j][1]),
            "overlap": _overlap(seen[i][1], seen[j][1]),
        }
        for i, j in permutations(range(len(seen)), 2)
    ]  # fmt: skip
    return {"own": own, "cross": cross}


def occupied(imap: Map, record: Record) -> Grid:
    """Share of each patch that lies on an annotated object, (rows, columns)."""
    boxes = [box for phrase in record.phrases for box in phrase.boxes]
    false = record.hard_negative.boxes if record.hard_negative is not None else ()
    return image_axis(imap).coverage(*boxes, *record.unnamed, *false)


def total(heat: Grid, region: Grid) -> float:
    """Sum of a map over a region."""
    return float((heat * region).sum())


def background(heat: Grid, region: Grid, objects: Grid) -> NDArray[np.float64]:
    """Sums of a map over a region's shape at all places of the grid outside of objects.

    Args:
        heat: Values of patches, (rows, columns).
        region: Covered share of patches.
        objects: Share of patches that lies on objects.

    Returns:
        ndarray: a sum for each place; empty if there is none.
    """
    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    shape = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64)
    windows = (
        np.lib.stride_tricks.sliding_window_view(values, shape.shape).reshape(-1, shape.size)
        for values in (heat, objects)
    )
    sums, shared = (window @ shape.ravel() for window in windows)
    return np.asarray(sums[shared <= CLEAR * shape.sum()])


def share_of(
    sums: NDArray[np.float64], is_so: Callable[[NDArray[np.float64]], NDArray[np.bool_]]
) -> float | None:
    """Share of sums that are so; None if there is none, as of :func:`background` without room."""
    return float(is_so(sums).mean()) if len(sums) else None


def _same_colour(first: Phrase, second: Phrase) -> bool | None:
    colours = [COLOUR_WORDS & set(re.findall(r"\w+", p.text.lower())) for p in (first, second)]
    return bool(colours[0] & colours[1]) if all(colours) else None


def _distance(first: Grid, second: Grid) -> float:
    """Distance of the centres of two regions, in diagonals of the grid."""
    places = np.moveaxis(np.indices(first.shape), 0, -1)
    centres = [
        np.average(places.reshape(-1, 2), axis=0, weights=r.ravel()) for r in (first, second)
    ]
    return float(np.linalg.norm(centres[0] - centres[1]) / np.linalg.norm(first.shape))


def _overlap(first: Grid, second: Grid) -> float:
    """Share of the smaller region that the patches of the other region cover."""
    shared = float(np.minimum(first, second).sum())
    return shared / float(min(first.sum(), second.sum()))


def cross_cases(
    rows: Sequence[Row], max_overlap: float, *, different_classes: bool
) -> list[dict[str, Any]]:
    """Pairs of a phrase and another object that pass the filters, with key and cluster."""
    return [
        {**pair, "key": (row.record, pair["phrase"], pair["other"]), "cluster": row.cluster}
        for row in rows
        for pair in row.values.get("cross", ())
        if pair["overlap"] <= max_overlap and not (different_classes and pair["same_class"])
    ]


def own_cases(rows: Sequence[Row], cross: Sequence[Case]) -> list[dict[str, Any]]:
    """Phrases with at least one pair, with key, cluster, and the sums over the other objects."""
    rivals: dict[tuple[str, int], list[float]] = {}
    for pair in cross:
        rivals.setdefault(pair["key"][:2], []).append(pair["value"])
    return [
        {**phrase, "key": key, "cluster": row.cluster, "rivals": rivals[key]}
        for row in rows
        for place, phrase in enumerate(row.values.get("own", ()))
        if (key := (row.record, place)) in rivals
    ]


def flags(what: str, cases: Sequence[Case]) -> list[bool]:
    """Whether each case has the given sign."""
    return [case["value"] > 0 if what == OWN else case["value"] < 0 for case in cases]


def share_cells(what: str, cases: Sequence[Case]) -> tuple[list[Any], float | None]:
    """Cells of the share of cases with a sign and of background, and the p-value of the difference.

    The cells are for :data:`SHARE_COLUMNS`.
    """
    found = [float(flag) for flag in flags(what, cases)]
    clusters, levels = [c["cluster"] for c in cases], [c["background"] for c in cases]
    gap = paired_difference(found, levels, clusters)
    cells = [
        len(cases), len(set(clusters)), *proportion(found, clusters),
        mean(levels), gap.n, gap.value, gap.low, gap.high,
    ]  # fmt: skip
    return cells, gap.p


SHARE_COLUMNS = (
    "cases", "images", "share", "95 % from", "to", "background", "with background", "difference",
    "difference from", "difference to",
)  # fmt: skip
SHARE_DETAILS = ("images", "with background")
SHARE_CAPTION = (
    "*background*: the same share where the region's shape is put on background instead, over all "
    "places that keep clear of annotated objects; *difference*: to it, for the cases in which "
    "there is such a place. Intervals: Wilson's for as many cases as the images are worth, and "
    "of differences with images drawn anew."
)


def signs_table(by_method: Mapping[str, tuple[Sequence[Case], Sequence[Case]]]) -> Table:
    """Shares of positive sums over the own object and of negative sums over others, by method."""
    found = [
        (method, what, *share_cells(what, cases))
        for method, both in by_method.items()
        for what, cases in zip((OWN, OTHER), both, strict=True)
    ]
    p_values = holm([p for *_, p in found])
    cells = [
        [method, what, *own, p] for (method, what, own, _), p in zip(found, p_values, strict=True)
    ]
    return Table(
        ("method", "sign", *SHARE_COLUMNS, "p"), cells,
        f"{SHARE_CAPTION} *p*: sign-flip test over images of this difference, "
        f"{holm_note(p_values)}. A map of the first order has one sign at a place, whatever the "
        "phrase. The paper, on COCO: .941 and .684.", details=SHARE_DETAILS,
    )  # fmt: skip


FACTORS: Mapping[str, Callable[[Case, float], str | None]] = {
    "class": lambda case, _: "same" if case["same_class"] else "different",
    "colour": lambda case, _: (
        None if case["same_colour"] is None else "same" if case["same_colour"] else "different"
    ),
    "distance": lambda case, middle: "near" if case["distance"] <= middle else "far",
    "named": lambda case, _: "before it" if case["other"] < case["phrase"] else "after it",
}
"""Possible causes of a negative sum over another object, by name."""


def origins_table(by_method: Mapping[str, Sequence[Case]]) -> Table:
    """Shares of negative sums over another object, by its properties in common with the own one.

    Levels without a case are left out.
    """
    cells = []
    for method, cases in by_method.items():
        middle = median(case["distance"] for case in cases) or 0.0
        for factor, level_of in FACTORS.items():
            by_level: dict[str, list[Case]] = {}
            for case in cases:
                level = level_of(case, middle)
                if level is not None:
                    by_level.setdefault(level, []).append(case)
            cells += [
                [method, factor, level, *share_cells(OTHER, own)[0]]
                for level, own in sorted(by_level.items())
            ]
    return Table(
        ("method", "factor", "level", *SHARE_COLUMNS), cells,
        "Sums over another object that are negative, by what it has in common with the phrase's "
        f"own: class, colour word, place (near or far: the median parts them), and whether the "
        f"caption names it before or after. {SHARE_CAPTION}",
        details=SHARE_DETAILS,
    )  # fmt: skip


def changes_table(stages: Mapping[str, tuple[tuple[Sequence[Case], ...], ...]]) -> Table:
    """Changes of signs from one stage to another, on common cases.

    Args:
        stages: By method, (own cases, cross cases) before and after.
    """
    found = []
    for method, (before, after) in stages.items():
        for what, first, second in zip((OWN, OTHER), before, after, strict=True):
            later = {case["key"]: case for case in second}
            common = [case for case in first if case["key"] in later]
            old, new = (
                [float(flag) for flag in flags(what, cases)]
                for cases in (common, [later[case["key"]] for case in common])
            )
            gap = paired_difference(new, old, [case["cluster"] for case in common])
            found.append(([method, what, gap.n, mean(old), mean(new), *gap[1:4]], gap.p))
    p_values = holm([p for _, p in found])
    cells = [[*own, p] for (own, _), p in zip(found, p_values, strict=True)]
    return Table(
        ("method", "sign", "cases", "before", "after", "change", "95 % from", "to", "p"), cells,
        "Shares on the same cases. Intervals: images drawn anew; *p*: sign-flip test over images, "
        f"{holm_note(p_values)}.",
    )  # fmt: skip
