"""A plain folder of images, each with its caption in a text file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from captum_interactions.datasets.archive import Files, ImageFile
from captum_interactions.datasets.problems import DatasetError, Problems
from captum_interactions.datasets.record import Record
from captum_interactions.datasets.sequence import RecordSequence

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Endings of files that are taken for images, in whatever case."""


class Captioned(NamedTuple):
    """A line of a text file, and the image beside it."""

    name: str
    text_file: str
    line: int
    caption: str


class FolderRecords(RecordSequence[Captioned]):
    """A folder of images with captions beside them: one record for each line of a text file.

    On disk:

    .. code-block:: text

        PATH/beach.jpg
        PATH/beach.txt      a caption in each line; most often there is one

    Lines without words are passed over, as are other files. There are no phrases; captions with
    phrases and boxes go into a JSONL file (:class:`JsonLinesRecords`). Photographs are turned
    upright.

    Args:
        path: The folder, or a zip file with the files at its top.
        on_error: ``"raise"`` at the first image without a caption, or ``"skip"`` it and list it in
            ``.skipped``. Default: ``"raise"``

    Raises:
        FileNotFoundError: If the path does not exist or has no image.
        DatasetError: If an image has no caption, a caption no image, or two images share a caption.
    """

    def __init__(self, path: str | Path, *, on_error: str = "raise") -> None:
        problems, self._files = Problems(on_error), Files(path)
        images: dict[str, list[str]] = {}
        names = self._files.names()
        for name in names:
            if PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS:
                images.setdefault(PurePosixPath(name).stem, []).append(name)
        if not images:
            raise FileNotFoundError(f"there is no image at {path} ({', '.join(IMAGE_ENDINGS)})")
        texts = {PurePosixPath(n).stem for n in names if n.endswith(".txt")}
        entries: list[Captioned] = []
        for stem in sorted({*images, *texts}):
            with problems.one_record():
                entries += self._captioned(stem, images.get(stem, []), has_text=stem in texts)
        super().__init__(entries, problems.report(f"folder {path}"))

    def _captioned(self, stem: str, images: list[str], *, has_text: bool) -> list[Captioned]:
        where = self._files.where
        text_file = f"{stem}.txt"
        if not images:
            raise DatasetError(where(text_file), f"there is no image {stem} beside it")
        if not has_text:
            raise DatasetError(where(images[0]), f"there is no caption {text_file} beside it")
        if len(images) > 1:
            raise DatasetError(where(text_file), f"several images beside it: {', '.join(images)}")
        lines = enumerate(self._files.read_text(text_file).split("\n"), start=1)
        captioned = [
            Captioned(images[0], text_file, line, text.strip())
            for line, text in lines
            if text.strip()
        ]
        if not captioned:
            raise DatasetError(where(text_file), "is empty, but should hold a caption")
        return captioned

    def _record(self, entry: Captioned) -> Record:
        return Record(
            key=f"{entry.name}#{entry.line}",
            caption=entry.caption,
            phrases=(),
            open_image=ImageFile(self._files, entry.name, upright=True),
            source=f"{entry.text_file}, line {entry.line}",
            image_key=entry.name,
        )
