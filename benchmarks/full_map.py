"""The full map of one pair against the slow oracle, the forward pass and Captum.

    python -m benchmarks.full_map [--patch 32 16] [--tokens 12] [--steps 10] [--threads 2]

CLIP ViT-B shapes with random weights, last block, right Riemann sum on both sides, so that the
numbers can be compared too. The oracle takes one gradient a dimension of the embedding, as the
published programs do, and the full matrix over all pairs of features. Every case runs in a fresh
process, which makes its peak memory its own; the plain forward pass is measured in each of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable

import torch
from captum.attr import LayerIntegratedGradients

from benchmarks.measure import memory_mb, reset_peak_mb, seconds
from benchmarks.models import clip, pair
from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.functional import quadrature
from tests.oracle import entering, replaced_input, token_map

CASES = ("map", "phrase", "captum", "oracle")
METHOD = "riemann_right"


def main() -> None:
    options = _parser().parse_args()
    if options.case is not None:
        print(json.dumps(_measure(options)))
        return
    print("| patch | case | time, s | forward passes | × faster than the oracle | extra peak, MB |")
    print("|---|---|---|---|---|---|")
    for patch in options.patch:
        results = {case: _in_fresh_process(options, patch, case) for case in CASES}
        for case, result in results.items():
            speed = results["oracle"]["seconds"] / result["seconds"]
            print(
                f"| {patch} | {case} | {result['seconds']:.3f} | "
                f"{result['seconds'] / result['forward']:.2f} | {speed:.1f} | "
                f"{result['extra_mb']:.0f} |"
            )
        maps = [torch.tensor(results[case]["values"]) for case in ("map", "oracle")]
        error = (maps[0] - maps[1]).abs().max() / maps[1].abs().max()
        print(f"\nlargest difference of map and oracle, of the map's maximum: {error:.1e}\n")


def _measure(options: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(options.threads)
    model = clip(options.patch[0])
    inputs = pair(options.tokens)
    wrapper = wrap(model)
    with torch.no_grad():
        forward = seconds(lambda: wrapper(*inputs), repeats=7)

    explainer = SecondOrderIntegratedGradients(wrapper, layers=(-1, -1), normalization="none")
    common = {"n_steps": options.steps, "method": METHOD}
    phrase = [list(range(3, 6))]
    run: Callable[[], torch.Tensor]
    if options.case == "map":
        run = lambda: explainer.attribute(inputs, **common)  # noqa: E731
    elif options.case == "phrase":
        run = lambda: explainer.attribute(inputs, groups_b=phrase, **common)  # noqa: E731
    elif options.case == "captum":
        layer = model.vision_model.encoder.layers[-2]
        captum = LayerIntegratedGradients(wrapper, layer)
        run = lambda: captum.attribute(  # noqa: E731
            inputs[0], torch.zeros_like(inputs[0]), additional_forward_args=inputs[1], **common
        )
    else:
        run = lambda: _oracle(model, explainer, inputs, options.steps)  # noqa: E731
    before = reset_peak_mb()
    values = run()
    extra = memory_mb("VmHWM") - before
    repeats = 1 if options.case == "oracle" else 7
    taken = seconds(run, repeats)
    return {
        "seconds": taken,
        "forward": forward,
        "extra_mb": extra,
        "values": values.flatten().tolist() if options.case in ("map", "oracle") else [],
    }


def _oracle(
    model: torch.nn.Module,
    explainer: SecondOrderIntegratedGradients,
    inputs: tuple[torch.Tensor, torch.Tensor],
    n_steps: int,
) -> torch.Tensor:
    rule = quadrature(METHOD, n_steps)
    towers = (explainer.wrapper.tower_a, explainer.wrapper.tower_b)
    blocks = (model.vision_model.encoder.layers[-1], model.text_model.encoder.layers[-1])
    paths, functions = [], []
    for tower, block, one in zip(towers, blocks, inputs, strict=True):
        # In one run, as the attribution does it: rounding depends on the size of the batch.
        both = torch.cat([one, tower.reference(one)])
        end, start = entering(block, lambda tower=tower, both=both: tower.encode(both))
        paths.append((start, end))

        def function(states, tower=tower, block=block, one=one):  # type: ignore[no-untyped-def]
            with replaced_input(block, states):
                return tower.encode(one.expand(len(states), *one.shape[1:]))

        functions.append(function)
    return token_map(*functions, *paths, *rule)


def _in_fresh_process(
    options: argparse.Namespace, patch: int, case: str
) -> dict[str, float | list[float]]:
    command = [sys.executable, "-m", "benchmarks.full_map", "--case", case, "--patch", str(patch)]
    for name in ("tokens", "steps", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, nargs="+", default=[32, 16], choices=[32, 16])
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
