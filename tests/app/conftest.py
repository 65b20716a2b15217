"""The app, served to this machine by the process of the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.visualization.browser.conftest import browser  # noqa: F401  # a fixture

if not os.environ.get("CI"):
    pytest.importorskip("gradio", reason="needs the extra captum-interactions[app]")


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


@pytest.fixture(scope="session")
def app() -> Iterator[Any]:
    """The app with the bundled model."""
    from captum_interactions.app import launch_app

    served = launch_app()
    yield served
    served.close(verbose=False)
