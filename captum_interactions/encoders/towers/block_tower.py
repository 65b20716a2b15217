"""Towers that run a model from or up to one of its blocks, by hooks."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_interactions.encoders.model.activations import tabulated_activations
from captum_interactions.encoders.model.hooks import (
    as_written,
    entering_states,
    output_of,
    replaced_forward,
    starting_at,
    states_around,
    states_entering,
)
from captum_interactions.encoders.model.pooled_block import PreNormBlock, pooled_row, pre_norm_parts
from captum_interactions.encoders.model.pooled_path import has_plain_norm, row_along
from captum_interactions.encoders.model.pooling import Pool
from captum_interactions.encoders.model.pooling_attention import (
    answering,
    mixed_along,
    pooling_attention,
)
from captum_interactions.encoders.model.post_norm_path import (
    MeanAlong,
    is_small_enough,
    post_norm_parts,
)
from captum_interactions.encoders.towers.base import AlongPath, Layer, Tower, each_token, take_rows

Run = Callable[..., Tensor]
"""``(model, inputs, *extras) -> (B, K)``: a model's own embedding."""

_LOGGER = logging.getLogger(__name__)
_QUANTISED = re.compile(r"torch\.(ao\.)?nn\.(intrinsic\.)?quantized\.")
"""PyTorch's packages of modules that are quantised for inference."""


