"""Propagate the inputs and baselines of both towers to their layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from captum_interactions.attr._utils.arguments import (
    Baseline,
    Baselines,
    Groups,
    Inputs,
    Normalization,
    check_pair,
    each_baseline,
)
from captum_interactions.attr._utils.checks import (
    baselines_of,
    check_embedding,
    check_input,
    warn_of_nearly_zero_baselines,
)
from captum_interactions.attr._utils.groups import group_weights
from captum_interactions.attr._utils.layer_inputs import LayerInputs, repeat_rows
from captum_interactions.attr._utils.path import Path
from captum_interactions.encoders import DualEncoderWrapper, Layer, Tower
from captum_interactions.encoders.towers.base import take_rows
from captum_interactions.encoders.wrapper import widen

_L = TypeVar("_L", bound=LayerInputs)


def propagate_pairs(
    wrapper: DualEncoderWrapper,
    layers: tuple[Layer, Layer],
    inputs: Inputs,
    baselines: Baselines,
    additional_forward_args: Any,
    *,
    with_baselines: bool,
    normalization: Normalization,
) -> tuple[LayerInputs, LayerInputs]:
    """Both inputs of B aligned pairs, propagated to their layers. No gradient is taken.

    The arguments are those of ``SecondOrderIntegratedGradients``, and

    Args:
        with_baselines (bool): Whether to propagate the baselines too.

    Raises:
        TypeError: If inputs are not a pair of tensors, or are on another device.
        ValueError: If shapes or values do not fit the towers, or each other.
    """

    def propagated(*one: Any) -> LayerInputs:
        return layer_inputs(*one, with_baselines=with_baselines, normalization=normalization)

    return _of_both(wrapper, layers, inputs, baselines, additional_forward_args, propagated)


def paths_of_pairs(
    wrapper: DualEncoderWrapper,
    layers: tuple[Layer, Layer],
    inputs: Inputs,
    baselines: Baselines,
    additional_forward_args: Any,
    groups_a: Groups | None = None,
    groups_b: Groups | None = None,
    *,
    normalization: Normalization,
    multiply_by_inputs: bool = True,
) -> tuple[Path, Path]:
    """The paths of both inputs of B aligned pairs, see :func:`path_of`.

    Raises:
        TypeError: If inputs are not a pair of tensors, or are on another device.
        ValueError: If shapes or values do not fit the towers, or each other.
    """
    groups = {"a": groups_a, "b": groups_b}

    def path(name: str, *one: Any) -> Path:
        return path_of(
            name, *one, groups=groups[name], normalization=normalization,
            multiply_by_inputs=multiply_by_inputs,
        )  # fmt: skip

    return _of_both(wrapper, layers, inputs, baselines, additional_forward_args, path)


def _of_both(
    wrapper: DualEncoderWrapper,
    layers: tuple[Layer, Layer],
    inputs: Inputs,
    baselines: Baselines,
    additional_forward_args: Any,
    build: Callable[..., _L],
) -> tuple[_L, _L]:
    """``build(name, tower, layer, inputs, baseline, extras)`` for both sides."""
    check_pair(inputs)
    each = each_baseline(baselines)
    extras = wrapper.split_additional(additional_forward_args)
    towers = (wrapper.tower_a, wrapper.tower_b)
    a, b = (build("ab"[i], towers[i], layers[i], inputs[i], each[i], extras[i]) for i in (0, 1))
    if a.raw_embedding.shape != b.raw_embedding.shape:
        raise ValueError(
            "both towers must embed into the same space, but gave embeddings of shape "
            f"{tuple(a.raw_embedding.shape)} and {tuple(b.raw_embedding.shape)}"
        )
    return a, b


def layer_inputs(
    name: str,
    tower: Tower,
    layer: Layer,
    inputs: Tensor,
    baseline: Baseline,
    extras: tuple[Any, ...],
    *,
    with_baselines: bool = True,
    normalization: Normalization,
) -> LayerInputs:
    """Check one side's inputs and propagate them, and their baselines, to the layer.

    Raises:
        TypeError: If inputs are on another device than the tower.
        ValueError: If inputs or baselines are not what the tower takes.
    """
    inputs, extras = check_input(name, tower, inputs, extras)
    found = baselines_of(name, tower, inputs, baseline, extras) if with_baselines else []
    with torch.no_grad():
        features, of_baselines, context = propagate(tower, layer, inputs, found, extras)
        embedding, *others = _embeddings(tower, layer, features, of_baselines, context)
        check_embedding(f"input {name}", embedding, may_vanish=normalization == "none")
        mask = tower.token_mask(inputs, *extras) if layer != "input" else None
        if mask is None:
            tokens = tower.fold(layer, torch.empty_like(features, device="meta"))
            mask = torch.ones(tokens.shape, device=features.device)
    return LayerInputs(
        name=name,
        tower=tower,
        layer=layer,
        inputs=inputs,
        extras=extras,
        features=features,
        baselines=of_baselines,
        tower_context=context,
        token_mask=widen(mask.to(features.dtype)),
        raw_embedding=embedding,
        raw_baseline_embeddings=tuple(others),
        normalization=normalization,
    )


def path_of(
    name: str,
    tower: Tower,
    layer: Layer,
    inputs: Tensor,
    baseline: Baseline,
    extras: tuple[Any, ...],
    *,
    groups: Groups | None = None,
    normalization: Normalization,
    multiply_by_inputs: bool = True,
) -> Path:
    """Check one side's inputs, baselines and groups, and propagate them to the layer.

    The arguments are those of ``SecondOrderIntegratedGradients.attribute``, for one side. No
    gradient is taken yet.

    Raises:
        TypeError: If inputs are on another device than the tower.
        ValueError: If inputs, baselines or groups are not as described there.
    """
    ends = layer_inputs(name, tower, layer, inputs, baseline, extras, normalization=normalization)
    for embedding in ends.baseline_embeddings:
        check_embedding(f"baseline {name}", embedding, may_vanish=normalization != "cosine")
    if normalization == "cosine":
        warn_of_nearly_zero_baselines(name, ends.raw_embedding, ends.raw_baseline_embeddings)
    return Path(
        **{field.name: getattr(ends, field.name) for field in fields(ends)},
        groups=group_weights(name, groups, ends.token_mask),
        multiply_by_inputs=multiply_by_inputs,
    )


def propagate(
    tower: Tower, layer: Layer, inputs: Tensor, baselines: list[Tensor], extras: tuple[Any, ...]
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Any, ...]]:
    """Features of inputs and baselines, (B, *F) or (1, *F) each, and the context of the inputs.

    All run in one batch, which reads the model's weights once. Only the features of a baseline are
    used: it is masked and pooled as the input is.
    """
    plain = not any(isinstance(extra, Tensor) for extra in extras)
    if plain:
        # Baselines are often the same for all examples: then one row is enough.
        baselines = [b[:1] if torch.equal(b, b[:1].expand_as(b)) else b for b in baselines]
    cached = tower.cached_baselines
    if cached is not None and plain and all(len(baseline) == 1 for baseline in baselines):
        features, context = tower.features(layer, inputs, *extras)
        known = tuple(cached.features(tower, layer, one, extras) for one in baselines)
        return features, known, context
    together = (inputs, *baselines)
    repeated = (repeat_rows(extra, len(together)) for extra in extras)
    features, context = tower.features(layer, torch.cat(together), *repeated)
    own, *others = features.split([len(part) for part in together])
    return own, tuple(others), take_rows(context, slice(0, len(inputs)))


def _embeddings(
    tower: Tower,
    layer: Layer,
    features: Tensor,
    baselines: tuple[Tensor, ...],
    context: tuple[Any, ...],
) -> list[Tensor]:
    """Embeddings of the inputs and of each baseline in the inputs' context, (B, K) each.

    At blocks all run in one batch, which reads the model's weights once.
    """
    every = [features, *(baseline.expand_as(features) for baseline in baselines)]
    if layer == "input":
        return [tower.embed(layer, one, *context) for one in every]
    repeated = (repeat_rows(value, len(every)) for value in context)
    embeddings = tower.embed(layer, torch.cat(every), *repeated)
    return list(embeddings.split(len(features)))
