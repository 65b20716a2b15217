"""Files of a folder or a zip file, with the same interface, read only when needed."""

from __future__ import annotations

import io
import os
import posixpath
import stat
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from captum_interactions.datasets.problems import DatasetError
from captum_interactions.encoders.inputs.loading import read_image

MOST_BYTES = 2**33
"""Maximum size of annotation files; those of the largest public datasets have 6 GB."""
MOST_IMAGE_BYTES = 2**29
"""Maximum size of images: the number of RGB bytes that Pillow takes for a decompression bomb."""
_SMALL = 2**26
_MOST_RATIO = 100
"""Maximum compression ratio of members of a zip file that are larger than :data:`_SMALL` bytes;
annotations have ratios of 3 to 20."""
_CHUNK = 4096
"""Bytes that are unpacked at once: the minimum of zipfile, of which bzip2 can make 80 MB."""


class Files:
    """The files of a folder, of a zip file, or of a folder in a zip file.

    Names come from annotations, which are not trusted: only regular files below ``path`` are read.
    Links are followed, since the owner of the files made them. Objects can be pickled; each process
    opens the zip file itself.

    Args:
        path: A folder or a zip file.
        inside: A folder in the zip file, or below the folder. Default: the top

    Raises:
        FileNotFoundError: If the path does not exist.
        DatasetError: If the path is neither a folder nor a zip file.
    """

    def __init__(self, path: str | Path, inside: str = "") -> None:
        self.path, self.inside = Path(path), inside.strip("/")
        if not self.path.exists():
            raise FileNotFoundError(f"there is neither a folder nor a zip file at {str(path)!r}")
        self.is_zip = not self.path.is_dir()
        if self.is_zip and not (self.path.is_file() and zipfile.is_zipfile(self.path)):
            raise DatasetError(str(path), "neither a folder nor a zip file")
        self._top = "" if self.is_zip else absolute(self.path).as_posix()
        self._zip: zipfile.ZipFile | None = None
        self._pid = 0
        self._listings: dict[str, dict[str, bool]] = {}

    def folder(self, name: str) -> Files | None:
        """The folder ``name``, or the zip file ``name.zip``; None if there is neither.

        The files in ``name.zip`` may be in a folder ``name`` or at its top.
        """
        inside = posixpath.join(self.inside, name)
        if self._locate(name) is None:
            return None
        if self.is_zip:
            start = f"{inside}/"
            is_there = any(member.startswith(start) for member in self._members())
            return Files(self.path, inside) if is_there else None
        below = self.path / inside
        if below.is_dir():
            return Files(self.path, inside)
        packed = below.with_name(below.name + ".zip")
        if packed.is_file():
            files = Files(packed)
            return files.folder(below.name) or files
        return None

    def has(self, name: str) -> bool:
        """Whether there is a regular file of this name, see :meth:`lacks`."""
        return not self.lacks(name)

    def lacks(self, name: str, what: str = "file") -> str:
        """The reason why a file cannot be read; empty if it can. Each folder is listed once."""
        path = self._locate(name)
        if path is None:
            return f"its {what} {self.where(name)} is not below {self.path}, whose files are read"
        if self.is_zip:
            is_regular = self._members().get(path)
        else:
            parent, _, last = path.rpartition("/")
            if parent not in self._listings:
                self._listings[parent] = _listing(parent)
            is_regular = self._listings[parent].get(last)
        if is_regular is None:
            return f"there is no {what} {self.where(name)}"
        return "" if is_regular else f"its {what} {self.where(name)} is not a regular file"

    def names(self) -> list[str]:
        """Names of the regular files in this folder, without subfolders, in alphabetical order."""
        if not self.is_zip:
            found = _listing(posixpath.join(self._top, self.inside))
            return sorted(name for name, is_regular in found.items() if is_regular)
        start = f"{self.inside}/" if self.inside else ""
        below = (m[len(start) :] for m in self._members() if m.startswith(start))
        return sorted(name for name in below if name and "/" not in name)

    def where(self, name: str = "") -> str:
        """The place of a file, or of the folder, for messages."""
        inner = posixpath.join(self.inside, name)
        return f"{self.path}: {inner}" if self.is_zip else str(self.path / inner)

    def read_bytes(self, name: str, most: int = MOST_BYTES) -> bytes:
        """Read a file.

        Args:
            name: Its name.
            most: Maximum size in bytes.

        Raises:
            FileNotFoundError: If there is no such file.
            DatasetError: If the file is not below ``path``, is not a regular file, is too large, or
                cannot be unpacked.
        """
        path = self._locate(name)
        if path is None:
            raise DatasetError(self.where(name), self.lacks(name))
        try:
            return self._unpacked(path, most) if self.is_zip else self._read(path, most)
        except (KeyError, FileNotFoundError):
            raise FileNotFoundError(f"there is no file at {self.where(name)}") from None
        except Exception as error:  # broken zip files and odd paths raise anything
            reason = str(error) or type(error).__name__
            raise DatasetError(self.where(name), f"cannot be read: {reason}") from error

    def read_text(self, name: str) -> str:
        """Read a text file in UTF-8.

        Raises:
            FileNotFoundError: If there is no such file.
            DatasetError: As :meth:`read_bytes`, or if the file is not UTF-8.
        """
        try:
            return self.read_bytes(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DatasetError(self.where(name), f"not text in UTF-8: {error}") from None

    def _locate(self, name: str) -> str | None:
        """The path of a file, or its name in the zip file; None if it is not below ``path``."""
        name = name.replace(os.sep, "/")
        path = posixpath.normpath(posixpath.join(self._top, self.inside, name))
        if self.is_zip:
            return None if path.startswith(("/", "../")) or path == ".." else path
        return path if path.startswith(posixpath.join(self._top, "")) else None

    def _read(self, path: str, most: int) -> bytes:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device might never end
            raise OSError("it is not a regular file")
        _check_size(status.st_size, most)
        with Path(path).open("rb") as file:
            return file.read(status.st_size)

    def _unpacked(self, path: str, most: int) -> bytes:
        archive = self._opened()
        info = archive.getinfo(path)
        _check_size(info.file_size, most)
        if info.file_size > max(_SMALL, _MOST_RATIO * info.compress_size):
            raise OSError(
                f"{info.compress_size} bytes unpack to {info.file_size}, more than "
                f"{_MOST_RATIO} times as many"
            )
        with archive.open(info) as member:  # it ends at the size that is declared
            return b"".join(iter(lambda: member.read(_CHUNK), b""))

    def _opened(self) -> zipfile.ZipFile:
        if self._zip is None or self._pid != os.getpid():  # a forked process would share the offset
            try:
                self._zip, self._pid = zipfile.ZipFile(self.path), os.getpid()
            except Exception as error:  # see read_bytes
                raise DatasetError(str(self.path), f"cannot be opened: {error}") from error
        return self._zip

    def _members(self) -> dict[str, bool]:
        if "" not in self._listings:
            self._listings[""] = dict.fromkeys(self._opened().namelist(), True)
        return self._listings[""]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None, "_pid": 0, "_listings": {}}

    def __repr__(self) -> str:
        return f"Files({str(self.path)!r}, {self.inside!r})"


