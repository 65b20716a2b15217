"""Time and memory of maps against the oracle, Captum, the forward pass and the floor.

    python -m benchmarks.speed [--quick] [--cases NAME ...] [--programs NAME ...] [--show]
        [--threads 2]

Models have random weights. Every measurement runs in a fresh process, which makes its peak memory
its own, and is kept in a JSON file: a run that was interrupted goes on where it was. Prints a
Markdown table; ``--show`` prints what the file holds already.

The programs are:

map       the attribution of this package
captum    Captum's LayerIntegratedGradients of the score at the same layer of a's encoder, with the
          same rule and number of steps; "to 1e-3", with as many steps as it needs for that
oracle    one gradient for each dimension of the embedding, the matrix over all pairs of features,
          sums over the features of each token. It is run in full for the last blocks of ViT-B;
          elsewhere (marked ~) its time is extrapolated from 4 and 12 of the dimensions, in which it
          is linear; at ViT-L/14 its matrix alone takes 10 GB, and it is left out

Each is timed in turns with the plain forward pass of the pairs and with a large matrix product, and
the shortest times count; the oracle, which takes long, once, between turns of the map and of the
forward pass in its own process. The floor is the time that the operations of the program's own
matrix products take at the rate of the large one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor

from benchmarks.measure import (
    Results,
    counted,
    fastest,
    in_fresh_process,
    large_product,
    memory_mb,
    reset_peak_mb,
)
from benchmarks.models import inputs_of, wrapped
from captum_interactions import DualEncoderWrapper, SecondOrderIntegratedGradients
from captum_interactions.functional import quadrature
from tests.oracle import entering, replaced_input, token_map

RESULTS = Path("benchmarks/results/speed.json")
PROGRAMS = ("map", "captum", "oracle")
EXTRAPOLATED = (4, 12)
"""Numbers of dimensions from which the oracle's time is extrapolated."""


class Case(NamedTuple):
    """What is explained."""

    model: str
    layers: tuple[int | str, int | str]
    batch: int = 1
    n_tokens: int = 12
    n_steps: int | str | tuple[int, int] = 10
    method: str = "riemann_right"
    what: str = "map"
    """``"map"``, ``"phrase"`` or ``"pixels"``."""
    cache_baselines: bool = False
    programs: tuple[str, ...] = PROGRAMS
    quick: bool = False
    whole_oracle: bool = False


