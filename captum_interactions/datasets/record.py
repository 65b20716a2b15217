"""Records of datasets: an image, a caption, and which words name which regions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_interactions.encoders.inputs.loading import load_image

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels of the original image, 0-based and half-open, x to the right and y
down."""


@dataclass(frozen=True)
class Phrase:
    """Words of a caption, and the regions of the image that they name."""

    text: str
    span: tuple[int, int]
    """Half-open range of characters: ``caption[span[0]:span[1]] == text``."""
    boxes: tuple[Box, ...] = ()
    """All boxes that the phrase names; empty if the annotation has none."""
    label: str | None = None
    """The class of the object, such as a COCO category, an entity type, or a shape."""
    mask: npt.NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    """(H, W) of the original image, true inside the object; None if not annotated."""


def unnamed_boxes(boxes: Iterable[Box], phrases: Iterable[Phrase]) -> tuple[Box, ...]:
    """Those of an image's boxes that no phrase has, each once."""
    named = {box for phrase in phrases for box in phrase.boxes}
    return tuple(box for box in dict.fromkeys(boxes) if box not in named)


@dataclass(frozen=True)
class HardNegative:
    """Of a false caption: the true caption, and the words that differ."""

    positive_key: str
    """Key of the record with the true caption of the same image."""
    positive_caption: str
    span: tuple[int, int] | None
    """Half-open character range of the false words in the false caption; None if unknown."""
    replaced: tuple[str, str] | None = None
    """(true words, false words)."""
    boxes: tuple[Box, ...] = ()
    """Boxes of the object that the true words name, or of which they are an attribute; empty if
    this is not annotated."""


@dataclass(frozen=True)
class Record:
    """An image and a caption with their annotations."""

    key: str
    """Unique in its dataset and the same in every run, even if other records are skipped."""
    caption: str
    phrases: tuple[Phrase, ...]
    """In the order of the caption."""
    open_image: Callable[[], Image.Image] = field(repr=False, compare=False)
    """Reads the image, which is not read before."""
    source: str
    """The place of the annotation, such as ``captions_val2017.json: annotation 38``."""
    hard_negative: HardNegative | None = None
    """Set if the caption is false of the image."""
    image_key: str = ""
    """Identifies the image, since the values of its records are not independent; empty if no other
    record has this image."""
    unnamed: tuple[Box, ...] = ()
    """Boxes of annotated objects that no phrase names, if the dataset has any."""

    @property
    def image(self) -> Image.Image:
        """The image in RGB, upright, read at each access."""
        return load_image(self.open_image())

    @property
    def grounded(self) -> tuple[Phrase, ...]:
        """The phrases that have boxes."""
        return tuple(phrase for phrase in self.phrases if phrase.boxes)
