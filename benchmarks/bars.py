"""The bars that speed and memory are held to, and what was measured.

    python -m benchmarks.bars [--results FILE] [--threads 2]

Takes the measurements of ``python -m benchmarks.speed`` from its file; those that are missing are
taken first (the oracle of ViT-B/16 takes minutes and 8 GB). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.measure import Results, fastest, large_product
from benchmarks.speed import RESULTS, difference, fresh
from captum_interactions.functional import Factors

Values = dict[str, dict[str, Any]]


class Bar(NamedTuple):
    """What is measured, and what it must reach."""

    what: str
    bar: str
    value: Callable[[Values], float]
    shown: str
    """Format of the value."""
    reached: Callable[[float], bool]
    needs: tuple[str, ...]
    """Names of measurements."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    results = Results(options.results)
    for bar in BARS:
        for name in bar.needs:
            if name == ALL_PAIRS:
                results.get(name, lambda: _all_pairs(options.threads))
            else:
                results.get(name, fresh(*name.rsplit(": ", 1), options.threads))
    print("| case | bar | measured | |")
    print("|---|---|---|---|")
    for bar in BARS:
        value = bar.value(results.values)
        mark = "reached" if bar.reached(value) else "missed"
        print(f"| {bar.what} | {bar.bar} | {bar.shown.format(value)} | {mark} |")


def _passes(values: Values, name: str) -> float:
    return float(values[name]["seconds"] / values[name]["forward"])


def _ratio(name: str, other: str) -> Callable[[Values], float]:
    return lambda values: _passes(values, name) / _passes(values, other)


def _all_pairs(n_threads: int) -> dict[str, Any]:
    """All maps of 1,000 images and 1,000 captions at the size of ViT-B/32, block by block.

    Together they are 2.4 GB, which nobody keeps: images go in blocks of 50.
    """
    torch.set_num_threads(n_threads)
    images, texts = torch.randn(1000, 50, 512), torch.randn(1000, 12, 512)
    nothing = torch.zeros(1000, 512)
    b = Factors(texts, nothing, nothing)
    blocks = [Factors(part, nothing[:50], nothing[:50]) for part in images.split(50)]

    def run() -> None:
        for block in blocks:
            block @ b

    product, work = large_product()
    taken, multiplying = fastest(run, product)
    return {"seconds": taken, "floor": 2 * 50_000 * 12_000 * 512 * multiplying / work}


ALL_PAIRS = "all pairs of 1,000 and 1,000, B/32"
FACTS = "B/32 last block", "B/16 last block"
BARS = (
    *(
        Bar(
            f"full map, {name}, 12 tokens, N = 10, against the oracle",
            f"≥ {bar}×",
            _ratio(f"{name}: oracle", f"{name}: map"),
            "{:.0f}×",
            lambda value, bar=bar: value >= bar,
            (f"{name}: map", f"{name}: oracle"),
        )
        for name, bar in zip(FACTS, (150, 200), strict=True)
    ),
    *(
        Bar(
            f"the same, of the map's maximum: largest difference, {name}",
            "≤ 1e-5",
            lambda values, name=name: difference(
                {program: values[f"{name}: {program}"] for program in ("map", "oracle")}
            ),
            "{:.1e}",
            lambda value: value <= 1e-5,
            (f"{name}: map", f"{name}: oracle"),
        )
        for name in FACTS
    ),
    *(
        Bar(
            f"full map, {name}{more}, in forward passes of the pair",
            f"≤ {bar}",
            lambda values, name=name, more=more: _passes(values, f"{name}{more}: map"),
            "{:.2f}",
            lambda value, bar=bar: value <= bar,
            (f"{name}{more}: map",),
        )
        for name in FACTS
        for more, bar in (("", 3), (", to 1e-3", 2))
    ),
    *(
        Bar(
            f"full map, {name}, against Captum's LayerIntegratedGradients of the score",
            "≤ 1.0×",
            _ratio(f"{name}: map", f"{name}: captum"),
            "{:.2f}×",
            lambda value: value <= 1.0,
            (f"{name}: map", f"{name}: captum"),
        )
        for name in FACTS
    ),
    *(
        Bar(
            f"full map, {name}, 12 tokens, N = 20, against Captum's LayerIntegratedGradients there",
            "≤ 6×",
            _ratio(f"{name}: map", f"{name}: captum"),
            "{:.2f}×",
            lambda value: value <= 6.0,
            (f"{name}: map", f"{name}: captum"),
        )
        for name in ("B/32 embeddings", "B/16 embeddings")
    ),
    *(
        Bar(
            f"{name} to heat map, against Captum's integrated gradients",
            "≤ 1.2×",
            _ratio(f"{name}: map", f"{name}: captum"),
            "{:.2f}×",
            lambda value: value <= 1.2,
            (f"{name}: map", f"{name}: captum"),
        )
        for name in ("B/32 last block, phrase", "B/16 last block, phrase")
    ),
    Bar(
        "extra peak memory, B/16 last block, 16 tokens",
        "≤ 400 MB",
        lambda values: float(values["B/16 last block, 16 tokens: map"]["extra_mb"]),
        "{:.0f} MB",
        lambda value: value <= 400,
        ("B/16 last block, 16 tokens: map",),
    ),
    Bar(
        f"{ALL_PAIRS}, from factors: share of the machine's matmul rate",
        "≥ 60 %",
        lambda values: values[ALL_PAIRS]["floor"] / values[ALL_PAIRS]["seconds"],
        "{:.0%}",
        lambda value: value >= 0.6,
        (ALL_PAIRS,),
    ),
    Bar(
        "share of the floor, B/16 last block, 8 pairs",
        "≥ 60 %",
        lambda values: (
            values["B/16 last block, 8 pairs: map"]["floor"]
            / values["B/16 last block, 8 pairs: map"]["seconds"]
        ),
        "{:.0%}",
        lambda value: value >= 0.6,
        ("B/16 last block, 8 pairs: map",),
    ),
)


if __name__ == "__main__":
    main()
