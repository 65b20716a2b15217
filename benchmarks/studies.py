"""All studies on the bundled model, as the page "What the bundled model shows" has them.

    python -m benchmarks.studies OUTPUT [--only NAME ...] [--docs docs] [--commands]

Runs go on where others stopped. Tables and figures are copied to the documents at the end.
"""

from __future__ import annotations

import argparse
import json
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
    """Further options, in which ``{output}`` is the folder of all runs."""
    methods: tuple[str, ...] = ()

    def arguments(self, output: Path) -> list[str]:
        """What ``captum-interactions`` is called with."""
        command = ["evaluate", self.study, "--limit", str(self.limit), "--batch-size", "16"]
        options = [option.format(output=output) for option in self.options]
        command += [*options, "--output", str(output / self.folder)]
        return command + (["--methods", *self.methods] if self.methods else [])


SHIFTED = ("--dataset-option", "domain=shifted")
AGAINST_PLAIN = ("--set", "against={output}/phrases-plain")
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
TEXT_PATHS = (
    "default", "text_path=left_to_right", "text_path=right_to_left", "text_path=random_orders",
    "text_path=vocabulary", "text_path=monotone_vocabulary", "text_path=speeds", "text_path=arc",
)  # fmt: skip
RUNS = (
    Run("localization", "localization", "phrases-plain", 600, (), (SOIG, LAST, *CHEAP)),
    Run("localization_shifted", "localization", "phrases-shifted", 600,
        (*SHIFTED, *AGAINST_PLAIN),
        (SOIG, LAST, "integrated_gradients", "grad_eclip")),
    Run("classwise", "classwise", "phrases-plain", 600, (), (SOIG, LAST, *CHEAP)),
    Run("perturbation", "perturbation", "perturbation", 64),
    Run("mismatches", "mismatches", "mismatches", 1500, (), (SOIG, "integrated_gradients")),
    Run("tuned_plain", "fine_tuning", "tuned-plain", 256, TUNED, (FAST,)),
    Run("tuned_shifted", "fine_tuning", "tuned-shifted", 256, (*SHIFTED, *TUNED), (FAST,)),
    Run("ablations", "ablations", "ablations", 40),
    Run("text_paths", "ablations", "text-paths", 200,
        ("--set", f"varied={json.dumps(TEXT_PATHS)}")),
    Run("agreement", "agreement", "agreement", 20, (), AGREEING),
    Run("faithfulness", "faithfulness", "faithfulness", 50),
    Run("recognition", "recognition", "recognition", 500, (), RECOGNISING),
    Run("failures", "failures", "failures", 100, (), (SOIG,)),
)  # fmt: skip


def publish(run: Run, output: Path, docs: Path) -> None:
    """Copy those of a run's tables and figures that the page shows to where it takes them from."""
    page = (docs / "what_it_shows.rst").read_text()
    for path in sorted((output / run.folder / run.study).iterdir()):
        kind = "_static" if path.suffix == ".png" else "tables"
        target = docs / kind / "studies" / f"{run.name}_{path.name}"
        if f"{kind}/studies/{target.name}" in page:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def main() -> None:
    """Run what is asked for, and publish it."""
    names = [run.name for run in RUNS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", nargs="*", default=names, choices=names, metavar="NAME")
    parser.add_argument("--docs", type=Path, help="the folder of the documents")
    parser.add_argument("--summarise", action="store_true", help="only of what was measured")
    parser.add_argument("--commands", action="store_true", help="print the commands alone")
    options = parser.parse_args()
    for run in RUNS:
        if run.name not in options.only:
            continue
        arguments = run.arguments(options.output)
        print("captum-interactions", shlex.join(arguments), flush=True)
        if options.commands:
            continue
        arguments += ["--summarise"] if options.summarise else []
        if command_line(arguments) == 0 and options.docs:
            publish(run, options.output, options.docs)


if __name__ == "__main__":
    main()
