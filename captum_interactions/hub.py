"""Locate the files of a model: in a folder, in the cache, or on the model hub."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Literal

_CONFIGS = ("config.json", "modules.json")
"""Configuration files of ``transformers`` and of ``sentence-transformers``."""

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
"""Pattern of names on the hub; other strings are paths."""

_PATIENCE = 3.0
"""Timeout of the hub in seconds."""


def locate_model(
    name_or_path: str | Path,
    *,
    cache_dir: str | Path | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    **_: Any,
) -> Literal["folder", "cache", "hub"]:
    """Find out where a model would be loaded from, before the libraries that load it are imported.

    Those libraries retry for a minute without a network, even if the model has been downloaded, and
    mistake a missing path for a name on the hub.

    Args:
        name_or_path (str or Path): A folder, or a name on the model hub.
        cache_dir, revision, local_files_only: Options of the loaders of ``transformers``; further
            options are ignored.

    Returns:
        str: ``"folder"``; ``"cache"`` if the model was downloaded before and the hub cannot be
        used, so that it must be loaded with ``local_files_only=True``; or ``"hub"``, where it is
        not looked up yet.

    Raises:
        OSError: If there is no such folder, or the model is not in the cache and the hub cannot be
            reached.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if path.is_dir():
        if not any((path / config).is_file() for config in _CONFIGS):
            raise _not_found(name, f"the folder has neither {' nor '.join(_CONFIGS)}")
        return "folder"
    if path.exists():
        raise _not_found(name, "it is a file, but a model is a folder or a name on the model hub")
    if isinstance(name_or_path, Path) or not _NAME.fullmatch(name):
        raise _not_found(name, "there is no such folder")

    import huggingface_hub as hub

    if not (local_files_only or hub.is_offline_mode() or not _answers(hub.constants.ENDPOINT)):
        return "hub"
    for config in _CONFIGS:
        found = hub.try_to_load_from_cache(name, config, cache_dir=cache_dir, revision=revision)
        if isinstance(found, str):
            return "cache"
    if local_files_only or hub.is_offline_mode():
        reason = "files may not be downloaded (local_files_only or HF_HUB_OFFLINE)"
    else:
        reason = f"the model hub, {hub.constants.ENDPOINT}, cannot be reached"
    raise _not_found(name, f"there is no such folder, it was not downloaded before, and {reason}")


def _answers(url: str) -> bool:
    """Whether the server itself answers, not only a proxy."""
    from huggingface_hub import get_session

    answers = []

    def ask() -> None:
        with suppress(Exception):  # each HTTP library has its own exceptions
            answers.append(get_session().head(url, timeout=_PATIENCE).status_code < 500)

    # A DNS lookup has no timeout, so it runs in a thread that can be abandoned.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return any(answers)


def _not_found(name: str, reason: str) -> OSError:
    return OSError(f"no model could be loaded from {name!r}: {reason}")
