"""Every attribution method on generated scenes: does its map find the object that a phrase names?

    python -m benchmarks.comparison --scenes 500 --results comparison.jsonl
    python -m benchmarks.comparison_figure comparison.jsonl comparison.png

Results are appended as they come, a line per method and scene, and runs go on where others stopped:
``--methods`` and ``--scenes`` choose what is added. A table of all that the file holds is printed
at the end, in which each method is compared with second-order integrated gradients on the scenes
that both have. Captions name two or three of several objects; a first-order method has one map for
all phrases. Times are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from captum_interactions import explain, load_demo
from captum_interactions.attr import attributions
from captum_interactions.datasets.scenes import IMAGE_SIZE, Scene, Scenes
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.statistics import Difference, holm, holm_note, paired_difference
from captum_interactions.evaluation.summary import Table
from captum_interactions.maps.titles import method_title
from captum_interactions.zoo import REPORT_SEED

OPTIONS: dict[str, dict[str, Any]] = {
    "banzhaf_interactions": {"n_samples": 512},
    "shapley_interactions": {"n_samples": 2336},
    "interaction_lime": {"n_samples": 500},
    "integrated_hessians": {"n_steps": 4},
    "occlusion": {"perturbations_per_eval": 16},
    "rise": {"n_samples": 500},
    "rise, centered": {"n_samples": 500, "centered": True},
}
"""Options of methods whose defaults are not meant for hundreds of pairs, and of variants."""

COMPARED = "second_order_integrated_gradients"
CASES = (*(info.name for info in attributions()), "rise, centered")
"""Names of methods, and of variants after a comma."""


_PLUS = "\N{NO-BREAK SPACE}+\N{NO-BREAK SPACE}"


class Summary(NamedTuple):
    """What the results of one method come to."""

    name: str
    order: int
    n_scenes: int
    inside: NDArray[np.float64]
    """Share of positive attribution inside the box of each phrase; chance where there is none."""
    undefined: float
    pointing: float
    seconds: float
    images: float
    texts: float
    difference: Difference
    """What the mean share of :data:`COMPARED` is higher by, on the scenes that both have."""

    @property
    def median(self) -> float:
        return float(np.median(self.inside))


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


def measure(wrapper: DualEncoderWrapper, scene: Scene, case: str) -> dict[str, Any]:
    """Explain one scene and look where the map of each phrase lies."""
    method, options = case.split(",")[0], OPTIONS.get(case, {})
    with counted_rows(wrapper) as rows, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.process_time()
        imap = explain(wrapper, scene.image, scene.caption, method, **options)
        seconds = time.process_time() - start
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


def run(path: Path, n_scenes: int, cases: list[str]) -> None:
    """Add what is missing to a file of results."""
    done = {(line["method"], line["scene"]) for line in read(path)}
    wrapper, _ = load_demo()
    scenes = crowded(n_scenes)
    with path.open("a") as file:
        for case in cases:
            missing = [index for index in range(n_scenes) if (case, index) not in done]
            for index in tqdm(missing, case, leave=False):
                try:
                    result = measure(wrapper, scenes[index], case)
                except ValueError as error:  # a method that this model has not all for
                    print(f"{case}: {error}\n")
                    break
                print(json.dumps({"method": case, "scene": index, **result}), file=file)
                file.flush()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summaries(path: Path) -> list[Summary]:
    """One of each method in a file of results, the best median first."""
    by_case: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    # Two runs at once may have done a scene twice.
    for line in read(path):
        by_case[line["method"]][line["scene"]] = line
    levels = chances(1 + max((scene for own in by_case.values() for scene in own), default=0))
    shares = {
        case: {scene: _shares(line, levels[scene]) for scene, line in own.items()}
        for case, own in by_case.items()
    }
    order = {info.name: info.order for info in attributions()}
    found = []
    for case, own in by_case.items():
        lines = list(own.values())
        undefined = [value is None for line in lines for value in line["inside"]]
        found.append(
            Summary(
                name=case,
                order=order[case.split(",")[0]],
                n_scenes=len(lines),
                inside=np.concatenate(list(shares[case].values())),
                undefined=float(np.mean(undefined)),
                pointing=float(np.mean([value for line in lines for value in line["pointed"]])),
                seconds=float(np.median([line["seconds"] for line in lines])),
                images=float(np.mean([line["image"] for line in lines])),
                texts=float(np.mean([line["text"] for line in lines])),
                difference=_difference(shares.get(COMPARED, {}), shares[case]),
            )
        )
    return sorted(found, key=lambda summary: -summary.median)


def _shares(line: dict[str, Any], levels: Sequence[float]) -> list[float]:
    inside = zip(line["inside"], levels, strict=True)
    return [level if value is None else value for value, level in inside]


def _difference(first: dict[int, list[float]], second: dict[int, list[float]]) -> Difference:
    """Of the phrases of common scenes; those of a scene are not independent."""
    common = sorted(first.keys() & second.keys())
    clusters = [scene for scene in common for _ in first[scene]]
    ours, theirs = ([value for scene in common for value in own[scene]] for own in (first, second))
    return paired_difference(ours, theirs, clusters)


def chance(n_scenes: int) -> NDArray[np.float64]:
    """Shares of the image that the boxes of all phrases cover."""
    return np.concatenate(chances(n_scenes))


@lru_cache  # scenes are rendered for it
def chances(n_scenes: int) -> tuple[tuple[float, ...], ...]:
    """Shares of the image that the boxes of each scene's phrases cover."""
    return tuple(
        tuple(
            (thing.box[2] - thing.box[0]) * (thing.box[3] - thing.box[1]) / IMAGE_SIZE**2
            for thing in scene.named
        )
        for scene in crowded(n_scenes)
    )


