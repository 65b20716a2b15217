"""Check a wrapper, and report problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr import SecondOrderIntegratedGradients
from captum_interactions.encoders import Batch, DualEncoderWrapper, Layer, TokenAxis, Tower
from captum_interactions.encoders.families.trial import is_close, other_input
from captum_interactions.encoders.model.hooks import HOOKS
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.encoders.towers.base import take_rows


def check_wrapper(
    wrapper: DualEncoderWrapper,
    a: Any = None,
    b: Any = None,
    *,
    n_steps: int = 50,
    tolerance: float = 1e-4,
) -> list[str]:
    """Check a wrapper on a few inputs: for custom adapters, and for untested models.

    The checks of each tower: embeddings are finite, deterministic, and independent of the batch;
    the baseline is valid and differs from the input; at every layer, the two parts of the tower
    compose to the model's own embedding, and the second part depends only on the hidden states;
    masked tokens do not influence the embedding; axes have as many tokens as the hidden states;
    ``fold`` and ``spread`` are adjoint. The checks of the pair: both plans (from a to b and from b
    to a) give the same map; padding is zero; maps do not depend on the batch; the map is complete.
    The model is not modified.

    Args:
        wrapper (DualEncoderWrapper): The wrapper to check.
        a (optional): At least two first inputs for :meth:`DualEncoderWrapper.prepare`, preferably
            of different lengths. Default: None, the samples of the tower
        b (optional): As many second inputs. Default: None, the samples of the tower
        n_steps (int): Quadrature nodes of the maps. Default: 50
        tolerance (float): Tolerance of comparisons, relative to the largest value. Default: 1e-4,
            for float32

    Returns:
        list of str: one sentence per problem; empty if there is none.

    Raises:
        NotImplementedError: If inputs are missing and a tower has no samples.
        ValueError: If there is only one input, or the numbers of inputs differ.

    Examples::

        >>> import torch
        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> check_wrapper(wrapper, torch.rand(2, 4), torch.rand(2, 5))
        []
    """
    if not isinstance(wrapper, DualEncoderWrapper):
        raise TypeError(
            f"check_wrapper takes a DualEncoderWrapper, but got {type(wrapper).__name__}: wrap the "
            "model with wrap(model, processor) first"
        )
    a = wrapper.tower_a.sample() if a is None else a
    b = wrapper.tower_b.sample() if b is None else b
    before = _state(wrapper)
    batch = wrapper.prepare(a, b)
    alone = [_alone(wrapper, (a, b), batch, row) for row in range(len(batch.axes_a))]
    problems = list(dict.fromkeys(_problems(wrapper, batch, alone, n_steps, tolerance)))
    if _state(wrapper) != before:
        problems.append("the model is not as it was: a hook, a mode or a gradient is left behind")
    return problems


def _problems(
    wrapper: DualEncoderWrapper, batch: Batch, alone: list[Batch], n_steps: int, tolerance: float
) -> Iterator[str]:
    if len(alone) < 2:
        raise ValueError("check_wrapper needs two inputs or more on each side, but got one")
    found, sizes = [], []
    with explaining(wrapper), torch.no_grad():
        for side, tower in enumerate((wrapper.tower_a, wrapper.tower_b)):
            own = [_side(wrapper, one, side) for one in alone]
            axes = (batch.axes_a, batch.axes_b)[side]
            problems = list(
                _tower_problems(tower, *_side(wrapper, batch, side), axes, own, tolerance)
            )
            found += [f"encoder {'ab'[side]}: {problem}" for problem in problems]
            if not problems:
                inputs, extras = _side(wrapper, batch, side)
                sizes.append(tower.encode(inputs, *extras).shape[1])
    yield from found
    if found:
        return  # maps of wrong towers are meaningless
    if sizes[0] != sizes[1]:
        yield f"the encoders embed into spaces of {sizes[0]} and of {sizes[1]} dimensions"
        return
    try:
        yield from _map_problems(wrapper, batch, alone, n_steps, tolerance)
    except Exception as error:  # noqa: BLE001 - any error is a problem to report
        yield f"no map can be made: {type(error).__name__}: {error}"


def _tower_problems(
    tower: Tower,
    inputs: Tensor,
    extras: tuple[Any, ...],
    axes: tuple[TokenAxis, ...],
    alone: list[tuple[Tensor, tuple[Any, ...]]],
    tolerance: float,
) -> Iterator[str]:
    try:
        tower.check(inputs, *extras)
        full = tower.encode(inputs, *extras)
        baseline = tower.baseline(inputs, *extras)
        at_baseline = tower.encode(baseline, *extras)
    except Exception as error:  # noqa: BLE001
        yield f"it cannot encode: {type(error).__name__}: {error}"
        return
    if full.dim() != 2 or len(full) != len(inputs):
        yield f"embeddings must have shape ({len(inputs)}, K), but have {tuple(full.shape)}"
        return
    if not torch.isfinite(full).all():
        yield "an embedding is not finite"
        return
    if not is_close(tower.encode(inputs, *extras), full, tolerance):
        yield "the same input has another embedding the second time: something in it is random"
        return
    if baseline.shape != inputs.shape:
        yield (f"the baseline has shape {tuple(baseline.shape)}, the input {tuple(inputs.shape)}")
    elif torch.equal(baseline, inputs):
        yield "the baseline is the input itself, so nothing is left to explain"
    elif not torch.equal(tower.baseline(baseline, *extras), baseline):
        yield "the baseline of the baseline is another one"
    if not torch.isfinite(at_baseline).all() or not at_baseline.norm(dim=-1).all():
        yield "the embedding of the baseline is zero or not finite, so it has no cosine"
    elif is_close(full, at_baseline, 1e-6) and is_close(full, full.flip(0), 1e-6):
        yield "all inputs and the baseline have the same embedding"
        return
    for row, (one, own) in enumerate(alone):
        rows = slice(row, row + 1)
        # One that is made of tokens is as long as the longest of its batch, with zeros at the end.
        by_itself = tower.encode(one, *own)
        missing = max(full.shape[1] - by_itself.shape[1], 0)
        by_itself = torch.nn.functional.pad(by_itself, (0, missing))
        if not is_close(by_itself, full[rows], tolerance):
            yield f"input {row} has another embedding by itself than in the batch"
        if not torch.equal(tower.baseline(inputs[rows], *take_rows(extras, rows)), baseline[rows]):
            yield f"input {row} has another baseline by itself than in the batch"
    first = inputs[:1], take_rows(extras, slice(0, 1)), axes[:1], full[:1]
    for layer in tower.layers:
        try:
            yield from _layer_problems(tower, layer, inputs, extras, axes, full, tolerance)
            # A batch of two may be mistaken for two outputs.
            yield from _layer_problems(tower, layer, *first, tolerance)
        except Exception as error:  # noqa: BLE001, PERF203
            yield f"layer {layer} cannot be entered: {type(error).__name__}: {error}"


def _layer_problems(
    tower: Tower,
    layer: Layer,
    inputs: Tensor,
    extras: tuple[Any, ...],
    axes: Any,
    full: Tensor,
    tolerance: float,
) -> Iterator[str]:
    states, context = tower.prefix(layer, inputs, *extras)
    where = f"at layer {layer}"
    if states.dim() != 3 or len(states) != len(inputs):
        yield (
            f"{where}, hidden states must have shape ({len(inputs)}, T, D), but have "
            f"{tuple(states.shape)}"
        )
        return
    if not is_close(tower.tail(layer, states, *context), full, tolerance):
        yield f"{where}, the rest of the encoder does not make the model's own embedding"
        return
    other = other_input(tower, inputs, *extras)
    replayed = tower.tail(layer, tower.prefix(layer, other, *extras)[0], *context)
    if not is_close(replayed, tower.encode(other, *extras), tolerance):
        yield (
            f"{where}, the hidden states of another input do not make its embedding when they take "
            "the place of the input's: the rest of the encoder depends on more than hidden states"
        )
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(states.shape, generator=generator).to(states) * states.std()
    if is_close(tower.tail(layer, states + noise, *context), full, tolerance):
        yield f"{where}, the embedding does not depend on the hidden states"
    mask = tower.token_mask(inputs, *extras)
    if mask is not None:
        if mask.shape != states.shape[:2]:
            yield (
                f"{where}, the token mask has shape {tuple(mask.shape)} for hidden states of shape "
                f"{tuple(states.shape)}"
            )
        else:
            hidden = noise * ~mask.bool().unsqueeze(-1)
            if not is_close(tower.tail(layer, states + hidden, *context), full, tolerance):
                yield f"{where}, tokens that the token mask leaves out reach the embedding"
            if any(
                list(a.padding) != (row == 0).tolist() for a, row in zip(axes, mask, strict=True)
            ):
                yield f"{where}, the axes have padding at other tokens than the token mask"
    for axis in axes:
        known = len(tower.axis_at(layer, axis, states.shape[1]))
        if known != states.shape[1]:
            yield f"{where}, the axis has {known} tokens, but there are {states.shape[1]}"
    # Random features, since those after a layer norm sum to zero.
    tokens = tower.fold(layer, noise)
    weights = torch.rand(tokens.shape[1], generator=generator).to(tokens)
    spread = tower.spread(layer, weights, noise.shape)
    if not is_close((noise * spread).flatten(1).sum(1), (tokens * weights).sum(1), 1e-3):
        yield f"{where}, fold and spread put features into different tokens"


def _map_problems(
    wrapper: DualEncoderWrapper, batch: Batch, alone: list[Batch], n_steps: int, tolerance: float
) -> Iterator[str]:
    soig = SecondOrderIntegratedGradients(wrapper, normalization=wrapper.normalizations[0])
    additional = batch.additional_forward_args
    maps, delta = soig.attribute(
        batch.inputs,
        additional_forward_args=additional,
        n_steps=n_steps,
        return_convergence_delta=True,
    )
    extras_a, extras_b = wrapper.split_additional(additional)
    factors = (
        soig.factors_a(batch.inputs[0], None, extras_a, n_steps),
        soig.factors_b(batch.inputs[1], None, extras_b, n_steps),
    )
    pairs = torch.arange(len(maps))
    if not is_close((factors[0] @ factors[1])[pairs, pairs], maps, 10 * tolerance):
        yield "the map from factors of both encoders is another one than the map of the pair"
    counted = _counted(soig, batch, maps)
    if (maps * ~counted[0].unsqueeze(2)).any():
        yield "tokens of a that do not count have attributions"
    if (maps * ~counted[1].unsqueeze(1)).any():
        yield "tokens of b that do not count have attributions"
    for row, one in enumerate(alone):
        own = soig.attribute(
            one.inputs, additional_forward_args=one.additional_forward_args, n_steps=n_steps
        )
        # Padding may be on the left or on the right, so the other tokens are compared.
        (own_a,), (own_b,) = _counted(soig, one, own)
        in_batch = maps[row][counted[0][row]][:, counted[1][row]]
        if not is_close(own[0][own_a][:, own_b], in_batch, 10 * tolerance):
            yield f"pair {row} has another map by itself than in the batch"
    scale = max(float(maps.sum((1, 2)).abs().max()), 0.01)  # of cosines, which are in [-1, 1]
    if delta.abs().max() > 0.05 * scale:
        yield (
            f"the map misses what it should sum to by {float(delta.abs().max()):.1e} of "
            f"{scale:.1e} with {n_steps} nodes: a step on the path (a hard choice, a rounding), or "
            "a layer that needs more nodes"
        )


def _counted(
    soig: SecondOrderIntegratedGradients, batch: Batch, maps: Tensor
) -> tuple[Tensor, Tensor]:
    """The encoders' token masks: (B, Ta) and (B, Tb)."""
    counted = []
    for side, tower in enumerate((soig.wrapper.tower_a, soig.wrapper.tower_b)):
        inputs, extras = _side(soig.wrapper, batch, side)
        mask = None if soig.layers[side] == "input" else tower.token_mask(inputs, *extras)
        everything = torch.ones((len(maps), maps.shape[1 + side]), device=maps.device)
        counted.append((everything if mask is None else mask).bool())
    return counted[0], counted[1]


