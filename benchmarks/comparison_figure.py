"""The comparison of methods as a figure: where maps lie, where they point, and what they cost.

python -m benchmarks.comparison_figure comparison.jsonl comparison.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.comparison import Summary, chance, summaries, title_of
from captum_interactions.visualization.charts import (
    LETTERS,
    LINE_COLOURS,
    ROW,
    add_legend,
    name_rows,
    new_chart,
    set_heading,
)

matplotlib.use("Agg")

STYLES = {2: (LINE_COLOURS[0], "o", "second order"), 1: (LINE_COLOURS[1], "s", "first order")}


def draw(found: list[Summary], by_chance: float, path: Path) -> None:
    """Draw a row a method, the best median at the top, into an image file.

    Methods that were measured on fewer scenes stand below the others, apart: their ranks cannot be
    compared.
    """
    most = max(one.n_scenes for one in found)
    ordered = sorted(found, key=lambda one: one.n_scenes < most)  # keeps the order of the medians
    n_whole = sum(one.n_scenes == most for one in found)
    rows = np.arange(len(found), dtype=float)[::-1]
    is_apart = n_whole < len(found)
    rows[:n_whole] += is_apart
    height = ROW * (len(found) + is_apart) + 1.8
    figure, axes = new_chart(height, 1, 3, sharey=True, width_ratios=(5, 3, 3))
    energy, pointing, cost = axes[0]
    for row, one in zip(rows, ordered, strict=True):
        colour, mark, label = STYLES[one.order]
        low, high = np.quantile(one.inside, (0.25, 0.75))
        energy.plot(
            [low, high], [row, row], color=colour, linewidth=3, alpha=0.35, solid_capstyle="butt"
        )
        energy.plot(one.median, row, mark, color=colour)
        pointing.plot(one.pointing, row, mark, color=colour, clip_on=False)
        cost.plot(one.seconds, row, mark, color=colour)
    names = [
        title_of(one.name) + (f", {one.n_scenes} scenes" if one.n_scenes < most else "")
        for one in ordered
    ]
    name_rows(energy, list(rows), names)
    energy.axvline(by_chance, color="black", linewidth=0.8, linestyle=":")
    energy.set(xlim=(0, 1), xlabel="attribution in the box: median\nand quartiles (dotted: chance)")
    pointing.set(xlim=(0, 1), xlabel="pointing\naccuracy")
    cost.set(xscale="log", xlabel="CPU seconds\nfor one pair")
    for ax in axes[0]:
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.patch.set_visible(False)  # names of rows run through all panels
        ax.tick_params(left=False, labelleft=False)
        ax.spines["left"].set_visible(False)
        if is_apart:
            ax.axhline(len(found) - n_whole + 0.25, color="black", linewidth=0.8)
    if is_apart:
        energy.text(
            0.0, len(found) - n_whole - 0.2, "On fewer scenes, ranked apart:", fontsize=LETTERS,
            style="italic", transform=energy.get_yaxis_transform(), va="bottom", in_layout=False,
        )  # fmt: skip
    for colour, mark, label in STYLES.values():
        energy.plot([], [], mark, color=colour, label=label)
    add_legend(figure, energy, columns=2)
    set_heading(figure, f"Maps of phrases in {most} scenes: attribution, pointing and cost")
    figure.savefig(path, dpi=150, bbox_inches="tight")
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
