"""The model and the methods that a command works with."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from captum_interactions.cli.parser import must_be_one_of, speaking_of
from captum_interactions.hub import locate_model

if TYPE_CHECKING:
    from captum_interactions.encoders import DualEncoderWrapper


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1 (default: a GPU)")


def check_model(name: str | None) -> None:
    """See that there is a model of this name, before torch is imported.

    Raises:
        ValueError: If there is none, or the hub cannot be reached.
    """
    if name is not None:
        with speaking_of("--model"):
            locate_model(name)


def note_bundled_model() -> None:
    """Say on standard error what the bundled model knows, where a user's own data meet it."""
    print(
        "captum-interactions: note: without --model, the bundled model is used, which knows "
        "generated scenes of coloured shapes only: its maps of other images are meaningless",
        file=sys.stderr,
    )


def load_model(
    name: str | None = None, device: str | None = None, dtype: str | None = None
) -> DualEncoderWrapper:
    """Load the model of ``--model``, after :func:`check_model`; the bundled one by default.

    Args:
        name (str, optional): A folder, or a name on the model hub.
        device (str, optional): Where to put it. Default: a GPU if there is one
        dtype (str, optional): ``"float32"``, ``"float16"`` or ``"bfloat16"``. Default: that of the
            files

    Raises:
        ValueError: If there is no such model or device.
    """
    import torch
    from transformers.utils import logging

    from captum_interactions.encoders import from_pretrained
    from captum_interactions.zoo import DEMO

    logging.disable_progress_bar()  # files are read in a moment; downloads still show theirs
    options: dict[str, Any] = {} if dtype is None else {"dtype": getattr(torch, dtype)}
    with speaking_of("--model"):
        wrapper = from_pretrained(str(DEMO) if name is None else name, **options)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return wrapper.to(device)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"--device: the model cannot be put on {device}: {error}") from error


def parse_method(option: str, text: str) -> tuple[str, dict[str, Any]]:
    """The method that an option names, as NAME or NAME:OPTION=VALUE,..., and its options.

    Raises:
        ValueError: If there is no such method or option.
    """
    from captum_interactions.attr import ATTRIBUTIONS
    from captum_interactions.evaluation import study
    from captum_interactions.explanation import check_options

    with speaking_of(option):
        name, choice = study.parse_method(text)
        if name not in ATTRIBUTIONS:
            raise ValueError(must_be_one_of(ATTRIBUTIONS, name))
        check_options(name, choice)
    return name, choice
