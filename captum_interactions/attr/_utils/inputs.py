"""Checked inputs and references of one tower, carried to a layer: where a path begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from captum_interactions.attr._utils.path import Baseline, Groups, Normalization, Path
from captum_interactions.callers import warn_caller
from captum_interactions.encoders import Layer, Tower
from captum_interactions.encoders.towers.base import take_rows
from captum_interactions.encoders.wrapper import unit, widen

_NEARLY_ZERO = 0.01
"""The embedding of a baseline that is shorter than this share of its input's has no direction."""


def open_path(
    name: str,
    tower: Tower,
    layer: Layer,
    inputs: Tensor,
    baseline: Baseline,
    extras: tuple[Any, ...],
    groups: Groups | None,
    *,
    normalization: Normalization,
    multiply_by_inputs: bool,
) -> Path:
    """Check one side's inputs and carry them and their references to the layer.

    The arguments are those of ``SecondOrderIntegratedGradients.attribute``, for one side. No
    gradient is taken yet.

    Raises:
        TypeError: If inputs are on another device than the tower.
        ValueError: If inputs, baselines or groups are not as described there.
    """
    inputs, extras = check_input(name, tower, inputs, extras)
    references = references_of(name, tower, inputs, baseline, extras)
    with torch.no_grad():
        end, starts, context = carry(tower, layer, inputs, references, extras)
        embedding, *others = _embeddings(tower, layer, end, starts, context)
        check_embedding(f"input {name}", embedding, may_vanish=normalization == "none")
        tokens = tower.fold(layer, torch.empty_like(end, device="meta"))
        mask = tower.token_mask(inputs, *extras) if layer != "input" else None
        if mask is None:
            mask = torch.ones(tokens.shape, device=end.device)
        mask = widen(mask.to(end.dtype))
        scale, norms = _scaling(normalization, embedding)
        ends = [scale(other, *norms) for other in others]
        for reference in ends:
            check_embedding(f"baseline {name}", reference, may_vanish=normalization != "cosine")
        if normalization == "cosine":
            _warn_of_no_direction(name, embedding, others)
    return Path(
        name=name,
        tower=tower,
        layer=layer,
        scale=scale,
        norms=norms,
        starts=starts,
        end=end,
        tower_context=context,
        token_mask=mask,
        groups=_group_weights(name, groups, mask),
        embedding=scale(embedding, *norms),
        reference=torch.stack(ends).mean(0),
        multiply_by_inputs=multiply_by_inputs,
    )


def check_input(
    name: str, tower: Tower, inputs: Tensor, extras: tuple[Any, ...]
) -> tuple[Tensor, tuple[Any, ...]]:
    """One side's inputs and extras, checked and detached.

    Raises:
        TypeError: If inputs are on another device than the tower.
        ValueError: If they are not what the tower takes.
    """
    extras = tuple(_ordinary(extra) for extra in extras)
    inputs = _ordinary(inputs)
    _check_tensor(f"input {name}", tower, inputs)
    _check_extras(name, tower, inputs, extras)
    tower.check(inputs, *extras)
    return inputs, extras


def carry(
    tower: Tower, layer: Layer, inputs: Tensor, references: list[Tensor], extras: tuple[Any, ...]
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Any, ...]]:
    """Features of inputs and references, (B, *F) or (1, *F) each, and the context of the inputs.

    All run together, which reads the model's weights once. A reference keeps its features only: it
    is masked and pooled as the input is.
    """
    if not any(isinstance(extra, Tensor) for extra in extras):
        # References are often the same for all examples: then one row is enough.
        references = [r[:1] if torch.equal(r, r[:1].expand_as(r)) else r for r in references]
    kept = tower.kept_references
    if kept is not None and not any(isinstance(extra, Tensor) for extra in extras):
        starts = tuple(kept.features(tower, layer, r, extras) for r in references if len(r) == 1)
        if len(starts) == len(references):
            end, context = tower.features(layer, inputs, *extras)
            return end, starts, context
    together = (inputs, *references)
    copies = len(together)
    repeated = (
        torch.cat([extra] * copies) if isinstance(extra, Tensor) and extra.dim() else extra
        for extra in extras
    )
    features, context = tower.features(layer, torch.cat(together), *repeated)
    end, *others = features.split([len(part) for part in together])
    own = tuple(
        value[: len(inputs)] if isinstance(value, Tensor) and value.dim() else value
        for value in context
    )
    return end, tuple(others), own


