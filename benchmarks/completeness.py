"""Completeness on the bundled model, for every pair of layers.

    python -m benchmarks.completeness [--scenes 32] [--steps 20] [--tolerance 0.01]

For held-out scenes and their captions: the convergence delta over the range of the scores of all
image-caption pairs of those scenes, and the number of Gauss-Legendre steps from which on it stays
below the tolerance.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from captum_interactions import DualEncoderWrapper, SecondOrderIntegratedGradients, load_demo
from captum_interactions.encoders import Layer
from captum_interactions.encoders.wrapper import Batch, unit

LADDER = (5, 10, 20, 30, 50, 75, 100, 150, 200, 300)
"""Numbers of steps that are tried."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tolerance", type=float, default=0.01)
    options = parser.parse_args()

    wrapper, scenes = load_demo(options.scenes)
    batch = wrapper.prepare([scene.image for scene in scenes], [scene.caption for scene in scenes])
    extent = _range_of_scores(wrapper, batch)
    print(f"scores of {options.scenes} × {options.scenes} pairs range over {extent:.3f}\n")
    print(
        f"| image layer | text layer | mean delta, {options.steps} steps | "
        f"largest delta, {options.steps} steps | steps for {options.tolerance:.0%} (mean) | "
        f"steps for {options.tolerance:.0%} (largest) |"
    )
    print("|---|---|---|---|---|---|")
    layers_a: list[Layer] = ["input", *range(wrapper.tower_a.n_blocks)]
    for layer_a in layers_a:
        for layer_b in range(wrapper.tower_b.n_blocks):
            errors = {}
            for n_steps in sorted({*LADDER, options.steps}):
                deltas = _deltas(wrapper, batch, (layer_a, layer_b), n_steps) / extent
                errors[n_steps] = (float(deltas.mean()), float(deltas.max()))
                if n_steps >= options.steps and errors[n_steps][1] <= options.tolerance:
                    break
            mean, largest = errors[options.steps]
            needed = (_needed(errors, i, options.tolerance) for i in (0, 1))
            print(
                f"| {layer_a} | {layer_b} | {mean:.2%} | {largest:.2%} | {' | '.join(needed)} |",
                flush=True,
            )


def _range_of_scores(wrapper: DualEncoderWrapper, batch: Batch) -> float:
    with torch.no_grad():
        a = unit(wrapper.encode_a(batch.inputs[0]))
        b = unit(wrapper.encode_b(batch.inputs[1], *batch.additional_forward_args))
    scores = a @ b.T
    return float(scores.max() - scores.min())


def _deltas(
    wrapper: DualEncoderWrapper, batch: Batch, layers: tuple[Layer, Layer], n_steps: int
) -> Tensor:
    """Size of the convergence deltas, from sums of factors: whole inputs are one group each."""
    explainer = SecondOrderIntegratedGradients(wrapper, layers=layers)
    with torch.no_grad():
        n_a, n_b = (
            len(axis.at_input()) if layer == "input" else len(axis)
            for axis, layer in zip((batch.axes_a[0], batch.axes_b[0]), layers, strict=True)
        )
    _, delta = explainer.attribute(
        batch.inputs,
        additional_forward_args=batch.additional_forward_args,
        n_steps=n_steps,
        groups_a=torch.ones(1, n_a),
        groups_b=torch.ones(1, n_b),
        internal_batch_size=512,
        return_convergence_delta=True,
    )
    return delta.abs()


def _needed(errors: dict[int, tuple[float, float]], index: int, tolerance: float) -> str:
    """The smallest number of steps from which on all measured errors are below the tolerance."""
    needed = f"> {max(errors)}"
    for n_steps in sorted(errors, reverse=True):
        if errors[n_steps][index] > tolerance:
            break
        needed = str(n_steps)
    return needed


if __name__ == "__main__":
    main()
