"""An index of 100,000 generated captions, to be killed and started again.

    torchrun --nproc-per-node 2 -m benchmarks.large_index FOLDER [--items 100000]

Started again with the same folder it computes the files that are missing. When nothing is missing
it checks all checksums, and compares some items with factors computed directly.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
import torch

from captum_interactions import SecondOrderIntegratedGradients, load_demo
from captum_interactions.corpus import build_index

COLOURS = ("red", "green", "blue", "purple", "orange", "yellow", "black", "white", "pink", "brown")
SHAPES = ("circle", "square", "triangle", "diamond", "star", "heart", "cross", "ring", "hexagon")
OPTIONS: dict[str, Any] = {"layers": (-1, -1), "n_steps": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--items", type=int, default=100_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    is_first = os.environ.get("RANK", "0") == "0"
    wrapper, _ = load_demo(1)
    texts = captions(options.items)
    index = build_index(options.folder, wrapper, texts, side="b", show_progress=is_first, **OPTIONS)
    if len(index) == options.items:
        index.verify()
        explainer = SecondOrderIntegratedGradients(wrapper, OPTIONS["layers"])
        worst = 0.0
        for key in list(texts)[:: len(texts) // 20]:
            ids, extras, _ = wrapper.tower_b.prepare([texts[key]])
            factors = explainer.factors_b(ids, None, *extras, n_steps=OPTIONS["n_steps"]).values[0]
            error = (index[key].values - factors).abs().max() / factors.abs().max()
            worst = max(worst, float(error))
        print(f"{len(index)} items, largest error of a factor {worst:.1e} of its item's largest")


def captions(count: int) -> dict[str, str]:
    """Captions by their keys."""
    rng = np.random.default_rng(1)
    words = (COLOURS, SHAPES, COLOURS, SHAPES)
    return {
        f"caption {i}": "a {} {} and a {} {}".format(*(rng.choice(some) for some in words))
        for i in range(count)
    }


if __name__ == "__main__":
    main()
