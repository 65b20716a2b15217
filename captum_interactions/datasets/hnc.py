"""HNC: captions made from scene graphs, each with one that is false in a word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from captum_interactions.datasets.archive import Files, ImageFile, find_folder
from captum_interactions.datasets.problems import DatasetError, Problems
from captum_interactions.datasets.reading import (
    box_from_xywh,
    need,
    need_image,
    numbers,
    read_json,
    shown,
)
from captum_interactions.datasets.record import Box, Foil, Phrase, Record
from captum_interactions.datasets.sequence import RecordSequence
from captum_interactions.datasets.words import Span, WordFinder, plurals

_ATTRIBUTE_TYPES = ("attribute", "attribute_subg", "and_logic_attr", "xor_logic_attr")
"""Types of captions in which the replaced word is an attribute of an object that they name."""


class Statement(NamedTuple):
    """A caption of an image."""

    image: str
    id: str
    caption: str
    type: str
    boxes: Mapping[str, tuple[Box, ...]]
    """Boxes of the objects, by their name."""
    foil: Foil | None


class HNCRecords(RecordSequence[Statement]):
    """HNC, hard negative captions (Dönmez et al., CoNLL 2023): one record for each caption.

    On disk, as downloaded (https://doi.org/10.18419/darus-4341), with the images of GQA:

    .. code-block:: text

        PATH/hnc_clean_strict_val.json
        PATH/images/2353884.jpg                 (or images.zip)

    The file maps an image's id to its captions, with or without a level ``"captions"`` between.
    A false caption (label 0) is a foil of the true one that ``cpt_p_id`` names in the same image.

    A phrase is a whole word, or words, of the caption that are the name of an annotated object, or
    its regular plural; objects of one name share their boxes, since nothing tells them apart. The
    label is the name. In a foil the false word may be a phrase with boxes too: the builders of HNC
    often take it from another object of the image.

    ``foil.span`` is where the false words of ``replaced`` stand in the false caption: where putting
    back the true ones gives the true caption, or else the only place where they stand; None if
    there is no such place. ``foil.boxes`` are those of the true caption's phrase that the true
    words are, or, for captions about an attribute, that they describe ("the **white** socks",
    "the socks are **white**"); empty for relations and counts.

    Args:
        path: The folder above, a zip file of it, or a JSON file.
        split: ``"train"``, ``"val"`` or ``"test"``: the JSON file whose name ends with it. Default:
            None, the only one that is there
        images: Folder or zip file with the images, if it is elsewhere. Default: None
        on_error: ``"raise"`` at the first broken caption, or ``"skip"`` it and list it in
            ``.skipped``. Default: ``"raise"``

    Raises:
        FileNotFoundError: If a file is missing.
        DatasetError: If a file is not as above, or an image is missing.
        ValueError: If the split must be given.
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
                entries += _statements(image, captions, where, problems)
        super().__init__(entries, problems.report("HNC"))

    def _record(self, entry: Statement) -> Record:
        return Record(
            key=f"{entry.image}-{entry.id}",
            caption=entry.caption,
            phrases=phrases_of(entry.caption, entry.boxes),
            open_image=ImageFile(self._images, f"{entry.image}.jpg"),
            source=f"{self._file}: image {entry.image}, caption {entry.id} ({entry.type})",
            foil=entry.foil,
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
    for number, caption in captions.items():
        place = f"{where}, caption {number}"
        with problems.one_record():
            text = need(caption, "caption", str, place)
            label = need(caption, "label", int, place)
            if label not in (0, 1):
                raise DatasetError(place, f"'label' must be 1 (true) or 0 (false), but is {label}")
            yield Statement(
                image,
                number,
                text,
                str(caption.get("type")),
                _boxes(caption.get("bboxes"), place),
                None if label else _foil(image, caption, text, captions, place),
            )


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
    """The phrases of a caption that are names of objects, or their plurals."""
    names = {form.lower(): name for name in boxes for form in reversed(plurals(name))}
    names |= {name.lower(): name for name in boxes}  # where one's plural is another's name
    return tuple(
        Phrase(caption[slice(*span)], span, boxes[names[word]], names[word])
        for span, word in WordFinder(names).find(caption)
    )


def _foil(
    image: str, caption: Mapping[str, Any], text: str, captions: Mapping[str, Any], where: str
) -> Foil:
    number = caption.get("cpt_p_id")
    if number is None:  # 0 is the id of a caption
        raise DatasetError(where, "is false, but 'cpt_p_id' does not say of which true caption")
    positive = captions.get(str(number))
    if not isinstance(positive, dict) or positive.get("label") != 1:
        raise DatasetError(where, f"'cpt_p_id' is {number}, but no true caption has this id")
    place = f"{where} (its true caption {number})"
    true_text = need(positive, "caption", str, place)
    replaced = caption.get("replaced")
    key = f"{image}-{number}"
    if not isinstance(replaced, list) or [type(words) for words in replaced] != [str, str]:
        if replaced not in (None, [None, None]):
            raise DatasetError(
                where, f"'replaced' must be [true words, false words], but is {shown(replaced)}"
            )
        return Foil(key, true_text, None)
    true, false = replaced
    span = replaced_span(text, false, true_text, true)
    described = _described(
        true_text,
        replaced_span(true_text, true, text, false),
        phrases_of(true_text, _boxes(positive.get("bboxes"), place)),
        is_attribute=caption.get("type") in _ATTRIBUTE_TYPES,
    )
    return Foil(key, true_text, span, (true, false), described)


def replaced_span(caption: str, words: str, other: str, other_words: str) -> Span | None:
    """Where ``words`` stand in a caption in which they replace ``other_words`` of another.

    Returns:
        The place where putting back gives the other caption; else the only place where they stand;
        else None.
    """
    spans = [span for span, _ in WordFinder([words]).find(caption)] if words.split() else []
    for start, stop in spans:
        if caption[:start] + other_words + caption[stop:] == other:
            return start, stop
    return spans[0] if len(spans) == 1 else None


def _described(
    caption: str, span: Span | None, phrases: tuple[Phrase, ...], *, is_attribute: bool
) -> tuple[Box, ...]:
    """Boxes of the phrase that a span is, or that it describes."""
    if span is None:
        return ()
    for phrase in phrases:
        if phrase.span[0] <= span[0] and span[1] <= phrase.span[1]:
            return phrase.boxes
    if is_attribute:
        for phrase in phrases:
            first, last = phrase.span
            if caption[span[1] : first].isspace():
                return phrase.boxes
            if re.fullmatch(r"\s+(that\s+)?(is|are)\s+", caption[last : span[0]]):
                return phrase.boxes
    return ()
