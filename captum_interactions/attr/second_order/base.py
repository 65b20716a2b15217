"""What all attributions of pairs share: a wrapper, two layers, and checked inputs."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeVar

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_interactions.attr._utils.inputs import open_path
from captum_interactions.attr._utils.path import Baseline, Groups, Normalization, Path
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.functional import Decomposition

Baselines = Baseline | tuple[Baseline, Baseline]
Side = Literal["a", "b"]
_T = TypeVar("_T")


class PairAttribution(Attribution):
    """Base class of second-order attributions of a dual encoder.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): ``(layer_a, layer_b)``, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`. Default: None,
            ``wrapper.default_layers``
        normalization (str): The score that is explained, see there. Default: ``"cosine"``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist or the normalization is unknown.
    """

    order: ClassVar[Literal[1, 2]] = 2
    """1 if attributions are of tokens, 2 if of pairs of tokens."""
    needs: ClassVar[str] = "two encoders"
    """What a wrapper must have."""
    cost: ClassVar[str]
    """What a pair costs, in encoder passes."""

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        normalization: Normalization = "cosine",
    ) -> None:
        check_explainer(type(self).__name__, wrapper, normalization)
        Attribution.__init__(self, wrapper)
        self.wrapper = wrapper
        self.layers = resolve_layers(wrapper, wrapper.default_layers if layers is None else layers)
        self.normalization: Normalization = normalization
        self._multiply_by_inputs = True

    def _open(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        additional_forward_args: Any = None,
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
    ) -> tuple[Path, Path]:
        """Check a batch of pairs and carry both sides to their layers; no gradient is taken."""
        return open_pair(
            self.wrapper,
            self.layers,
            inputs,
            baselines,
            additional_forward_args,
            groups_a,
            groups_b,
            normalization=self.normalization,
            multiply_by_inputs=self._multiply_by_inputs,
        )

    def _open_side(
        self, side: Side, inputs: Tensor, baseline: Baseline, extras: tuple[Any, ...], groups: Any
    ) -> Path:
        is_a = side == "a"
        return open_path(
            side,
            self.wrapper.tower_a if is_a else self.wrapper.tower_b,
            self.layers[0] if is_a else self.layers[1],
            inputs,
            baseline,
            extras,
            groups,
            normalization=self.normalization,
            multiply_by_inputs=self._multiply_by_inputs,
        )


def check_explainer(name: str, wrapper: Any, normalization: str) -> None:
    """Check what the constructor of an attribution was given.

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If the normalization is unknown.
    """
    if not isinstance(wrapper, DualEncoderWrapper):
        raise TypeError(
            f"{name} needs both encoders, so it takes a DualEncoderWrapper (see wrap), but got "
            f"{type(wrapper).__name__}"
        )
    if normalization not in ("cosine", "frozen", "none"):
        raise ValueError(
            f"normalization must be 'cosine', 'frozen' or 'none', but got {normalization!r}"
        )
    if normalization not in wrapper.normalizations:
        raise ValueError(
            f"{name} with normalization={normalization!r} does not explain the score of a "
            f"{type(wrapper).__name__}, whose normalization is {wrapper.normalizations[0]!r}"
        )


def resolve_layers(wrapper: DualEncoderWrapper, layers: tuple[Layer, Layer]) -> tuple[Layer, Layer]:
    """Check the layers of both towers, and count them from the front.

    Raises:
        ValueError: If these are not two layers that the towers have.
    """
    if not isinstance(layers, tuple) or len(layers) != 2:
        raise ValueError(f"layers must be a pair (layer_a, layer_b), but got {layers!r}")
    return wrapper.tower_a.resolve_layer(layers[0]), wrapper.tower_b.resolve_layer(layers[1])


def first_layers(wrapper: DualEncoderWrapper) -> tuple[Layer, Layer]:
    """The embeddings of each tower, or the input of a tower whose blocks are closed."""
    is_open_a, is_open_b = wrapper.tower_a.n_blocks, wrapper.tower_b.n_blocks
    return 0 if is_open_a else "input", 0 if is_open_b else "input"


def each_option(name: str, option: _T | tuple[_T, _T]) -> tuple[_T, _T]:
    """An option of both inputs, or one of each."""
    if not isinstance(option, tuple):
        return option, option
    if len(option) != 2:
        raise ValueError(f"{name} must be one for both inputs or a pair, but got {option!r}")
    return option


def check_target(target: Any) -> None:
    """Raise a ValueError if there is a target."""
    if target is not None:
        raise ValueError(
            f"target must be None, because a similarity has a single output, but got {target!r}"
        )


def check_pair(inputs: tuple[Tensor, Tensor]) -> None:
    """See that inputs are two tensors with as many rows.

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


def open_pair(
    wrapper: DualEncoderWrapper,
    layers: tuple[Layer, Layer],
    inputs: tuple[Tensor, Tensor],
    baselines: Baselines,
    additional_forward_args: Any,
    groups_a: Groups | None = None,
    groups_b: Groups | None = None,
    *,
    normalization: Normalization,
    multiply_by_inputs: bool = True,
) -> tuple[Path, Path]:
    """The paths of both inputs of B aligned pairs, see :func:`open_path`.

    Raises:
        TypeError: If inputs are not a pair of tensors, or are on another device.
        ValueError: If shapes or values do not fit the towers, or each other.
    """
    check_pair(inputs)
    options: Any = {"normalization": normalization, "multiply_by_inputs": multiply_by_inputs}
    baseline_a, baseline_b = each_baseline(baselines)
    extras_a, extras_b = wrapper.split_additional(additional_forward_args)
    path_a = open_path(
        "a", wrapper.tower_a, layers[0], inputs[0], baseline_a, extras_a, groups_a, **options
    )
    path_b = open_path(
        "b", wrapper.tower_b, layers[1], inputs[1], baseline_b, extras_b, groups_b, **options
    )
    if path_a.embedding.shape != path_b.embedding.shape:
        raise ValueError(
            "both towers must embed into the same space, but gave embeddings of shape "
            f"{tuple(path_a.embedding.shape)} and {tuple(path_b.embedding.shape)}"
        )
    return path_a, path_b


def each_baseline(baselines: Baselines) -> tuple[Baseline, Baseline]:
    """One baseline for each input: a bare scalar serves both, anything else input a alone."""
    if not isinstance(baselines, tuple):
        return baselines, baselines if isinstance(baselines, (int, float)) else None
    if len(baselines) != 2:
        raise ValueError(
            f"baselines must be one for each of the two inputs, but got {len(baselines)}"
        )
    return baselines


def interactions_alone(interactions: Tensor, score: Tensor) -> Decomposition:
    """The decomposition of a method that defines no constant and no main effects: these are zero.

    Args:
        interactions (Tensor): shape (B, Ta, Tb).
        score (Tensor): shape (B,).
    """
    return Decomposition(
        constant=torch.zeros_like(score),
        main_effects_a=interactions.new_zeros(interactions.shape[:2]),
        main_effects_b=interactions.new_zeros(interactions.shape[::2]),
        interactions=interactions,
        score=score,
    )
