"""Docstrings and signatures of all methods are whole, wherever their parts come from."""

from __future__ import annotations

import inspect
import pydoc
import re

import pytest

from captum_interactions.attr import ATTRIBUTIONS, attributions
from captum_interactions.attr._utils.docstrings import complete_docstrings


def public_methods(cls):
    yield cls, cls.__init__
    for name, function in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_") and function.__module__.startswith("captum_interactions"):
            yield function, function


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_all_arguments_are_described_and_no_others(name):
    for documented, function in public_methods(ATTRIBUTIONS[name]):
        expected = list(inspect.signature(function).parameters)[1:]
        if not expected:
            continue
        text = inspect.getdoc(documented)
        args = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", text, re.M | re.S)[1]
        entries = re.findall(r"^    (\w[\w, ]*?)(?: \(.*?\))?:", args, re.M)
        described = [one for entry in entries for one in entry.split(", ")]
        assert described == expected, function


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_help_on_attribute(name):
    text = pydoc.plain(pydoc.render_doc(ATTRIBUTIONS[name].attribute))
    for part in ("inputs (tuple[Tensor, Tensor]): ", "target: Must be None", "Returns:", "Raises:"):
        assert part in text
    assert re.search(r"Returns:\s+(tuple\[)?\*{0,2}(Tensor|attributions)", text)
    assert re.search(r"TypeError: If .*\n(.*\n)*\s+ValueError: If", text)


def test_classes_say_what_they_need_and_cost():
    for info in attributions():
        assert inspect.getdoc(info.method).startswith(info.method.__doc__.splitlines()[0])
        assert "Raises:\n    TypeError: If" in info.method.__doc__
        assert info.needs
        assert "pass" in info.cost


class Base:
    """What all have.

    Args:
        model: The model.
        extra: Of some subclasses.

    Raises:
        TypeError: If it is no model.
        ValueError: Never.

    Examples::

        >>> 2 + 2
        4
    """

    def __init__(self, model):
        self.model = model

    def attribute(self, inputs, target=None):
        """Attribute.

        Args:
            inputs (Tensor): Rows,
                in two lines.
            n_steps, method: Of some.
            target: A class.

        Returns:
            Tensor: the map.
        """


class Method(Base):
    """A method.

    Args:
        n: A number.

    Raises:
        ValueError: If n is negative.
    """

    def __init__(self, model, n, extra=None):
        super().__init__(model)

    def attribute(self, inputs, target=None, n_steps=1, method=2, *, scale=3):
        """Attribute more.

        Args:
            target: Must be None.
            scale: A factor.

        Examples::

            >>> 1 + 1
            2
        """

    def decompose(self, inputs, n_steps=1):
        """Decompose."""


def test_a_class_and_its_methods():
    complete_docstrings(Base, Base)
    complete_docstrings(Method, Base)
    assert Method.__doc__ == (
        "A method.\n\n"
        "Args:\n    model: The model.\n    n: A number.\n    extra: Of some subclasses.\n\n"
        "Raises:\n    TypeError: If it is no model.\n    ValueError: If n is negative.\n"
    )
    assert Method.attribute.__doc__ == (
        "Attribute more.\n\n"
        "Args:\n    inputs (Tensor): Rows,\n        in two lines.\n    target: Must be None.\n"
        "    n_steps, method: Of some.\n    scale: A factor.\n\n"
        "Returns:\n    Tensor: the map.\n\n"
        "Examples::\n\n    >>> 1 + 1\n    2\n"
    )
    assert Method.decompose.__doc__ == (
        "Decompose.\n\n"
        "Args:\n    inputs (Tensor): Rows,\n        in two lines.\n    n_steps, method: Of some.\n"
    )
    assert "n_steps" not in Base.attribute.__doc__
    assert "extra" not in Base.__doc__
