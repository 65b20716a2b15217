"""COCO: captions with the boxes of the objects that their words name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from captum_interactions.datasets.archive import Files, ImageFile, find_folder
from captum_interactions.datasets.coco_masks import Segmentation, mask_of, read_segmentation
from captum_interactions.datasets.coco_matching import Mentions
from captum_interactions.datasets.coco_words import COCO_WORDS
from captum_interactions.datasets.problems import DatasetError, Problems, claim
from captum_interactions.datasets.reading import (
    box_from_xywh,
    image_size,
    need,
    need_image,
    read_json,
    shown,
)
from captum_interactions.datasets.record import Box, Phrase, Record, unnamed_boxes
from captum_interactions.datasets.sequence import RecordSequence
from captum_interactions.datasets.words import plurals


@dataclass
class CocoImage:
    """An image with its objects."""

    name: str
    """File name."""
    size: tuple[int, int]
    """(width, height)."""
    boxes: dict[str, list[Box]]
    """By category."""
    crowds: set[str]
    """Categories of which the image has a crowd region; its box is among ``boxes``."""
    segmentations: dict[str, list[Segmentation]]
    """By category, if masks are requested."""


class Caption(NamedTuple):
    """A caption and where it comes from."""

    id: int
    text: str
    image: CocoImage
    images: Files
    file: str


class CocoRecords(RecordSequence[Caption]):
    """COCO's captions with the objects that their words name: one record for each caption.

    On disk, as downloaded from https://cocodataset.org, each part a folder or the zip file:

    .. code-block:: text

        PATH/annotations/captions_val2017.json      (or annotations_trainval2017.zip)
        PATH/annotations/instances_val2017.json
        PATH/val2017/000000397133.jpg               (or val2017.zip, or images/val2017/)

    COCO annotates which objects are in an image, but not which words name them. A word names a
    category if three conditions hold: it is in
    :data:`~captum_interactions.datasets.coco_words.COCO_WORDS` (names, synonyms, plurals; whole
    words), the neighbouring words do not exclude it
    (:mod:`~captum_interactions.datasets.coco_matching`: "toothbrush holder", "a boy skateboards",
    "an orange cat"), and the image has an object of the category. Each such word is a phrase, with
    the category's name as its label and the boxes of *all* objects of the category in the image,
    since the annotations do not say which one is meant. For categories of your own datasets in this
    layout that are not in the table, the words are the category's name and its plural.

    A crowd region (``iscrowd``) is one loose box around many objects. By default it is not used,
    and phrases of a category with a crowd region in the image have no boxes, since the annotation
    of this category is incomplete. Boxes without area, of which COCO has a few, are left out.

    Args:
        path: The folder above, or a zip file of it.
        split: As in the files' names, such as ``"val2017"``; with ``karpathy``, a split of that
            file (``"train"``, ``"restval"``, ``"val"``, ``"test"``, or several joined by ``+``).
            Default: None, the only split in the folder
        karpathy: Karpathy's ``dataset_coco.json``, which has other splits of COCO 2014: only images
            of the split are used. Default: None
        images: Folder or zip file with the images, if it is elsewhere; images must lie below it, or
            else below ``path``. Default: None
        crowds: Count a crowd region as a box. Default: False
        masks: Also give phrases with boxes the mask of their objects: every pixel whose centre is
            inside an outline. The outlines are then kept in memory. Default: False
        on_error: ``"raise"`` at the first invalid annotation, or ``"skip"`` it and list it in
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
        karpathy: str | Path | None = None,
        images: str | Path | None = None,
        crowds: bool = False,
        masks: bool = False,
        on_error: str = "raise",
    ) -> None:
        root, problems = Files(path), Problems(on_error)
        places = _annotation_places(root)
        chosen: Mapping[str, set[int] | None]
        if karpathy is not None:
            chosen = _karpathy_images(Path(karpathy), split)
        else:
            chosen = {split or _only_split(places): None}
        entries: list[Caption] = []
        taken: dict[str, str] = {}
        categories: set[str] = set()
        for part, wanted in chosen.items():
            place = _place_of(places, part)
            names = [part, f"images/{part}"] if images is None else [part, ""]
            folder = find_folder(
                [root if images is None else Files(images)], names, "the images", lambda _: True
            )
            index = _Index(place, part, wanted, problems, masks=masks)
            entries += index.captions(folder, taken)
            categories |= index.categories
        self.crowds, self.masks = crowds, masks
        self._mentions = Mentions(
            {
                word: category
                for category in sorted(categories)
                for word in COCO_WORDS.get(category, plurals(category.lower()))
            }
        )
        super().__init__(entries, problems.report("COCO"))

    def _record(self, entry: Caption) -> Record:
        image = entry.image
        phrases = tuple(self._phrases(entry.text, image))
        return Record(
            key=str(entry.id),
            caption=entry.text,
            phrases=phrases,
            open_image=ImageFile(entry.images, image.name, image.size),
            source=f"{entry.file}: annotation {entry.id}",
            image_key=image.name,
            unnamed=unnamed_boxes(chain.from_iterable(image.boxes.values()), phrases),
        )

    def _phrases(self, caption: str, image: CocoImage) -> Iterator[Phrase]:
        for span, category in self._mentions.find(caption):
            if category in image.boxes or category in image.crowds:
                incomplete = category in image.crowds and not self.crowds
                boxes = () if incomplete else tuple(image.boxes.get(category, ()))
                mask = None
                if self.masks and boxes:
                    mask = mask_of(image.segmentations[category], image.size)
                yield Phrase(caption[slice(*span)], span, boxes, category, mask)


