"""Banzhaf interactions of one pair by factors, against least squares over the grid of joint scores.

    python -m benchmarks.games [--patch 32 16] [--tokens 12] [--samples 204 48]
                               [--results games.jsonl] [--double]

CLIP ViT-B shapes with random weights, p = 1/2; every method sees the same coalitions of patches and
of words, by default as many as ``enough_coalitions`` says. ``factors`` is the package's way.
``grid`` is the direct estimator: the joint model scores each masked image with each masked caption,
and one regression on the terms 1, z_i, w_j and z_i w_j has a row for each score. Its model is run
for a few scores only, and the time of all of them is extrapolated from these. ``grid, embeddings
kept`` is spared that: it takes the embeddings that ``factors`` has, and regresses as ``grid`` does.
``factors, masked patches dropped`` masks the same coalitions of patches by leaving them out of the
image encoder's sequence (``masking="attention"``): another game of the same players.
Times are CPU seconds of one thread. Factors and grid run in fresh processes, which makes the peak
memory of each its own; results that are in the file already are not measured again.

A model with random weights hardly reacts to a missing patch, so rounding shows. Both regressions of
the same embeddings are compared with the grid's in float64.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch as replaced

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import memory_mb, reset_peak_mb
from benchmarks.models import clip, pair
from captum_interactions import DualEncoderWrapper, wrap
from captum_interactions.attr import BanzhafInteractions
from captum_interactions.attr._utils.players import Players
from captum_interactions.functional import enough_coalitions

BATCH = 32


def main() -> None:
    options = _parser().parse_args()
    if options.case is not None:
        torch.set_num_threads(1)
        case = {"factors": _factors, "dropped": _dropped, "grid": _grid}[options.case]
        print(json.dumps(case(options)))
        return
    by_patch = {patch: _measured_once(options, patch) for patch in options.patch}
    print("| model | case | encoder calls | CPU time, s | × the time of factors | extra peak, MB |")
    print("|---|---|---|---|---|---|")
    for patch, result in by_patch.items():
        factors, grid = result["factors"], result["grid"]
        rows = {
            "factors": factors,
            "factors, masked patches dropped": result["dropped"],
            "grid, embeddings kept": grid["kept"],
            f"grid (time extrapolated from {options.scored} scores)": grid["all scores"],
        }
        for case, row in rows.items():
            print(
                f"| ViT-B/{patch} | {case} | {row['calls']:,} | {row['seconds']:,.1f} | "
                f"{row['seconds'] / factors['seconds']:,.1f} | {row['extra_mb']:,.0f} |"
            )
    print("\n| largest difference from the grid in float64, of the map's maximum |", end="")
    print("".join(f" ViT-B/{patch} |" for patch in by_patch))
    print("|---" * (1 + len(by_patch)) + "|")
    for name in ("factors", "grid"):
        values = (result["grid"]["differences"][name] for result in by_patch.values())
        print(f"| {name} | {' | '.join(f'{value:.1e}' for value in values)} |")


def _factors(options: argparse.Namespace) -> dict[str, Any]:
    """The attribution; what its encoders gave is left for the grid."""
    wrapper, inputs = _model(options)
    embed, kept, spent = Players.embed, [], []

    def recorded(self: Players, coalitions: Tensor, *args: Any) -> Tensor:
        found: list[Tensor] = []
        spent.append(_seconds(lambda: found.append(embed(self, coalitions, *args))))
        kept.append((coalitions, found[0]))
        return found[0]

    before = reset_peak_mb()
    games = []
    with replaced.object(Players, "embed", recorded):
        taken = _seconds(
            lambda: games.append(
                BanzhafInteractions(wrapper).game(
                    inputs,
                    n_samples=tuple(options.samples),
                    perturbations_per_eval=BATCH,
                    intra=False,
                )
            )
        )
    extra = memory_mb("VmHWM") - before
    torch.save([*kept, games[0].interactions[0, 1:, 1:-1]], options.exchange)
    return {
        "seconds": taken,
        "encoding": sum(spent),
        "calls": sum(games[0].n_encoded),
        "extra_mb": extra,
    }


def _dropped(options: argparse.Namespace) -> dict[str, Any]:
    """The attribution, with absent patches left out of the image encoder's sequence."""
    wrapper, inputs = _model(options)
    before = reset_peak_mb()
    games = []
    taken = _seconds(
        lambda: games.append(
            BanzhafInteractions(wrapper).game(
                inputs,
                n_samples=tuple(options.samples),
                masking=("attention", "baseline"),
                perturbations_per_eval=BATCH,
                intra=False,
            )
        )
    )
    extra = memory_mb("VmHWM") - before
    return {"seconds": taken, "calls": sum(games[0].n_encoded), "extra_mb": extra}


