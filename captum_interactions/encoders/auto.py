"""From a model, or its name, to a wrapper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from captum_interactions.encoders.clip import clip_towers, has_clip_layout
from captum_interactions.encoders.tower import CallableTower, Tower
from captum_interactions.encoders.wrapper import DualEncoderWrapper

_FAMILIES: list[tuple[Callable[[Any], bool], Callable[[nn.Module, Any], tuple[Tower, Tower]]]] = [
    (has_clip_layout, clip_towers)
]
"""(whether a model is of this family, how its towers are made), tried in order."""

_SOURCE_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "trust_remote_code")
"""Options that say where files come from, for the model and the processor alike."""


def wrap(model: Any, processor: Any = None) -> DualEncoderWrapper:
    """Wrap a dual encoder for explanation. The model is used as it is and never changed.

    Args:
        model: A model of a known family (the CLIP layout of ``transformers``), or a pair of towers,
            callables or modules, each mapping a batch of real-valued tensors to embeddings (B, K).
            Callables are explained at their inputs, with zeros as references; see
            :class:`~captum_interactions.encoders.Tower` for token ids, raw inputs and hidden
            states.
        processor (optional): The model's processor, for raw inputs. Default: None, which asks for
            ready tensors

    Returns:
        DualEncoderWrapper: the wrapper. If the model's config has a ``captum_interactions`` entry
        with ``default_layers`` or ``default_n_steps``, these become the wrapper's.

    Raises:
        TypeError: If the model is of no known family.

    Examples::

        >>> import torch
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> wrapper.default_layers
        ('input', 'input')
    """
    if isinstance(model, DualEncoderWrapper):
        return model
    if isinstance(model, tuple) and len(model) == 2 and all(callable(part) for part in model):
        tower_a, tower_b = (
            part if isinstance(part, Tower) else CallableTower(part) for part in model
        )
        return DualEncoderWrapper(tower_a, tower_b)
    for matches, make_towers in _FAMILIES:
        if matches(model):
            settings = dict(getattr(model.config, "captum_interactions", {}))
            if "default_layers" in settings:
                settings["default_layers"] = tuple(settings["default_layers"])
            return DualEncoderWrapper(*make_towers(model, processor), **settings)
    raise TypeError(
        f"{type(model).__name__} is not a dual encoder of a known layout (expected CLIP's, with "
        "text_model, vision_model and their projections). Wrap any other dual encoder as a pair of "
        "callables on real-valued tensors, wrap((encode_a, encode_b)), or write a Tower for each "
        "side"
    )


def from_pretrained(name_or_path: str | Path, **kwargs: Any) -> DualEncoderWrapper:
    """Load a model and its processor with ``transformers``, and wrap them.

    Args:
        name_or_path (str or Path): A name on the model hub, or a local directory.
        kwargs: Passed to ``AutoModel.from_pretrained``, such as ``dtype`` or ``revision``.

    Returns:
        DualEncoderWrapper: the wrapped model, in eval mode.

    Raises:
        OSError: If nothing is found under that name.
        TypeError: If what is found is not a dual encoder.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoProcessor

    source = {key: value for key, value in kwargs.items() if key in _SOURCE_OPTIONS}
    try:
        model = AutoModel.from_pretrained(name_or_path, **kwargs)
    except (OSError, ValueError, SafetensorError) as error:
        raise OSError(f"no model could be loaded from {str(name_or_path)!r}: {error}") from error
    if not any(matches(model) for matches, _ in _FAMILIES):
        wrap(model)  # raises, with the reason, before the processor is looked for
    return wrap(model.eval(), AutoProcessor.from_pretrained(name_or_path, **source))
