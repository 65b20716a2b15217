"""What each step of the hot path buys: the same maps with one of them taken back.

    python -m benchmarks.steps [--threads 2] [--results FILE]

Models have random weights, but for the bundled one. Every measurement runs in a fresh process, in
turns with the plain forward pass of the pairs, and is kept in a JSON file. Prints a Markdown table:
forward passes and extra peak memory, with everything on and with one thing off. Maps are compared
with the one that has everything on: nothing but rounding may change.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.measure import Results, fastest, in_fresh_process, memory_mb, reset_peak_mb
from benchmarks.models import inputs_of, wrapped
from captum_interactions import SecondOrderIntegratedGradients
from captum_interactions.attr._utils import inputs as attr_inputs
from captum_interactions.attr._utils.path import Integrand
from captum_interactions.attr._utils.path import Path as InputPath
from captum_interactions.attr._utils.products import Products
from captum_interactions.encoders.model import activations
from captum_interactions.encoders.towers import block_tower
from captum_interactions.functional import NotTwiceDifferentiableError

RESULTS = Path("benchmarks/results/steps.json")
CASES: dict[str, tuple[str, int, tuple[int, int], int]] = {
    "B/32 last block": ("B/32", 1, (-1, -1), 10),
    "B/16 last block, 8 pairs": ("B/16", 8, (-1, -1), 10),
    "MiniLM last block": ("MiniLM", 1, (-1, -1), 10),
    "MiniLM last block, 8 pairs": ("MiniLM", 8, (-1, -1), 10),
    "MiniLM embeddings": ("MiniLM", 1, (0, 0), 20),
    "bundled model, last block": ("bundled", 1, (-1, -1), 20),
}
"""Model, pairs, layers and number of steps."""


@contextmanager
def _one_by_one() -> Iterator[None]:
    with patch.object(Integrand, "is_faster_batched", lambda *_: False):
        yield


@contextmanager
def _states_formed() -> Iterator[None]:
    with patch.object(block_tower.BlockTower, "along", lambda *_: None):
        yield


@contextmanager
def _all_rows() -> Iterator[None]:
    with _states_formed(), patch.object(block_tower, "pre_norm_parts", lambda _: None):
        yield


@contextmanager
def _no_closed_form() -> Iterator[None]:
    with patch.object(block_tower, "post_norm_parts", lambda _: None):
        yield


@contextmanager
def _activations_in_parts() -> Iterator[None]:
    with patch.object(activations, "_NAMES", set()):
        yield


@contextmanager
def _inactive_tokens() -> Iterator[None]:
    with patch.object(InputPath, "active", property(lambda path: path.unmasked)):
        yield


@contextmanager
def _each_dimension() -> Iterator[None]:
    def refuse(*_: Any) -> Tensor:
        raise NotTwiceDifferentiableError("switched off")

    with patch.object(Products, "_push_forward", refuse):
        yield


@contextmanager
def _baselines_apart() -> Iterator[None]:
    propagate = attr_inputs.propagate

    def apart(tower: Any, layer: Any, inputs: Tensor, baselines: Any, extras: Any) -> Any:
        features, _, context = propagate(tower, layer, inputs, [], extras)
        others = [propagate(tower, layer, one, [], extras)[0] for one in baselines]
        return features, tuple(others), context

    with patch.object(attr_inputs, "propagate", apart):
        yield


SWITCHES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "everything on": nullcontext,
    "products one after the other": _one_by_one,
    "states of the path formed": _states_formed,
    "all rows of the last block": _all_rows,
    "last post-norm block differentiated automatically": _no_closed_form,
    "activations differentiated in parts": _activations_in_parts,
    "products for inactive tokens, too": _inactive_tokens,
    "a product for each dimension": _each_dimension,
    "baselines in passes of their own": _baselines_apart,
}


def main() -> None:
    options = _parser().parse_args()
    if options.measure is not None:
        print(json.dumps(measure(*options.measure, options.threads)))
        return
    results = Results(options.results)
    for case in CASES:
        for switch in SWITCHES:
            results.get(
                f"{case}: {switch}",
                lambda case=case, switch=switch: in_fresh_process(
                    "benchmarks.steps",
                    ["--measure", case, switch, "--threads", options.threads],
                    options.threads,
                ),
            )
    print(table(results.values))


def measure(case: str, switch: str, n_threads: int) -> dict[str, Any]:
    """Time and memory of one map, in this process."""
    torch.set_num_threads(n_threads)
    model, n_pairs, layers, n_steps = CASES[case]
    wrapper, inputs = wrapped(model), inputs_of(model, 12, n_pairs)
    explainer = SecondOrderIntegratedGradients(wrapper, layers)

    def forward() -> None:
        with torch.no_grad():
            wrapper(*inputs)

    def run() -> Tensor:
        with SWITCHES[switch]():
            return explainer.attribute(inputs, n_steps=n_steps)

    before = reset_peak_mb()
    values = run()
    extra = memory_mb("VmHWM") - before
    taken, passing = fastest(run, forward, repeats=20, limit=15)
    expected = explainer.attribute(inputs, n_steps=n_steps)
    error = float((values - expected).abs().max() / expected.abs().max())
    return {"seconds": taken, "forward": passing, "extra_mb": extra, "error": error}


def table(values: dict[str, dict[str, Any]]) -> str:
    """All measurements as a Markdown table."""
    lines = [
        "| case | what is different | passes | × the time | extra peak, MB | largest error |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        base = values[f"{case}: everything on"]
        for switch in SWITCHES:
            row = values[f"{case}: {switch}"]
            passes = row["seconds"] / row["forward"]
            times = passes * base["forward"] / base["seconds"]
            lines.append(
                f"| {case} | {switch} | {passes:.2f} | {times:.2f} | {row['extra_mb']:.0f} "
                f"| {row['error']:.0e} |"
            )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "SWITCH"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