def _alone(wrapper: DualEncoderWrapper, raw: tuple[Any, Any], batch: Batch, row: int) -> Batch:
    """A single pair, from its raw inputs, or without the padding of the batch."""
    own = []
    for side, tower in enumerate((wrapper.tower_a, wrapper.tower_b)):
        if isinstance(raw[side], list):
            own.append(raw[side][row : row + 1])
            continue
        inputs, extras = _side(wrapper, batch, side)
        rows = slice(row, row + 1)
        inputs, extras = inputs[rows], take_rows(extras, rows)
        if tower.extra_names[:1] == ("attention_mask",) and extras and extras[0] is not None:
            mask = tower.token_mask(inputs, *extras)
            places = (extras[0] if mask is None else mask)[0].nonzero()
            part = slice(int(places.min()), int(places.max()) + 1)
            inputs, extras = inputs[:, part], (extras[0][:, part], *extras[1:])
        own.append((inputs, *extras) if extras else inputs)
    return wrapper.prepare(*own)


def _side(wrapper: DualEncoderWrapper, batch: Batch, side: int) -> tuple[Tensor, tuple[Any, ...]]:
    """Input and extras of one encoder."""
    return batch.inputs[side], wrapper.split_additional(batch.additional_forward_args)[side]


def _state(wrapper: DualEncoderWrapper) -> list[Any]:
    """The state of a model that an explanation must not change."""
    return [
        (
            module.training,
            "forward" in vars(module),
            *(len(getattr(module, name)) for name in HOOKS),
        )
        for module in wrapper.modules()
    ] + [parameter.grad is None for parameter in wrapper.parameters()]
