"""A tower that is a part of somebody's model, opened at the model's own blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from captum_interactions.encoders.cut import replaced_forward, starting_at, states_entering
from captum_interactions.encoders.pooled_block import is_poolable, pooled_row
from captum_interactions.encoders.tower import Tower

Run = Callable[..., Tensor]
"""``(model, inputs, *extras) -> (B, K)``: a model's own embedding."""


class BlockTower(Tower):
    """Mechanics of towers whose encoder is cut from outside, see :mod:`.cut`.

    The modality (text, image, audio) says what inputs, references and tokens are.

    Args:
        model (nn.Module): The whole model. It is used as it is.
        run (Callable): ``(model, inputs, *extras) -> (B, K)``. It must not hold the model itself,
            so that a copy of the tower runs its own copy.
        blocks (sequence of str): Names of the blocks in the model, in the order of running. The
            hidden states that enter a block must be all that later ones depend on.
        skipped (sequence of str): Names of what comes before the blocks and need not run when one
            starts at a block. Default: none
        answer (Callable, optional): From hidden states to what the model accepts in the place of
            the skipped modules' outputs. Default: the hidden states
        tokens_first (bool): Blocks take (T, B, D). Default: False, (B, T, D)
    """

    def __init__(
        self,
        model: nn.Module,
        run: Run,
        blocks: Sequence[str],
        skipped: Sequence[str] = (),
        answer: Callable[[Tensor], Any] | None = None,
        tokens_first: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.n_blocks = len(blocks)
        self._run = run
        self._blocks = tuple(blocks)
        self._skipped = tuple(skipped)
        self._answer = answer
        self._tokens_first = tokens_first

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks, in the order of running."""
        return [self.model.get_submodule(name) for name in self._blocks]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the model's own numbers, which its inputs must have."""
        floats = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        return next(floats, torch.float32)

    def encode(self, inputs: Tensor, *extras: Any) -> Tensor:
        return self._run(self.model, inputs, *extras)

    def prefix(self, layer: int, inputs: Tensor, *extras: Any) -> tuple[Tensor, tuple[Any, ...]]:
        block = self.model.get_submodule(self._blocks[layer])
        states = states_entering(block, lambda: self.encode(inputs, *extras))
        cells = None
        if states.dim() == 4:
            # A feature map (B, C, h, w): the tail must know its size.
            cells, states = tuple(states.shape[2:]), states.flatten(2).transpose(1, 2)
        elif self._tokens_first:
            states = states.transpose(0, 1)
        return states, (cells, *self.context(inputs, *extras))

    def tail(self, layer: int, states: Tensor, *context: Any) -> Tensor:
        cells, *rest = context
        states, inputs, extras, pooled = self.recall(states, *rest)
        if cells is not None:
            states = states.transpose(1, 2).unflatten(2, cells)
        elif self._tokens_first:
            states = states.transpose(0, 1)
        blocks = self.blocks
        before = [self.model.get_submodule(name) for name in self._skipped] + blocks[:layer]
        answer = None if self._answer is None else self._answer(states.detach())
        with ExitStack() as stack:
            if pooled is not None and is_poolable(blocks[-1]):
                last = blocks[-1]
                stack.enter_context(replaced_forward(last, _pooled_forward(last, *pooled)))
            stack.enter_context(starting_at(blocks[layer], states, before, answer))
            return self.encode(inputs, *extras)

    def project(self, states: Tensor, *context: Any) -> Tensor:
        """Embeddings of single tokens, as if each were all that the last block gives.

        The model's own pooling, of one token, and its own projection are what they pass through.

        Args:
            states (Tensor): What leaves the last block, shape (N, D).
            context: What :meth:`prefix` gave, for any inputs.

        Returns:
            Tensor: shape (N, K).
        """
        inputs, extras = self.single(len(states), *context[1:])
        tokens = states.unsqueeze(0 if self._tokens_first else 1)
        answer = tokens.detach() if self._answer is None else self._answer(tokens.detach())
        with ExitStack() as stack:
            for name in self._skipped:
                part = self.model.get_submodule(name)
                stack.enter_context(replaced_forward(part, lambda *_, **__: answer))
            for block in self.blocks:
                stack.enter_context(replaced_forward(block, lambda *_, **__: tokens))
            return self.encode(inputs, *extras)

    # What a modality says of its inputs.

    def single(self, count: int, *context: Any) -> tuple[Tensor, Sequence[Any]]:
        """What the model runs on if each of its examples is a single token: inputs and extras."""
        raise NotImplementedError

    def context(self, inputs: Tensor, *extras: Any) -> tuple[Any, ...]:
        """What :meth:`recall` needs, tensors with B rows."""
        raise NotImplementedError

    def recall(
        self, states: Tensor, *context: Any
    ) -> tuple[Tensor, Tensor, Sequence[Any], tuple[Tensor, Tensor | None] | None]:
        """What the model runs on when it starts at a block with these states.

        Returns:
            tuple: the states (tokens at the end that nothing depends on may be cut), the inputs,
            their extras, and if the last block serves one token alone, its position (B,) with the
            mask (B, T) of what it attends to.
        """
        raise NotImplementedError


def _pooled_forward(block: nn.Module, position: Tensor, visible: Tensor | None) -> Run:
    """A forward pass of the last block that is right for one token, repeated for all of them."""

    def forward(states: Tensor, *_: Any, **__: Any) -> Tensor:
        row = pooled_row(block, states, position, visible)
        return row.unsqueeze(1).expand_as(states)

    return forward
