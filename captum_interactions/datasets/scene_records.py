"""The generated scenes as records, with false captions on request."""

from __future__ import annotations

import numpy as np

from captum_interactions.datasets.record import Box, HardNegative, Phrase, Record
from captum_interactions.datasets.scenes import Scene, SceneObject, Scenes
from captum_interactions.datasets.sequence import RecordSequence
from captum_interactions.datasets.shapes import COLOURS, SHAPES


class SceneRecords(RecordSequence[tuple[int, bool]]):
    """:class:`Scenes` as records: a phrase for each object that the caption names.

    The label of a phrase is the object's shape, one of ten, the analogue of a COCO category. Its
    words are all that the caption says of the object, such as ``"small red circle"``. It has the
    object's box and mask.

    Args:
        n: Number of scenes.
        seed: Any non-negative integer. Default: 0.
        domain: A key of :data:`DOMAINS`. Default: ``"plain"``.
        hard_negatives: If true, each scene's record is followed by one with a false caption: the
            colour or the shape of one phrase is replaced so that no object of the scene fits it.
            There are then 2 ``n`` records. Default: False.

    Raises:
        ValueError: If ``n`` or ``seed`` is negative or the domain is unknown.

    Examples:
        >>> record = SceneRecords(10, seed=7)[3]
        >>> record.key
        'plain-7-3'
        >>> [phrase.label in phrase.text for phrase in record.phrases]
        [True]
    """

    def __init__(
        self, n: int, seed: int = 0, domain: str = "plain", *, hard_negatives: bool = False
    ) -> None:
        self.scenes = Scenes(n, seed, domain)
        kinds = (False, True) if hard_negatives else (False,)
        super().__init__([(index, is_false) for index in range(n) for is_false in kinds])

    def _record(self, entry: tuple[int, bool]) -> Record:
        index, is_false = entry
        scene, scenes = self.scenes[index], self.scenes
        key = f"{scenes.domain}-{scenes.seed}-{index}"
        record = Record(
            key=key,
            caption=scene.caption,
            phrases=tuple(_phrase(thing) for thing in scene.named),
            open_image=scene.image.copy,
            source=f"Scenes(seed={scenes.seed}, domain={scenes.domain!r})[{index}]",
            image_key=key,
            unnamed=tuple(_box(thing) for thing in scene.objects if thing.span is None),
        )
        return (
            _hard_negative(record, scene, np.random.default_rng([scenes.seed, index]))
            if is_false
            else record
        )


def _phrase(thing: SceneObject) -> Phrase:
    assert thing.phrase is not None
    assert thing.span is not None
    return Phrase(thing.phrase, thing.span, (_box(thing),), thing.shape, thing.mask)


def _box(thing: SceneObject) -> Box:
    x0, y0, x1, y1 = map(float, thing.box)
    return x0, y0, x1, y1


def _hard_negative(record: Record, scene: Scene, rng: np.random.Generator) -> Record:
    """The same scene with one false word in its caption."""
    k = int(rng.integers(len(scene.named)))
    thing, phrase = scene.named[k], record.phrases[k]
    present = {(thing.colour, thing.shape) for thing in scene.objects}
    # An orange thing keeps its colour, and no other becomes orange: "a" would have to become "an".
    colours = [
        c for c in COLOURS if (c, thing.shape) not in present and "orange" not in (c, thing.colour)
    ]
    shapes = [s for s in SHAPES if (thing.colour, s) not in present]
    swap_colour = bool(colours) and rng.random() < 0.5
    true, false = (
        (thing.colour, str(rng.choice(colours)))
        if swap_colour
        else (thing.shape, str(rng.choice(shapes)))
    )
    start = phrase.span[0] + phrase.text.index(true)
    caption = record.caption[:start] + false + record.caption[start + len(true) :]
    shift = len(false) - len(true)
    phrases = list(record.phrases)
    for i, other in enumerate(phrases):
        first, last = other.span
        if i == k:  # it names nothing any more
            phrases[i] = Phrase(caption[first : last + shift], (first, last + shift))
        elif first > start:
            phrases[i] = Phrase(
                other.text, (first + shift, last + shift), other.boxes, other.label, other.mask
            )
    return Record(
        key=f"{record.key}-negative",
        caption=caption,
        phrases=tuple(phrases),
        open_image=record.open_image,
        source=record.source,
        hard_negative=HardNegative(
            positive_key=record.key,
            positive_caption=record.caption,
            span=(start, start + len(false)),
            replaced=(true, false),
            boxes=phrase.boxes,
        ),
        image_key=record.image_key,
        unnamed=(*record.unnamed, *phrase.boxes),
    )
