"""Record the attention of a tower's blocks during one run.

Models use the fastest attention function available, and most of these return no weights. Models of
``transformers`` look up their attention function at run time, so it is replaced for one run by
plain matrix products, with weights that gradients flow through; the model builds the masks of its
"eager" attention meanwhile. The replacement is local to the thread and is removed when the run
ends, also after an error. Other threads and other models are not affected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_interactions.encoders.model.changes import attribute, hooked, in_this_thread
from captum_interactions.encoders.model.hooks import as_written, states_entering
from captum_interactions.encoders.towers.base import Tower
from captum_interactions.encoders.towers.block_tower import BlockTower

Weigh = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Replaces the attention weights of a block: a function of scaled queries, keys and values, each of
shape (B, H, T, d), and of the additive mask, that returns weights (B, H, T, T)."""

_CONFIG = "_attn_implementation_internal"
_PLAIN = "eager"
_UNKNOWN_PARTS = ("softcap", "s_aux", "position_bias", "head_mask", "block_mask")
"""Arguments of models whose attention is more than a softmax of masked products."""


class UndefinedError(ValueError):
    """A method is not defined for a tower. The message says what the tower lacks."""


class Attention(NamedTuple):
    """The attention of one block. Gradients flow through ``weights`` and ``mixed``."""

    query: Tensor
    """shape (B, H, T, d)."""
    key: Tensor
    """shape (B, H, T, d)."""
    value: Tensor
    """shape (B, H, T, d)."""
    weights: Tensor
    """Probabilities (B, H, T, T): rows are queries and sum to one."""
    mixed: Tensor
    """Weighted values before the output projection, (B, T, H, d)."""
    mask: Tensor | None
    """Added to the logits, or False where weights are zero; broadcasts to ``weights``."""


@dataclass
class BlockRecord:
    """The states and the attention of one block."""

    states: Tensor
    """Its input states, shape (B, T, D)."""
    output: Tensor
    """Its output states, shape (B, T, D)."""
    attention: Attention
    norm: nn.Module | None
    """The normalisation that takes ``states`` and whose output attention takes, if the block
    normalises before its parts; None if it does so after them."""
    residual: nn.Module | None
    """The normalisation that takes ``states`` plus what attention adds to them, if the block
    normalises before its parts; None if it does so after them."""


@dataclass
class Recording:
    """One run of a tower from a block on."""

    first: int
    """Index of the first block that was recorded."""
    blocks: tuple[BlockRecord, ...]
    embedding: Tensor
    """shape (B, K)."""
    pooled: Tensor | None
    """Position (B,) of the pooled token; None if the embedding pools several tokens."""

    @property
    def is_causal(self) -> bool:
        """Whether no token attends to a later one."""
        mask = self.blocks[-1].attention.mask
        if mask is None or mask.shape[-1] == 1:
            return False
        hidden = ~mask if mask.dtype is torch.bool else mask < -1e4
        later = torch.ones(mask.shape[-2:], dtype=torch.bool, device=mask.device).triu(1)
        return bool((hidden | ~later).all())


def record(
    tower: Tower,
    first: int,
    states: Tensor,
    *context: Any,
    replaced: Mapping[int, Weigh] | None = None,
) -> Recording:
    """Run a tower from a block on, with gradients, and record its blocks.

    Args:
        tower (Tower): The tower.
        first (int): Index of the block that ``states`` enter, counted from the front.
        states (Tensor): Hidden states (B, T, D).
        context: What :meth:`Tower.prefix` gave with them.
        replaced (mapping, optional): Other attention weights for some blocks. Default: none

    Returns:
        Recording: blocks ``first`` to the last. Their T may be shorter than that of ``states``:
        trailing tokens that do not influence the embedding are left out.

    Raises:
        UndefinedError: If the tower has no blocks, or their attention cannot be recorded.
    """
    if not isinstance(tower, BlockTower) or not tower.n_blocks:
        raise UndefinedError(f"{type(tower).__name__} has no blocks with attention to record")
    states = states.detach().requires_grad_()
    with torch.enable_grad(), _recording(tower, first, replaced or {}) as recorders:
        embedding = tower.tail(first, states, *context)
    records = []
    for recorder in recorders:
        records.append(recorder.finish(states))
        states = records[-1].output
    return Recording(first, tuple(records), embedding, _pooled_position(embedding, states))