def _grid(options: argparse.Namespace) -> dict[str, Any]:
    """The direct estimator, on the coalitions and the embeddings of the attribution."""
    wrapper, inputs = _model(options)
    *sides, factors = torch.load(options.exchange)
    # All coalitions were kept once, the whole and the empty one too.
    sides = [
        (coalitions[some], embeddings[some])
        for coalitions, embeddings in sides
        for some in [coalitions.any(1) & ~coalitions.all(1)]
    ]
    n_scores = len(sides[0][0]) * len(sides[1][0])
    before = reset_peak_mb()
    fitted: list[Tensor] = []
    regression = _seconds(lambda: fitted.append(_regress(sides, sides[0][1].dtype)))
    kept = {
        "seconds": options.encoding + regression,
        "calls": sum(len(coalitions) for coalitions, _ in sides),
        "extra_mb": memory_mb("VmHWM") - before,
    }
    masked = _images(inputs[0], sides[0][0][: options.scored], options.patch[0])
    texts = torch.where(F.pad(sides[1][0], (1, 1), value=True), inputs[1], 0)[: options.scored]
    with torch.no_grad():
        wrapper(masked, texts)
        per_score = _seconds(lambda: wrapper(masked, texts)) / len(masked)
    every = {
        "seconds": per_score * n_scores + regression,
        "calls": 2 * n_scores,
        "extra_mb": memory_mb("VmHWM") - before,
    }
    exact = _regress(sides, torch.float64)
    differences = {
        name: float((values.double() - exact).abs().max() / exact.abs().max())
        for name, values in (("factors", factors), ("grid", fitted[0]))
    }
    return {"kept": kept, "all scores": every, "differences": differences}


def _regress(sides: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Tensor:
    """Least squares over the grid: the coefficients of z_i w_j."""
    scores = sides[0][1].to(dtype) @ sides[1][1].to(dtype).T
    columns = [F.pad(one.to(scores) - 0.5, (1, 0), value=1.0) for one, _ in sides]
    rows = torch.einsum("ai,bj->abij", *columns).flatten(2).flatten(0, 1)
    fitted = torch.linalg.lstsq(rows, scores.reshape(-1, 1)).solution
    return fitted.reshape([one.shape[1] for one in columns])[1:, 1:]


def _images(pixels: Tensor, coalitions: Tensor, patch: int) -> Tensor:
    side = pixels.shape[-1] // patch
    cells = coalitions.to(pixels).unflatten(1, (1, side, side))
    return pixels * F.interpolate(cells, scale_factor=patch, mode="nearest")


def _model(options: argparse.Namespace) -> tuple[DualEncoderWrapper, tuple[Tensor, Tensor]]:
    model, (pixels, ids) = clip(options.patch[0]), pair(options.tokens)
    if options.double:
        model, pixels = model.double(), pixels.double()
    return wrap(model), (pixels, ids)


def _seconds(run: Callable[[], object]) -> float:
    """CPU time of a call, which other processes do not change much."""
    start = time.process_time()
    run()
    return time.process_time() - start


def _measured_once(options: argparse.Namespace, patch: int) -> dict[str, Any]:
    """A result from the file, or measured now and added to it."""
    samples = _samples(options, patch)
    key = [patch, options.tokens, *samples, options.double]
    path: Path = options.results
    for line in path.read_text().splitlines() if path.exists() else []:
        known = json.loads(line)
        if known["key"] == key and "dropped" in known:
            return known
    command = _command(options, patch)
    with tempfile.TemporaryDirectory() as folder:
        command += ["--exchange", Path(folder) / "embeddings.pt"]
        factors = _in_fresh_process(*command, "--case", "factors")
        grid = _in_fresh_process(*command, "--case", "grid", "--encoding", factors["encoding"])
    dropped = _of_case(options, patch, "dropped")
    result = {"key": key, "factors": factors, "dropped": dropped, "grid": grid}
    with path.open("a") as file:
        print(json.dumps(result), file=file)
    return result


def _samples(options: argparse.Namespace, patch: int) -> list[int]:
    """Numbers of coalitions of patches and of words."""
    if options.samples is not None:
        return list(options.samples)
    players = (224 // patch) ** 2, options.tokens - 2
    return [enough_coalitions(count, n_nodes=1) for count in players]


def _command(options: argparse.Namespace, patch: int) -> list[object]:
    """The options of a fresh process."""
    command = ["--patch", patch, "--tokens", options.tokens, "--scored", options.scored]
    return [*command, "--samples", *_samples(options, patch), *["--double"] * options.double]


def _of_case(options: argparse.Namespace, patch: int, case: str) -> dict[str, Any]:
    return _in_fresh_process(*_command(options, patch), "--case", case)


def _in_fresh_process(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.games", *(str(one) for one in arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, nargs="+", default=[32, 16], choices=[32, 16])
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--samples", type=int, nargs=2, help="coalitions of patches and of words")
    parser.add_argument(
        "--scored", type=int, default=8, help="joint scores that the time of the grid follows from"
    )
    parser.add_argument("--double", action="store_true", help="compute in float64")
    parser.add_argument("--results", type=Path, default=Path("games.jsonl"))
    # What a fresh process is told.
    parser.add_argument("--case", choices=("factors", "dropped", "grid"), help=argparse.SUPPRESS)
    parser.add_argument("--encoding", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--exchange", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
