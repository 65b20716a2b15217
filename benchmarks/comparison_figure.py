"""The comparison of methods as a figure: where maps lie, where they point, and what they cost.

python -m benchmarks.comparison_figure comparison.jsonl comparison.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.comparison import Summary, chance, summaries

matplotlib.use("Agg")

COLOURS = {1: "#8a8f98", 2: "#1f6fb4"}


def draw(found: list[Summary], by_chance: float, path: Path) -> None:
    """Draw a row per method, the best median at the top, into an image file."""
    figure, (energy, pointing, cost) = plt.subplots(
        1, 3, figsize=(10, 0.3 * len(found) + 1.2), sharey=True, width_ratios=(5, 3, 3),
        layout="constrained",
    )  # fmt: skip
    rows = np.arange(len(found))[::-1]
    for row, one in zip(rows, found, strict=True):
        colour = COLOURS[one.order]
        low, high = np.quantile(one.inside, (0.25, 0.75))
        energy.plot([low, high], [row, row], color=colour, linewidth=3, alpha=0.35)
        energy.plot(one.median, row, "o", color=colour)
        pointing.plot([0, one.pointing], [row, row], color=colour, linewidth=1, alpha=0.35)
        pointing.plot(one.pointing, row, "o", color=colour, clip_on=False)
        cost.plot(one.seconds, row, "o", color=colour)
    energy.axvline(by_chance, color="black", linewidth=0.8, linestyle=":")
    energy.text(by_chance, len(found) - 0.3, " chance", fontsize=8, va="bottom", ha="center")
    names = [f"{one.name.replace('_', ' ')} ({one.n_scenes})" for one in found]
    energy.set_yticks(rows, names)
    energy.set_ylim(-0.7, len(found) - 0.3)
    energy.set_xlim(0, 1)
    energy.set_xlabel("share of positive attribution in the object's box:\nmedian and quartiles")
    pointing.set_xlim(0, 1)
    pointing.set_xlabel("pointing accuracy")
    cost.set_xscale("log")
    cost.set_xlabel("CPU seconds per pair,\nmedian")
    for axes in (energy, pointing, cost):
        axes.grid(axis="both", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(left=False)
        axes.spines[["top", "right", "left"]].set_visible(False)
    handles = [
        plt.Line2D([], [], color=colour, marker="o", linestyle="", label=label)
        for colour, label in ((COLOURS[2], "second order"), (COLOURS[1], "first order"))
    ]
    # Where the shares of the last rows are small.
    energy.legend(handles=handles, frameon=False, fontsize=9, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Draw the results of a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="what benchmarks.comparison has written")
    parser.add_argument("figure", type=Path, help="the image file to write")
    options = parser.parse_args()
    found = summaries(options.results)
    n_scenes = max(one.n_scenes for one in found)
    draw(found, float(np.median(chance(n_scenes))), options.figure)


if __name__ == "__main__":
    main()
