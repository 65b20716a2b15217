"""Tables and figures of insertion and deletion, see :class:`Perturbation`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_interactions.evaluation.lines import Line, panels
from captum_interactions.evaluation.phrases import paired
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import (
    bootstrap_interval,
    holm,
    holm_note,
    mean,
    mean_estimate,
    median,
    notes_of_few,
    numbers,
)
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.visualization.charts import method_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDOM = "random order"
"""The variant that shows the chance level."""
GRID = np.linspace(0.0, 1.0, 21)
"""Shares of the parts that have come or gone, where curves of all records are read."""
CURVES = (
    "patches inserted", "patches deleted", "words inserted", "words deleted",
    "both inserted", "both deleted",
)  # fmt: skip
JOINT = "joint insertion/deletion"
"""The area between two curves over both inputs at once, see :class:`Perturbation`."""
PAIRS = "pairs subtracted"
"""What is left of the score, see :func:`~captum_interactions.metrics.pair_deletion_curve`."""
READOUTS = ("map", "with main effects")
"""What ranks the parts of one input, see :class:`Perturbation`."""


def summary_of_curves(rows: Sequence[Row]) -> Summary:
    """What the areas of all rankings come to, and how the first one differs from the others."""
    ranked = list(dict.fromkeys((row.variant, readout) for row in rows for readout in row.values))
    ranked.sort(key=lambda one: one[0] == RANDOM)
    areas: list[list[Any]] = []
    for curve in CURVES:
        found = [cells for one in ranked if (cells := _areas(rows, curve, *one))]
        areas += sorted(found, key=lambda cells: cells[4], reverse="inserted" in curve)
    overview = [[*one, *(_mean(rows, curve, *one) for curve in CURVES)] for one in ranked]
    tables = {
        "by_method": Table(
            ("ranked by", "read as", *CURVES), overview,
            "Area under the curve: the mean score while the strongest parts come or go. High is "
            "good for insertion, low for deletion; random order is chance. Rankings are compared "
            "on common records in the table of differences.",
        ),
        "areas": Table(
            ("curve", "ranked by", "read as", "records", "mean score", "95 % from", "to",
             "normalised median", "median from", "median to", "reversed"), areas,
            "Each curve, the best ranking first. *normalised*: the score of nothing is 0, of "
            "everything 1. *reversed*: records where nothing scores as high as everything, or "
            "higher: there normalised areas mean the opposite, so where there are many, only the "
            "mean score tells rankings apart. Intervals: images drawn anew.",
        ),
    }  # fmt: skip
    for what, caption in _APART.items():
        cells = [own for one in ranked if (own := _apart(rows, what, *one))]
        if cells:
            tables[what.replace(" ", "_").replace("/", "_")] = Table(
                ("ranked by", "read as", "records", "defined", "mean", "95 % from", "to",
                 "median", "median from", "median to"), cells, caption,
            )  # fmt: skip
    if len(ranked) > 1:
        tables["differences"] = _differences(rows, ranked)
    counts = {
        ", ".join(one): max((len(_cases(rows, curve, *one)) for curve in CURVES), default=0)
        for one in ranked
    }
    return Summary(tables, {"curves": _figure(rows, ranked)}, notes_of_few(counts))


_APART = {
    JOINT: (
        "Coalitions of patches and words that the map says are worth most, and least, of every "
        "size: the area between their scores, with the score of nothing as 0 and of everything as "
        "1. High is good, a random order has 0 on average. Where everything scores hardly more "
        "than nothing, or less, it says little, so the median stands beside the mean. Intervals: "
        "images drawn anew."
    ),
    PAIRS: (
        "What is left of the score, on average, while the interactions of the strongest pairs are "
        "subtracted from it one after the other; the parts of the pairs stay. Low is good. No "
        "masked input has these scores, so they are not to be compared with the areas of other "
        "curves. Intervals: images drawn anew."
    ),
}


def _cases(
    rows: Sequence[Row], curve: str, variant: str, readout: str, key: str = "area"
) -> list[dict[str, Any]]:
    """A value of each record that has the curve, with what :func:`paired` needs."""
    return [
        {"key": row.record, "cluster": row.cluster, key: row.values[readout][curve][key]}
        for row in rows
        if row.variant == variant and curve in row.values.get(readout, {})
    ]


def _mean(rows: Sequence[Row], curve: str, variant: str, readout: str) -> float | None:
    return mean(case["area"] for case in _cases(rows, curve, variant, readout))


def _areas(rows: Sequence[Row], curve: str, variant: str, readout: str) -> list[Any] | None:
    cases = _cases(rows, curve, variant, readout)
    if not cases:
        return None
    images = [case["cluster"] for case in cases]
    relative, scores = (
        [case[key] for case in _cases(rows, curve, variant, readout, key)]
        for key in ("normalized", "scores")
    )
    whole, nothing = (0, -1) if "deleted" in curve else (-1, 0)
    return [
        curve, variant, readout, len(cases), *mean_estimate([c["area"] for c in cases], images),
        median(relative), *bootstrap_interval(relative, images),
        sum(one[whole] <= one[nothing] for one in scores),
    ]  # fmt: skip


def _apart(rows: Sequence[Row], what: str, variant: str, readout: str) -> list[Any] | None:
    """Cells of a measure that is no mean score."""
    cases = _cases(rows, what, variant, readout)
    if not cases:
        return None
    areas, images = [c["area"] for c in cases], [c["cluster"] for c in cases]
    return [
        variant, readout, len(cases), len(numbers(areas)) / len(cases),
        *mean_estimate(areas, images), median(areas), *bootstrap_interval(areas, images),
    ]  # fmt: skip


def _differences(rows: Sequence[Row], ranked: Sequence[tuple[str, str]]) -> Table:
    """The first ranking minus each other one, on the records that both have."""
    first, *others = ranked
    found = []
    for curve, other in product((*CURVES, JOINT, PAIRS), others):
        gap = paired(_cases(rows, curve, *first), _cases(rows, curve, *other), "area")
        if gap.n:
            found.append(([curve, *other, *gap[:4]], gap.p))
    p_values = holm([p for _, p in found])
    return Table(
        ("curve", "ranked by", "read as", "common records", "difference", "95 % from", "to", "p"),
        [[*own, p] for (own, _), p in zip(found, p_values, strict=True)],
        f"Areas of {first[0]}, read as *{first[1]}*, minus those of the other ranking, on the "
        "records that both have. Intervals: images drawn anew; *p*: sign-flip test over images, "
        f"{holm_note(p_values)}.",
    )


def _figure(rows: Sequence[Row], ranked: Sequence[tuple[str, str]]) -> Figure:
    shown = {}
    for curve in CURVES[:4]:
        lines = []
        for variant, readout in ranked:
            cases = _cases(rows, curve, variant, readout, "scores")
            scores = [case["scores"] for case in cases]
            if scores:
                name = method_label(variant)
                label = name if readout == READOUTS[0] else f"{name}, {readout}"
                lines.append(
                    Line(label, GRID, np.mean(scores, 0), variant, dashed=readout != READOUTS[0])
                )
        shown[curve] = lines
    return panels(
        shown, ("share of the patches or words", "mean score"), plain=RANDOM,
        title="Score while the parts that a method ranks highest are inserted or deleted first",
    )  # fmt: skip
