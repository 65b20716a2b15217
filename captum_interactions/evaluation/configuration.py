"""The configuration beside a results file: all settings and versions that rows depend on."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from captum_interactions.corpus.settings import tensor_bytes
from captum_interactions.datasets import Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.rows import RESULTS, Row, json_text, plain, read
from captum_interactions.evaluation.study import Study
from captum_interactions.writing import write_atomically

CONFIG = "config.json"
FORMAT = "captum_interactions.evaluation/2"
_COMPARED = ("format", "rows", "settings", "model", "dataset")
_PACKAGES = ("captum-interactions", "captum", "torch", "transformers", "numpy")


class ConfigurationError(ValueError):
    """The folder has results of other settings, another model or another dataset."""


def configuration(
    study: Study, wrapper: DualEncoderWrapper, records: Sequence[Record], dataset: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that the rows of a study depend on.

    Args:
        study: The study.
        wrapper: The model, identified by a hash of its weights.
        records: The dataset, identified by ``dataset`` and its first record.
        dataset: The arguments with which the dataset was opened.
    """
    described: dict[str, Any] = plain(
        {
            "format": FORMAT,
            "rows": study.rows_name,
            "settings": study.settings,
            "variants": study.variants,
            "model": {
                "weights": hash_of_weights(wrapper),
                "default_layers": wrapper.default_layers,
                "default_n_steps": wrapper.default_n_steps,
            },
            "dataset": {**dataset, "first_record": hash_of_record(records[0])},
            "made_with": [versions()],
        }
    )
    return described


def settle(path: Path, current: Mapping[str, Any]) -> dict[str, Any]:
    """Join the configuration on file with the current one, and write the result.

    It contains the variants and the versions of packages of both.

    Returns:
        dict: the joined configuration.

    Raises:
        ConfigurationError: If the folder's rows have another configuration; the message names every
            difference.
    """
    joined = dict(current)
    if path.exists():
        past = _on_file(path)
        found = {key: past.get(key) for key in _COMPARED}
        differences = _differences(found, {key: current[key] for key in _COMPARED})
        for variant in past["variants"].keys() & current["variants"].keys():
            differences += _differences(
                past["variants"][variant], current["variants"][variant], f"variants.{variant}"
            )
        if differences:
            raise ConfigurationError(
                f"{path.parent} holds results of another configuration; take another folder, or "
                "the same configuration:\n" + "\n".join(f"  {line}" for line in differences)
            )
        joined["variants"] = {**past["variants"], **current["variants"]}
        new = [used for used in current["made_with"] if used not in past["made_with"]]
        joined["made_with"] = past["made_with"] + new
    write_atomically(path, f"{json_text(joined, indent=2)}\n".encode())
    return joined


def known_variants(path: Path) -> list[str]:
    """The variants of the configuration on file, in order; none if there is no file."""
    return list(_on_file(path)["variants"]) if path.exists() else []


def rows_in(folder: str, study: Study) -> list[Row]:
    """The measured rows of another run of a study, which it may compare with its own.

    Args:
        folder (str): Where the other run wrote its results.
        study (Study): The study that both are of.

    Returns:
        list: its rows, without those that failed or were declined.

    Raises:
        FileNotFoundError: If the folder has none.
        ConfigurationError: If they are rows of another study.
    """
    path = Path(folder)
    rows = [row for row in read(path / RESULTS) if row.status == "measured"]
    if not rows or not (path / CONFIG).exists():
        raise FileNotFoundError(
            f"there are no results to compare with in {folder!r}: expected {RESULTS} and {CONFIG}"
        )
    measures = _on_file(path / CONFIG).get("rows")
    if measures != study.rows_name:
        raise ConfigurationError(
            f"{folder!r} holds rows of {measures!r}, but {study.name} compares with rows of "
            f"{study.rows_name!r}"
        )
    return rows


def _on_file(path: Path) -> dict[str, Any]:
    try:
        past: dict[str, Any] = json.loads(path.read_bytes())
        kinds = {key: type(past[key]) for key in ("variants", "made_with")}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if kinds != {"variants": dict, "made_with": list}:
        raise ConfigurationError(f"{path} is damaged: 'variants' or 'made_with' is of another kind")
    return past


def hash_of_weights(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, with their names, shapes and types."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def hash_of_record(record: Record) -> str:
    """SHA-256 of the annotations of a record, without its image."""
    said = (record.key, record.caption, [(p.text, p.span, p.boxes) for p in record.phrases])
    return hashlib.sha256(json.dumps(plain(said)).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results may depend on."""
    used = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            used[name] = metadata.version(name)
    return {"python": platform.python_version(), "machine": platform.machine(), **used}


def _differences(past: Any, current: Any, where: str = "") -> list[str]:
    """Lines that name all differences of two configurations."""
    if isinstance(past, Mapping) and isinstance(current, Mapping):
        lines = []
        for key in sorted({*past, *current}):
            place = f"{where}.{key}" if where else key
            lines += _differences(past.get(key), current.get(key), place)
        return lines
    same = past == current
    return [] if same else [f"{where}: {json.dumps(past)} there, {json.dumps(current)} now"]
