"""The command line: ``captum-interactions evaluate``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_interactions.encoders import DualEncoderWrapper
    from captum_interactions.evaluation.study import Study
    from captum_interactions.evaluation.summary import Summary

SCENES = 200
"""Generated scenes, unless told otherwise."""


def add_evaluate(commands: Any) -> None:
    """Register ``evaluate`` with the subparsers of the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="run a study of a model's explanations on a dataset",
        description="Run a study. Started again with the same command it goes on where it was; "
        "under torchrun or accelerate launch the records are shared by all processes.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("study", nargs="?", metavar="STUDY", help="its name, see --list")
    parser.add_argument("--list", action="store_true", help="list the studies and their options")
    parser.add_argument(
        "--dataset", default="scenes", metavar="NAME",
        help="scenes (generated, the default), or one of those that are read from files",
    )  # fmt: skip
    parser.add_argument("--data", metavar="PATH", help="where the dataset's files are")
    parser.add_argument("--split", metavar="NAME", help="which part of the dataset")
    parser.add_argument(
        "--dataset-option", action="append", default=[], type=_option, metavar="NAME=VALUE",
        help="a further option of the dataset, such as domain=shifted",
    )  # fmt: skip
    parser.add_argument(
        "--model", metavar="NAME_OR_DIR", help="a model for transformers (default: the bundled one)"
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD",
        help="what to compare, as NAME or NAME:OPTION=VALUE,... (default: the study's choice); "
        "'all' are all that there are",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], type=_option, metavar="NAME=VALUE", dest="settings",
        help="an option of the study, see --list",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, metavar="N",
        help=f"only the first N records (default: all; of scenes, {SCENES})",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder of the results (default: evaluation/ROWS-DATASET)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="records explained together (8)"
    )
    parser.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1 (default: a GPU)")
    parser.add_argument(
        "--on-error", choices=["raise", "skip"], default="raise",
        help="what to do about broken records of a dataset (default: stop)",
    )  # fmt: skip
    parser.add_argument("--retry-failed", action="store_true", help="measure failed records again")
    parser.add_argument(
        "--summarise", action="store_true", help="only make tables and figures of what is there"
    )


def run(options: argparse.Namespace) -> None:
    """Run the study that the options describe."""
    from captum_interactions.datasets import load_dataset
    from captum_interactions.evaluation import STUDIES, processes, run_study, summarise

    if options.list:
        print(_listing())
        return
    if options.study not in STUDIES:
        raise ValueError(f"STUDY must be one of {', '.join(STUDIES)}, but got {options.study!r}")
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"--limit must be at least 1, but got {options.limit}")
    study = _study(STUDIES[options.study], options)
    given: dict[str, Any] = {**study.dataset_options.get(options.dataset, {})}
    if options.dataset == "scenes":
        given["seed"] = _held_out_seed()
    given |= dict(options.dataset_option)
    described = {
        "name": options.dataset,
        "path": None if options.data is None else str(Path(options.data).resolve()),
        "split": options.split,
        "options": {name: value for name, value in given.items() if name != "n"},
    }
    if options.dataset == "scenes":
        given.setdefault("n", options.limit or SCENES)
    records: Any = load_dataset(
        options.dataset, options.data, options.split, on_error=options.on_error, **given
    )
    records = _First(records, options.limit)
    found: Summary | None
    output = options.output or Path("evaluation") / f"{study.rows_name}-{options.dataset}"
    if options.summarise:
        found = summarise(study, output, records)
    else:
        here = processes(options.device)
        try:
            found = run_study(
                study,
                _placed(_model(options.model), here.device),
                records,
                output,
                dataset=described,
                batch_size=options.batch_size,
                retry_failed=options.retry_failed,
                show_progress=True,
                processes=here,
            )
        except KeyboardInterrupt:
            print(f"\nstopped; the same command goes on from {output}", file=sys.stderr)
            raise SystemExit(130) from None
        if found is None:  # another process speaks for all
            return
    print((output / study.name / "summary.md").read_text(encoding="utf-8"))
    print(f"written to {output}")
    counts = found.tables["records"]
    if not any(row[counts.columns.index("measured")] for row in counts.rows):
        raise RuntimeError("no record was measured; why is in the table of problems")


class _First:
    """The first records of a dataset, opened one by one when used."""

    def __init__(self, records: Any, limit: int | None) -> None:
        self._records = records
        self._n = len(records) if limit is None else min(limit, len(records))
        self.skipped = getattr(records, "skipped", ())

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self._n:
            raise IndexError(f"record {index} of {self._n}")
        return self._records[index]


def _study(kind: type[Study], options: argparse.Namespace) -> Study:
    """The study with the options of the command line.

    Raises:
        TypeError: If it has no such option.
        ValueError: If an option has no such value.
    """
    from captum_interactions.attr import attributions

    known = {one.name: one for one in fields(kind)}
    settings = dict(options.settings)
    if options.methods is not None:
        methods = options.methods
        if methods == ["all"]:
            methods = [info.name for info in attributions()]
        settings["methods"] = tuple(methods)
    for name, value in settings.items():
        if name not in known:
            raise TypeError(
                f"{kind.name} has no option {name!r}; its options are {', '.join(known)}"
            )
        default = known[name].default
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            settings[name] = value = float(value)
        is_kind = isinstance(value, type(default)) and (
            isinstance(value, bool) == isinstance(default, bool)  # a bool is an int, to Python
        )
        if default is not None and not is_kind:
            raise ValueError(
                f"{kind.name}: {name} must be of the kind of its default {default!r}, but got "
                f"{value!r}"
            )
    return kind(**settings)


def _option(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` with a JSON value, or else text."""
    from captum_interactions.evaluation.study import parse_value

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, but got {text!r}")
    return name, parse_value(value)


def _held_out_seed() -> int:
    from captum_interactions.zoo.report import REPORT_SEED

    return REPORT_SEED


def _model(name: str | None) -> Any:
    from transformers.utils import logging

    from captum_interactions.encoders import from_pretrained
    from captum_interactions.zoo import DEMO

    logging.disable_progress_bar()
    return from_pretrained(str(DEMO) if name is None else name)


def _placed(wrapper: DualEncoderWrapper, device: str) -> DualEncoderWrapper:
    """The model on a device.

    Raises:
        ValueError: If there is no such device.
    """
    try:
        return wrapper.to(device)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"the model cannot be put on --device {device}: {error}") from error


def _listing() -> str:
    from captum_interactions.evaluation import STUDIES

    lines = []
    for name, kind in STUDIES.items():
        lines.append(f"{name}: {kind.question}")
        lines += [
            f"    --set {one.name}={one.default!r}" for one in fields(kind) if one.name != "methods"
        ]
    return "\n".join(lines)