def absolute(path: Path) -> Path:
    """An absolute path without ``..``; links are resolved only if the path contains ``..``."""
    path = path.absolute()
    return path.resolve() if ".." in path.parts else path


def _listing(folder: str) -> dict[str, bool]:
    """The entries of a folder, and whether each is a regular file or a link to one."""
    try:
        with os.scandir(folder or "/") as entries:
            return {entry.name: _is_regular(entry) for entry in entries}
    except (OSError, ValueError):  # no folder, or no name that a folder can have
        return {}


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # links in a circle
        return False


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise OSError(f"it has {size} bytes, expected at most {most}")


def find_folder(
    places: Sequence[Files], names: Sequence[str], what: str, accept: Callable[[Files], bool]
) -> Files:
    """The first folder with one of these names, in one of these places, that ``accept`` accepts.

    Args:
        places: Where to search.
        names: The folder's usual names; ``""`` is the place itself.
        what: The content of the folder, for the message.
        accept: Returns whether a folder is the right one.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    for place in places:
        for name in names:
            files = place.folder(name) if name else place
            if files is not None and accept(files):
                return files
    tried = ", ".join(repr(name or ".") for name in names)
    raise FileNotFoundError(
        f"there is no folder or zip file with {what} at {places[0].where()}: looked for {tried} "
        "(say where it is if it has another name)"
    )


class ImageFile:
    """Opens one image when called.

    Args:
        files: Where the image is.
        name: Its name there.
        size: (width, height) according to the annotation, whose boxes are in these pixels.
            Default: None, unknown
        upright: Apply the EXIF orientation, as viewers do. The boxes of published datasets are in
            pixels as stored. Default: False
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
        data = self.files.read_bytes(self.name, MOST_IMAGE_BYTES)
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
