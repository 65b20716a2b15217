"""Small made-up datasets, in the layouts that the real ones have on disk."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captum_interactions.datasets import Record


def image_bytes(size: tuple[int, int] = (64, 48), shade: int = 90, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (shade, 20, 200)).save(stream, kind)
    return stream.getvalue()


def write(folder: Path, files: Mapping[str, Any]) -> Path:
    """Write files by their names: bytes and text as they are, everything else as JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")
    return folder


def pack(folder: Path, target: Path | None = None, *, top: str | None = None) -> Path:
    """Put a folder into a zip file beside it, in a folder ``top`` (its own name), and remove it."""
    target = target or folder.with_name(folder.name + ".zip")
    top = folder.name if top is None else top
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, str(Path(top) / path.relative_to(folder)))
    shutil.rmtree(folder)
    return target


class NoImages:
    """Fails a test that opens an image."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __enter__(self) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("an image was opened")

        self._monkeypatch.setattr(Image, "open", refuse)

    def __exit__(self, *_: object) -> None:
        self._monkeypatch.undo()


def check(records: Sequence[Record]) -> None:
    """What holds of every dataset: spans, keys, slices, laziness, and that it can be sent away."""
    assert len(records) == len(list(records)) > 0
    assert len({record.key for record in records}) == len(records)
    again = pickle.loads(pickle.dumps(records))
    images: dict[str, np.ndarray] = {}
    for i, record in enumerate(records):
        for phrase in record.phrases:
            assert record.caption[slice(*phrase.span)] == phrase.text
            assert phrase.span[0] < phrase.span[1]
        assert [p.span for p in record.phrases] == sorted(p.span for p in record.phrases)
        assert record.grounded == tuple(p for p in record.phrases if len(p.boxes) > 0)
        assert record == records[i] == again[i] == records[i - len(records)]
        assert record.source
        pixels = np.asarray(record.image)
        assert pixels.ndim == 3
        assert np.array_equal(pixels, np.asarray(again[i].image))
        shown = images.setdefault(record.image_key, pixels)
        assert record.image_key
        assert np.array_equal(pixels, shown)
        sent = pickle.loads(pickle.dumps(record))
        assert np.array_equal(pixels, np.asarray(sent.image))
        if record.hard_negative is not None:
            positive = next(r for r in records if r.key == record.hard_negative.positive_key)
            assert positive.hard_negative is None
            assert positive.caption == record.hard_negative.positive_caption
            assert np.array_equal(pixels, np.asarray(positive.image))
            if record.hard_negative.span is not None and record.hard_negative.replaced is not None:
                words = record.caption[slice(*record.hard_negative.span)]
                assert words.lower() == record.hard_negative.replaced[1].lower()
    assert records[1:] == list(records)[1:]
    with pytest.raises(IndexError, match=f"record {len(records)} of {len(records)}"):
        records[len(records)]
