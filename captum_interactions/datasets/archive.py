"""Files below a folder or in a zip file, read alike and only when asked for."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from captum_interactions.datasets.problems import DatasetError
from captum_interactions.encoders.inputs.loading import read_image


class Files:
    """The files of a folder, of a zip file, or of a folder in a zip file.

    It may be sent to other processes: each opens the zip file for itself.

    Args:
        path: A folder or a zip file.
        inside: A folder in the zip file, or below the folder. Default: its top

    Raises:
        FileNotFoundError: If there is nothing at the path.
        DatasetError: If the path is a file, but not a zip file.
    """

    def __init__(self, path: str | Path, inside: str = "") -> None:
        self.path, self.inside = Path(path), inside.strip("/")
        if not self.path.exists():
            raise FileNotFoundError(f"there is neither a folder nor a zip file at {str(path)!r}")
        self.is_zip = self.path.is_file()
        if self.is_zip and not zipfile.is_zipfile(self.path):
            raise DatasetError(str(path), "neither a folder nor a zip file")
        self._zip: zipfile.ZipFile | None = None
        self._pid = 0
        self._listings: dict[str, frozenset[str]] = {}

    def folder(self, name: str) -> Files | None:
        """The folder of a name, or the zip file ``name.zip``, as it came from the dataset's site.

        It does not matter whether the files in ``name.zip`` lie in a folder ``name`` or at its top.
        None if there is neither.
        """
        if self.is_zip:
            start = self._inner(name) + "/"
            return (
                Files(self.path, self._inner(name))
                if any(member.startswith(start) for member in self._members())
                else None
            )
        below = self.path / self.inside / name
        if below.is_dir():
            return Files(below)
        packed = below.with_name(below.name + ".zip")
        if packed.is_file():
            files = Files(packed)
            return files.folder(below.name) or files
        return None

    def has(self, name: str) -> bool:
        """Whether there is a file of this name; a folder is listed once, for all its files."""
        if self.is_zip:
            return self._inner(name) in self._members()
        parent, _, last = name.rpartition("/")
        if parent not in self._listings:
            folder = self.path / self.inside / parent
            self._listings[parent] = frozenset(
                entry.name for entry in (os.scandir(folder) if folder.is_dir() else ())
            )
        return last in self._listings[parent]

    def names(self) -> list[str]:
        """Names of the files directly here, in alphabetical order."""
        if not self.is_zip:
            folder = self.path / self.inside
            return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
        start = self._inner("")
        below = (m[len(start) :] for m in self._members() if m.startswith(start))
        return sorted(name for name in below if name and "/" not in name)

    def where(self, name: str) -> str:
        """The place of a file, for messages."""
        if self.is_zip:
            return f"{self.path}: {self._inner(name)}"
        return str(self.path / self.inside / name)

    def read_bytes(self, name: str) -> bytes:
        """Read a file.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        try:
            if self.is_zip:
                return self._opened().read(self._inner(name))
            return (self.path / self.inside / name).read_bytes()
        except (KeyError, FileNotFoundError):
            raise FileNotFoundError(f"there is no file at {self.where(name)}") from None

    def read_text(self, name: str) -> str:
        """Read a text file in UTF-8.

        Raises:
            FileNotFoundError: If there is no such file.
            DatasetError: If it is not UTF-8.
        """
        try:
            return self.read_bytes(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DatasetError(self.where(name), f"not text in UTF-8: {error}") from None

    def _inner(self, name: str) -> str:
        return f"{self.inside}/{name}" if self.inside else name

    def _opened(self) -> zipfile.ZipFile:
        if self._zip is None or self._pid != os.getpid():  # a forked process would share the offset
            self._zip, self._pid = zipfile.ZipFile(self.path), os.getpid()
        return self._zip

    def _members(self) -> frozenset[str]:
        if "" not in self._listings:
            self._listings[""] = frozenset(self._opened().namelist())
        return self._listings[""]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None, "_pid": 0, "_listings": {}}

    def __repr__(self) -> str:
        return f"Files({str(self.path)!r}, {self.inside!r})"


def find_folder(
    places: Sequence[Files], names: Sequence[str], what: str, accept: Callable[[Files], bool]
) -> Files:
    """The first folder of one of these names, in one of these places, that will do.

    Args:
        places: Where to look.
        names: The folder's usual names; ``""`` is the place itself.
        what: What the folder holds, for the message.
        accept: Whether a folder of that name is the one.

    Raises:
        FileNotFoundError: If there is none.
    """
    for place in places:
        for name in names:
            files = place.folder(name) if name else place
            if files is not None and accept(files):
                return files
    tried = ", ".join(repr(name or ".") for name in names)
    raise FileNotFoundError(
        f"there is no folder or zip file with {what} at {places[0].path}: looked for {tried} "
        "(say where it is if it has another name)"
    )


class ImageFile:
    """Opens one image when called.

    Args:
        files: Where the image is.
        name: Its name there.
        size: (width, height) that the annotation says it has, in which its boxes are given.
            Default: None, unknown
        upright: Turn a photograph as its camera says, as viewers show it. Published datasets give
            boxes in the pixels as they are stored. Default: False
    """

    def __init__(
        self,
        files: Files,
        name: str,
        size: tuple[int, int] | None = None,
        *,
        upright: bool = False,
    ) -> None:
        self.files, self.name, self.size, self.upright = files, name, size, upright

    def __call__(self) -> Image.Image:
        """Read the image, as :func:`~captum_interactions.encoders.inputs.loading.load_image` does.

        Raises:
            FileNotFoundError: If there is no such file.
            DatasetError: If it is not an image, or not of the annotation's size.
        """
        where = self.files.where(self.name)
        data = self.files.read_bytes(self.name)
        try:
            image = read_image(io.BytesIO(data), where, upright=self.upright)
        except ValueError as error:
            raise DatasetError(where, str(error)) from error
        if self.size is not None and image.size != self.size:
            raise DatasetError(
                where,
                f"the image is {image.width}x{image.height} pixels, but its annotation says "
                f"{self.size[0]}x{self.size[1]}: its boxes would not fit",
            )
        return image
