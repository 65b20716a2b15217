"""Pointing-game recognition: does each named object of a composed picture find its own cell?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from captum_interactions.datasets import ObjectGrids, Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.configuration import rows_in
from captum_interactions.evaluation.phrases import image_axis, phrase_spans, readable, unread_notes
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import (
    holm,
    holm_note,
    mean,
    mean_estimate,
    numbers,
    paired_difference,
)
from captum_interactions.evaluation.study import Map, MethodStudy, view
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.maps.interaction_map import InteractionMap
from captum_interactions.metrics import quadrants, recognition_chance, recognition_score
from captum_interactions.visualization.charts import (
    add_legend,
    line_style,
    method_label,
    new_chart,
    set_heading,
)

READOUTS = ("map", "centred", "with main effects", "both")
"""How a phrase's map is read off an explanation; see :class:`Recognition`."""
PHRASES, POOLED = "over phrases", "pooled"
"""How the phrases of a picture are averaged; see :class:`Recognition`."""


@dataclass(frozen=True)
class Recognition(MethodStudy):
    """The recognition score of each method on pictures of four objects, by how many are named.

    A phrase's map is read in four ways:

    - *map*: interactions of the phrase, or the map of a first-order method, the same for each
      phrase;
    - *centred*: minus its mean over the patches. A value that all patches share says nothing of
      where the object is, but counts as wrong in some cell;
    - *with main effects*: interactions of the phrase and an equal share of the image's main effects
      for each named phrase, as far as the method has any;
    - *both*.

    The phrases of a picture are averaged in two ways: *over phrases*, each with a score of its own,
    or *pooled*, their masses added up before they are divided, as published tables have it.

    Source: Baniecki et al. (arXiv 2508.05430), whose classes and photographs are not part of this
    package: the objects are cut out of the dataset at hand.
    """

    name: ClassVar[str] = "recognition"
    title: ClassVar[str] = "Recognition: does each named object find its own cell?"
    question: ClassVar[str] = "the pointing game on composed pictures, 1 to 4 objects named"

    cell: int = 112
    """Side of a cell in pixels."""
    n_named: tuple[int, ...] = (1, 2, 3, 4)
    validation: str = view("")
    """Folder with rows of this study on other pictures, such as those of another seed: the best
    readings are chosen there and reported on these. Default: none"""

    def records(self, records: Sequence[Record]) -> Sequence[Record]:
        return ObjectGrids(records, self.n_named, cell=self.cell, seed=self.seed)

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        maps = self.explain(wrapper, variant, records, spans=phrase_spans(records))
        return [_scores(imap, record) for imap, record in zip(maps, records, strict=True)]

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        counts = sorted({row.values["named"] for row in rows})
        readings = _readings(rows)
        cells = [
            [
                *reading,
                *(mean(value for value, _ in found.get(n, {}).values()) for n in counts),
                _chance(rows, *reading),
            ]
            for reading, found in readings.items()
        ]
        tables = {
            "by_method": Table(
                ("method", "read as", "averaged", *(f"{n} named" for n in counts), "chance"),
                sorted(cells, key=lambda row: (row[2], -sum(value or 0.0 for value in row[3:-1]))),
                "Mean share of a phrase's map that is right: positive in its own cell, negative in "
                "the others. *chance*: the same of maps whose patches are shuffled, which is 1/4 "
                "without, and 1/2 with as many negative values.",
            ),
            "intervals": Table(
                ("method", "read as", "averaged", "named", "values", "pictures", "mean",
                 "95 % from", "to"),
                [
                    [*reading, n, *_sizes(found[n]), *mean_estimate(*_apart(found[n]))]
                    for reading, found in readings.items()
                    for n in counts
                    if n in found
                ],
                "Intervals: pictures drawn anew.",
            ),
        }  # fmt: skip
        first = next(iter(readings))
        others = [key for key in readings if key[1:] == first[1:] and key != first]
        if others:
            tables["differences"] = _differences(first, others, readings, counts)
        if self.validation:
            tables["chosen"] = _chosen(_readings(rows_in(self.validation, self)), readings, counts)
        n_pictures = len({row.cluster for row in rows})
        notes = [
            (
                f"{n_pictures} pictures. The best of {len(readings) // 2} readings is partly luck: "
                "choose one on other pictures (validation)."
            )
        ]
        notes += unread_notes(rows)
        chances = {
            reading[0]: _chance(rows, *reading) for reading in readings if _is_shown(reading)
        }
        return Summary(tables, {"recognition": _figure(readings, counts, chances)}, notes)


Reading = tuple[str, str, str]
"""Method, readout, and how phrases are averaged."""
Values = Mapping[tuple[str, int], tuple[Any, str]]
"""By record and place of the phrase: the value, and the picture that it belongs to."""


def _readings(rows: Sequence[Row]) -> dict[Reading, dict[int, Values]]:
    """The values of every reading, by the number of named objects."""
    found: dict[Reading, dict[int, Values]] = {}
    for averaged in (PHRASES, POOLED):
        for row in rows:
            for readout in READOUTS:
                own = row.values[readout] if averaged == PHRASES else [row.values[POOLED][readout]]
                by_count = found.setdefault((row.variant, readout, averaged), {})
                values: Any = by_count.setdefault(row.values["named"], {})
                for place, value in enumerate(own):
                    values[row.record, place] = value, row.cluster
    return found


def _apart(values: Values) -> tuple[list[Any], list[str]]:
    return [value for value, _ in values.values()], [picture for _, picture in values.values()]


