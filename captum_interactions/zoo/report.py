"""How well maps of the bundled model find what a phrase names, at every layer.

``python -m captum_interactions.zoo.report`` prints Markdown tables for the validation scenes, on
which the default layers and steps are chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerIntegratedGradients
from tqdm import tqdm

from captum_interactions.attr import SecondOrderIntegratedGradients
from captum_interactions.datasets.scenes import DOMAINS, IMAGE_SIZE, Scene, Scenes
from captum_interactions.encoders import DualEncoderWrapper, from_pretrained
from captum_interactions.zoo import DEMO, VALIDATION_SEED

Values = npt.NDArray[np.float32]


@dataclass
class Grounding:
    """What was seen of the maps of many phrases."""

    inside: list[float] = field(default_factory=list)
    """Share of each map's positive attribution that lies in the named object's box."""
    own: list[bool] = field(default_factory=list)
    """Whether the sum over the named object's box is positive."""
    other: list[bool] = field(default_factory=list)
    """Whether the sum over the box of another object that the caption names is negative."""
    delta: list[float] = field(default_factory=list)
    """Absolute convergence delta of each scene's map."""

    def add(self, maps: Values, boxes: Values) -> None:
        """Add a scene's maps (phrases, patches); boxes are the shares of patches covered."""
        positive = maps.clip(0)
        sums = maps @ boxes.T
        for k in range(len(maps)):
            self.inside.append(float(positive[k] @ boxes[k] / positive[k].sum()))
            self.own.append(bool(sums[k, k] > 0))
            self.other += [bool(sums[k, j] < 0) for j in range(len(boxes)) if j != k]

    def row(self) -> str:
        """The numbers as cells of a Markdown table."""
        cells = [f"{np.median(self.inside):.3f}", f"{np.mean(self.inside):.3f}"]
        cells += [f"{np.mean(self.own):.1%}", f"{np.mean(self.other):.1%}"]
        cells.append(f"{np.mean(self.delta):.1e}")
        return " | ".join(cells)


def ground(
    wrapper: DualEncoderWrapper, scenes: Sequence[Scene], layers: tuple[int, int], n_steps: int
) -> Grounding:
    """Second-order maps of every named object's phrase."""
    explainer = SecondOrderIntegratedGradients(wrapper, layers)
    grounding = Grounding()
    for scene in tqdm(scenes, f"layers {layers}", leave=False):
        batch = wrapper.prepare(scene.image, scene.caption)
        (image,), (text,) = batch.axes_a, batch.axes_b
        phrases = np.stack([text.select(o.span) for o in scene.named])
        groups = torch.from_numpy(np.concatenate([phrases, 1 - phrases.sum(0, keepdims=True)]))
        maps, delta = explainer.attribute(
            batch.inputs,
            additional_forward_args=batch.additional_forward_args,
            n_steps=n_steps,
            groups_b=groups,
            return_convergence_delta=True,
        )
        of_phrases = maps[0, 1:, :-1].T.numpy()
        grounding.add(of_phrases, np.stack([image.select(o.box) for o in scene.named])[:, 1:])
        grounding.delta.append(abs(delta.item()))
    return grounding


def ground_first_order(
    wrapper: DualEncoderWrapper, scenes: Sequence[Scene], layer: int, n_steps: int
) -> Grounding:
    """Captum's integrated gradients of the score: one map for all phrases of a caption."""
    before = "pre_layrnorm" if layer == 0 else f"encoder.layers.{layer - 1}"
    module = wrapper.tower_a.get_submodule(f"model.vision_model.{before}")
    explainer = LayerIntegratedGradients(wrapper, module)
    grounding = Grounding()
    for scene in tqdm(scenes, f"first order, layer {layer}", leave=False):
        batch = wrapper.prepare(scene.image, scene.caption)
        states, delta = explainer.attribute(
            batch.inputs[0],
            additional_forward_args=(batch.inputs[1], *batch.additional_forward_args),
            n_steps=n_steps,
            method="gausslegendre",
            return_convergence_delta=True,
        )
        image = batch.axes_a[0]
        total = states.sum(-1)[0, 1:].numpy()
        boxes = np.stack([image.select(o.box) for o in scene.named])[:, 1:]
        grounding.add(np.stack([total] * len(boxes)), boxes)
        grounding.delta.append(abs(delta.item()))
    return grounding


def tables(
    wrapper: DualEncoderWrapper, n_scenes: int, n_steps: int, seed: int = VALIDATION_SEED
) -> Iterator[str]:
    """Lines of a Markdown report."""
    for domain in DOMAINS:
        scenes = Scenes(n_scenes, seed, domain)[:]
        boxes = np.array([o.box for scene in scenes for o in scene.named])
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / IMAGE_SIZE**2
        yield f"### {domain}\n"
        yield (
            f"{len(boxes)} phrases of {n_scenes} scenes (seed {seed}), {n_steps} steps; a box "
            f"covers {np.median(areas):.3f} (median), {areas.mean():.3f} (mean) of the image.\n"
        )
        yield (
            "| layers | PGE median | PGE mean | own object positive | other object negative "
            "| mean abs. delta |"
        )
        yield "|---|---|---|---|---|---|"
        for a in range(wrapper.tower_a.n_blocks):
            for b in range(wrapper.tower_b.n_blocks):
                yield f"| {a}, {b} | {ground(wrapper, scenes, (a, b), n_steps).row()} |"
            total = ground_first_order(wrapper, scenes, a, n_steps)
            yield f"| {a}, first order | {total.row()} |"
        yield ""


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description="Maps of the bundled model at every layer.")
    parser.add_argument("--model", type=Path, default=DEMO, help="folder (default: the bundled)")
    parser.add_argument("--scenes", type=int, default=100, help="explained (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="n_steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=VALIDATION_SEED, help="default: %(default)s")
    options = parser.parse_args()
    wrapper = from_pretrained(options.model)
    for line in tables(wrapper, options.scenes, options.steps, options.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
