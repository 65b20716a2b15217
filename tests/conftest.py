"""Tests run on one thread: models are tiny, and several suites may share a machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel

from captum_interactions import DualEncoderWrapper, wrap
from tests import models

torch.set_num_threads(1)
os.environ["COLUMNS"] = "120"  # tables are as wide as the terminal

TESTS = Path(__file__).parent
NUMERIC = [TESTS / folder for folder in ("attr/second_order", "functional", "metrics")]
"""Folders of the tests that are marked ``numeric``."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Other files are not even imported where only these tests are asked for."""
    if config.option.markexpr != "numeric":
        return None
    own = (collection_path, *collection_path.parents)
    leads = any(folder in own or collection_path in folder.parents for folder in NUMERIC)
    return None if leads else True


def pytest_collectstart(collector: pytest.Collector) -> None:
    """What a file of tests draws when it is imported does not depend on the files before it."""
    if isinstance(collector, pytest.Module):
        torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(folder in item.path.parents for folder in NUMERIC):
            item.add_marker("numeric")


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    """Figures belong to their caller, so a test's own are closed behind it."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def clip() -> CLIPModel:
    """One model for all tests that do not change it."""
    return models.clip()


@pytest.fixture(scope="session")
def wrapper(clip: CLIPModel) -> DualEncoderWrapper:
    return wrap(clip)
