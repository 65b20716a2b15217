"""Base classes of studies: the measurement of each record, and the summary of all rows."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from captum_interactions.datasets import Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.summary import Summary
from captum_interactions.explanation import check_options, explain_batch, is_complete
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.maps.interaction_map import InteractionMap

Map = InteractionMap | FirstOrderMap


_REMARKS: ContextVar[dict[str, str] | None] = ContextVar("remarks", default=None)


@contextmanager
def remarks() -> Iterator[dict[str, str]]:
    """Collect remarks on the records that are measured in this context, by their keys."""
    found: dict[str, str] = {}
    token = _REMARKS.set(found)
    try:
        yield found
    finally:
        _REMARKS.reset(token)


def view(default: Any) -> Any:
    """A field that only :meth:`Study.summarise` reads; it can change without new measurements."""
    return field(default=default, metadata={"view": True})


@dataclass(frozen=True)
class Study(ABC):
    """A measurement of the records of a dataset, with a model.

    A study is a frozen dataclass whose fields are its options; all have defaults and JSON types.
    :func:`~captum_interactions.evaluation.run_study` runs it. The command line runs the studies in
    :data:`captum_interactions.evaluation.studies.catalogue.STUDIES` by name.
    """

    name: ClassVar[str]
    """Its name on the command line."""
    title: ClassVar[str]
    """The heading of its summary."""
    question: ClassVar[str]
    """One line for ``captum-interactions evaluate --list``."""
    needs: ClassVar[str] = "boxes of the phrases of a caption"
    """What it takes from a dataset beside images and captions, for the same list."""
    measures: ClassVar[str] = ""
    """The name of its rows; studies that measure the same rows under one name share a folder.
    Default: the study's name"""
    dataset_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Default options of datasets, by the dataset's name."""

    seed: int = 0
    """Seed of all random numbers of the study."""

    @property
    def rows_name(self) -> str:
        """The name of the rows, see :attr:`measures`."""
        return self.measures or self.name

    @property
    def settings(self) -> dict[str, Any]:
        """The options that rows depend on; results of other settings cannot be joined."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if not one.metadata.get("view") and one.name not in self._apart
        }

    _apart: ClassVar[tuple[str, ...]] = ()
    """Fields that :attr:`variants` contains."""

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """The variants of a record, which get one row each: usually methods, with their options.

        A run may add variants to the results of other runs. A name always stands for the same
        options.
        """
        return {self.name: {}}

    def records(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records that are measured: those of the dataset, or others made from them."""
        return records

    def declines(self, record: Record) -> str | None:
        """The reason why a record cannot be measured; None if it can. Opens no image."""
        return None

    @abstractmethod
    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        """Values of each record, in order, of JSON types (NaN becomes None).

        They depend only on the record, not on the other records. The caller catches exceptions, and
        then tries the records one by one.
        """

    @abstractmethod
    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        """Tables and figures from all measured rows, without a model.

        Args:
            rows: The measured rows of these records, sorted by variant and record. They may include
                variants of earlier runs.
            records: The dataset, for figures; ``row.of(records)`` is a row's record.
        """


DEFAULT_METHODS = (
    "second_order_integrated_gradients",
    "token_similarity",
    "interaction_cam",
    "integrated_gradients",
    "grad_eclip",
)
"""Methods of both orders and of several kinds, which take at most seconds per pair."""


@dataclass(frozen=True)
class MethodStudy(Study):
    """A study of attribution methods, each of which is a variant.

    A method is written as its name, or with options, such as
    ``banzhaf_interactions:n_samples=512,layers=[0,0]``.

    Raises:
        ValueError: If a method is unknown or its text is invalid.
        TypeError: If a method does not have an option.
    """

    methods: tuple[str, ...] = DEFAULT_METHODS

    _apart: ClassVar[tuple[str, ...]] = ("methods",)

    def __post_init__(self) -> None:
        for method in self.methods:
            check_options(*parse_method(method))

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        parsed = {method: parse_method(method) for method in self.methods}
        return {
            method: {"attribution": name, "options": options}
            for method, (name, options) in parsed.items()
        }

    def explain(
        self,
        wrapper: DualEncoderWrapper,
        variant: str,
        records: Sequence[Record],
        captions: Sequence[str] | None = None,
        spans: Sequence[Sequence[tuple[int, int]]] | None = None,
    ) -> list[Map]:
        """The map of each record by one of the methods; captions that are too long are cut.

        If the values of a map are no larger than rounding errors, its row gets a message.

        Args:
            wrapper: The model.
            variant: The method.
            records: Records whose images are explained.
            captions (optional): Captions of these images. Default: those of the records
            spans (optional): The spans of each caption that are needed, which makes maps cheaper,
                see :func:`~captum_interactions.explain_batch`. Default: all
        """
        name, options = parse_method(variant)
        maps = explain_batch(
            wrapper,
            [record.image for record in records],
            captions or [record.caption for record in records],
            name,
            truncation=True,
            spans=spans,
            **options,
        )
        said = _REMARKS.get()
        for record, imap in zip(records, maps, strict=True):
            if imap.at_rounding and said is not None:
                names = " and ".join(imap.at_rounding)
                said[record.key] = f"{names} of the map no larger than rounding errors"
        return maps

    def is_complete(self, wrapper: DualEncoderWrapper, variant: str) -> bool:
        """Whether the convergence delta of a method is a numerical error, see its class."""
        return is_complete(wrapper, *parse_method(variant))


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """Parse ``"name:key=value,key=[1,2]"`` into name and options; values are JSON, or else text.

    Examples:
        >>> parse_method("lifted:n_steps=8,layers=[0,-1]")
        ('lifted', {'n_steps': 8, 'layers': (0, -1)})
    """
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    depth, piece, pieces = 0, "", []
    for letter in rest:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth:
            pieces.append(piece)
            piece = ""
        else:
            piece += letter
    for one in [*pieces, piece] if rest else []:
        key, equals, value = one.partition("=")
        if not (key and equals):
            raise ValueError(
                f"a method is written as NAME or NAME:OPTION=VALUE,..., but got {text!r}"
            )
        options[key.strip()] = parse_value(value)
    return name, options


def parse_value(text: str) -> Any:
    """Parse JSON, or else return the text; lists become tuples.

    Examples:
        >>> parse_value("0.5"), parse_value("[1, 2]"), parse_value("frozen")
        (0.5, (1, 2), 'frozen')
    """
    try:
        return _tuples(json.loads(text))
    except ValueError:
        return text


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
