"""The bars that speed and memory are held to, and what was measured.

    python -m benchmarks.bars [--measure] [--results FILE] [--threads 2]

Takes the measurements of ``python -m benchmarks.speed`` from its file. With ``--measure``, those
that are missing are taken first (the oracle of ViT-B/16 takes minutes and 8 GB). Prints a Markdown
table.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from benchmarks.measure import Results, fastest, large_product
from benchmarks.models import inputs_of, wrapped
from benchmarks.speed import RESULTS, difference, fresh, times_faster
from captum_interactions import explain, load_demo
from captum_interactions.attr import BanzhafInteractions
from captum_interactions.attr._utils.products import Products
from captum_interactions.functional import Decomposition, Factors

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
    parser.add_argument("--measure", action="store_true", help="take what is missing")
    options = parser.parse_args()
    results = Results(options.results)
    names = (name for bar in BARS for name in bar.needs if options.measure)
    for name in names:
        if name in OWN:
            results.get(name, partial(OWN[name], options.threads))
        else:
            results.get(name, fresh(*name.rsplit(": ", 1), options.threads))
    print("| case | target | measured | |")
    print("|---|---|---|---|")
    for bar in BARS:
        print(row(bar, results.values))


def row(bar: Bar, values: Values) -> str:
    """A bar as a row of the table."""
    if not set(bar.needs) <= values.keys():
        return f"| {bar.what} | {bar.bar} | – | not measured |"
    value = bar.value(values)
    mark = "reached" if bar.reached(value) else "missed"
    return f"| {bar.what} | {bar.bar} | {bar.shown.format(value)} | {mark} |"


def _passes(values: Values, name: str) -> float:
    return float(values[name]["seconds"] / values[name]["forward"])


def _ratio(name: str, other: str) -> Callable[[Values], float]:
    return lambda values: _passes(values, name) / _passes(values, other)


def _delta_ratio(name: str, other: str) -> Callable[[Values], float]:
    return lambda values: values[name]["delta"] / values[other]["delta"]


def _faster(name: str) -> Callable[[Values], float]:
    return lambda values: times_faster(_rows(values, name))


def _rows(values: Values, name: str) -> Values:
    return {program: values[f"{name}: {program}"] for program in ("map", "oracle")}


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


def _one_pair(n_threads: int) -> dict[str, Any]:
    """``explain`` of a pair on the bundled model, and the Jacobian products of the same calls."""
    torch.set_num_threads(n_threads)
    wrapper, (scene,) = load_demo(1)
    times: list[float] = []
    decompose = Products.decompose

    def timed(*args: Any) -> Decomposition:
        start = time.perf_counter()
        parts = decompose(*args)
        times.append(time.perf_counter() - start)
        return parts

    with patch.object(Products, "decompose", timed):
        (taken,) = fastest(lambda: explain(wrapper, scene.image, scene.caption), repeats=20)
    return {"seconds": taken, "products": min(times)}


def _banzhaf(n_threads: int) -> dict[str, Any]:
    """Banzhaf interactions of a pair of the size of ViT-B/16, absent patches dropped.

    There are 512 coalitions of the patches and 48 of the words, with all and with none of either.
    """
    torch.set_num_threads(n_threads)
    banzhaf, inputs = BanzhafInteractions(wrapped("B/16")), inputs_of("B/16", 12)
    start = time.perf_counter()
    banzhaf.game(
        inputs, n_samples=(512, 48), masking=("attention", "baseline"),
        perturbations_per_eval=32, intra=False,
    )  # fmt: skip
    return {"seconds": time.perf_counter() - start}


def _localization(n_threads: int) -> dict[str, Any]:
    """The localization study of second-order IG on 256 scenes, with the start of the program."""
    with TemporaryDirectory() as folder:
        return _command(
            n_threads, "evaluate", "localization", "--limit", 256,
            "--methods", "second_order_integrated_gradients", "--output", folder,
        )  # fmt: skip


def _help(n_threads: int) -> dict[str, Any]:
    """The help text of the command line, the best of several."""
    runs = [_command(n_threads, "--help") for _ in range(5)]
    return min(runs, key=lambda run: float(run["cpu_seconds"]))


def _command(n_threads: int, *arguments: object) -> dict[str, Any]:
    """Time of a command in a fresh process, by the clock and of the CPU."""

    def cpu_seconds() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    command = [sys.executable, "-m", "captum_interactions", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads), "HF_HUB_OFFLINE": "1"}
    start, before = time.perf_counter(), cpu_seconds()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - before}


def _at_most(what: str, bar: float, name: str, other: str | None = None) -> Bar:
    """Passes of one measurement, or the ratio of its passes to those of another."""
    needs = (name,) if other is None else (name, other)
    unit = "" if other is None else "×"
    value = (lambda values: _passes(values, name)) if other is None else _ratio(name, other)
    return Bar(what, f"≤ {bar:g}{unit}", value, "{:.2f}" + unit, lambda got: got <= bar, needs)


def _seconds(what: str, bar: float, name: str, shown: str, field: str = "seconds") -> Bar:
    """A time of a measurement."""
    return Bar(
        what, f"≤ {bar:g} s", lambda values: float(values[name][field]), shown,
        lambda got: got <= bar, (name,),
    )  # fmt: skip


def _share(name: str) -> Callable[[Values], float]:
    return lambda values: float(values[name]["floor"] / values[name]["seconds"])


def _error(name: str) -> Callable[[Values], float]:
    return lambda values: difference(_rows(values, name)) or 0.0


ALL_PAIRS = "all pairs of 1,000 and 1,000, B/32"
ONE_PAIR = "explain of one pair on the bundled model"
BANZHAF = "Banzhaf interactions, B/16, 512 and 48 coalitions, absent patches dropped"
LOCALIZATION = "evaluate localization, 256 scenes, second-order IG"
HELP = "captum-interactions --help"
OWN: dict[str, Callable[[int], dict[str, Any]]] = {
    ALL_PAIRS: _all_pairs,
    ONE_PAIR: _one_pair,
    BANZHAF: _banzhaf,
    LOCALIZATION: _localization,
    HELP: _help,
}
"""Measurements of this program, by number of threads."""
MEMORY, EIGHT = "B/16 last block, 16 tokens: map", "B/16 last block, 8 pairs: map"
LAST = {"B/32 last block": 150, "B/16 last block": 200}
BARS = (
    *(
        Bar(
            f"full map, {name}, 12 tokens, N = 10, against the oracle",
            f"≥ {bar}×",
            _faster(name),
            "{:.0f}×",
            lambda got, bar=bar: got >= bar,
            (f"{name}: map", f"{name}: oracle"),
        )
        for name, bar in LAST.items()
    ),
    *(
        Bar(
            f"largest difference from the oracle, of the map's maximum, {name}",
            "≤ 1e-5",
            _error(name),
            "{:.1e}",
            lambda got: got <= 1e-5,
            (f"{name}: map", f"{name}: oracle"),
        )
        for name in LAST
    ),
    _at_most("full map, SigLIP pooling, in forward passes of the pair", 3, "SigLIP pooling: map"),
    *(
        _at_most(f"full map, {case}, in forward passes of the pair", bar, f"{case}: map")
        for name in LAST
        for case, bar in (
            (name, 3),
            (f"{name}, N for 1e-3 known", 2),
            (f"{name}, to 1e-3", 2),
        )
    ),
    *(
        Bar(
            f"convergence delta, of the interactions' sum, {case}",
            "≤ 1e-3",
            lambda values, case=case: values[f"{case}: map"]["delta"],
            "{:.1e}",
            lambda got: got <= 1e-3,
            (f"{case}: map",),
        )
        for name in LAST
        for case in (f"{name}, N for 1e-3 known", f"{name}, to 1e-3")
    ),
    *(
        _at_most(
            f"{what}, {name}, against Captum's LayerIntegratedGradients of the score",
            bar,
            f"{name}: map",
            f"{name}: captum",
        )
        for what, bar, names in (
            ("full map", 1.0, LAST),
            ("full map", 0.7, ["MiniLM last block"]),
            ("full map, 12 tokens, N = 20", 4.0, ("B/32 embeddings", "B/16 embeddings")),
            ("full map", 2.0, ["B/32 embeddings, to 1e-3"]),
            ("heat map", 1.2, [f"{name}, phrase" for name in LAST]),
        )
        for name in names
    ),
    *(
        bar
        for name in ("B/32 embeddings", "B/16 embeddings")
        for bar in (
            _at_most(
                f"full map, 12 tokens, N = 10, {name}, against Captum's "
                "LayerIntegratedGradients of the score, N = 20",
                4.0,
                f"{name}, N = 10: map",
                f"{name}: captum",
            ),
            Bar(
                f"its convergence delta, of the interactions' sum, against Captum's, of the "
                f"score's difference, {name}",
                "≤ 1×",
                _delta_ratio(f"{name}, N = 10: map", f"{name}: captum"),
                "{:.2f}×",
                lambda got: got <= 1,
                (f"{name}, N = 10: map", f"{name}: captum"),
            ),
        )
    ),
    Bar(
        "extra peak memory, B/16 last block, 16 tokens",
        "≤ 400 MB",
        lambda values: float(values[MEMORY]["extra_mb"]),
        "{:.0f} MB",
        lambda got: got <= 400,
        (MEMORY,),
    ),
    *(
        Bar(
            f"{name.partition(':')[0]}: share of the floor",
            "≥ 60 %",
            _share(name),
            "{:.0%}",
            lambda got: got >= 0.6,
            (name,),
        )
        for name in (ALL_PAIRS, EIGHT)
    ),
    Bar(
        f"{ONE_PAIR}, against its products",
        "≤ 1.5×",
        lambda values: float(values[ONE_PAIR]["seconds"] / values[ONE_PAIR]["products"]),
        "{:.2f}×",
        lambda got: got <= 1.5,
        (ONE_PAIR,),
    ),
    _seconds(BANZHAF, 60, BANZHAF, "{:.1f} s"),
    _seconds(LOCALIZATION, 180, LOCALIZATION, "{:.0f} s"),
    _seconds(f"`{HELP}`, CPU time", 0.3, HELP, "{:.2f} s", "cpu_seconds"),
)


if __name__ == "__main__":
    main()
