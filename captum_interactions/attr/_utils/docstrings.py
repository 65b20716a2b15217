"""Complete the docstrings of methods with what their base classes say about shared arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

_HEADINGS = {
    "Args": "Args:\n",
    "Returns": "Returns:\n",
    "Raises": "Raises:\n",
    "Warns": "Warns:\n",
    "Examples": "Examples::\n\n",
}
_OWN: dict[Any, str] = {}
"""Docstrings of classes and methods as they were written."""


def complete_docstrings(cls: type[Any], root: type[Any]) -> None:
    """Add the shared parts to the docstrings of a class and of its public methods.

    A docstring needs to describe only what is special about its class or method. The description
    of any other argument in the signature comes from the nearest base class that has one; for a
    method such as ``decompose``, also from ``attribute``. Returns and errors come from the same
    method of a base class. A base class may describe arguments that only its subclasses have.

    Args:
        cls (type): The class.
        root (type): The last base class whose docstrings are used.
    """
    bases = [base for base in cls.__mro__[1:] if issubclass(base, root)]
    own = {name: value for name, value in vars(cls).items() if inspect.isfunction(value)}
    public = {name: value for name, value in own.items() if not name.startswith("_")}
    _OWN.update((documented, documented.__doc__ or "") for documented in (cls, *public.values()))
    inherited = [_own(base) for base in bases]
    cls.__doc__ = _completed(cls.__doc__, inherited, [], inspect.signature(cls.__init__))
    for name, method in public.items():
        same, attribute = _docstrings(bases, name), _docstrings([cls, *bases], "attribute")
        method.__doc__ = _completed(method.__doc__, same, attribute, inspect.signature(method))


def _docstrings(classes: Sequence[type[Any]], name: str) -> list[str]:
    """What each class itself says about a method."""
    methods = (inspect.unwrap(vars(cls)[name]) for cls in classes if name in vars(cls))
    return [_own(method) for method in methods]


def _own(documented: Any) -> str:
    return _OWN.get(documented, documented.__doc__ or "")


def _completed(
    own: str | None,
    inherited: Sequence[str],
    for_arguments: Sequence[str],
    signature: inspect.Signature,
) -> str | None:
    """A docstring with the arguments, returns and errors of others that it does not name.

    Args:
        own: The docstring; None if there is none (``python -OO``).
        inherited: Docstrings for all sections but the examples, nearest first.
        for_arguments: Further docstrings, for arguments only.
        signature: Names and order of the arguments.
    """
    if own is None:
        return None
    mine, *others = [_sections(text) for text in (own, *inherited)]
    described = [mine, *others, *map(_sections, for_arguments)]
    arguments: list[str] = []
    for name in signature.parameters:
        found = (_entries(sections["Args"]).get(name) for sections in described)
        entry = next(filter(None, found), None)
        # One entry may describe several arguments.
        if entry and entry not in arguments:
            arguments.append(entry)
    mine["Args"] = "\n".join(arguments)
    for sections in others:
        for name in ("Returns", "Warns"):
            mine[name] = mine[name] or sections[name]
        errors = _entries(sections["Raises"]) | _entries(mine["Raises"])
        mine["Raises"] = "\n".join(errors.values())
    parts = [mine[""], *(_HEADINGS[name] + mine[name] for name in filter(mine.get, _HEADINGS))]
    return "\n\n".join(parts) + "\n"


def _sections(docstring: str) -> dict[str, str]:
    """The text of each section of a docstring in Google's style, "" for the text before them."""
    pieces = re.split(rf"^({'|'.join(_HEADINGS)})::?$", inspect.cleandoc(docstring), flags=re.M)
    texts = dict.fromkeys(("", *_HEADINGS), "")
    texts[""] = pieces[0].rstrip()
    for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
        texts[name] = text.strip("\n")
    return texts


def _entries(section: str) -> dict[str, str]:
    """Entries ``name (type): text`` of a section, by name; ``a, b: text`` stands for both."""
    entries: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", section):
        if match := re.match(r"    ([\w*]+(?:, [\w*]+)*)(?: \([^\n]*\))?:", entry):
            entries |= dict.fromkeys(match[1].split(", "), entry.rstrip())
    return entries
