"""The command line: one file per command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from captum_interactions.cli.evaluate import add_evaluate
from captum_interactions.cli.explain import add_explain
from captum_interactions.cli.index import add_index_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments (sequence of str, optional): Arguments after the program's name. Default: those of
            the process

    Returns:
        int: exit status, 0 on success and 2 if the input was wrong.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"captum-interactions: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captum-interactions",
        description="Which part of one input matched or clashed with which part of another?",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_explain(commands)
    add_evaluate(commands)
    add_index_commands(commands)
    return parser
