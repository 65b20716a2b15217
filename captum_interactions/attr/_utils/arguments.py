"""The arguments that attribution methods share: their types and checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar, cast

from numpy.typing import NDArray
from torch import Tensor

from captum_interactions.encoders import DualEncoderWrapper, Layer, Tower

Inputs = tuple[Tensor, Tensor]
"""Input a and input b, B rows each."""
Baseline = None | int | float | Tensor | list[int | float | Tensor | None]
Baselines = Baseline | tuple[Baseline, Baseline]
Groups = Tensor | NDArray[Any] | Sequence[Sequence[int]]
Normalization = Literal["cosine", "frozen", "none"]
Side = Literal["a", "b"]
_T = TypeVar("_T")


def check_wrapper(name: str, wrapper: Any) -> None:
    """Raise a TypeError if the model of a method or function is not a DualEncoderWrapper."""
    if not isinstance(wrapper, DualEncoderWrapper):
        raise TypeError(
            f"{name} needs both encoders, so it takes a DualEncoderWrapper (see wrap), but got "
            f"{type(wrapper).__name__}"
        )


def check_normalization(normalization: str, wrapper: DualEncoderWrapper) -> None:
    """Raise a ValueError if the normalization is unknown, or not one of the wrapper's."""
    if normalization not in ("cosine", "frozen", "none"):
        raise ValueError(
            f"normalization must be 'cosine', 'frozen' or 'none', but got {normalization!r}"
        )
    if normalization not in wrapper.normalizations:
        raise ValueError(
            f"the score of a {type(wrapper).__name__} is explained with normalization="
            f"{wrapper.normalizations[0]!r}, but got {normalization!r}"
        )


def check_count(name: str, count: Any, least: int = 1) -> None:
    """Raise a ValueError if a number is not an int of at least ``least``."""
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise ValueError(f"{name} must be an int of at least {least}, but got {count!r}")


def check_batch_size(internal_batch_size: int | None) -> None:
    """Raise a ValueError if a number of rows is not None and less than 1."""
    if internal_batch_size is not None and internal_batch_size < 1:
        raise ValueError(f"internal_batch_size must be at least 1, but got {internal_batch_size}")


def check_target(target: Any) -> None:
    """Raise a ValueError if there is a target."""
    if target is not None:
        raise ValueError(
            f"target must be None, because a similarity has a single output, but got {target!r}"
        )


def check_pair(inputs: Any) -> None:
    """Check that inputs are two tensors with the same number of rows.

    Raises:
        TypeError: If they are not a tuple of two tensors.
        ValueError: If their numbers of rows differ.
    """
    if not isinstance(inputs, tuple) or len(inputs) != 2:
        came = f"{len(inputs)} of them" if isinstance(inputs, tuple) else type(inputs).__name__
        raise TypeError(f"inputs must be a tuple of two tensors (a, b), but got {came}")
    for name, tensor in zip("ab", inputs, strict=True):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"input {name} must be a tensor, but got {type(tensor).__name__}")
    if inputs[0].shape[:1] != inputs[1].shape[:1]:
        raise ValueError(
            "aligned pairs need as many rows in a as in b, but got shapes "
            f"{tuple(inputs[0].shape)} and {tuple(inputs[1].shape)}"
        )


def resolve_layers(wrapper: DualEncoderWrapper, layers: tuple[Layer, Layer]) -> tuple[Layer, Layer]:
    """Check the layers of both towers, and count them from the front.

    Raises:
        ValueError: If these are not two layers that the towers have.
    """
    if not isinstance(layers, tuple) or len(layers) != 2:
        raise ValueError(f"layers must be a pair (layer_a, layer_b), but got {layers!r}")
    a, b = layers
    return _resolved("a", wrapper.tower_a, a), _resolved("b", wrapper.tower_b, b)


def _resolved(name: str, tower: Tower, layer: Layer) -> Layer:
    try:
        return tower.resolve_layer(layer)
    except ValueError as error:
        raise ValueError(f"input {name}: {error}") from error


def first_layers(wrapper: DualEncoderWrapper) -> tuple[Layer, Layer]:
    """Layer 0 of each tower, before its blocks mix the tokens; the input if it has no blocks."""
    a, b = (0 if tower.n_blocks else "input" for tower in (wrapper.tower_a, wrapper.tower_b))
    return cast(Layer, a), cast(Layer, b)


def each_option(name: str, option: _T | tuple[_T, _T]) -> tuple[_T, _T]:
    """An option for both inputs, or a pair with one for each, as a pair."""
    if not isinstance(option, tuple):
        return option, option
    if len(option) != 2:
        raise ValueError(f"{name} must be one for both inputs or a pair, but got {option!r}")
    return option


def each_baseline(baselines: Baselines) -> tuple[Baseline, Baseline]:
    """One baseline for each input: a number serves both, anything else input a alone."""
    if not isinstance(baselines, tuple):
        return baselines, baselines if isinstance(baselines, (int, float)) else None
    if len(baselines) != 2:
        raise ValueError(
            f"baselines must be one for each of the two inputs, but got {len(baselines)}"
        )
    return baselines
