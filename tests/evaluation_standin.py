"""A study, records and a model that cost nothing; as a program, a study that can be killed.

    python -m tests.evaluation_standin OUTPUT N_RECORDS SECONDS_A_RECORD

The program can be started under torchrun. It ends with the process that started it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import torch
from PIL import Image
from torch import nn

from captum_interactions import wrap
from captum_interactions.datasets import Record
from captum_interactions.evaluation import Study, Summary, Table, processes, run_study, view
from tests.children import end_if_alone


@dataclass(frozen=True)
class Lengths(Study):
    """The length of each caption, by two variants; a caption may ask for trouble."""

    name = "lengths"
    title = "Lengths of captions"
    question = "how long captions are"

    scale: int = 1
    names: tuple[str, ...] = ("letters", "words")
    sleep: float = view(0.0)
    digits: int = view(3)
    _apart = ("names",)

    @property
    def variants(self):
        return {name: {"unit": name} for name in self.names}

    def declines(self, record):
        return "nothing is said" if not record.caption else None

    def measure(self, wrapper, variant, records):
        time.sleep(self.sleep * len(records))
        if any(record.caption == "fail" for record in records):
            raise RuntimeError(f"cannot read it, {len(records)} of them")
        if variant == "refused":
            raise ValueError(f"not defined: {len(records[0].caption)} is no number of mine")
        count = len if variant == "letters" else lambda text: len(text.split())
        return [
            {"length": self.scale * count(record.caption), "nothing": float("nan")}
            for record in records
        ]

    def summarise(self, rows, records):
        cells = [
            [name, sum(row.values["length"] for row in rows if row.variant == name)]
            for name in dict.fromkeys(row.variant for row in rows)
        ]
        return Summary({"totals": Table(("variant", "total"), cells)}, notes=["All counted."])


def image():
    return Image.new("RGB", (4, 4))


def records(captions):
    return [Record(f"r{i}", text, (), image, f"line {i}") for i, text in enumerate(captions)]


def captions(n):
    return ["a " * (1 + i % 7) + "b" * (i % 5) for i in range(n)]


def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return wrap((nn.Linear(4, 3), nn.Linear(5, 3)))


def run(folder, n, seconds):
    run_study(
        Lengths(sleep=seconds),
        model(),
        records(captions(n)),
        folder,
        dataset={"name": "captions"},
        batch_size=3,
        processes=processes("cpu"),
    )


if __name__ == "__main__":
    end_if_alone()
    run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
