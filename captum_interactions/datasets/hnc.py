"""HNC: captions made from scene graphs, and false captions that differ in a few words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from captum_interactions.datasets.archive import Files, ImageFile, find_folder
from captum_interactions.datasets.hnc_foils import described, words_of, words_that_differ
from captum_interactions.datasets.problems import DatasetError, Problems
from captum_interactions.datasets.reading import (
    box_from_xywh,
    need,
    need_image,
    numbers,
    read_json,
    shown,
)
from captum_interactions.datasets.record import Box, HardNegative, Phrase, Record, unnamed_boxes
from captum_interactions.datasets.sequence import RecordSequence
from captum_interactions.datasets.words import WordFinder, plurals


class Statement(NamedTuple):
    """A caption of an image."""

    image: str
    id: str
    caption: str
    type: str
    boxes: Mapping[str, tuple[Box, ...]]
    """Boxes of the objects, by name."""
    hard_negative: HardNegative | None
    every: tuple[Box, ...] = ()
    """Boxes of the objects of all captions of the image."""


class HNCRecords(RecordSequence[Statement]):
    """HNC, hard negative captions (Dönmez et al., CoNLL 2023): one record for each caption.

    On disk, as downloaded (https://doi.org/10.18419/darus-4341), with the images of GQA:

    .. code-block:: text

        PATH/hnc_clean_strict_val.json
        PATH/images/2353884.jpg                 (or images.zip)

    The file maps an image's id to its captions, with or without a level ``"captions"`` in between.
    A false caption (label 0) is a foil of the true caption of the same image that ``cpt_p_id``
    names.

    A phrase consists of one or more whole words of the caption that are the name of an annotated
    object, or its regular plural. Its label is the name. Objects of the same name share their
    boxes, since the annotations do not say which one is meant. In a foil, the false words may be a
    phrase with boxes, too: HNC often takes them from another object of the image.

    ``hard_negative.replaced`` are the true and the false words of the file, if exchanging them
    gives the true caption. For the type ``attribute_subg`` the file's words are often wrong
    ("straw" for "bowl" where "banana" was replaced). Otherwise they are all words from the first to
    the last that differ. ``hard_negative.span`` is the range of the false words.
    ``hard_negative.boxes`` are the boxes of the phrase that the true words name, or, in captions
    about an attribute, describe ("the **white** socks", "the socks are **white**"). They are empty
    where this is unclear, for relations and counts, and for "either ... or" captions, whose false
    words may be true of the image. Some false captions have the same words as a true one of the
    image; they are left out and listed in ``.skipped`` for both values of ``on_error``.

    Args:
        path: The folder above, a zip file of it, or a JSON file.
        split: ``"train"``, ``"val"`` or ``"test"``, with which the name of the JSON file ends.
            Default: None, the only JSON file
        images: Folder or zip file with the images, if it is elsewhere. Default: None
        on_error: ``"raise"`` at the first invalid caption, or ``"skip"`` it and list it in
            ``.skipped``. Default: ``"raise"``

    Raises:
        FileNotFoundError: If a file is missing.
        DatasetError: If a file does not have this format, or an image is missing.
        ValueError: If there are several splits and ``split`` is None.
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        *,
        images: str | Path | None = None,
        on_error: str = "raise",
    ) -> None:
        problems, path = Problems(on_error), Path(path)
        is_json = path.suffix == ".json"
        root = Files(path.parent if is_json else path)
        self._file = path.name if is_json else _annotation_file(root, split)
        self._images = find_folder(
            [root if images is None else Files(images)],
            ["images"] if images is None else ["images", ""],
            "the images",
            lambda _: True,
        )
        holder = read_json(root, self._file)
        if not isinstance(holder, dict):
            raise DatasetError(root.where(self._file), f"expected an object, got {shown(holder)}")
        entries: list[Statement] = []
        for image, captions in holder.items():
            where = f"{self._file}: image {image}"
            with problems.one_record():
                need_image(self._images, f"{image}.jpg", where)
                own = list(_statements(image, captions, where, problems))
                boxes = chain.from_iterable(one.boxes.values() for one in own)
                every = tuple(dict.fromkeys(chain.from_iterable(boxes)))
                entries += [one._replace(every=every) for one in own]
        super().__init__(entries, problems.report("HNC"))

    def _record(self, entry: Statement) -> Record:
        phrases = phrases_of(entry.caption, entry.boxes)
        return Record(
            key=f"{entry.image}-{entry.id}",
            caption=entry.caption,
            phrases=phrases,
            open_image=ImageFile(self._images, f"{entry.image}.jpg"),
            source=f"{self._file}: image {entry.image}, caption {entry.id} ({entry.type})",
            hard_negative=entry.hard_negative,
            image_key=entry.image,
            unnamed=unnamed_boxes(entry.every, phrases),
        )


