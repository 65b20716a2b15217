"""Arguments of the command line, and messages that speak of them as they were typed."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Wrong arguments are a ValueError of one line, with what was probably meant."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # The parser of a command is asked by its parent, which would not know its options.
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            near = did_you_mean(word, self._option_string_actions)
            self.error(f"unknown argument {word!r}{near}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # Python 3.14 has suggestions of its own (suggest_on_error).
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, must_be_one_of(action.choices, value))


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def positive(value: str) -> int:
    """A whole number of at least 1."""
    if value.isdecimal() and int(value) >= 1:
        return int(value)
    raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, but got {value!r}")


def must_be_one_of(known: Iterable[str], value: Any) -> str:
    """Half a sentence about a name that is not known, with the nearest one that is."""
    known = list(known)
    return f"must be one of {', '.join(known)}, but got {value!r}{did_you_mean(value, known)}"


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """``"; did you mean X?"`` for the nearest known word, or nothing if none is near."""
    near = get_close_matches(str(word), list(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


@contextmanager
def speaking_of(option: str, words: Mapping[str, str] | None = None) -> Iterator[None]:
    """Errors inside speak of an option.

    Args:
        option (str): What was typed.
        words (mapping, optional): What arguments in Python are called on the command line.
    """
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        message = str(error)
        for python, typed in (words or {}).items():
            message = message.replace(python, typed)
        raise ValueError(f"{option}: {message}") from error