def title_of(case: str) -> str:
    """``"rise, centered"`` is a method with an option."""
    method, comma, option = case.partition(",")
    return method_title(method) + comma + option


def _listed(values: dict[str, str]) -> str:
    """Values of some methods in parentheses, or nothing."""
    said = ", ".join(f"{title_of(name)}: {value}" for name, value in values.items())
    return f" ({said})" if said else ""


def table(found: list[Summary]) -> Iterator[str]:
    """A table in Markdown, and notes below it."""
    p_values = holm([None if one.name == COMPARED else one.difference.p for one in found])
    rows = []
    for one, p in zip(found, p_values, strict=True):
        gap = one.difference
        # Fewer than two scenes tell nothing.
        told = one.name != COMPARED and gap.p is not None
        compared = (gap.value, gap.low, gap.high, p) if told else (None,) * 4
        row = (title_of(one.name), one.order, one.median, float(one.inside.mean()), *compared)
        rows.append((*row, one.pointing, one.seconds, f"{one.images:.0f}{_PLUS}{one.texts:.0f}"))
    columns = ("method", "order", "PGE median", "PGE mean", "PGE difference", "difference from")
    yield Table((*columns, "difference to", "p", "pointing", "seconds", "inputs"), rows).markdown()
    n_scenes = max(one.n_scenes for one in found)
    areas = chance(n_scenes)
    fewer = _listed({one.name: f"{one.n_scenes}" for one in found if one.n_scenes < n_scenes})
    undefined = _listed({one.name: f"{one.undefined:.1%}" for one in found if one.undefined})
    yield (
        f"{n_scenes} scenes{fewer} with {len(areas)} phrases; chance is the area of the boxes: "
        f"median {np.median(areas):.3f}, mean {areas.mean():.3f}. Undefined maps{undefined} count "
        f"as chance. *PGE difference*: mean PGE of {title_of(COMPARED)} minus that of the method, "
        "on the scenes that both have, with scenes drawn anew for the interval; *p*: sign-flip "
        f"test over scenes, {holm_note(p_values)}.\n"
    )
    names = {one.name for one in found}
    used = {case: options for case, options in OPTIONS.items() if case in names}
    said = (
        f"{title_of(case)} ({', '.join(f'{name}={value}' for name, value in options.items())})"
        for case, options in used.items()
    )
    if used:
        yield f"Options that are not the defaults: {', '.join(said)}.\n"


def main() -> None:
    """Run the methods, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--results", type=Path, default=Path("comparison.jsonl"))
    parser.add_argument("--methods", nargs="*", default=CASES, choices=CASES, metavar="NAME")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run(options.results, options.scenes, options.methods)
    print("\n".join(table(summaries(options.results))))


if __name__ == "__main__":
    main()