class _Index:
    """The content of one pair of annotation files."""

    def __init__(
        self,
        files: Files,
        part: str,
        wanted: set[int] | None,
        problems: Problems,
        *,
        masks: bool,
    ) -> None:
        self._problems, self._wanted, self._masks = problems, wanted, masks
        self._file = f"captions_{part}.json"
        self._holder = read_json(files, self._file)
        self._images: dict[int, CocoImage] = {}
        name = f"instances_{part}.json"
        instances = read_json(files, name)
        names: dict[int, str] = {}
        for i, category in enumerate(need(instances, "categories", list, name)):
            where = f"{name}: category {i}"
            names[need(category, "id", int, where)] = need(category, "name", str, where)
        self.categories = set(names.values())
        self._read_images(need(instances, "images", list, name), name)
        self._read_images(need(self._holder, "images", list, self._file), self._file)
        for i, annotation in enumerate(need(instances, "annotations", list, name)):
            with problems.one_record():
                self._read_object(annotation, names, _where(name, annotation, i))

    def _read_images(self, images: list[object], file: str) -> None:
        for i, image in enumerate(images):
            where = f"{file}: image {i}"
            with self._problems.one_record():
                number = need(image, "id", int, where)
                if number in self._images or (self._wanted and number not in self._wanted):
                    continue
                where = f"{file}: image {number}"
                size = image_size(image, where)
                name = need(image, "file_name", str, where)
                self._images[number] = CocoImage(name, size, {}, set(), {})

    def _read_object(self, annotation: object, names: dict[int, str], where: str) -> None:
        number = need(annotation, "image_id", int, where)
        if self._wanted and number not in self._wanted:
            return
        image = self._image(number, where)
        category = need(annotation, "category_id", int, where)
        if category not in names:
            raise DatasetError(where, f"its category {category} is not among the categories")
        box = box_from_xywh(need(annotation, "bbox", list, where), where)
        assert isinstance(annotation, dict)
        is_crowd = annotation.get("iscrowd", 0)
        if is_crowd not in (0, 1):
            raise DatasetError(where, f"'iscrowd' must be 0 or 1, but is {shown(is_crowd)}")
        if self._masks:
            outline = read_segmentation(annotation.get("segmentation"), image.size, where)
            image.segmentations.setdefault(names[category], []).append(outline)
        if is_crowd:
            image.crowds.add(names[category])
        if box is not None:
            image.boxes.setdefault(names[category], []).append(box)

    def _image(self, number: int, where: str) -> CocoImage:
        if number not in self._images:
            raise DatasetError(where, f"its image {number} is not among the images")
        return self._images[number]

    def captions(self, folder: Files, taken: dict[str, str]) -> Iterator[Caption]:
        annotations = need(self._holder, "annotations", list, self._file)
        for i, annotation in enumerate(annotations):
            where = _where(self._file, annotation, i)
            with self._problems.one_record():
                image_id = need(annotation, "image_id", int, where)
                if self._wanted and image_id not in self._wanted:
                    continue
                number = need(annotation, "id", int, where)
                image = self._image(image_id, where)
                text = need(annotation, "caption", str, where).strip()
                if not text:
                    raise DatasetError(where, "its caption is empty")
                claim(str(number), taken, where)
                need_image(folder, image.name, where)
                yield Caption(number, text, image, folder, self._file)


def _where(file: str, annotation: object, position: int) -> str:
    """The place of an annotation for messages: its id, or its position if it has none."""
    number = annotation.get("id") if isinstance(annotation, dict) else None
    if number is None:
        return f"{file}: annotation at position {position}"
    return f"{file}: annotation {shown(number)}"


def _annotation_places(root: Files) -> list[Files]:
    """Where annotation files may be, the usual place first."""
    zips = sorted(root.path.glob("annotations*.zip")) if root.path.is_dir() else []
    places = [root.folder("annotations"), *(Files(file) for file in zips)]
    found = [place for place in places if place is not None]
    return [*found, *filter(None, (place.folder("annotations") for place in found)), root]


def _place_of(places: list[Files], part: str) -> Files:
    for place in places:
        if place.has(f"captions_{part}.json"):
            return place
    raise FileNotFoundError(
        f"there is no captions_{part}.json at {places[-1].where()} or in its annotations; there is "
        f"{', '.join(_splits(places)) or 'none of any split'}"
    )


def _splits(places: list[Files]) -> list[str]:
    names = {name for place in places for name in place.names()}
    return sorted(
        name.removeprefix("captions_").removesuffix(".json")
        for name in names
        if name.startswith("captions_") and name.endswith(".json")
    )


def _only_split(places: list[Files]) -> str:
    splits = _splits(places)
    if not splits:
        raise FileNotFoundError(f"there is no captions_*.json at {places[-1].where()}")
    if len(splits) > 1:
        raise ValueError(f"say which split of COCO: {', '.join(splits)}")
    return splits[0]


def _karpathy_images(path: Path, split: str | None) -> dict[str, set[int] | None]:
    """Ids of a split's images, by COCO's own part."""
    if split is None:
        raise ValueError("say which split of Karpathy's, such as 'test'")
    images = need(read_json(Files(path.parent), path.name), "images", list, str(path))
    chosen: dict[str, set[int]] = {}
    seen: set[str] = set()
    for i, image in enumerate(images):
        where = f"{path}: image {i}"
        name = need(image, "split", str, where)
        seen.add(name)
        if name in split.split("+"):
            ids = chosen.setdefault(need(image, "filepath", str, where), set())
            ids.add(need(image, "cocoid", int, where))
    missing = sorted(set(split.split("+")) - seen)
    if missing:
        raise ValueError(f"{path} has no split {missing[0]!r}, but {', '.join(sorted(seen))}")
    return dict(chosen)
