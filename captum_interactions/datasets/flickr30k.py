"""Flickr30k Entities: captions whose phrases are linked to boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from captum_interactions.datasets.archive import Files, ImageFile, find_folder
from captum_interactions.datasets.problems import DatasetError, Problems, claim
from captum_interactions.datasets.reading import check_size, need_image, shown
from captum_interactions.datasets.record import Box, Phrase, Record, unnamed_boxes
from captum_interactions.datasets.sequence import RecordSequence

_IMAGE_FOLDERS = (
    "flickr30k-images",
    "flickr30k_images",
    "images",
    "Images",
    "flickr30k_images/images",
    "flickr30k_images/flickr30k_images",
)
_NEVER_BOXED = "0"


class Sentence(NamedTuple):
    """A caption with its phrases."""

    image: str
    """The image's id."""
    line: int
    """The line in its file of sentences, from 1."""
    caption: str
    phrases: tuple[Phrase, ...]
    size: tuple[int, int]
    boxes: tuple[Box, ...]
    """Of all objects of the image."""


class Flickr30kRecords(RecordSequence[Sentence]):
    """Flickr30k Entities: one record for each of the five captions of an image.

    On disk, as downloaded, with the images beside the annotations; each part is a folder or a zip
    file, and ``Sentences`` and ``Annotations`` may also lie in a folder ``flickr30k_entities`` or
    in ``annotations.zip``:

    .. code-block:: text

        PATH/Sentences/36979.txt            [/EN#1/people Two young guys] with ...
        PATH/Annotations/36979.xml
        PATH/test.txt                       the split: an image's id in each line
        PATH/flickr30k-images/36979.jpg     (or flickr30k_images/, images/, ...)

    The caption is the sentence without its markup, its words separated by single spaces. Every
    marked phrase is a phrase, with the boxes of all objects of its chain, of which there may be
    several; a phrase of a chain that names the scene, or that has no box, or of chain 0, which is
    never boxed, has none. The label is the chain's first entity type, such as ``"people"``.

    Coordinates in the files count pixels from 1, and the box includes its last pixel: (xmin, ymin,
    xmax, ymax) becomes the half-open (xmin - 1, ymin - 1, xmax, ymax).

    Args:
        path: The folder above, or a zip file of it.
        split: The name of a split file: ``"train"``, ``"val"`` or ``"test"``. Default: None, all
            images that have sentences
        images: Folder or zip file with the images, if it is elsewhere. Default: None
        on_error: ``"raise"`` at the first broken sentence or annotation, or ``"skip"`` it and list
            it in ``.skipped``. Default: ``"raise"``

    Raises:
        FileNotFoundError: If a file is missing.
        DatasetError: If a file is not as above, or an image is missing.
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        *,
        images: str | Path | None = None,
        on_error: str = "raise",
    ) -> None:
        root, problems = Files(path), Problems(on_error)
        places = _places(root)
        sentences = find_folder(places, ["Sentences"], "the sentences", lambda _: True)
        boxes = find_folder(places, ["Annotations"], "the annotations", lambda _: True)
        ids = _ids(places, sentences, split)
        first = ids[:100]  # some may be missing
        self._images = find_folder(
            [*places] if images is None else [Files(images)],
            _IMAGE_FOLDERS if images is None else ["", *_IMAGE_FOLDERS],
            "the images",
            lambda files: not first or any(files.has(f"{image}.jpg") for image in first),
        )
        self._sentences = sentences
        entries: list[Sentence] = []
        taken: dict[str, str] = {}
        for place, image in enumerate(ids, start=1):
            with problems.one_record():
                claim(image, taken, f"{split}.txt, entry {place}")
                need_image(self._images, f"{image}.jpg", sentences.where(f"{image}.txt"))
                entries += _image_sentences(image, sentences, boxes, problems)
        super().__init__(entries, problems.report("Flickr30k Entities"))

    def _record(self, entry: Sentence) -> Record:
        return Record(
            key=f"{entry.image}#{entry.line - 1}",
            caption=entry.caption,
            phrases=entry.phrases,
            open_image=ImageFile(self._images, f"{entry.image}.jpg", entry.size),
            source=f"Sentences/{entry.image}.txt, line {entry.line}",
            image_key=entry.image,
            unnamed=unnamed_boxes(entry.boxes, entry.phrases),
        )


def _places(root: Files) -> list[Files]:
    places = [root]
    for name in ("flickr30k_entities", "annotations"):
        found = root.folder(name)
        if found is not None:
            places.append(found)
            places += filter(None, [found.folder("annotations")])
    return places


def _ids(places: Sequence[Files], sentences: Files, split: str | None) -> list[str]:
    if split is None:
        return [n.removesuffix(".txt") for n in sentences.names() if n.endswith(".txt")]
    for place in places:
        if place.has(f"{split}.txt"):
            return place.read_text(f"{split}.txt").split()
    raise FileNotFoundError(f"there is no split file {split}.txt at {places[0].where()}")


def _image_sentences(
    image: str, sentences: Files, annotations: Files, problems: Problems
) -> Iterator[Sentence]:
    for files, name in ((sentences, f"{image}.txt"), (annotations, f"{image}.xml")):
        reason = files.lacks(name)
        if reason:
            raise DatasetError(f"image {image}", reason)
    size, boxes = read_annotation(
        annotations.read_bytes(f"{image}.xml"), annotations.where(f"{image}.xml")
    )
    every = tuple(box for own in boxes.values() for box in own)
    where = sentences.where(f"{image}.txt")
    for line, text in enumerate(sentences.read_text(f"{image}.txt").split("\n"), start=1):
        if text.strip():
            with problems.one_record():
                caption, phrases = read_sentence(text, boxes, f"{where}, line {line}")
                yield Sentence(image, line, caption, phrases, size, every)


# No part can match what the part before it has matched, so the time is linear in the sentence.
_MARKED = re.compile(
    r"\[/(?P<language>\w+)#(?P<chain>\d+)/(?P<types>[^\s\[\]]+)\s+"
    r"(?P<words>(?:[^\s\[\]][^\[\]]*)?)\]"
)


def read_sentence(
    text: str, boxes: Mapping[str, Sequence[Box]], where: str
) -> tuple[str, tuple[Phrase, ...]]:
    """A sentence without its markup, and its phrases.

    Args:
        text: As in ``"[/EN#1/people Two guys] look at [/EN#3/bodyparts their hands] ."``.
        boxes: Boxes of each chain.
        where: The place of the sentence, for messages.

    Raises:
        DatasetError: If the markup is broken.
    """
    caption, phrases, done = "", [], 0
    for match in _MARKED.finditer(text):
        caption = _joined(caption, _plain(text[done : match.start()], where))
        done = match.end()
        words = " ".join(match["words"].split())
        if not words:
            raise DatasetError(where, f"a phrase without words: {match.group()}")
        caption = _joined(caption, words)
        span = (len(caption) - len(words), len(caption))
        chain = match["chain"]
        found = () if chain == _NEVER_BOXED else tuple(boxes.get(chain, ()))
        phrases.append(Phrase(words, span, found, match["types"].split("/")[0]))
    return _joined(caption, _plain(text[done:], where)), tuple(phrases)


def _plain(text: str, where: str) -> str:
    if "[/" in text:
        raise DatasetError(
            where,
            f"broken markup at {text[text.index('[/') :][:40]!r}, expected "
            "'[/EN#chain/type words]'",
        )
    return " ".join(text.split())


def _joined(left: str, right: str) -> str:
    return f"{left} {right}" if left and right else left or right


def read_annotation(data: bytes, where: str) -> tuple[tuple[int, int], dict[str, list[Box]]]:
    """An image's (width, height), and the boxes of each chain that has any.

    Raises:
        DatasetError: If the annotation is not as its format says.
    """
    try:
        tree = ElementTree.fromstring(data)  # noqa: S314 - it opens no other file and expat bounds entities
    except ElementTree.ParseError as error:
        raise DatasetError(f"{where}, line {error.position[0]}", f"not XML: {error}") from None
    except (LookupError, ValueError) as error:  # of the encoding that it says it has
        raise DatasetError(f"{where}, line 1", f"not XML: {error}") from None
    size = _number(tree, "size/width", where), _number(tree, "size/height", where)
    check_size(size, where)
    boxes: dict[str, list[Box]] = {}
    for i, thing in enumerate(tree.findall("object"), start=1):
        place = f"{where}: object {i}"
        names = [name.text.strip() for name in thing.findall("name") if name.text]
        if not names:
            raise DatasetError(place, "has no <name> with the chain it belongs to")
        if thing.find("bndbox") is None:  # the scene, or nothing to be seen
            continue
        x0, y0, x1, y1 = (
            _number(thing, f"bndbox/{side}", place) for side in ("xmin", "ymin", "xmax", "ymax")
        )
        if x1 < x0 or y1 < y0:
            raise DatasetError(
                place, f"a box ends before it begins: xmin, ymin, xmax, ymax = {x0, y0, x1, y1}"
            )
        for name in names:
            boxes.setdefault(name, []).append((x0 - 1.0, y0 - 1.0, float(x1), float(y1)))
    return size, boxes


def _number(tree: ElementTree.Element, path: str, where: str) -> int:
    text = tree.findtext(path)
    if text is None or not re.fullmatch(r"\s*-?\d{1,9}\s*", text):
        raise DatasetError(
            where, f"<{path.replace('/', '><')}> must be a whole number: {shown(text)}"
        )
    return int(text)
