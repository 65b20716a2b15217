"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from captum_interactions.writing import write_atomically
from tests import corpora

posix = pytest.mark.skipif(os.name != "posix", reason="links, modes and devices of POSIX")


def test_several_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    """As workers do that start at the same time."""
    path = tmp_path / "index.json"

    def write(_):
        write_atomically(path, b"the same")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(40)))  # raises what a writer raised
    assert corpora.files(tmp_path) == {"index.json": b"the same"}


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="the disk is full"):
        write_atomically(path, b"new")
    assert corpora.files(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("name", ["x" * 255, "[a]*?.html", "\udce9.html"])
def test_names_may_be_whatever_files_have(tmp_path, name):
    write_atomically(tmp_path / name, b"old")
    (tmp_path / f".{name[:50]}.1.tmp").write_bytes(b"")
    os.utime(tmp_path / f".{name[:50]}.1.tmp", (0, 0))
    write_atomically(tmp_path / name, b"new")
    assert corpora.files(tmp_path) == {name: b"new"}


@posix
def test_links_and_modes_stay(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o600)
    link.symlink_to(path)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_what_is_no_file_is_written_to_as_it_is():
    write_atomically(Path(os.devnull), b"gone")
    assert Path(os.devnull).is_char_device()
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(Path("/dev/full"), b"too much")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "none" / "page.html"
    with pytest.raises(FileNotFoundError) as failure:
        write_atomically(path, b"page")
    assert str(failure.value) == f"no folder {str(path.parent)!r} to write 'page.html' to"
