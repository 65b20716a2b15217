"""Winoground: two images and two captions of the same words."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from captum_interactions.datasets.archive import Files, ImageFile, find_folder
from captum_interactions.datasets.problems import DatasetError, Problems
from captum_interactions.datasets.reading import json_lines, need
from captum_interactions.datasets.record import HardNegative, Record
from captum_interactions.datasets.sequence import RecordSequence

_FILE = "examples.jsonl"
_ENDINGS = ("", ".png", ".jpg", ".jpeg")


class Pairing(NamedTuple):
    """One of an example's images with one of its captions."""

    example: int
    line: int
    image: int
    caption: int
    captions: tuple[str, str]
    name: str
    """The image's file."""


class WinogroundRecords(RecordSequence[Pairing]):
    """Winoground-style pairs (Thrush et al., CVPR 2022): four records for each example.

    On disk, as downloaded from ``facebook/winoground`` on the Hugging Face hub, the images a folder
    or the zip file; also with everything in a folder ``data``:

    .. code-block:: text

        PATH/examples.jsonl         {"id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1",
                                     "caption_0": "...", "caption_1": "...", ...} in each line
        PATH/images/ex_0_img_0.png  (or images.zip)

    The names of images may lack their endings. Each image comes with its own caption, then with the
    other one as a hard negative: ``image_0`` with ``caption_0``, then with ``caption_1``;
    ``image_1`` with ``caption_1``, then with ``caption_0``. There are no phrases, since the images
    have no annotations. A hard negative has the words of the true caption in another order, so its
    span is None.

    Args:
        path: The folder above, or a zip file of it.
        images: Folder or zip file with the images, if it is elsewhere. Default: None
        on_error: ``"raise"`` at the first invalid example, or ``"skip"`` it and list it in
            ``.skipped``. Default: ``"raise"``

    Raises:
        FileNotFoundError: If a file is missing.
        DatasetError: If a file does not have this format, or an image is missing.
    """

    def __init__(
        self, path: str | Path, *, images: str | Path | None = None, on_error: str = "raise"
    ) -> None:
        problems, root = Problems(on_error), Files(path)
        home = find_folder([root], ["", "data"], _FILE, lambda files: files.has(_FILE))
        self._images = find_folder(
            [home if images is None else Files(images)],
            ["images"] if images is None else ["images", ""],
            "the images",
            lambda _: True,
        )
        entries: list[Pairing] = []
        seen: dict[int, int] = {}
        for line, where, example in json_lines(home, _FILE, problems):
            with problems.one_record():
                number = need(example, "id", int, where)
                if number in seen:
                    raise DatasetError(where, f"has the id {number} of line {seen[number]}")
                seen[number] = line
                captions = tuple(need(example, f"caption_{k}", str, where).strip() for k in (0, 1))
                names = [self._name(need(example, f"image_{k}", str, where), where) for k in (0, 1)]
                first, second = captions
                entries += [
                    Pairing(number, line, image, caption, (first, second), names[image])
                    for image in (0, 1)
                    for caption in (image, 1 - image)
                ]
        super().__init__(entries, problems.report("Winoground"))

    def _name(self, stem: str, where: str) -> str:
        for ending in _ENDINGS:
            if self._images.has(stem + ending):
                return stem + ending
        raise DatasetError(where, f"{self._images.lacks(stem, 'image')} (.png, .jpg)")

    def _record(self, entry: Pairing) -> Record:
        image, caption = entry.image, entry.caption
        negative = None
        if image != caption:
            negative = HardNegative(
                f"{entry.example}-image{image}-caption{image}", entry.captions[image], None
            )
        return Record(
            key=f"{entry.example}-image{image}-caption{caption}",
            caption=entry.captions[caption],
            phrases=(),
            open_image=ImageFile(self._images, entry.name),
            source=f"{_FILE}, line {entry.line}",
            hard_negative=negative,
            image_key=entry.name,
        )
