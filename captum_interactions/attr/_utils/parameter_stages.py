"""The parameters of a dual encoder, ordered from its output to its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_interactions.attr._utils.arguments import check_pair
from captum_interactions.encoders import DualEncoderWrapper, Layer, Tower
from captum_interactions.encoders.model.changes import changed
from captum_interactions.encoders.model.modes import explaining


def parameter_stages(
    wrapper: DualEncoderWrapper,
    inputs: tuple[Tensor, Tensor],
    additional_forward_args: Any = None,
) -> list[tuple[str, list[Tensor]]]:
    """Parameters of both towers, last block first, for cascading randomisation.

    The parameters that the embedding depends on from a block on come from autograd's graph, so this
    works for every tower. The first stage is the last block of both towers with everything after
    it, the last stage everything before the first blocks. If one tower has fewer blocks, it has no
    parameters in the stages between; a tower without blocks is in the last stage only. Parameters
    that the embedding does not depend on are in no stage, and shared parameters are in the first of
    their stages.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        inputs (tuple[Tensor, Tensor]): Any input a and input b as the towers take them.
        additional_forward_args (optional): Further arguments of the towers: those of a, then those
            of b. Default: None

    Returns:
        list: a name such as ``"a: block 2, b: block 3"`` and the parameters, for each stage.

    Raises:
        TypeError: If inputs are not two tensors.
        ValueError: If a tower has no parameters.

    Examples::

        >>> from captum_interactions import load_demo
        >>> wrapper, scenes = load_demo()
        >>> batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        >>> stages = parameter_stages(wrapper, batch.inputs, batch.additional_forward_args)
        >>> stages[-1][0]
        'a: embeddings, b: embeddings'
    """
    check_pair(inputs)
    both = zip(
        "ab",
        (wrapper.tower_a, wrapper.tower_b),
        inputs,
        wrapper.split_additional(additional_forward_args),
        strict=True,
    )
    with explaining(wrapper), _unfrozen(wrapper):
        towers = [(name, _stages(tower, x, extras)) for name, tower, x, extras in both]
    result: list[tuple[str, list[Tensor]]] = []
    taken: set[int] = set()
    last = max(len(stages) for _, stages in towers) - 1
    for index in range(last + 1):
        names, parameters = [], []
        for side, stages in towers:
            if index < len(stages) - 1 or index == last:
                name, own = stages[-1 if index == last else index]
                new = [parameter for parameter in own if id(parameter) not in taken]
                taken.update(id(parameter) for parameter in new)
                parameters += new
                names.append(f"{side}: {name}")
        if parameters:
            result.append((", ".join(names), parameters))
    return result


def _stages(
    tower: Tower, inputs: Tensor, extras: tuple[Any, ...]
) -> list[tuple[str, list[Tensor]]]:
    layers: list[Layer] = list(range(tower.n_blocks))
    stages: list[tuple[str, list[Tensor]]] = []
    for layer in reversed(layers):
        with torch.no_grad():
            features, context = tower.features(layer, inputs, *extras)
        name = f"block {layer}" + (" and head" if not stages else "")
        stages.append((name, _used(tower, tower.embed(layer, features, *context))))
    name = "embeddings" if layers else "encoder"
    stages.append((name, _used(tower, tower.encode(inputs, *extras))))
    if not stages[-1][1]:
        raise ValueError(
            f"a {type(tower).__name__} has no parameters that its embedding depends on"
        )
    return stages


def _used(tower: Tower, embedding: Tensor) -> list[Tensor]:
    """Parameters that an embedding depends on."""
    parameters = [p for p in tower.parameters() if p.requires_grad]
    if not embedding.requires_grad:
        return []
    gradients = torch.autograd.grad(embedding.float().sum(), parameters, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    return [parameter for parameter, gradient in pairs if gradient is not None]


@contextmanager
def _unfrozen(model: nn.Module) -> Iterator[None]:
    """Let autograd track frozen parameters too, within this context."""
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]

    def set_all(value: bool) -> Callable[[], object]:
        for parameter in frozen:
            parameter.requires_grad = value
        return partial(set_all, not value)

    with changed(partial(set_all, True)):
        yield