def _sizes(values: Values) -> tuple[int, int]:
    known, pictures = _apart(values)
    return len(numbers(known)), len(set(pictures))


def _differences(
    first: Reading,
    others: Sequence[Reading],
    readings: Mapping[Reading, Mapping[int, Values]],
    counts: Sequence[int],
) -> Table:
    """The first method minus each other one, on the phrases that both have."""
    found = []
    for other in others:
        for n in counts:
            ours, theirs = readings[first].get(n, {}), readings[other].get(n, {})
            common = [key for key in ours if key in theirs]
            if not common:
                continue
            gap = paired_difference(
                [ours[key][0] for key in common],
                [theirs[key][0] for key in common],
                [ours[key][1] for key in common],
            )
            found.append(([other[0], n, *gap[:4]], gap.p))
    p_values = holm([p for _, p in found])
    return Table(
        ("method", "named", "common phrases", "difference", "95 % from", "to", "p"),
        [[*own, p] for (own, _), p in zip(found, p_values, strict=True)],
        f"{first[0]} minus the method, read as *{first[1]}*, mean over the phrases that both have. "
        "Intervals: pictures drawn anew; *p*: sign-flip test over pictures, "
        f"{holm_note(p_values)}.",
    )


def _chosen(
    there: Mapping[Reading, Mapping[int, Values]],
    here: Mapping[Reading, Mapping[int, Values]],
    counts: Sequence[int],
) -> Table:
    """The readings that are best on the validation pictures, as they are on these."""
    cells: list[list[Any]] = []
    for n, averaged in product(counts, (PHRASES, POOLED)):
        means = {
            reading: mean(_apart(found[n])[0]) or 0.0
            for reading, found in there.items()
            if reading[2] == averaged and n in found and n in here.get(reading, {})
        }
        if means:
            best = max(means, key=means.__getitem__)
            estimate = mean_estimate(*_apart(here[best][n]))
            cells.append([n, *best, means[best], *estimate, len(means)])
    return Table(
        ("named", "method", "read as", "averaged", "mean there", "mean", "95 % from", "to",
         "readings"), cells,
        "Of the *readings* that both runs have, the best on the validation pictures, and what it "
        "has on these. Intervals: pictures drawn anew.",
    )  # fmt: skip


def _scores(imap: Map, record: Record) -> Mapping[str, Any]:
    axis = image_axis(imap)
    cells = quadrants(*axis.grid)
    phrases = readable(imap, record)
    if not phrases:
        raise ValueError("no phrase of the caption stands within the text's limit")
    own = [int(p.boxes[0][0] > 0) + 2 * int(p.boxes[0][1] > 0) for p in phrases]
    heats = np.stack([imap.heatmap(phrase.span) for phrase in phrases])
    maps = torch.from_numpy(heats).double().unsqueeze(0)
    main = torch.zeros_like(maps[:, :1])
    if isinstance(imap, InteractionMap):
        main += torch.from_numpy(axis.to_grid(imap.main_effects_a.numpy()))
    with_main = maps + main / len(own)
    read = (maps, _centred(maps), with_main, _centred(with_main))
    by_name = dict(zip(READOUTS, read, strict=True))
    where = torch.tensor([own])

    def of_each(metric: Callable[..., Tensor], *, pooled: bool = False) -> dict[str, Any]:
        return {
            name: metric(one, cells, where, pooled=pooled)[0].tolist()
            for name, one in by_name.items()
        }

    return {
        "named": len(record.phrases),
        "unread": len(record.phrases) - len(phrases),
        "chances": of_each(recognition_chance),
        POOLED: of_each(recognition_score, pooled=True),
        "pooled_chances": of_each(recognition_chance, pooled=True),
        **of_each(recognition_score),
    }


def _centred(maps: Tensor) -> Tensor:
    return maps - maps.mean((-2, -1), keepdim=True)


def _chance(rows: Sequence[Row], variant: str, readout: str, averaged: str) -> float | None:
    own = [row.values for row in rows if row.variant == variant]
    if averaged == POOLED:
        return mean(values["pooled_chances"][readout] for values in own)
    return mean(value for values in own for value in values["chances"][readout])


def _is_shown(reading: Reading) -> bool:
    """Whether the figure shows a reading: maps as they are."""
    return reading[1:] == (READOUTS[0], PHRASES)


def _figure(
    readings: Mapping[Reading, Mapping[int, Values]],
    counts: Sequence[int],
    chances: Mapping[str, float | None],
) -> Any:
    shown = {key[0]: found for key, found in readings.items() if _is_shown(key)}
    figure, ((ax,),) = new_chart(3.4 + 0.19 * len(shown))
    for place, (method, found) in enumerate(shown.items()):
        estimates = [mean_estimate(*_apart(found.get(n, {}))) for n in counts]
        x = np.asarray(counts) + 0.04 * (place - len(shown) / 2)
        means, low, high = np.array(estimates, float).T  # None becomes NaN
        colour, mark, fill = line_style(place)
        ax.plot(
            x, means, marker=mark, fillstyle=fill, markersize=5, color=colour,
            label=method_label(method),
        )  # fmt: skip
        ax.vlines(x, low, high, color=colour, linewidth=1)
        chance = chances[method]
        if chance is not None:
            ax.axhline(chance, color=colour, linestyle=":", linewidth=1)
    ax.set(xticks=counts, xlabel="objects named in the caption", ylabel="recognition score")
    add_legend(figure, ax)
    set_heading(figure, "Recognition of a phrase's object from its map alone (dotted: its chance)")
    return figure
