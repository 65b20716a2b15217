"""Pointing-game recognition: does each named object of a composed picture find its own cell?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from captum_interactions.datasets import ObjectGrids, Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.phrases import image_axis, phrase_spans, readable, unread_notes
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.statistics import bootstrap_interval, mean
from captum_interactions.evaluation.study import Map, MethodStudy
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.maps.interaction_map import InteractionMap
from captum_interactions.metrics import quadrants, recognition_chance, recognition_score

READOUTS = ("map", "centred", "with main effects", "both")
"""How a phrase's map is read off an explanation; see :class:`Recognition`."""


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

    Source: Baniecki et al. (arXiv 2508.05430), whose classes and photographs are not part of this
    package: the objects are cut out of the dataset at hand.
    """

    name: ClassVar[str] = "recognition"
    title: ClassVar[str] = "Recognition: does each named object find its own cell?"
    question: ClassVar[str] = "the pointing game on composed pictures, 1 to 4 objects named"

    cell: int = 112
    """Side of a cell in pixels."""
    n_named: tuple[int, ...] = (1, 2, 3, 4)

    def records(self, records: Sequence[Record]) -> Sequence[Record]:
        return ObjectGrids(records, self.n_named, cell=self.cell, seed=self.seed)

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        maps = self.explain(wrapper, variant, records, spans=phrase_spans(records))
        return [_scores(imap, record) for imap, record in zip(maps, records, strict=True)]

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        counts = sorted({row.values["named"] for row in rows})
        cells = []
        for variant in dict.fromkeys(row.variant for row in rows):
            for readout in READOUTS:
                found = {n: _values(rows, variant, readout, n) for n in counts}
                means = (mean(values) for values, _ in found.values())
                cells.append([variant, readout, *means, _chance(rows, variant, readout)])
        best = [max((row[2 + i] or 0.0) for row in cells) for i in range(len(counts))]
        table = Table(
            ("method", "read as", *(f"{n} named" for n in counts), "chance"),
            sorted(cells, key=lambda row: -sum(value or 0.0 for value in row[2:-1])),
            "Mean share of a phrase's map that is right: positive in its own cell, negative in the "
            "others. *chance*: the same of maps whose patches are shuffled, which is 1/4 without, "
            "and 1/2 with as many negative values.",
        )
        n_pictures = len({row.record.rpartition("/")[0] for row in rows})
        notes = [
            f"{n_pictures} pictures. Best by column: "
            + ", ".join(f"{value:.3f} ({n} named)" for n, value in zip(counts, best, strict=True))
        ]
        notes += unread_notes(rows)
        return Summary({"by_method": table}, {"recognition": _figure(rows, counts)}, notes)


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
    where = torch.tensor([own])
    return {
        "named": len(record.phrases),
        "unread": len(record.phrases) - len(phrases),
        "chances": {
            name: recognition_chance(one, cells, where)[0].tolist()
            for name, one in zip(READOUTS, read, strict=True)
        },
        **{
            name: recognition_score(one, cells, where)[0].tolist()
            for name, one in zip(READOUTS, read, strict=True)
        },
    }


def _centred(maps: Tensor) -> Tensor:
    return maps - maps.mean((-2, -1), keepdim=True)


def _values(
    rows: Sequence[Row], variant: str, readout: str, named: int
) -> tuple[list[Any], list[str]]:
    """The values of all phrases, and the record that each belongs to."""
    chosen = [r for r in rows if r.variant == variant and r.values["named"] == named]
    pairs = [(value, row.record) for row in chosen for value in row.values[readout]]
    return [value for value, _ in pairs], [record for _, record in pairs]


def _chance(rows: Sequence[Row], variant: str, readout: str) -> float | None:
    own = (row.values.get("chances", {}) for row in rows if row.variant == variant)
    return mean(value for levels in own for value in levels.get(readout, ()))


def _figure(rows: Sequence[Row], counts: Sequence[int]) -> Any:
    from matplotlib import pyplot as plt

    variants = list(dict.fromkeys(row.variant for row in rows))
    figure, ax = plt.subplots(figsize=(7.0, 3.6), layout="constrained")
    for place, variant in enumerate(variants):
        found = [_values(rows, variant, READOUTS[0], n) for n in counts]
        means = np.array([mean(values) for values, _ in found], float)  # None becomes NaN
        spread = np.array(
            [
                bootstrap_interval(values, names, statistic=lambda x: float(x.mean()))
                for values, names in found
            ],
            float,
        )
        x = np.asarray(counts) + 0.04 * (place - len(variants) / 2)
        (line,) = ax.plot(x, means, marker="o", markersize=4, label=variant)
        ax.vlines(x, spread[:, 0], spread[:, 1], color=line.get_color(), linewidth=1)
    ax.axhline(0.5, color="0.5", linestyle=":", linewidth=1)
    ax.set(xticks=counts, xlabel="objects named in the caption", ylabel="recognition score")
    ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    ax.spines[["top", "right"]].set_visible(False)
    return figure
