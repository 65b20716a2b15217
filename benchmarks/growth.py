"""How time and memory of a full map grow with tokens, patches, steps and pairs.

    python -m benchmarks.growth [--threads 2] [--figure docs/_static/growth.png]

At the size of CLIP ViT-B/32 with random weights; one thing grows, the others stay at 12 tokens, 49
patches, ten steps and one pair. The largest numbers are for the last block alone: at the embeddings
they take minutes. Time is in plain forward passes of one pair of the size that all
start from. Every point runs in a fresh process and is kept in a JSON file. Prints a Markdown table
and draws a figure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Results, fastest, in_fresh_process, memory_mb, reset_peak_mb
from benchmarks.models import clip, pair
from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.visualization.charts import (
    LETTERS,
    add_legend,
    line_style,
    new_chart,
    set_heading,
)

AXES: dict[str, tuple[int, ...]] = {
    "tokens": (6, 12, 24, 48, 77),
    "patches": (49, 100, 196, 400),
    "steps": (5, 10, 20, 40, 80),
    "pairs": (1, 2, 4, 8, 16),
}
DEFAULTS = {"tokens": 12, "patches": 49, "steps": 10, "pairs": 1}
LAYERS = {"last block": (-1, -1), "embeddings": (0, 0)}
RESULTS = Path("benchmarks/results/growth.json")


def main() -> None:
    options = _parser().parse_args()
    if options.point is not None:
        print(json.dumps(measure(options.layers, json.loads(options.point), options.threads)))
        return
    results = Results(options.results)
    print("| layers | what grows | number | forward passes of a pair | extra peak, MB |")
    print("|---|---|---|---|---|")
    for layers in LAYERS:
        for axis in AXES:
            for number in numbers_of(layers, axis):
                point = json.dumps({**DEFAULTS, axis: number})
                arguments = ["--layers", layers, "--point", point, "--threads", options.threads]
                result = results.get(
                    f"{layers}, {number} {axis}",
                    lambda arguments=arguments: in_fresh_process(
                        "benchmarks.growth", arguments, options.threads
                    ),
                )
                passes = result["seconds"] / result["forward"]
                print(
                    f"| {layers} | {axis} | {number} | {passes:.2f} | {result['extra_mb']:.0f} |",
                    flush=True,
                )
    draw(results.values, options.figure)


def numbers_of(layers: str, axis: str) -> tuple[int, ...]:
    """What is measured at a layer."""
    return AXES[axis] if layers == "last block" else AXES[axis][:3]


def measure(layers: str, size: dict[str, int], n_threads: int) -> dict[str, Any]:
    """Time and memory of one map, in this process, and time of the plain pass of one pair."""
    torch.set_num_threads(n_threads)
    side = 32 * round(size["patches"] ** 0.5)
    wrapper = wrap(clip(32, side))
    inputs = pair(size["tokens"], size["pairs"], side)
    plain, plain_inputs = wrap(clip(32)), pair(DEFAULTS["tokens"])
    explainer = SecondOrderIntegratedGradients(wrapper, LAYERS[layers])

    def forward() -> None:
        with torch.no_grad():
            plain(*plain_inputs)

    def run() -> None:
        explainer.attribute(inputs, n_steps=size["steps"])

    before = reset_peak_mb()
    run()
    extra = memory_mb("VmHWM") - before
    taken, passing = fastest(run, forward, limit=20)
    return {"seconds": taken, "forward": passing, "extra_mb": extra}


TITLES = {
    "tokens": "tokens of the text",
    "patches": "patches of the image",
    "steps": "steps",
    "pairs": "pairs in a batch",
}


def draw(values: dict[str, dict[str, Any]], path: Path) -> None:
    """A row for each thing that grows: time and memory, for both layers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.ticker import LogLocator

    figure, grid = new_chart(8.2, len(AXES), 2)
    for row, axis in enumerate(AXES):
        for place, layers in enumerate(LAYERS):
            numbers = numbers_of(layers, axis)
            rows = [values[f"{layers}, {number} {axis}"] for number in numbers]
            passes = [one["seconds"] / one["forward"] for one in rows]
            extra = [max(one["extra_mb"], 1) for one in rows]
            colour, mark, _ = line_style(place)
            for panel, heights in zip(grid[row], (passes, extra), strict=True):
                panel.plot(numbers, heights, color=colour, marker=mark, label=layers)
        for panel in grid[row]:
            panel.set(xscale="log", yscale="log", xlabel=TITLES[axis])
            panel.set_xticks(AXES[axis], [str(number) for number in AXES[axis]])
            panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.minorticks_off()
            panel.grid(color="0.9")
    for panel, name in zip(
        grid[0], ("forward passes of a pair", "extra peak memory, MB"), strict=True
    ):
        panel.set_title(name, fontsize=LETTERS)
    add_legend(figure, grid[0][0], columns=2)
    set_heading(figure, "Time and memory of a full map of ViT-B/32 as one size grows")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--figure", type=Path, default=Path("docs/_static/growth.png"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--layers", choices=LAYERS, default="last block", help=argparse.SUPPRESS)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
