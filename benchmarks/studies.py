"""All studies on the bundled model, as the page "What the bundled model shows" has them.

    python -m benchmarks.studies OUTPUT [--only NAME ...] [--docs docs] [--commands]

Runs go on where others stopped. Tables and figures are copied to the documents at the end.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

from captum_interactions.cli import main as command_line

SOIG = "second_order_integrated_gradients"
LAST = f"{SOIG}:layers=[-1,-1],n_steps=20"
CHEAP = [
    "integrated_gradients",
    "input_x_gradient",
    "grad_cam",
    "attention_rollout",
    "game",
    "grad_eclip",
    "legrad",
    "mask_clip",
    "clip_surgery",
    "token_similarity",
    "interaction_cam",
]


class Run(NamedTuple):
    """A study with its records; runs of one folder share their rows."""

    name: str
    study: str
    folder: str
    limit: int
    options: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    def arguments(self, output: Path) -> list[str]:
        """What ``captum-interactions`` is called with."""
        command = ["evaluate", self.study, "--limit", str(self.limit), "--batch-size", "16"]
        command += [*self.options, "--output", str(output / self.folder)]
        return command + (["--methods", *self.methods] if self.methods else [])


SHIFTED = ("--dataset-option", "domain=shifted")
TUNED = ("--set", "checkpoint=fine_tuned.pt")
FAST = f"{SOIG}:n_steps=20"
AGREEING = (
    SOIG, "lifted", "banzhaf_interactions:n_samples=1200", "archipelago",
    "integrated_hessians:n_steps=8", "interaction_cam", "token_similarity",
    "integrated_gradients", "input_x_gradient", "occlusion", "grad_eclip", "game",
)  # fmt: skip
RECOGNISING = (
    SOIG, f"{SOIG}:layers=[1,0],n_steps=20", LAST, "banzhaf_interactions:n_samples=600",
    "integrated_gradients", "grad_eclip", "game",
)  # fmt: skip
RUNS = (
    Run("localization", "localization", "phrases-plain", 1000, (), (SOIG, LAST, *CHEAP)),
    Run("localization_shifted", "localization", "phrases-shifted", 300, SHIFTED,
        (SOIG, LAST, "integrated_gradients", "grad_eclip")),
    Run("classwise", "classwise", "phrases-plain", 1000, (), (SOIG, LAST, *CHEAP)),
    Run("perturbation", "perturbation", "perturbation", 64),
    Run("mismatches", "mismatches", "mismatches", 400, (), (SOIG, "integrated_gradients")),
    Run("tuned_plain", "fine_tuning", "tuned-plain", 100, TUNED, (FAST,)),
    Run("tuned_shifted", "fine_tuning", "tuned-shifted", 100, (*SHIFTED, *TUNED), (FAST,)),
    Run("ablations", "ablations", "ablations", 24),
    Run("agreement", "agreement", "agreement", 24, (), AGREEING),
    Run("faithfulness", "faithfulness", "faithfulness", 32),
    Run("recognition", "recognition", "recognition", 160, (), RECOGNISING),
    Run("failures", "failures", "failures", 120, (), (SOIG,)),
)  # fmt: skip


def publish(run: Run, output: Path, docs: Path) -> None:
    """Copy a run's tables and figures to where the documents include them."""
    tables, figures = docs / "tables" / "studies", docs / "_static" / "studies"
    for folder in (tables, figures):
        folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((output / run.folder / run.study).iterdir()):
        if path.suffix == ".png":
            shutil.copy(path, figures / f"{run.name}_{path.name}")
        elif path.suffix == ".md" and path.stem != "summary":
            shutil.copy(path, tables / f"{run.name}_{path.name}")


def main() -> None:
    """Run what is asked for, and publish it."""
    names = [run.name for run in RUNS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", nargs="*", default=names, choices=names, metavar="NAME")
    parser.add_argument("--docs", type=Path, help="the folder of the documents")
    parser.add_argument("--commands", action="store_true", help="print the commands alone")
    options = parser.parse_args()
    for run in RUNS:
        if run.name not in options.only:
            continue
        arguments = run.arguments(options.output)
        print("captum-interactions", shlex.join(arguments), flush=True)
        if not options.commands and command_line(arguments) == 0 and options.docs:
            publish(run, options.output, options.docs)


if __name__ == "__main__":
    main()
