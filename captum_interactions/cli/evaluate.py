"""The command ``captum-interactions evaluate``."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_interactions.cli.model import (
    add_device,
    check_model,
    load_model,
    note_bundled_model,
    parse_method,
)
from captum_interactions.cli.output import print_json
from captum_interactions.cli.parser import (
    add_json,
    did_you_mean,
    must_be_one_of,
    positive,
    speaking_of,
)
from captum_interactions.cli.tables import summary_text

if TYPE_CHECKING:
    from captum_interactions.evaluation.study import Study
    from captum_interactions.evaluation.summary import Summary

SCENES = 200
"""Generated scenes, unless told otherwise."""


def add_evaluate(commands: Any) -> None:
    """Add ``evaluate`` to the program's commands."""
    parser = commands.add_parser(
        "evaluate",
        help="run a study of a model's explanations on a dataset",
        description="Run a study. Started again with the same command it goes on where it was; "
        "under torchrun or accelerate launch the records are shared by all processes.",
    )
    parser.set_defaults(run=_evaluate)
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
        "'all': all methods",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], type=_option, metavar="NAME=VALUE", dest="settings",
        help="an option of the study, see --list",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=positive, metavar="N",
        help=f"only the first N records (default: all; of scenes, {SCENES})",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder of the results (default: evaluation/ROWS-DATASET)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive, default=8, metavar="N", help="records explained together (8)"
    )
    add_device(parser)
    parser.add_argument(
        "--on-error", choices=["raise", "skip"], default="raise",
        help="what to do about broken records of a dataset (default: stop)",
    )  # fmt: skip
    parser.add_argument("--retry-failed", action="store_true", help="measure failed records again")
    parser.add_argument(
        "--summarise", action="store_true", help="only make tables and figures of what is there"
    )
    add_json(parser)


def _evaluate(options: argparse.Namespace) -> None:
    if not options.list and not options.summarise:
        check_model(options.model)

    from captum_interactions.evaluation import STUDIES, processes, run_study, summarise
    from captum_interactions.evaluation.runner import declined

    if options.list:
        _list_studies(options.json)
        return
    if options.study not in STUDIES:
        raise ValueError(f"STUDY {must_be_one_of(STUDIES, options.study)}")
    study = _study(STUDIES[options.study], options)
    records, described = _records(study, options)
    found: Summary | None
    output = options.output or Path("evaluation") / f"{study.rows_name}-{options.dataset}"
    if options.summarise:
        found = summarise(study, output, records)
    else:
        reason = declined(study, records)
        if reason is not None:
            raise RuntimeError(
                f"no record can be measured, the first one because: {reason}; {study.name} needs "
                f"{study.needs}"
            )
        here = processes(options.device)
        if options.model is None and options.dataset != "scenes":
            note_bundled_model()
        try:
            found = run_study(
                study,
                load_model(options.model, here.device),
                records,
                output,
                dataset=described,
                batch_size=options.batch_size,
                retry_failed=options.retry_failed,
                show_progress=True,
                processes=here,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"rerun the command to resume from {output}") from None
        if found is None:  # another process speaks for all
            return
    if options.json:
        tables = {
            name: {"columns": table.columns, "rows": table.rows, "caption": table.caption}
            for name, table in found.tables.items()
        }
        print_json({"output": str(output), "notes": found.notes, "tables": tables})
    else:
        print(summary_text(study.title, found))
        figures = f", with figures: {', '.join(found.figures)}" if found.figures else ""
        print(f"\nwritten to {output / study.name}{figures}")
    counts = found.tables["records"]
    if not any(row[counts.columns.index("measured")] for row in counts.rows):
        what, message = found.tables["problems"].rows[0][1:3]
        raise RuntimeError(
            f"no record was measured, the first one because: {what}, {message} (all reasons are in "
            f"{output / study.name / 'problems.md'})"
        )


def _records(study: Study, options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The records of the dataset, and how they are described in the results.

    Raises:
        ValueError: If there is no such dataset, or it cannot be opened in this way.
    """
    from captum_interactions.datasets import DATASETS, load_dataset

    if options.dataset not in DATASETS:
        raise ValueError(f"--dataset {must_be_one_of(sorted(DATASETS), options.dataset)}")
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
    words = {
        "with path": "with --data",
        "no path": "no --data",
        "unknown option": "unknown --dataset-option",
    }
    with speaking_of(f"--dataset {options.dataset}", words):
        records: Any = load_dataset(
            options.dataset, options.data, options.split, on_error=options.on_error, **given
        )
    return _First(records, options.limit), described


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
        ValueError: If it has no such option, or the option no such value.
    """
    from captum_interactions.attr import attributions
    from captum_interactions.datasets.reading import shown

    known = {one.name: one for one in fields(kind)}
    settings = dict(options.settings)
    if options.methods is not None:
        methods = options.methods
        if methods == ["all"]:
            methods = [info.name for info in attributions()]
        for method in methods:
            parse_method("--methods", method)
        if "methods" not in known:
            raise ValueError(f"--methods: the study {kind.name} compares no methods")
        settings["methods"] = tuple(methods)
    for name, value in settings.items():
        if name not in known:
            raise ValueError(
                f"--set: {kind.name} has no option {name!r}, its options are {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            )
        default = known[name].default
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            settings[name] = value = float(value)
        is_kind = isinstance(value, type(default)) and (
            isinstance(value, bool) == isinstance(default, bool)  # a bool is an int, to Python
        )
        if default is not None and not is_kind:
            kind_of = f"of the kind of its default {default!r}"
            if isinstance(default, tuple):  # a default may be a long list
                kind_of = f"a JSON list such as {json.dumps(default[:1])}"
            raise ValueError(f"--set {name}: must be {kind_of}, but got {shown(value)}")
    with speaking_of("--set"):
        return kind(**settings)


def _option(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` with a JSON value, or else text."""
    from captum_interactions.evaluation.study import parse_value

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, but got {text!r}")
    return name, parse_value(value)


def _held_out_seed() -> int:
    from captum_interactions.zoo import REPORT_SEED

    return REPORT_SEED


def _list_studies(as_json: bool) -> None:
    """Print the studies and their options."""
    from captum_interactions.evaluation import STUDIES

    settings = {
        kind: {one.name: one.default for one in fields(kind) if one.name != "methods"}
        for kind in STUDIES.values()
    }
    if as_json:
        print_json(
            {
                name: {"question": kind.question, "needs": kind.needs, "options": settings[kind]}
                for name, kind in STUDIES.items()
            }
        )
        return
    for name, kind in STUDIES.items():
        print(f"{name}: {kind.question}")
        print(f"    needs beside images and captions: {kind.needs}")
        for option, default in settings[kind].items():
            print(f"    --set {option}={default!r}")