LAST, MIDDLE, FIRST, POOL = (-1, -1), (6, 6), (0, 0), ("pool", -1)
MAP_ONLY, NO_ORACLE = ("map",), ("map", "captum")
GAUSS: dict[str, Any] = {"n_steps": 20, "method": "gausslegendre"}
CASES = {
    "B/32 last block": Case("B/32", LAST, quick=True, whole_oracle=True),
    "B/16 last block": Case("B/16", LAST, whole_oracle=True),
    "L/14 last block": Case("L/14", LAST, programs=NO_ORACLE),
    "SigLIP pooling": Case("SigLIP", POOL, quick=True),
    "MiniLM last block": Case("MiniLM", LAST, quick=True),
    "MiniLM pooling": Case("MiniLM", ("pool", "pool"), programs=MAP_ONLY, quick=True),
    "B/32 last block, to 1e-3": Case(
        "B/32", LAST, n_steps="auto", method="gausslegendre", programs=MAP_ONLY, quick=True
    ),
    "B/16 last block, to 1e-3": Case(
        "B/16", LAST, n_steps="auto", method="gausslegendre", programs=MAP_ONLY
    ),
    "B/32 last block, N for 1e-3 known": Case(
        "B/32", LAST, n_steps=(5, 3), method="gausslegendre", programs=MAP_ONLY, quick=True
    ),
    "B/16 last block, N for 1e-3 known": Case(
        "B/16", LAST, n_steps=(5, 3), method="gausslegendre", programs=MAP_ONLY
    ),
    "B/32 last block, cached baselines": Case(
        "B/32", LAST, cache_baselines=True, programs=MAP_ONLY
    ),
    "B/16 last block, cached baselines": Case(
        "B/16", LAST, cache_baselines=True, programs=MAP_ONLY
    ),
    "B/32 last block, phrase": Case("B/32", LAST, what="phrase", programs=NO_ORACLE, quick=True),
    "B/16 last block, phrase": Case("B/16", LAST, what="phrase", programs=NO_ORACLE),
    "B/16 last block, 16 tokens": Case("B/16", LAST, n_tokens=16, programs=MAP_ONLY),
    "B/32 last block, 8 pairs": Case("B/32", LAST, 8, programs=NO_ORACLE, quick=True),
    "B/16 last block, 8 pairs": Case("B/16", LAST, 8, programs=NO_ORACLE),
    "B/32 last block, 64 pairs": Case("B/32", LAST, 64, programs=MAP_ONLY),
    "MiniLM last block, 64 pairs": Case("MiniLM", LAST, 64, programs=MAP_ONLY),
    "MiniLM middle block": Case("MiniLM", (3, 3), **GAUSS),
    "MiniLM embeddings": Case("MiniLM", FIRST, **GAUSS),
    "B/32 middle block": Case("B/32", MIDDLE, **GAUSS),
    "B/32 embeddings": Case("B/32", FIRST, **GAUSS),
    "B/32 embeddings, N = 10": Case("B/32", FIRST, method="gausslegendre", programs=MAP_ONLY),
    "B/16 embeddings, N = 10": Case("B/16", FIRST, method="gausslegendre", programs=MAP_ONLY),
    "B/32 embeddings, phrase": Case("B/32", FIRST, what="phrase", programs=NO_ORACLE, **GAUSS),
    "B/32 pixels": Case("B/32", ("input", -1), what="pixels", programs=NO_ORACLE, **GAUSS),
    "B/16 middle block": Case("B/16", MIDDLE, programs=NO_ORACLE, **GAUSS),
    "B/16 embeddings": Case("B/16", FIRST, programs=NO_ORACLE, **GAUSS),
    "B/32 embeddings, to 1e-3": Case(
        "B/32", FIRST, n_steps="auto", method="gausslegendre", programs=NO_ORACLE
    ),
    "bundled model, embeddings, to 1e-3": Case(
        "bundled", FIRST, n_steps="auto", method="gausslegendre", programs=NO_ORACLE
    ),
    "L/14 middle block": Case("L/14", (12, 6), programs=NO_ORACLE, **GAUSS),
    "L/14 embeddings": Case("L/14", FIRST, programs=NO_ORACLE, **GAUSS),
}


def main() -> None:
    options = _parser().parse_args()
    if options.measure is not None:
        print(json.dumps(measure(CASES[options.measure], options.programs[0], options.threads)))
        return
    results = Results(options.results)
    names = (
        []
        if options.show
        else options.cases
        or [name for name, case in CASES.items() if case.quick or not options.quick]
    )
    for name in names:
        for program in CASES[name].programs:
            if program in options.programs and not (options.quick and program == "oracle"):
                results.get(f"{name}: {program}", fresh(name, program, options.threads))
                print(f"{name}: {program}", file=sys.stderr, flush=True)
    print(table(results.values))


def measure(case: Case, program: str, n_threads: int) -> dict[str, Any]:
    """One measurement, in this process."""
    torch.set_num_threads(n_threads)
    wrapper = wrapped(case.model)
    inputs = inputs_of(case.model, case.n_tokens, case.batch)
    if program == "oracle" and not case.whole_oracle:
        return _extrapolated(wrapper, inputs, case)
    explainer = SecondOrderIntegratedGradients(wrapper, case.layers, normalization="none")
    kept = wrapper.caching_baselines() if case.cache_baselines else nullcontext()
    with kept:
        return _measured(explainer, inputs, case, program)


def _measured(
    explainer: SecondOrderIntegratedGradients,
    inputs: tuple[Tensor, Tensor],
    case: Case,
    program: str,
) -> dict[str, Any]:
    runs = {"map": _map, "captum": _captum, "oracle": _oracle}
    run = runs[program](explainer, inputs, case)
    forward = _forward(explainer.wrapper, inputs)
    before = reset_peak_mb()
    # The oracle's many small operations are not worth counting.
    values, work = (run(), None) if program == "oracle" else counted(run)
    extra = memory_mb("VmHWM") - before
    product, size = large_product()
    mapping = None
    if program == "oracle":
        # It takes minutes, and the machine is quicker at one time than at another.
        others = (_map(explainer, inputs, case), forward, product)
        first = fastest(*others, repeats=20, limit=20)
        (taken,) = fastest(run, repeats=0)
        last = fastest(*others, repeats=20, limit=20)
        mapping, passing, multiplying = map(min, first, last)
    else:
        taken, passing, multiplying = fastest(run, forward, product, repeats=40, limit=30)
    rate = size / multiplying
    deltas = {
        "map": partial(_delta, explainer, inputs, case),
        "captum": partial(_delta_of_captum, run) if case.layers[0] != "input" else lambda: None,
    }
    keep = program != "captum" and values.numel() < 1e4
    return {
        "seconds": taken,
        "forward": passing,
        "map": mapping,
        "extra_mb": extra,
        "floor": None if work is None else work / rate,
        "gflop_per_second": rate / 1e9,
        "n_steps": explainer.n_steps_used,
        "delta": deltas[program]() if program in deltas else None,
        "values": values.flatten().tolist() if keep else None,
    }


