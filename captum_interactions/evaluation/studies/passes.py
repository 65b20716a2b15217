"""Encoder passes, counted while they happen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from captum_interactions.encoders import DualEncoderWrapper, Tower
from captum_interactions.encoders.model.changes import attribute


@dataclass
class Passes:
    """Inputs that one encoder saw, a part of its blocks counting as such a part of a pass."""

    forward: float = 0.0
    backward: float = 0.0
    """Gradients and Jacobian-vector products. One takes about twice the time of a forward pass."""


@contextmanager
def counted_passes(wrapper: DualEncoderWrapper) -> Iterator[tuple[Passes, Passes]]:
    """Count the passes through both encoders meanwhile.

    Every row of a batch is a pass. One that enters block k of n is (n - k) / n of a pass, and what
    leads to it k / n, so embedding layers and projections count nothing. If one tower serves both
    inputs, the first counts them all.

    Examples::

        >>> from captum_interactions import explain, load_demo
        >>> wrapper, scenes = load_demo()
        >>> with counted_passes(wrapper) as (image, text):
        ...     batch = wrapper.prepare(scenes[0].image, scenes[0].caption)
        ...     score = wrapper(*batch.inputs, *batch.additional_forward_args)
        >>> image, text
        (Passes(forward=1.0, backward=0.0), Passes(forward=1.0, backward=0.0))
    """
    counts = Passes(), Passes()
    towers = (wrapper.tower_a, wrapper.tower_b)
    if towers[0] is towers[1]:
        towers = towers[:1]  # type: ignore[assignment]
    with ExitStack() as stack:
        for tower, count in zip(towers, counts, strict=False):
            for name, method in _counting(tower, count).items():
                stack.enter_context(attribute(tower, name, method))
        yield counts


def _counting(tower: Tower, count: Passes) -> dict[str, Callable[..., Any]]:
    """A tower's own methods with counters before them."""
    depth = 0  # a method may call another one, which is the same pass

    def counted(name: str, share: Callable[..., float]) -> Callable[..., Any]:
        own = getattr(tower, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            depth += 1
            try:
                result = own(*args, **kwargs)
            finally:
                depth -= 1
            if not depth:
                output = result[0] if isinstance(result, tuple) else result
                _count(output, share(*args), count)
            return result

        return method

    def before(layer: int | str) -> float:
        """The share of the encoder that comes before a layer."""
        return 1.0 if isinstance(layer, str) else layer / max(tower.n_blocks, 1)

    return {
        "encode": counted("encode", lambda *_: 1.0),
        "prefix": counted("prefix", lambda layer, *_: before(layer)),
        "tail": counted("tail", lambda layer, *_: 1 - before(layer)),
    }


def _count(output: Tensor, share: float, count: Passes) -> None:
    """One forward pass per row now, and one backward pass per row whenever a gradient comes."""
    size = share * len(output)
    count.forward += size

    def of_tangent(_: Tensor) -> None:
        count.backward += size

    def of_gradient(gradient: Tensor) -> None:
        count.backward += size
        if gradient.requires_grad:  # the derivative of a gradient is a Jacobian-vector product
            gradient.register_hook(of_tangent)

    if size and output.requires_grad:
        output.register_hook(of_gradient)
