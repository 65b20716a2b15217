"""First-order attributions: the score as a function of one input, with the other held fixed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_interactions.attr._utils.inputs import (
    carry,
    check_embedding,
    check_input,
    references_of,
)
from captum_interactions.attr._utils.path import Baseline
from captum_interactions.attr.second_order.base import (
    Baselines,
    check_explainer,
    check_pair,
    check_target,
    each_baseline,
    resolve_layers,
)
from captum_interactions.encoders import DualEncoderWrapper, Layer, Tower
from captum_interactions.encoders.wrapper import unit, widen

Attributions = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Side:
    """B inputs of one tower, carried to a layer."""

    name: str
    """``"a"`` or ``"b"``, for messages."""
    tower: Tower
    layer: Layer
    features: Tensor
    """Features (B, *F) at the layer, in the model's own type."""
    starts: tuple[Tensor, ...]
    """Features of each reference, (B, *F) or (1, *F); none if no reference is asked for."""
    context: tuple[Any, ...]
    token_mask: Tensor
    """1 for tokens that can reach the embedding, else 0, (B, T)."""
    special: Tensor
    """True for tokens that stand for no part of the input, (B, T)."""
    embedding: Tensor
    """Unit embeddings of the inputs, (B, K)."""

    @property
    def parts(self) -> Tensor:
        """1 for tokens that stand for a part of the input and can reach the embedding, (B, T)."""
        return self.token_mask * ~self.special

    @property
    def wide(self) -> Tensor:
        """Features in float32 or wider, so that attributions are accumulated there."""
        return widen(self.features).detach()

    @property
    def score(self) -> Callable[..., Tensor]:
        """``(features, other embedding, *context) -> (B,)``: the cosine, as Captum calls it."""

        def score(features: Tensor, other: Tensor, *context: Any) -> Tensor:
            states = features.to(self.features.dtype)
            return (unit(self.tower.embed(self.layer, states, *context)) * other).sum(-1)

        return score

    def fold(self, attribution: Tensor) -> Tensor:
        """Sum an attribution of features over tokens, (B, T); padding has none."""
        return self.tower.fold(self.layer, widen(attribution.detach())) * self.token_mask


class FirstOrderAttribution(Attribution):
    """Base class of attributions of the tokens of either input, with the other input held fixed.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): ``(layer_a, layer_b)``, where tokens live. Default: None,
            ``wrapper.default_layers``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist.
    """

    order: ClassVar[Literal[1, 2]] = 1
    """1 if attributions are of tokens, 2 if of pairs of tokens."""
    needs: ClassVar[str] = "two encoders"
    """What a wrapper must have."""
    cost: ClassVar[str]
    """What a pair costs, in encoder passes."""

    def __init__(
        self, wrapper: DualEncoderWrapper, layers: tuple[Layer, Layer] | None = None
    ) -> None:
        check_explainer(type(self).__name__, wrapper, "cosine")
        Attribution.__init__(self, wrapper)
        self.wrapper = wrapper
        self.layers = resolve_layers(wrapper, wrapper.default_layers if layers is None else layers)

    def _open(
        self,
        inputs: tuple[Tensor, Tensor],
        target: Any,
        additional_forward_args: Any,
        baselines: Baselines = None,
        *,
        references: bool = False,
    ) -> tuple[Side, Side]:
        """Check a batch of pairs and carry both sides to their layers; no gradient is taken."""
        check_target(target)
        check_pair(inputs)
        all_baselines = each_baseline(baselines)
        extras = self.wrapper.split_additional(additional_forward_args)
        towers = (self.wrapper.tower_a, self.wrapper.tower_b)
        side_a, side_b = (
            open_side("ab"[i], towers[i], self.layers[i], inputs[i], extras[i], all_baselines[i],
                      references=references)
            for i in range(2)
        )  # fmt: skip
        if side_a.embedding.shape != side_b.embedding.shape:
            raise ValueError(
                "both towers must embed into the same space, but gave embeddings of shape "
                f"{tuple(side_a.embedding.shape)} and {tuple(side_b.embedding.shape)}"
            )
        return side_a, side_b


def first_layers(wrapper: DualEncoderWrapper) -> tuple[Layer, Layer] | None:
    """Where tokens hold nothing of each other yet: layer 0, or the input if there are no blocks."""
    if not isinstance(wrapper, DualEncoderWrapper):
        return None
    a, b = (0 if t.n_blocks else "input" for t in (wrapper.tower_a, wrapper.tower_b))
    return cast(Layer, a), cast(Layer, b)


def open_side(
    name: str,
    tower: Tower,
    layer: Layer,
    inputs: Tensor,
    extras: tuple[Any, ...],
    baseline: Baseline = None,
    *,
    references: bool = False,
) -> Side:
    """Check one side's inputs and carry them, and if wanted their references, to the layer.

    Raises:
        TypeError: If inputs are on another device than the tower.
        ValueError: If inputs or baselines are not what the tower takes.
    """
    inputs, extras = check_input(name, tower, inputs, extras)
    baselines = references_of(name, tower, inputs, baseline, extras) if references else []
    with torch.no_grad():
        features, starts, context = carry(tower, layer, inputs, baselines, extras)
        embedding = tower.embed(layer, features, *context)
        check_embedding(f"input {name}", embedding, may_vanish=False)
        shape = tower.fold(layer, torch.empty_like(features, device="meta")).shape
        reached = special = None
        if layer != "input":
            reached = tower.token_mask(inputs, *extras)
            special = tower.special_tokens(inputs, *extras)
        if reached is None:
            reached = torch.ones(shape, device=features.device)
        if special is None or special.shape != shape:
            special = torch.zeros(shape, dtype=torch.bool, device=features.device)
    return Side(
        name=name,
        tower=tower,
        layer=layer,
        features=features,
        starts=starts,
        context=context,
        token_mask=widen(reached.to(features.dtype)),
        special=special,
        embedding=unit(embedding),
    )