def _annotation_file(root: Files, split: str | None) -> str:
    names = [name for name in root.names() if name.endswith(".json")]
    fitting = [n for n in names if split is None or re.search(rf"(^|_){split}\.json$", n)]
    if len(fitting) == 1:
        return fitting[0]
    asked = f"for the split {split!r}" if split else "without a split"
    if not fitting:
        raise FileNotFoundError(
            f"there is no JSON file {asked} at {root.where()}, but "
            f"{', '.join(names) or 'none at all'}"
        )
    raise ValueError(f"several JSON files {asked} at {root.where()}: {', '.join(fitting)}")


def _statements(image: str, captions: Any, where: str, problems: Problems) -> Iterator[Statement]:
    if isinstance(captions, dict) and isinstance(captions.get("captions"), dict):
        captions = captions["captions"]
    if not isinstance(captions, dict):
        raise DatasetError(where, f"expected captions by their ids, but got {shown(captions)}")
    true = {
        words_of(caption["caption"]): number
        for number, caption in captions.items()
        if _is_true(caption) and isinstance(caption.get("caption"), str)
    }
    for number, caption in captions.items():
        place = f"{where}, caption {number}"
        with problems.one_record():
            text = need(caption, "caption", str, place)
            label = need(caption, "label", int, place)
            if label not in (0, 1):
                raise DatasetError(place, f"'label' must be 1 (true) or 0 (false), but is {label}")
            foil = None if label else _foil(image, caption, text, captions, place)
            if foil is not None and (same := true.get(words_of(text))) is not None:
                problems.leave_out(
                    place, f"is false, but has the words of the true caption {same}: {text!r}"
                )
                continue
            boxes = _boxes(caption.get("bboxes"), place)
            yield Statement(image, number, text, str(caption.get("type")), boxes, foil)


def _is_true(caption: Any) -> bool:
    return isinstance(caption, dict) and caption.get("label") == 1


def _boxes(bboxes: Any, where: str) -> dict[str, tuple[Box, ...]]:
    if bboxes is None:
        return {}
    if not isinstance(bboxes, dict):
        raise DatasetError(where, f"'bboxes' must be objects by their ids, but is {shown(bboxes)}")
    boxes: dict[str, tuple[Box, ...]] = {}
    for number, thing in bboxes.items():
        place = f"{where}, object {number}"
        sides = need(thing, "bbox", dict, place)
        xywh = list(numbers([sides.get(side) for side in "xywh"], place))
        box = box_from_xywh(xywh, place)
        name = need(thing, "name", str, place)
        boxes[name] = boxes.get(name, ()) + ((box,) if box is not None else ())
    return boxes


def phrases_of(caption: str, boxes: Mapping[str, tuple[Box, ...]]) -> tuple[Phrase, ...]:
    """The phrases of a caption that are names of objects or their plurals."""
    names = {form.lower(): name for name in boxes for form in reversed(plurals(name))}
    names |= {name.lower(): name for name in boxes}  # where one's plural is another's name
    return tuple(
        Phrase(caption[slice(*span)], span, boxes[names[word]], names[word])
        for span, word in WordFinder(names).find(caption)
    )


def _foil(
    image: str, caption: Mapping[str, Any], text: str, captions: Mapping[str, Any], where: str
) -> HardNegative:
    number = caption.get("cpt_p_id")
    if number is None:  # 0 is the id of a caption
        raise DatasetError(where, "is false, but 'cpt_p_id' does not say of which true caption")
    positive = captions.get(str(number))
    if not isinstance(positive, dict) or not _is_true(positive):
        raise DatasetError(where, f"'cpt_p_id' is {number}, but no true caption has this id")
    place = f"{where} (its true caption {number})"
    true_text = need(positive, "caption", str, place)
    there, here = words_that_differ(true_text, text, _replaced(caption.get("replaced"), where))
    words = None
    if there is not None and here is not None:
        words = true_text[slice(*there)], text[slice(*here)]
    phrases = phrases_of(true_text, _boxes(positive.get("bboxes"), place))
    boxes = described(str(caption.get("type")), true_text, there, phrases)
    return HardNegative(f"{image}-{number}", true_text, here, words, boxes)


def _replaced(value: Any, where: str) -> tuple[str, str] | None:
    if value in (None, [None, None]):
        return None
    if not isinstance(value, list) or [type(words) for words in value] != [str, str]:
        raise DatasetError(
            where, f"'replaced' must be [true words, false words], but is {shown(value)}"
        )
    return value[0], value[1]
