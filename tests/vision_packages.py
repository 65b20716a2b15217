"""torchvision and what needs it, beside a PyTorch that torchvision was not made for.

``.ci/check`` puts torchvision, timm, open_clip and OpenAI's clip in a folder of their own, where
only tests find them: the extension of PyPI's torchvision does not load beside a PyTorch without
CUDA, and without the two operators that it defines ``import torchvision`` fails, and much of
transformers with it. Tests need none of its operators. This module is imported before transformers,
which looks for torchvision once. Where the folder is missing, the packages are those of the
environment, if it has any.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import packaging.version
import pytest
import torch

FOLDER = Path(sys.prefix) / "vision"

if FOLDER.is_dir():
    sys.path.append(str(FOLDER))
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # OpenAI's clip asks setuptools for its copy of packaging, which new ones do not have.
    sys.modules.setdefault("pkg_resources", ModuleType("pkg_resources"))
    sys.modules["pkg_resources"].packaging = packaging  # type: ignore[attr-defined]


def needed(name: str) -> Any:
    """One of these packages; the test is skipped where it is not, but on a server for checks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return import_module(name)
        except (ImportError, RuntimeError) as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"{name} cannot be imported here: {error}")
