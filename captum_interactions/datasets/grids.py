"""Images of 2 × 2 objects, cut out of another dataset, whose captions name some of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from captum_interactions.datasets.record import Box, Phrase, Record
from captum_interactions.datasets.sequence import RecordSequence

N_CELLS = 4
MARGIN = 1.25
"""Side of the square that is cut out, in units of the box's longer side."""
MIN_SIDE = 12.0
"""Least shorter side of a box, in pixels."""


class _Cutting(NamedTuple):
    """The phrase of a record whose box is cut out."""

    record: int
    phrase: int


class _Entry(NamedTuple):
    cells: tuple[_Cutting, ...]
    """The objects of the cells: upper left, upper right, lower left, lower right."""
    named: tuple[int, ...]
    """Cells that the caption names, in order."""


class ObjectGrids(RecordSequence[_Entry]):
    """Composed images for the pointing game: four objects in four cells, one to four of them named.

    Objects are phrases with a single box of at least 12 pixels a side (``MIN_SIDE``); a square of
    1.25 times the longer side (``MARGIN``) is cut out. Those of a picture have no word and no label
    in common (a man and a person may be the same), and come from different records. Each picture
    comes with a caption for every number of named objects; a phrase keeps the article that it has
    in its own caption. Its box is its whole cell.

    Args:
        records (sequence of Record): Where objects are cut out. All annotations are read at once,
            images when a grid is opened.
        n_named (sequence of int): Numbers of named objects. Default: ``(1, 2, 3, 4)``
        cell (int): Side of a cell in pixels. Default: 112
        seed (int): Seed of the captions. Default: 0

    Raises:
        ValueError: If a number of named objects is not from 1 to 4, a cell has no pixels, or no
            picture can be composed.

    Source: the pointing game of Baniecki et al., "Explaining Similarity in Vision–Language Encoders
    with Weighted Banzhaf Interactions", 2025 (arXiv 2508.05430), on images of labelled classes.

    Examples:
        >>> from captum_interactions.datasets import SceneRecords
        >>> grids = ObjectGrids(SceneRecords(20), n_named=(2,))
        >>> len(grids[0].phrases), grids[0].image.size
        (2, (224, 224))
    """

    def __init__(
        self,
        records: Sequence[Record],
        n_named: Sequence[int] = (1, 2, 3, 4),
        *,
        cell: int = 112,
        seed: int = 0,
    ) -> None:
        if not n_named or not all(1 <= n <= N_CELLS for n in n_named):
            raise ValueError(f"1 to {N_CELLS} objects of a picture are named, but got {n_named}")
        if cell < 1:
            raise ValueError(f"a cell has at least 1 pixel a side, but got {cell}")
        self.records, self.cell = records, cell
        entries = []
        for index, cells in enumerate(_compose(records)):
            order = np.random.default_rng([seed, index]).permutation(N_CELLS).tolist()
            entries += [_Entry(cells, tuple(order[:n])) for n in n_named]
        if not entries:
            raise ValueError(
                f"of {len(records)} records no picture of {N_CELLS} objects can be composed: "
                f"phrases need a single box of at least {MIN_SIDE:g} pixels, and no word or label "
                "in common"
            )
        super().__init__(entries, getattr(records, "skipped", ()))

    def _record(self, entry: _Entry) -> Record:
        sources = [(self.records[one.record], one.phrase) for one in entry.cells]
        caption, phrases = "", []
        for place, index in enumerate(entry.named):
            record, number = sources[index]
            if place:
                caption += " and " if place == len(entry.named) - 1 else ", "
            caption += _article(record, record.phrases[number])
            phrase = record.phrases[number]
            span = (len(caption), len(caption) + len(phrase.text))
            caption += phrase.text
            phrases.append(Phrase(phrase.text, span, (self._cell_box(index),), phrase.label))
        keys = [f"{record.key}.{number}" for record, number in sources]
        return Record(
            key=f"{'+'.join(keys)}/{len(entry.named)}",
            caption=caption,
            phrases=tuple(phrases),
            open_image=lambda: self._image(sources),
            source=" + ".join(record.source for record, _ in sources),
            image_key="+".join(keys),
        )

    def _cell_box(self, index: int) -> Box:
        x, y = float(index % 2 * self.cell), float(index // 2 * self.cell)
        return x, y, x + self.cell, y + self.cell

    def _image(self, sources: Sequence[tuple[Record, int]]) -> Image.Image:
        picture = Image.new("RGB", (2 * self.cell, 2 * self.cell))
        for index, (record, number) in enumerate(sources):
            image = record.image
            square = _square(record.phrases[number].boxes[0], image.size)
            piece = image.resize((self.cell, self.cell), Image.Resampling.BICUBIC, box=square)
            x, y, _, _ = self._cell_box(index)
            picture.paste(piece, (int(x), int(y)))
        return picture


def _compose(records: Sequence[Record]) -> list[tuple[_Cutting, ...]]:
    """Put each object into the first unfinished picture that it fits into."""
    finished: list[tuple[_Cutting, ...]] = []
    open_ones: list[tuple[list[_Cutting], set[str | tuple[str]]]] = []
    for index, record in enumerate(records):
        used: list[list[_Cutting]] = []
        for number, phrase in enumerate(record.phrases):
            if record.hard_negative is not None or not _is_suitable(phrase):
                continue
            names: set[str | tuple[str]] = set(re.findall(r"\w+", phrase.text.lower()))
            if phrase.label is not None:
                names.add((phrase.label,))  # a tuple, as it is no word of a caption
            fitting = (
                one
                for one in open_ones
                if not one[1] & names and all(one[0] is not u for u in used)
            )
            picture = next(fitting, None)
            if picture is None:
                picture = ([], set())
                open_ones.append(picture)
            picture[0].append(_Cutting(index, number))
            picture[1].update(names)
            used.append(picture[0])
            if len(picture[0]) == N_CELLS:
                finished.append(tuple(picture[0]))
                open_ones = [one for one in open_ones if one is not picture]
    return finished


def _is_suitable(phrase: Phrase) -> bool:
    if len(phrase.boxes) != 1:
        return False
    x0, y0, x1, y1 = phrase.boxes[0]
    return min(x1 - x0, y1 - y0) >= MIN_SIDE


def _article(record: Record, phrase: Phrase) -> str:
    """The article before the phrase in its own caption, with a space; empty if there is none."""
    before = re.search(r"\b(an?|the|one)\s+$", record.caption[: phrase.span[0]], re.IGNORECASE)
    return f"{before[1].lower()} " if before else ""


def _square(box: Box, size: tuple[int, int]) -> Box:
    """A square around a box, moved into the image and no larger than it."""
    x0, y0, x1, y1 = box
    side = min(MARGIN * max(x1 - x0, y1 - y0), *size)
    ends = [
        max(0.0, min((low + high - side) / 2, length - side))
        for low, high, length in ((x0, x1, size[0]), (y0, y1, size[1]))
    ]
    return ends[0], ends[1], ends[0] + side, ends[1] + side
