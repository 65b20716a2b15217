"""Banzhaf interactions of one pair by factors, against least squares over the grid of joint scores.

    python -m benchmarks.games [--patch 32 16] [--tokens 12] [--samples 400 64] [--threads 2]

CLIP ViT-B shapes with random weights, p = 1/2; every method sees the same coalitions of patches and
of words. ``factors`` is the package's way. ``grid`` is the direct estimator: the joint model scores
each masked image with each masked caption, and one regression on the terms 1, z_i, w_j and z_i w_j
has a row for each score. Its model is run for a few scores only, and the time of all of them
follows from these. ``grid, embeddings kept`` is spared that: it encodes what ``factors`` encodes,
and regresses as ``grid`` does. Every case runs in a fresh process, which makes its peak memory its
own. A model with random weights hardly reacts to a missing patch, so rounding of its embeddings
shows in the differences; ``--double`` takes it away.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import memory_mb, reset_peak_mb, seconds
from benchmarks.models import clip, pair
from captum_interactions import DualEncoderWrapper, wrap
from captum_interactions.attr import BanzhafInteractions
from captum_interactions.encoders.wrapper import unit
from captum_interactions.functional import draw_coalitions

CASES = ("factors", "grid, embeddings kept", "grid")
BATCH = 32


def main() -> None:
    options = _parser().parse_args()
    if options.case is not None:
        print(json.dumps(_measure(options)))
        return
    print("| patch | case | encoder calls | time, s | × the time of factors | extra peak, MB |")
    print("|---|---|---|---|---|---|")
    for patch in options.patch:
        results = {case: _in_fresh_process(options, patch, case) for case in CASES}
        for case, result in results.items():
            ratio = result["seconds"] / results["factors"]["seconds"]
            print(
                f"| {patch} | {case} | {result['calls']:,} | {result['seconds']:.1f} | "
                f"{ratio:,.1f} | {result['extra_mb']:.0f} |"
            )
        maps = [torch.tensor(results[case]["values"], dtype=torch.float64) for case in CASES[:2]]
        error = (maps[0] - maps[1]).abs().max() / maps[1].abs().max()
        print(f"\nlargest difference of factors and grid, of the map's maximum: {error:.1e}\n")


def _measure(options: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(options.threads)
    model, inputs = clip(options.patch[0]), pair(options.tokens)
    if options.double:
        model, inputs = model.double(), (inputs[0].double(), inputs[1])
    wrapper = wrap(model)
    n_a, n_b = options.samples
    if options.case == "factors":
        banzhaf = BanzhafInteractions(wrapper)
        before = reset_peak_mb()
        found: list[Tensor] = []
        run = lambda: found.append(  # noqa: E731
            banzhaf.attribute(inputs, n_samples=(n_a, n_b), perturbations_per_eval=BATCH)
        )
        taken, calls = seconds(run, repeats=1), n_a + n_b
        values = found[0][0, 1:, 1:-1]  # no class token and no special tokens of the text
    else:
        before = reset_peak_mb()
        grid = _Grid(wrapper, inputs, options.patch[0], (n_a, n_b))
        taken, calls = seconds(grid.regress, repeats=1), n_a + n_b
        values = grid.coefficients
        if options.case == "grid":
            taken += grid.seconds_per_score(options.scored) * n_a * n_b
            calls = 2 * n_a * n_b
        else:
            taken += grid.seconds_of_embeddings
    extra = memory_mb("VmHWM") - before
    return {"seconds": taken, "calls": calls, "extra_mb": extra, "values": values.tolist()}


class _Grid:
    """The direct estimator, on the coalitions that the attribution draws."""

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        inputs: tuple[Tensor, Tensor],
        patch: int,
        samples: tuple[int, int],
    ) -> None:
        pixels, ids = inputs
        half = torch.full((1,), 0.5, dtype=torch.float64)
        side = pixels.shape[-1] // patch
        counts = side * side, ids.shape[1] - 2
        self.members = [
            draw_coalitions(n, half, m, torch.Generator().manual_seed(seed))
            for seed, (n, m) in enumerate(zip(counts, samples, strict=True))
        ]
        self.wrapper, self.patch, self.pixels, self.ids = wrapper, patch, pixels, ids
        self.coefficients = torch.empty(0)
        embeddings: list[Tensor] = []
        self.seconds_of_embeddings = seconds(lambda: embeddings.extend(self._embed()), repeats=1)
        self.scores = embeddings[0] @ embeddings[1].T

    def regress(self) -> None:
        columns = [F.pad(one.to(self.scores) - 0.5, (1, 0), value=1.0) for one in self.members]
        rows = torch.einsum("ai,bj->abij", *columns).flatten(2).flatten(0, 1)
        fitted = torch.linalg.lstsq(rows, self.scores.reshape(-1, 1)).solution
        self.coefficients = fitted.reshape([one.shape[1] for one in columns])[1:, 1:]

    @torch.no_grad()
    def seconds_per_score(self, count: int) -> float:
        count = min(count, *(len(one) for one in self.members))
        a, b = self._images(slice(count)), self._captions(slice(count))
        return seconds(lambda: self.wrapper(a, b), repeats=3) / count

    @torch.no_grad()
    def _embed(self) -> tuple[Tensor, Tensor]:
        rows = [
            [slice(start, start + BATCH) for start in range(0, len(one), BATCH)]
            for one in self.members
        ]
        return (
            torch.cat([unit(self.wrapper.encode_a(self._images(some))) for some in rows[0]]),
            torch.cat([unit(self.wrapper.encode_b(self._captions(some))) for some in rows[1]]),
        )

    def _images(self, rows: slice) -> Tensor:
        side = self.pixels.shape[-1] // self.patch
        cells = self.members[0][rows].to(self.pixels).unflatten(1, (1, side, side))
        return self.pixels * F.interpolate(cells, scale_factor=self.patch, mode="nearest")

    def _captions(self, rows: slice) -> Tensor:
        kept = F.pad(self.members[1][rows], (1, 1), value=True)
        return torch.where(kept, self.ids, 0)


def _in_fresh_process(options: argparse.Namespace, patch: int, case: str) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.games", "--case", case, "--patch", str(patch)]
    for name in ("tokens", "threads", "scored"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--double"] * options.double
    command += ["--samples", *(str(count) for count in options.samples)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, nargs="+", default=[32, 16], choices=[32, 16])
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument(
        "--samples", type=int, nargs=2, default=[400, 64], help="coalitions of patches and of words"
    )
    parser.add_argument(
        "--scored", type=int, default=8, help="joint scores that the time of the grid follows from"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--double", action="store_true", help="compute in float64")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
