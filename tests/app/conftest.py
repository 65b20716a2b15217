"""The app, served to this machine by the process of the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.children import end_with_parent
from tests.visualization.browser.conftest import browser  # noqa: F401  # a fixture

if find_spec("gradio") is None:  # the extra captum-interactions[app]
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def refused(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model that is no dual encoder."""
    from transformers import ViltConfig, ViltModel

    folder = tmp_path_factory.mktemp("models") / "vilt"
    config = ViltConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        vocab_size=8, image_size=16, patch_size=8,
    )  # fmt: skip
    ViltModel(config).save_pretrained(folder)
    return str(folder)


def _in_front() -> None:
    """Ctrl-C is heard also where the tests run in the background of a shell."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Served(NamedTuple):
    """The app of the command line, in a process of its own: Gradio leaves event loops behind."""

    url: str
    folder: Path
    """Where it was started."""


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The app with the bundled model."""
    folder = tmp_path_factory.mktemp("server")
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-m", "captum_interactions", "app", "--json"],
        cwd=folder, env={**os.environ, "PYTHONPATH": paths}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_in_front,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield Served(json.loads(line)["url"].rstrip("/"), folder)
        process.send_signal(signal.SIGINT)
        try:
            _, complaints = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert complaints.rstrip().endswith("captum-interactions: interrupted")
    assert "KeyboardInterrupt" not in complaints
