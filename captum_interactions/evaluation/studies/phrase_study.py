"""The pointing game of every phrase: what the studies of localisation and of classes measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from captum_interactions.datasets import Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.phrases import (
    check_regions,
    counted,
    phrase_spans,
    pointing,
    readable,
    unread_notes,
)
from captum_interactions.evaluation.rows import Row, by_variant
from captum_interactions.evaluation.study import Map, MethodStudy, view
from captum_interactions.metrics import Sign


@dataclass(frozen=True)
class PhraseStudy(MethodStudy):
    """What the studies of grounding share: the pointing game of each phrase with boxes.

    The filters choose among phrases that were measured, so they may change at no cost.

    Raises:
        ValueError: If an option has no such value.
    """

    measures: ClassVar[str] = "phrases"

    regions: str = "boxes"
    """``"boxes"``, as in the paper, or ``"masks"`` where the dataset has them."""
    sign: Sign = "positive"
    """What of a map counts as its mass, see :data:`~captum_interactions.metrics.Sign`."""
    single_instance: bool = view(False)
    """Only phrases with one box, no other box of the record bearing the same label."""
    min_area: float = view(0.0)
    """Only phrases whose boxes cover at least this share of the image."""
    max_area: float = view(1.0)
    """Only phrases whose boxes cover at most this share of the image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_regions(self.regions)
        if self.sign not in ("positive", "negative", "absolute"):
            raise ValueError(
                f"sign must be 'positive', 'negative' or 'absolute', but got {self.sign!r}"
            )
        if not 0 <= self.min_area <= self.max_area <= 1:
            raise ValueError(
                "min_area and max_area are shares of the image, from 0 to 1, but got "
                f"{self.min_area} and {self.max_area}"
            )

    def declines(self, record: Record) -> str | None:
        return no_ground_truth(record)

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        maps = self.explain(wrapper, variant, records, spans=phrase_spans(records))
        complete = self.is_complete(wrapper, variant)
        return [
            {
                "delta": getattr(imap, "convergence_delta", None) if complete else None,
                **self.values(imap, record),
            }
            for imap, record in zip(maps, records, strict=True)
        ]

    def values(self, imap: Map, record: Record) -> dict[str, Any]:
        """What is measured on a record's map."""
        return {
            "score": imap.score,
            "phrases": pointing(imap, record, regions=self.regions, sign=self.sign),
            "unread": len(record.grounded) - len(readable(imap, record)),
        }

    def phrases(self, rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
        """Phrases that pass the filters and that the model sees, by variant.

        Returns:
            dict: of each variant, see ``captum_interactions.evaluation.phrases.counted``.
        """
        return {
            variant: list(filter(self._passes, counted(own)))
            for variant, own in by_variant(rows).items()
        }

    def _passes(self, phrase: Mapping[str, Any]) -> bool:
        is_single = phrase["n_boxes"] == phrase["n_alike"] == 1
        fits = self.min_area <= phrase["area"] <= self.max_area
        return fits and (is_single or not self.single_instance)

    def notes(self, rows: Sequence[Row]) -> list[str]:
        """Which phrases are counted, and how."""
        filters = [f"boxes cover {self.min_area:g} to {self.max_area:g} of the image"]
        if self.single_instance:
            filters.append("one box per phrase, and no other of its label")
        counted = f"Regions: {self.regions}; mass: {self.sign} values; {'; '.join(filters)}."
        return [counted, *unread_notes(rows)]


def no_ground_truth(record: Record) -> str | None:
    """Why a record does not say where the objects of its caption are; None if it does."""
    if record.hard_negative is not None:
        return "the caption is false of the image"
    return None if record.grounded else "no phrase of the caption has a box"
