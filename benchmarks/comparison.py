"""Every attribution method on generated scenes: does its map find the object that a phrase names?

    python -m benchmarks.comparison --scenes 500 --results comparison.jsonl

Results are appended as they come, a line a method and scene, and runs go on where others stopped.
A table is printed at the end. Captions name two or three of several objects; a first-order method
has one map for all phrases.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from captum_interactions import explain, load_demo
from captum_interactions.attr import attributions
from captum_interactions.datasets.scenes import IMAGE_SIZE, Scene, Scenes
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.zoo.report import REPORT_SEED

OPTIONS: dict[str, dict[str, Any]] = {"banzhaf_interactions": {"n_samples": 512}}
"""Options of methods whose defaults are not meant for hundreds of pairs."""


@contextmanager
def counted_rows(wrapper: DualEncoderWrapper) -> Iterator[dict[str, int]]:
    """Number of inputs that each encoder embeds meanwhile."""
    rows = {"image": 0, "text": 0}
    handles = []
    for name, part in (("image", "visual_projection"), ("text", "text_projection")):

        def count(_: Any, __: Any, output: torch.Tensor, name: str = name) -> None:
            rows[name] += output[..., 0].numel()

        module = wrapper.tower_a.get_submodule(f"model.{part}")
        handles.append(module.register_forward_hook(count))
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def measure(wrapper: DualEncoderWrapper, scene: Scene, method: str) -> dict[str, Any]:
    """Explain one scene and look where the map of each phrase lies."""
    with counted_rows(wrapper) as rows, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        imap = explain(wrapper, scene.image, scene.caption, method, **OPTIONS.get(method, {}))
        seconds = time.perf_counter() - start
    axis = imap.axis_a
    result: dict[str, Any] = {"seconds": seconds, **rows, "inside": [], "pointed": []}
    for thing in scene.named:
        heat = imap.heatmap(thing.span).ravel()
        covered = axis.select(thing.box)[axis.patches]
        positive = heat.clip(0)
        total = float(positive.sum())
        result["inside"].append(float(positive @ covered) / total if total else None)
        result["pointed"].append(bool(covered[heat.argmax()] >= 0.5))
    return result


def crowded(count: int) -> list[Scene]:
    """The first scenes whose captions name more than one object."""
    scenes = Scenes(4 * count + 20, REPORT_SEED)
    return list(islice((scene for scene in scenes if len(scene.named) > 1), count))


def run(path: Path, n_scenes: int, names: list[str]) -> None:
    """Add what is missing to a file of results."""
    done = {(line["method"], line["scene"]) for line in read(path)}
    wrapper, _ = load_demo()
    scenes = crowded(n_scenes)
    with path.open("a") as file:
        for name in names:
            for index, scene in enumerate(tqdm(scenes, name, leave=False)):
                if (name, index) not in done:
                    result = measure(wrapper, scene, name)
                    print(json.dumps({"method": name, "scene": index, **result}), file=file)
                    file.flush()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(path: Path) -> Iterator[str]:
    """Lines of a Markdown table, the best median first."""
    by_method = defaultdict(list)
    for line in read(path):
        by_method[line["method"]].append(line)
    order = {info.name: info.order for info in attributions()}
    columns = ("method", "order", "PGE median", "PGE mean", "pointing", "undefined", "seconds")
    yield f"| {' | '.join((*columns, 'images', 'texts'))} |"
    yield "|---|---|---|---|---|---|---|---|---|"
    rows = []
    for name, lines in by_method.items():
        inside = [value for line in lines for value in line["inside"]]
        known = np.array([value for value in inside if value is not None])
        pointed = np.mean([value for line in lines for value in line["pointed"]])
        median = float(np.median(known)) if len(known) else 0.0
        means = [f"{np.mean([line[key] for line in lines]):.0f}" for key in ("image", "text")]
        cells = [f"{median:.3f}", f"{known.mean():.3f}", f"{pointed:.1%}"]
        cells += [f"{1 - len(known) / len(inside):.1%}"]
        cells += [f"{np.median([line['seconds'] for line in lines]):.3f}", *means]
        rows.append((median, f"| {name} | {order[name]} | {' | '.join(cells)} |"))
    yield from (row for _, row in sorted(rows, reverse=True))
    scenes = {line["scene"] for line in read(path)}
    boxes = np.array([o.box for scene in crowded(max(scenes) + 1) for o in scene.named])
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / IMAGE_SIZE**2
    yield (
        f"\n{len(scenes)} scenes, {len(boxes)} phrases; chance is the area of the boxes: median "
        f"{np.median(areas):.3f}, mean {areas.mean():.3f}.\n"
    )


def main() -> None:
    """Run the methods, and print the table."""
    known = [info.name for info in attributions()]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--results", type=Path, default=Path("comparison.jsonl"))
    parser.add_argument("--methods", nargs="*", default=known, choices=known, metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run(options.results, options.scenes, options.methods)
    print("\n".join(table(options.results)))


if __name__ == "__main__":
    main()