def _forward(wrapper: DualEncoderWrapper, inputs: tuple[Tensor, Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.no_grad():
            return wrapper(*inputs)

    return run


def _map(
    explainer: SecondOrderIntegratedGradients, inputs: tuple[Tensor, Tensor], case: Case
) -> Callable[[], Tensor]:
    more: dict[str, Any] = {}
    if case.what == "phrase":
        more["groups_b"] = [list(range(3, 6))]
    elif case.what == "pixels":
        more.update(groups_b=[list(range(3, 6))], full_resolution="a")
    return lambda: explainer.attribute(inputs, n_steps=case.n_steps, method=case.method, **more)


def _delta(
    explainer: SecondOrderIntegratedGradients, inputs: tuple[Tensor, Tensor], case: Case
) -> float | None:
    """The largest convergence delta, as a share of what the interactions should sum to."""
    if case.what != "map":
        return None
    imap, delta = explainer.attribute(
        inputs, n_steps=case.n_steps, method=case.method, return_convergence_delta=True
    )
    return float((delta / (imap.flatten(1).sum(1) - delta)).abs().max())


def _captum(
    explainer: SecondOrderIntegratedGradients, inputs: tuple[Tensor, Tensor], case: Case
) -> Callable[[], Tensor]:
    wrapper, index = explainer.wrapper, explainer.layers[0]
    common: dict[str, Any] = {"n_steps": case.n_steps, "method": case.method}
    common["internal_batch_size"] = 20 * case.batch
    if index == "input":
        from captum.attr import IntegratedGradients

        gradients = IntegratedGradients(wrapper)
        common["additional_forward_args"] = inputs[1]
        return lambda: gradients.attribute(inputs[0], **common)
    a = wrapper.tower_a
    # What a block gets is the output of what comes before it.
    first = "embeddings" if case.model == "MiniLM" else "vision_model.pre_layrnorm"
    if index == "pool":
        first = a.pool.module
    before = a.model.get_submodule(first) if index in (0, "pool") else a.blocks[index - 1]
    layer = LayerIntegratedGradients(wrapper, before)
    baseline = a.baseline(inputs[0])

    def run(**more: Any) -> Any:
        options = {**common, **more, "additional_forward_args": inputs[1]}
        return layer.attribute(inputs[0], baseline, **options)

    return partial(run, n_steps=_enough_steps(run)) if case.n_steps == "auto" else run


def _delta_of_captum(run: Callable[..., Any], **options: Any) -> float:
    """The largest convergence delta, as a share of the score's difference."""
    attributions, delta = run(return_convergence_delta=True, **options)
    return float(abs(delta).max() / abs(attributions.sum() - delta.sum()))


def _enough_steps(run: Callable[..., Any], tolerance: float = 1e-3) -> int:
    """Steps that bring Captum's convergence delta below a share of the score's difference."""
    for n_steps in (5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160):
        if _delta_of_captum(run, n_steps=n_steps) <= tolerance:
            return n_steps
    raise RuntimeError(f"Captum's delta is above {tolerance} with {n_steps} steps")


def _oracle(
    explainer: SecondOrderIntegratedGradients,
    inputs: tuple[Tensor, Tensor],
    case: Case,
    n_dimensions: int | None = None,
) -> Callable[[], Tensor]:
    rule = quadrature(case.method, int(case.n_steps))
    towers = (explainer.wrapper.tower_a, explainer.wrapper.tower_b)
    paths, functions = [], []
    for tower, layer, one in zip(towers, explainer.layers, inputs, strict=True):
        block = tower.blocks[layer] if layer != "pool" else tower.model.vision_model.head
        # In one run, as the attribution does it: rounding depends on the size of the batch.
        both = torch.cat([one, tower.baseline(one)])
        end, start = entering(block, lambda tower=tower, both=both: tower.encode(both))
        paths.append((start, end))

        def function(states, tower=tower, block=block, one=one):  # type: ignore[no-untyped-def]
            with replaced_input(block, states):
                output = tower.encode(one.expand(len(states), *one.shape[1:]))
            return output[:, :n_dimensions]

        functions.append(function)
    return lambda: token_map(*functions, *paths, *rule)


def _extrapolated(
    wrapper: DualEncoderWrapper, inputs: tuple[Tensor, Tensor], case: Case
) -> dict[str, Any]:
    explainer = SecondOrderIntegratedGradients(wrapper, case.layers, normalization="none")
    few, more = EXTRAPOLATED
    runs = [_oracle(explainer, inputs, case, n) for n in EXTRAPOLATED]
    mapping = _map(explainer, inputs, case)
    *times, passing, taken = fastest(*runs, _forward(wrapper, inputs), mapping, repeats=2, limit=45)
    slope = (times[1] - times[0]) / (more - few)
    dimension = wrapper.encode_b(inputs[1]).shape[1]
    total = times[0] + slope * (dimension - few)
    return {
        "seconds": total,
        "forward": passing,
        "map": taken,
        "extra_mb": None,
        "floor": None,
        "values": None,
        "extrapolated_from": EXTRAPOLATED,
    }


def table(values: dict[str, dict[str, Any]]) -> str:
    """All measurements as a Markdown table, with the largest differences from the oracle."""
    columns = (
        "case",
        "program",
        "time, s",
        "forward passes",
        "× faster than the oracle",
        "time of Captum's",
        "share of the floor",
        "extra peak, MB",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    errors = []
    for name in CASES:
        rows = {p: values[f"{name}: {p}"] for p in PROGRAMS if f"{name}: {p}" in values}
        for program, row in rows.items():
            # Passes of the same process, which are the same work everywhere.
            passes = row["seconds"] / row["forward"]
            speed, share, times, extra = ["–"] * 4
            if "oracle" in rows:
                speed = f"{times_faster(rows, program):.1f}"
            if "captum" in rows:
                captum = rows["captum"]["seconds"] / rows["captum"]["forward"]
                times = f"{passes / captum:.2f}"
            if row["floor"] is not None:
                share = f"{row['floor'] / row['seconds']:.0%}"
            if row["extra_mb"] is not None:
                extra = f"{row['extra_mb']:.0f}"
            mark = "~" if "extrapolated_from" in row else ""
            lines.append(
                f"| {name} | {program} | {mark}{row['seconds']:.3f} | {mark}{passes:.2f} | {speed} "
                f"| {times} | {share} | {extra} |"
            )
        error = difference(rows)
        if error is not None:
            errors.append(f"{error:.1e} ({name})")
    if errors:
        lines += [
            "",
            f"Largest difference of map and oracle, of the map's maximum: {', '.join(errors)}.",
        ]
    return "\n".join(lines)


def times_faster(rows: dict[str, dict[str, Any]], program: str = "map") -> float:
    """How many times faster than the oracle a program is; the map, in the oracle's own process."""
    oracle, row = rows["oracle"], rows[program]
    if program == "map":
        return float(oracle["seconds"] / oracle["map"])
    return float(oracle["seconds"] / oracle["forward"] * row["forward"] / row["seconds"])


def difference(rows: dict[str, dict[str, Any]]) -> float | None:
    """Largest difference of map and oracle, relative to the map's maximum, if both are known."""
    both = [rows.get(program, {}).get("values") for program in ("map", "oracle")]
    if None in both:
        return None
    actual, expected = map(torch.tensor, both)
    return float((actual - expected).abs().max() / expected.abs().max())


def fresh(name: str, program: str, n_threads: int) -> Callable[[], dict[str, Any]]:
    arguments = ["--measure", name, "--programs", program, "--threads", n_threads]
    return lambda: in_fresh_process("benchmarks.speed", arguments, n_threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few cases, and no oracle")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    parser.add_argument("--cases", nargs="+", choices=CASES, metavar="NAME")
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=PROGRAMS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