class BlockTower(Tower):
    """Base class of towers that run parts of a model, see :mod:`~.encoders.model.hooks`.

    Subclasses for a modality (text, image, audio) define inputs, baselines and tokens.

    Args:
        model (nn.Module): The whole model. It is not modified.
        run (Callable): ``(model, inputs, *extras) -> (B, K)``. It must not hold a reference
            to the model, so that a copy of the tower runs its own copy.
        blocks (sequence of str): Names of the blocks in the model, in execution order. Later
            blocks must depend on nothing but the hidden states that enter a block.
        skipped (sequence of str): Names of modules before the blocks that need not run when the
            model starts at a block. Default: none
        answer (Callable, optional): From hidden states to a valid output of the skipped modules.
            Default: the hidden states
        tokens_first (bool): Blocks take (T, B, D). Default: False, (B, T, D)
    """

    unit_modules: tuple[str, ...] = ()
    """Names of modules that only scale the embedding to unit length."""
    pool: Pool | None = None
    """The pooling, if it is a layer."""

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
        self._tried: dict[tuple[Any, ...], bool] = {}

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks, in execution order."""
        return [self._block(name) for name in self._blocks]

    @property
    def has_pool(self) -> bool:
        return self.pool is not None

    @property
    def default_layer(self) -> Layer:
        return "pool" if self.pool is not None and self.pool.is_default else super().default_layer

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model, which its inputs must have."""
        floats = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        return next(floats, torch.float32)

    def encode(self, inputs: Tensor, *extras: Any) -> Tensor:
        return self._run(self.model, inputs, *extras)

    def embed(self, layer: Layer, features: Tensor, *context: Any) -> Tensor:
        _check_differentiable(self.model)
        with as_written(self.model):
            return super().embed(layer, features, *context)

    def prefix(self, layer: Layer, inputs: Tensor, *extras: Any) -> tuple[Tensor, tuple[Any, ...]]:
        with ExitStack() as stack:
            stack.enter_context(as_written(self.model))
            if not torch.is_grad_enabled():
                stack.enter_context(tabulated_activations(self.model))
            if layer == "pool":
                assert self.pool is not None
                pool = self._block(self.pool.module)
                output = output_of(pool, lambda: self.encode(inputs, *extras))
                return self.pool.tokens(output), (None, *self.context(inputs, *extras))
            assert isinstance(layer, int)
            block = self._block(self._blocks[layer])
            states = states_entering(block, lambda: self.encode(inputs, *extras))
        # The tail needs the size of a feature map.
        cells = tuple(states.shape[2:]) if states.dim() == 4 else None
        return self._to_tokens(states), (cells, *self.context(inputs, *extras))

    def tail(self, layer: Layer, states: Tensor, *context: Any) -> Tensor:
        return self._run_from(layer, states, context)

    def along(self, layer: Layer, start: Tensor, end: Tensor, *context: Any) -> AlongPath | None:
        if layer == "pool":
            return self._along_pool(start, end, context)
        if layer != self.n_blocks - 1 or end.dim() != 3:
            return None
        last = self.blocks[-1]
        parts = pre_norm_parts(last)
        if parts is None:
            return None
        states, _, _, pooled = self.recall(end, *context[1:])
        if pooled is None or not has_plain_norm(parts):
            return None
        n_tokens = states.shape[1]
        row_at = row_along(parts, start[:, :n_tokens], states, *pooled)

        def embed(coordinates: Tensor, rows: slice, *own: Any) -> Tensor:
            with tabulated_activations(last):
                row = row_at(coordinates[:, :n_tokens], rows)
            # The rest of the model runs on this one token, not on copies of it.
            return self.project(row, *own)

        def at_end(*own: Any) -> Tensor:
            return embed(torch.ones_like(end[:1, :, 0]), slice(0, 1), *own)

        return embed if self._is_the_same(at_end, layer, end, context) else None

    def mean_along(
        self, layer: Layer, start: Tensor, end: Tensor, *context: Any
    ) -> Callable[[int], tuple[Tensor, MeanAlong]] | None:
        if layer != self.n_blocks - 1 or end.dim() != 3 or end.element_size() < 4:
            return None
        block = post_norm_parts(self.blocks[-1])
        if block is None or not is_small_enough(block, end.shape[1]):
            return None
        states, inputs, extras, pooled = self.recall(end, *context[1:])
        seen = self.token_mask(inputs, *extras) if pooled is None else pooled[1]
        if seen is None:
            seen = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)

        def mean_of(row: int) -> tuple[Tensor, MeanAlong]:
            weights = seen[row].to(states)
            tokens = weights.nonzero().flatten()
            if pooled is None:
                weights = weights / weights.sum()
            else:
                weights = torch.zeros_like(weights).index_fill(0, pooled[0][row], 1.0)
            first = start[row if len(start) > 1 else 0]
            return tokens, MeanAlong(block, first[tokens], states[row, tokens], weights[tokens])

        return mean_of

    def _along_pool(self, start: Tensor, end: Tensor, context: Sequence[Any]) -> AlongPath | None:
        """The embedding along a path at the layer ``"pool"``, if a single attention pools."""
        first, last = (
            pooling_attention(partial(self._run_from, "pool", states, context))
            for states in (start.expand_as(end), end)
        )
        if first is None or last is None:
            return None
        mixed_at = mixed_along(first, last)
        if mixed_at is None:
            return None
        n_tokens = self.recall(end, *context[1:])[0].shape[1]
        # The pooling may leave out leading tokens, such as a class token.
        asked = slice(n_tokens - last.key.shape[2], n_tokens)

        def embed(coordinates: Tensor, rows: slice, *own: Any) -> Tensor:
            mixed = mixed_at(coordinates[:, asked], rows)
            # The rest of the model runs on one token, whose states are not used.
            nothing = end.new_zeros((len(mixed), 1, end.shape[2]))
            with answering(mixed):
                return self.project(nothing, *own, layer="pool")

        uneven = torch.linspace(0.2, 0.8, end.shape[1], dtype=end.dtype, device=end.device)

        def on_the_way(*own: Any) -> Tensor:
            return embed(uneven.unsqueeze(0), slice(0, 1), *own)

        states = torch.lerp(start[:1], end[:1], uneven.unsqueeze(-1))
        return embed if self._is_the_same(on_the_way, "pool", states, context) else None

    def _run_from(
        self,
        layer: Layer,
        states: Tensor,
        context: Sequence[Any],
        pools_one: bool | None = None,
    ) -> Tensor:
        """Run the model from a block, or from the pooling, on."""
        cells, *rest = context
        if layer == "pool":
            states, inputs, extras, _ = self.recall(states, *rest)
            with self._giving(states, layer):
                return self._run(self.model, inputs, *extras)
        assert isinstance(layer, int)
        with ExitStack() as stack:
            # This comes first, so that hooks of other threads are not mistaken for the user's.
            stack.enter_context(as_written(self.model))
            last = self.blocks[-1]
            parts = None if pools_one is False else pre_norm_parts(last)
            if (
                parts is not None
                and pools_one is None
                and not self._pools_one(layer, states, context)
            ):
                parts = None
            states, inputs, extras, pooled = self.recall(states, *rest)
            states = self._from_tokens(states, cells)
            blocks = self.blocks
            before = [self._block(name) for name in self._skipped] + blocks[:layer]
            answer = None if self._answer is None else self._answer(states.detach())
            if pooled is not None and parts is not None:
                stack.enter_context(replaced_forward(last, _pooled_forward(parts, *pooled)))
            stack.enter_context(starting_at(blocks[layer], states, before, answer))
            # Inputs are already checked; checking again would synchronise with the device.
            return self._run(self.model, inputs, *extras)

    def _pools_one(self, layer: int, states: Tensor, context: Sequence[Any]) -> bool:
        """Whether the embedding depends on only one token of the last block's output."""
        if self.recall(states, *context[1:])[3] is None:
            return False

        def pooled(*own: Any) -> Tensor:
            return self._run_from(layer, states[:1].detach(), own, pools_one=True)

        return self._is_the_same(pooled, layer, states, context)

    def _is_the_same(
        self, quick: Callable[..., Tensor], layer: Layer, states: Tensor, context: Sequence[Any]
    ) -> bool:
        """Whether a fast computation of an embedding agrees with the model, on the first example.

        A subclass of a model, or a hook after the blocks, may use states that the fast computation
        leaves out. The check runs once for every set of hooks.
        """
        hooks = tuple(
            (place, *module._forward_hooks, -1, *module._forward_pre_hooks)
            for place, module in enumerate(self.model.modules())
            if module._forward_hooks or module._forward_pre_hooks
        )
        key = (quick.__name__, hooks)
        if key not in self._tried:
            own = take_rows(context, slice(0, 1))
            with torch.no_grad():
                plain = self._run_from(layer, states[:1].detach(), own, pools_one=False).float()
                try:
                    gap = float((plain - quick(*own).float()).abs().max() / plain.abs().max())
                except (IndexError, ValueError, RuntimeError) as error:
                    # A hook may need missing tokens. Running out of memory is another matter.
                    if isinstance(error, torch.OutOfMemoryError):
                        raise
                    _LOGGER.debug("the last block runs as it is: %s", error)
                    gap = math.inf
            if math.isnan(gap):
                return False
            self._tried[key] = gap < (0.05 if states.element_size() < 4 else 1e-3)
        return self._tried[key]

    def project(self, states: Tensor, *context: Any, layer: Layer = -1) -> Tensor:
        """Embeddings of single tokens, as if each were the only output of the last block.

        Each token passes through the model's own pooling, of one token, and its projection.

        Args:
            states (Tensor): Outputs of the last block, shape (N, D) or (N, 1, D).
            context: What :meth:`prefix` returned, for any inputs.
            layer (Layer): ``"pool"`` for states that enter the pooling. Default: the last block

        Returns:
            Tensor: shape (N, K).
        """
        inputs, extras = self.single(len(states), *context[1:])
        with self._giving(states.reshape(len(states), 1, -1), layer):
            return self._run(self.model, inputs, *extras)

    @contextmanager
    def _giving(self, tokens: Tensor, layer: Layer) -> Iterator[None]:
        """Context manager in which all blocks, or the pooled module, return these tokens."""
        states = self._from_tokens(tokens, None)
        answer = states.detach() if self._answer is None else self._answer(states.detach())
        with ExitStack() as stack:
            stack.enter_context(as_written(self.model))
            for name in self._skipped:
                skipped = self._block(name)
                stack.enter_context(replaced_forward(skipped, lambda *_, **__: answer))
            for block in self.blocks:
                stack.enter_context(replaced_forward(block, lambda *_, **__: states))
            if layer == "pool":
                assert self.pool is not None
                stack.enter_context(
                    replaced_forward(
                        self._block(self.pool.module), partial(self.pool.output, tokens)
                    )
                )
            yield

    def _block(self, name: str) -> nn.Module:
        module = self.model.get_submodule(name)
        original = module._modules.get("_orig_mod")
        hooked = module._forward_hooks or module._forward_pre_hooks
        return module if original is None or hooked else original

    def embed_tokens(
        self, inputs: Tensor, *extras: Any, internal_batch_size: int | None = None
    ) -> Tensor:
        layer = self.n_blocks - 1
        last = self._block(self._blocks[layer])
        with as_written(self.model):
            entering, output = states_around(last, lambda: self.encode(inputs, *extras))
        leaving = output[0] if isinstance(output, tuple) else output
        cells = tuple(entering.shape[2:]) if entering.dim() == 4 else None
        own = self.context(inputs, *extras)
        before = self._to_tokens(entering)
        after = self._to_tokens(leaving) if leaving.dim() > 2 else None

        def into_last(rows: Tensor, *context: Any) -> Tensor:
            everywhere = rows.unsqueeze(1).expand(-1, before.shape[1], -1)
            return self.tail(layer, everywhere, cells, *context)

        def behind_last(rows: Tensor, *context: Any) -> Tensor:
            assert after is not None
            cells_after = tuple(leaving.shape[2:]) if leaving.dim() == 4 else None

            def forward(*args: Any, **kwargs: Any) -> Any:
                # The tail may have removed trailing tokens that do not matter.
                n_tokens = self._to_tokens(entering_states(args, kwargs)).shape[1]
                n_tokens = after.shape[1] if after.shape[1] != before.shape[1] else n_tokens
                states = self._from_tokens(rows.unsqueeze(1).expand(-1, n_tokens, -1), cells_after)
                if not isinstance(output, tuple):
                    return states
                is_same = (isinstance(o, Tensor) and o.shape == leaving.shape for o in output)
                return tuple(states if same else o for same, o in zip(is_same, output, strict=True))

            nothing = before.new_zeros(()).expand(len(rows), *before.shape[1:])
            with replaced_forward(last, forward):
                return self.tail(layer, nothing, cells, *context)

        with ExitStack() as stack:
            for name in self.unit_modules:
                module = self.model.get_submodule(name)
                stack.enter_context(replaced_forward(module, lambda features: features))
            # If the last block pools, the tokens are its input.
            if after is None or after.shape[1] == 1 < before.shape[1]:
                return each_token(into_last, before, own, internal_batch_size)
            return each_token(behind_last, after, own, internal_batch_size)

    def _to_tokens(self, states: Tensor) -> Tensor:
        """A block's states as (B, T, D): the cells of a feature map (B, C, h, w) are tokens."""
        if states.dim() == 4:
            return states.flatten(2).transpose(1, 2)
        return states.transpose(0, 1) if self._tokens_first else states

    def _from_tokens(self, states: Tensor, cells: tuple[int, ...] | None) -> Tensor:
        """The inverse of :meth:`_to_tokens`."""
        if cells is not None:
            return states.transpose(1, 2).reshape(len(states), -1, *cells)
        return states.transpose(0, 1) if self._tokens_first else states

    # Implemented by subclasses for a modality.

    def single(self, count: int, *context: Any) -> tuple[Tensor, Sequence[Any]]:
        """Inputs (count, ...) and extras with which the model runs on one token per example."""
        raise NotImplementedError

    def context(self, inputs: Tensor, *extras: Any) -> tuple[Any, ...]:
        """The arguments of :meth:`recall` after the states; tensors are (B, ...)."""
        raise NotImplementedError

    def recall(
        self, states: Tensor, *context: Any
    ) -> tuple[Tensor, Tensor, Sequence[Any], tuple[Tensor, Tensor | None] | None]:
        """The arguments of a run that starts at a block with these states, (B, T, D).

        Returns:
            tuple: the states (without trailing tokens that do not matter), the inputs, their
            extras, and the position (B,) of the pooled token with the mask (B, T) of the tokens
            that it attends to; the last item is None unless one token is pooled.
        """
        raise NotImplementedError


def _pooled_forward(block: PreNormBlock, position: Tensor, visible: Tensor | None) -> Run:
    """A forward function of the last block that computes one token, and repeats it for all."""

    def forward(states: Tensor, *_: Any, **__: Any) -> Tensor:
        row = pooled_row(block, states, position, visible)
        return row.unsqueeze(1).expand_as(states)

    return forward


def _check_differentiable(model: nn.Module) -> None:
    """Refuse quantised modules, which autograd silently treats as constants."""
    kinds = {type(module) for module in model.modules()}
    if not any(_QUANTISED.match(kind.__module__ + ".") for kind in kinds):
        return
    for name, module in model.named_modules():
        if _QUANTISED.match(type(module).__module__ + "."):
            raise TypeError(
                f"{name} is a {type(module).__name__} quantised for inference, which has no "
                "derivative: explain the model as it was before"
            )