def _embeddings(
    tower: Tower, layer: Layer, end: Tensor, starts: tuple[Tensor, ...], context: tuple[Any, ...]
) -> list[Tensor]:
    """Embeddings of the inputs and of each reference in the inputs' context, (B, K) each.

    At blocks all run together, which reads the model's weights once.
    """
    if layer == "input":
        ends = [end, *(start.expand_as(end) for start in starts)]
        return [tower.embed(layer, one, *context) for one in ends]
    together = torch.cat([end, *(start.expand_as(end) for start in starts)])
    examples = torch.arange(len(end), device=end.device).repeat(1 + len(starts))
    embeddings = tower.embed(layer, together, *take_rows(context, examples))
    return list(embeddings.split(len(end)))


def _scaling(
    normalization: Normalization, embedding: Tensor
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """From embeddings to those that the score uses, and the norms that this needs."""
    if normalization == "cosine":
        return unit, ()
    if normalization == "none":
        return widen, ()
    # The norms of the actual inputs are constants of the path, one an example.
    return torch.div, (widen(embedding).norm(dim=-1, keepdim=True),)


def references_of(
    name: str, tower: Tower, inputs: Tensor, baseline: Baseline, extras: tuple[Any, ...]
) -> list[Tensor]:
    """The references that a baseline stands for, each of the inputs' shape.

    Raises:
        TypeError: If the baseline is of a wrong type, or not of the inputs' own.
        ValueError: If its shape does not fit, or a list of baselines is empty.
    """
    if not isinstance(baseline, list):
        return [_reference(name, tower, inputs, baseline, extras)]
    if not baseline:
        raise ValueError(f"the list of baselines {name} is empty")
    return [_reference(name, tower, inputs, one, extras) for one in baseline]


def _reference(
    name: str, tower: Tower, inputs: Tensor, baseline: Any, extras: tuple[Any, ...]
) -> Tensor:
    if baseline is None:
        return tower.reference(inputs, *extras)
    if isinstance(baseline, (int, float)):
        return tower.set_constant(inputs, baseline, *extras)
    if not isinstance(baseline, Tensor):
        raise TypeError(
            f"baseline {name} must be None, a number, a tensor or a list of these, but got "
            f"{type(baseline).__name__}"
        )
    if baseline.shape not in (inputs.shape, (1, *inputs.shape[1:])):
        raise ValueError(
            f"baseline {name} must have the input's shape {tuple(inputs.shape)} or one row of it, "
            f"but got shape {tuple(baseline.shape)}"
        )
    floats = baseline.is_floating_point() and inputs.is_floating_point()
    if floats and baseline.dtype != inputs.dtype:
        raise TypeError(f"baseline {name} is {baseline.dtype}, but input {name} is {inputs.dtype}")
    baseline = _ordinary(baseline)
    _check_tensor(f"baseline {name}", tower, baseline)
    return cast(Tensor, baseline.expand_as(inputs))


def _check_tensor(what: str, tower: Tower, tensor: Tensor) -> None:
    parameter = next(tower.parameters(), None)
    if parameter is not None and parameter.device != tensor.device:
        raise TypeError(f"{what} is on {tensor.device}, but its encoder is on {parameter.device}")
    if tensor.dim() < 2 or not tensor.numel():
        raise ValueError(
            f"{what} must have an axis of examples and others of features, none of them empty, but "
            f"has shape {tuple(tensor.shape)}"
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ValueError(f"{what} holds NaN or infinite values")


def _check_extras(name: str, tower: Tower, inputs: Tensor, extras: tuple[Any, ...]) -> None:
    for extra_name, extra in zip(tower.extra_names, extras, strict=False):
        if not isinstance(extra, Tensor) or not extra.dim():
            continue
        if len(extra) != len(inputs) or extra.device != inputs.device:
            raise ValueError(
                f"{extra_name} of encoder {name} must have {len(inputs)} rows on {inputs.device}, "
                f"as its input has, but has shape {tuple(extra.shape)} on {extra.device}"
            )


def check_embedding(what: str, embedding: Tensor, may_vanish: bool) -> None:
    """Raise a ValueError if an embedding is not finite, or is zero and must not be."""
    if not torch.isfinite(embedding).all():
        raise ValueError(f"the embedding of {what} holds NaN or infinite values")
    if not may_vanish and not embedding.norm(dim=-1).all():
        raise ValueError(
            f"the embedding of {what} is zero, which has no cosine with anything: take another "
            f"{what.split()[0]}, or normalization='none'"
        )


def _warn_of_no_direction(name: str, embedding: Tensor, baselines: list[Tensor]) -> None:
    """Warn if the embedding of a baseline is so short that its direction says nothing."""
    own = widen(embedding).norm(dim=-1)
    for baseline in baselines:
        norms = widen(baseline).norm(dim=-1)
        worst = int((norms / own).argmin())
        if norms[worst] < _NEARLY_ZERO * own[worst]:
            warn_caller(
                f"the embedding of baseline {name} is nearly zero: its norm is "
                f"{float(norms[worst]):.2g}, that of the input's {float(own[worst]):.2g}. Its "
                "direction is that of what little is left, and under normalization='cosine' the "
                "constant and the main effects are made of it, and the path turns sharply beside "
                "it. Take normalization='frozen' or another baseline; if it has to be the cosine, "
                "n_steps='auto' puts its steps where the path turns"
            )
            return


def _group_weights(name: str, groups: Groups | None, mask: Tensor) -> Tensor | None:
    """Groups as weights (1 or B, G, T)."""
    if groups is None:
        return None
    n_tokens = mask.shape[1]
    if isinstance(groups, np.ndarray):
        groups = torch.from_numpy(groups)
    if isinstance(groups, Tensor):
        weights = (groups if groups.dim() == 3 else groups.unsqueeze(0)).to(mask)
        if weights.dim() != 3 or weights.shape[2] != n_tokens or len(weights) not in (1, len(mask)):
            raise ValueError(
                f"groups_{name} must have shape (G, {n_tokens}) or ({len(mask)}, G, {n_tokens}), "
                f"but got {tuple(groups.shape)}"
            )
    else:
        weights = mask.new_zeros((1, len(groups), n_tokens))
        for index, tokens in enumerate(groups):
            if not _are_indices(tokens, n_tokens):
                raise ValueError(
                    f"groups_{name}[{index}] must be a list of token indices below {n_tokens}, but "
                    f"is {tokens!r} (weights of tokens are one tensor of shape (G, {n_tokens}))"
                )
            weights[0, index, list(tokens)] = 1.0
    if not weights.shape[1]:
        raise ValueError(f"groups_{name} holds no group")
    if not torch.isfinite(weights).all():
        raise ValueError(f"groups_{name} holds NaN or infinite weights")
    return weights


def _are_indices(tokens: Any, n_tokens: int) -> bool:
    return isinstance(tokens, (Sequence, np.ndarray)) and all(
        isinstance(t, (int, np.integer)) and -n_tokens <= t < n_tokens for t in tokens
    )


def _ordinary(value: Any) -> Any:
    """A detached tensor that autograd may use, also if it was made in inference mode."""
    if not isinstance(value, Tensor):
        return value
    return value.clone() if value.is_inference() else value.detach()