def states_with_attention(
    tower: Tower, index: int, states: Tensor, *context: Any, residual: nn.Module, weigh: Weigh
) -> Tensor:
    """States plus what a block's attention adds to them, with other attention weights.

    Args:
        tower (Tower): A tower whose blocks were recorded.
        index (int): Index of the block.
        states (Tensor): What enters it, shape (B, T, D).
        context: What :meth:`Tower.prefix` gave.
        residual (nn.Module): The block's :attr:`BlockRecord.residual`.
        weigh (Callable): The weights.

    Returns:
        Tensor: shape (B, T, D).
    """
    assert isinstance(tower, BlockTower)
    with _recording(tower, index, {index: weigh}):
        return states_entering(residual, lambda: tower.tail(index, states, *context))


@contextmanager
def attending(model: nn.Module, attend: Callable[..., tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Context manager that replaces the attention function of one model of ``transformers``.

    It acts in this thread only.

    Args:
        model (nn.Module): The model. The configs of all of its parts select "eager" attention.
        attend (Callable): ``(module, query, key, value, mask, scaling=None, **options)`` with
            heads (B, H, T, d) and an additive mask, to the mixed values (B, T, H, d) and weights.
    """
    modules = {id(module) for module in model.modules()}
    configs = [getattr(module, "config", None) for module in model.modules()]
    configs = [config for config in configs if hasattr(config, _CONFIG)]
    if not configs:
        yield
        return
    from transformers import PretrainedConfig
    from transformers.modeling_utils import AttentionInterface

    own = AttentionInterface.get_interface

    def find(interface: Any, implementation: str, default: Callable[..., Any]) -> Any:
        found = own(interface, implementation, default)
        if implementation != _PLAIN:
            return found

        def run(module: nn.Module, *args: Any, **options: Any) -> Any:
            return (attend if id(module) in modules else found)(module, *args, **options)

        return run

    with (
        attribute(PretrainedConfig, _CONFIG, _PlainInThisThread(configs)),
        attribute(AttentionInterface, "get_interface", in_this_thread(find, own)),
    ):
        yield


class _PlainInThisThread:
    """Property by which configs select "eager" attention in this thread, and their own in others.

    It replaces an attribute of the class; the configs are not modified.
    """

    def __init__(self, configs: Sequence[Any]) -> None:
        self._ids = {id(config) for config in configs}
        self._here = get_ident()

    def __get__(self, config: Any, _: Any = None) -> Any:
        if id(config) in self._ids and get_ident() == self._here:
            return _PLAIN
        try:
            return vars(config)[_CONFIG]
        except (KeyError, TypeError):  # a config under construction, or the class
            raise AttributeError(_CONFIG) from None

    def __set__(self, config: Any, value: Any) -> None:
        vars(config)[_CONFIG] = value


def softmax_weights(query: Tensor, key: Tensor, _: Tensor, mask: Tensor | None) -> Tensor:
    """Ordinary attention weights (B, H, T, T): a :data:`Weigh`."""
    logits = query @ key.transpose(-1, -2)
    if mask is not None:
        if mask.dtype is torch.bool:
            logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
        else:
            logits = logits + mask
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.softmax(-1, dtype=wide).to(query.dtype)


def identity_weights(query: Tensor, *_: Any) -> Tensor:
    """Weights (B, H, T, T) with which every token attends only to itself: a :data:`Weigh`."""
    length = query.shape[-2]
    eye = torch.eye(length, dtype=query.dtype, device=query.device)
    return eye.expand(*query.shape[:-1], length)


@dataclass
class _Recorder:
    """Collects the states and the attention of one block."""

    block: nn.Module
    weigh: Weigh
    calls: list[Attention] = field(default_factory=list)
    norms_before: list[tuple[nn.Module, Tensor]] = field(default_factory=list)
    norm_after: nn.Module | None = None
    output: Any = None

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
    ) -> Attention:
        mask = None if mask is None else mask[..., : key.shape[-2]]
        weights = self.weigh(query * scaling**0.5, key * scaling**0.5, value * scaling**0.5, mask)
        mixed = (weights @ value).transpose(1, 2).contiguous()
        self.calls.append(Attention(query, key, value, weights, mixed, mask))
        return self.calls[-1]

    def watch(self, stack: ExitStack) -> None:
        for module in self.block.modules():
            if "norm" in type(module).__name__.lower():
                stack.enter_context(hooked(module.register_forward_pre_hook, self._normalising))
        stack.enter_context(hooked(self.block.register_forward_hook, self._leaving))

    def finish(self, states: Tensor) -> BlockRecord:
        name = type(self.block).__name__
        if len(self.calls) != 1:
            raise UndefinedError(
                f"the attention of {name} cannot be recorded: the attention interface of "
                f"transformers was called {len(self.calls)} times instead of once per block"
            )
        (attention,), output = self.calls, self.output
        batch, _, rows, columns = attention.weights.shape
        is_plain = isinstance(output, Tensor) and output.dim() == 3
        if not is_plain or (batch, rows, columns) != (*output.shape[:2], output.shape[1]):
            raise UndefinedError(f"{name} does not attend from each of its tokens to each of them")
        states = states[:, :rows]
        # Values are compared, because the model may have made a view or a copy of the tensor.
        first = (
            norm
            for norm, taken in self.norms_before
            if taken.shape == states.shape and torch.equal(taken, states)
        )
        norm = next(first, None)
        return BlockRecord(states, output, attention, norm, self.norm_after if norm else None)

    def _normalising(self, module: nn.Module, args: Any) -> None:
        if not self.calls:
            self.norms_before.append((module, args[0].detach()))
        elif self.norm_after is None:
            self.norm_after = module

    def _leaving(self, _: nn.Module, __: Any, output: Any) -> None:
        self.output = output


@contextmanager
def _recording(
    tower: BlockTower, first: int, replaced: Mapping[int, Weigh]
) -> Iterator[list[_Recorder]]:
    """Context manager in which each block of a tower, from the first on, fills its recorder."""
    recorders = [
        _Recorder(block, replaced.get(index, softmax_weights))
        for index, block in enumerate(tower.blocks)
    ][first:]
    owners = {id(module): recorder for recorder in recorders for module in recorder.block.modules()}

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        recorder = owners.get(id(module), _Recorder(module, softmax_weights))
        _refuse_unknown_parts(module, options)
        if key.shape[1] != query.shape[1]:
            # Several heads share their keys and values.
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        attention = recorder.attend(query, key, value, attention_mask, scaling)
        return attention.mixed, attention.weights

    with ExitStack() as stack:
        stack.enter_context(as_written(tower.model))
        for recorder in recorders:
            # With hooks, a block runs in full instead of for its pooled token only.
            recorder.watch(stack)
        stack.enter_context(attending(tower.model, attend))
        yield recorders


def _refuse_unknown_parts(module: nn.Module, options: Mapping[str, Any]) -> None:
    for name in _UNKNOWN_PARTS:
        if options.get(name) is not None:
            raise UndefinedError(
                f"the attention of {type(module).__name__} has a part ({name}) that is not recorded"
            )


def _pooled_position(embedding: Tensor, output: Tensor) -> Tensor | None:
    """Position of the pooled token: the gradient is exactly zero at all other tokens."""
    directions = torch.arange(1, embedding.shape[1] + 1, device=embedding.device).cos()
    (gradient,) = torch.autograd.grad(
        embedding, output, directions.to(embedding).expand_as(embedding), retain_graph=True
    )
    reached = gradient.ne(0).any(-1)
    return reached.int().argmax(-1) if (reached.sum(-1) == 1).all() else None
