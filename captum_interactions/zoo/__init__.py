"""The bundled model, and the script that trained it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captum_interactions.datasets.scenes import Scenes

if TYPE_CHECKING:
    from captum_interactions.encoders import DualEncoderWrapper

DEMO = Path(__file__).parent / "demo"
"""Folder of the bundled model, as ``transformers`` loads it."""

HELD_OUT_SEED = 0
"""Seed of the sample scenes. The model was trained on scenes with another seed."""

VALIDATION_SEED = 21
"""Seed of the scenes that choices are made on: of the training, of layers and of steps."""

REPORT_SEED = 31
"""Seed of the scenes that results are reported on. Nothing is chosen on them."""


def load_demo(n_scenes: int = 64) -> tuple[DualEncoderWrapper, Scenes]:
    """Load the bundled model, wrapped, and sample scenes it was not trained on; needs no network.

    Args:
        n_scenes: Number of scenes. Default: 64.

    Returns:
        The wrapped model and the scenes; ``scenes[i]`` has ``.image``, ``.caption`` and
        ``.objects``.

    Examples:
        >>> wrapper, scenes = load_demo()
        >>> scenes[0].caption[slice(*scenes[0].named[0].span)] == scenes[0].named[0].phrase
        True
    """
    from captum_interactions.encoders import from_pretrained

    return from_pretrained(str(DEMO)), Scenes(n_scenes, seed=HELD_OUT_SEED)
