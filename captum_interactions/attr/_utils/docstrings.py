"""Complete the docstrings of methods with what their base classes say about shared arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_SECTIONS = ("Args", "Returns", "Raises", "Warns", "Examples")


def complete_docstrings(cls: type[Any], root: type[Any]) -> None:
    """Add the shared parts to the docstrings of a class and of its public methods.

    A docstring needs to describe only what is special about its class or method. The description
    of any other argument in the signature comes from the nearest base class that has one; for a
    method such as ``decompose``, also from ``attribute``. Returns and errors come from the same
    method of a base class.

    Args:
        cls (type): The class.
        root (type): The base class from which on docstrings count.
    """
    bases = [base for base in cls.__mro__[1:] if issubclass(base, root)]
    cls.__doc__ = _completed(
        cls.__doc__, [base.__doc__ for base in bases], [], inspect.signature(cls.__init__)
    )
    for name, method in _public_methods(cls):
        same = [base.__doc__ for base in _named(bases, name)]
        attribute = [base.__doc__ for base in _named([cls, *bases], "attribute")]
        method.__doc__ = _completed(method.__doc__, same, attribute, inspect.signature(method))


def _public_methods(cls: type[Any]) -> list[tuple[str, Any]]:
    """Own methods, ``attribute`` first, because others use its docstring."""
    own = {k: v for k, v in vars(cls).items() if inspect.isfunction(v) and not k.startswith("_")}
    return sorted(own.items(), key=lambda item: item[0] != "attribute")


def _named(classes: Iterable[type[Any]], name: str) -> list[Callable[..., Any]]:
    return [vars(cls)[name] for cls in classes if name in vars(cls)]


def _completed(
    own: str | None,
    inherited: Sequence[str | None],
    for_arguments: Sequence[str | None],
    signature: inspect.Signature,
) -> str | None:
    """A docstring with the arguments, returns and errors of others that it does not name.

    Args:
        own: The docstring; None if there is none (``python -OO``).
        inherited: Docstrings for all sections but the examples, nearest first.
        for_arguments: Further docstrings, for arguments alone.
        signature: Names and order of the arguments.
    """
    if own is None:
        return None
    mine, *others = [_sections(text) for text in (own, *inherited) if text]
    described = [mine, *others, *(_sections(text) for text in for_arguments if text)]
    arguments: list[str] = []
    for name in signature.parameters:
        found = (_entries(sections["Args"]).get(name) for sections in described)
        entry = next(filter(None, found), None)
        # An entry may describe several arguments.
        if entry and entry not in arguments:
            arguments.append(entry)
    mine["Args"] = "\n".join(arguments)
    for sections in others:
        for name in ("Returns", "Warns"):
            mine[name] = mine[name] or sections[name]
        known = _entries(mine["Raises"])
        more = [text for name, text in _entries(sections["Raises"]).items() if name not in known]
        mine["Raises"] = "\n".join(filter(None, [mine["Raises"], *more]))
    parts = [mine[""]]
    headings = {name: f"{name}:\n" for name in _SECTIONS} | {"Examples": "Examples::\n\n"}
    parts += [headings[name] + mine[name] for name in filter(mine.get, _SECTIONS)]
    return "\n\n".join(parts) + "\n"


def _sections(docstring: str) -> dict[str, str]:
    """The text of each section of a docstring in Google's style, indented; "" is what leads."""
    pieces = re.split(rf"^({'|'.join(_SECTIONS)})::?$", inspect.cleandoc(docstring), flags=re.M)
    texts = dict.fromkeys(("", *_SECTIONS), "")
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
