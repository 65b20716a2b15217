"""The command line: one file per command.

Arguments are parsed without torch, which takes seconds to import: commands import what they need
when they run. ``argparse`` it is because options with several values (``--images PATH ...``) are
not to be had in click and typer.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence

from captum_interactions import __version__
from captum_interactions.cli.app import add_app
from captum_interactions.cli.evaluate import add_evaluate
from captum_interactions.cli.explain import add_explain
from captum_interactions.cli.index import add_index_commands
from captum_interactions.cli.parser import Parser

_PROGRAM = "captum-interactions"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments (sequence of str, optional): Arguments after the program's name. Default: those of
            the process

    Returns:
        int: exit status: 0 on success, 2 if the input was wrong, 130 if interrupted, 141 if the
        reader of the output has gone.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may know no more than ASCII
    format_before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: _line(f"warning: {message}") + "\n"
    try:
        try:
            options = _parser().parse_args(arguments)
            options.run(options)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where errors are caught, and not when Python ends
    except KeyboardInterrupt as stop:
        print("\n" + _line(": ".join(["interrupted", *stop.args])), file=sys.stderr)
        return 130
    except BrokenPipeError:
        # What is left in the buffer is not to be written when Python ends, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError as error:
        print(_line(f"out of memory: {error}"), file=sys.stderr)
        return 2
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(_line(str(error)), file=sys.stderr)
        return 2
    finally:
        warnings.formatwarning = format_before
    return 0


def _line(message: str) -> str:
    return f"{_PROGRAM}: {' '.join(message.split())}"


def _parser() -> Parser:
    parser = Parser(
        prog=_PROGRAM,
        description="Explain the score that a dual encoder gives to two inputs: which part of one "
        "increased or decreased the score together with which part of the other.",
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_explain(commands)
    add_app(commands)
    add_evaluate(commands)
    add_index_commands(commands)
    return parser
