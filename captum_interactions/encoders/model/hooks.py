"""Partial forward passes by hooks: run a model up to one of its blocks, or from a block on.

The forward pass is the model's own, with its masks, pooling and projections. During one call, a
hook reads or replaces the hidden states that enter a block; modules before the block are skipped.
The hooks are removed when the call ends, also after an error. They act in the calling thread only:
other threads that run the model at the same time get its ordinary output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from threading import get_ident
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_interactions.encoders.model.changes import (
    attribute,
    changed,
    hooked,
    in_this_thread,
    set_attribute,
    turn,
)

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Attributes in which a module keeps its hooks."""

_CHECKPOINTING = ("gradient_checkpointing", "grad_checkpointing")
"""Flags by which transformers, open_clip and timm recompute blocks in the backward pass."""

_AS_WRITTEN: list[dict[int, nn.Module]] = []
"""The modules of models inside of :func:`as_written`, by id. Used by the thread that holds the
lock."""


class _Reached(Exception):  # noqa: N818 - not an error: it ends a run early
    def __init__(self, states: Any) -> None:
        super().__init__()
        self.states = states


def find_blocks(module: nn.Module, within: str = "") -> list[str]:
    """Names of an encoder's blocks: the ``ModuleList`` with the most parameters.

    Args:
        module (nn.Module): A model.
        within (str): Name of the part to search. Default: the whole model

    Raises:
        ValueError: If the encoder has no list of modules.
    """
    lists = [
        (name, part)
        for name, part in module.get_submodule(within).named_modules(prefix=within)
        if isinstance(part, (nn.ModuleList, nn.Sequential)) and name
    ]
    if not lists:
        raise ValueError(f"{type(module).__name__} has no list of blocks")
    # Of nested lists with the same parameters, the outer one is found first.
    name, part = max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    return [f"{name}.{child}" for child, _ in part.named_children()]


def find_embeddings(module: nn.Module, within: str = "") -> list[str]:
    """Name of the embedding module, if the encoder has one of a known name."""
    names = (name for name, _ in module.get_submodule(within).named_modules(prefix=within))
    return [name for name in names if name.rpartition(".")[2] == "embeddings"][:1]


def states_entering(block: nn.Module, run: Callable[[], Any]) -> Tensor:
    """The hidden states that enter a block, (B, T, D) or as it takes them. The run stops there.

    Raises:
        RuntimeError: If the run does not reach the block.
    """

    def stop(_: nn.Module, args: Any, kwargs: Any) -> None:
        raise _Reached(entering_states(args, kwargs))

    with hooked(block.register_forward_pre_hook, stop, with_kwargs=True):
        try:
            run()
        except _Reached as reached:
            return cast(Tensor, reached.states)
    raise _unreached(block)


def output_of(module: nn.Module, run: Callable[[], Any]) -> Any:
    """The output of a module in a run. The run stops there.

    Raises:
        RuntimeError: If the run does not reach the module.
    """

    def stop(_: nn.Module, __: Any, output: Any) -> None:
        raise _Reached(output)

    with hooked(module.register_forward_hook, stop):
        try:
            run()
        except _Reached as reached:
            return reached.states
    raise _unreached(module)


def states_around(block: nn.Module, run: Callable[[], Any]) -> tuple[Tensor, Any]:
    """The hidden states that enter a block, and its output, at the last call of the block.

    States are (B, T, D), or as the block takes them.

    Raises:
        RuntimeError: If the run does not reach the block.
    """
    seen: list[tuple[Tensor, Any]] = []

    def look(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen[:] = [(entering_states(args, kwargs), output)]

    with hooked(block.register_forward_hook, look, with_kwargs=True):
        run()
    if not seen:
        raise _unreached(block)
    return seen[0]


@contextmanager
def starting_at(
    block: nn.Module, states: Tensor, skipped: Sequence[nn.Module], answer: Any = None
) -> Iterator[None]:
    """Context manager in which a model runs from a block on, with these hidden states.

    Args:
        block (nn.Module): The first block to run. If it is called several times, at its first call.
        states (Tensor): The hidden states that enter it, (B, T, D) or as it takes them.
        skipped (sequence of nn.Module): Earlier modules. They return ``answer`` without running.
        answer (optional): A valid output of skipped modules; its values never reach the block.
            Default: the states, detached

    Raises:
        RuntimeError: If the block is not run, or would be run again in the backward pass.
    """
    answer = states.detach() if answer is None else answer
    pending = [states]
    outside = _autograd_modes()

    def replace(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if not pending:
            return None
        if states.requires_grad and _autograd_modes() != outside:
            raise RuntimeError(
                f"the model runs {type(block).__name__} without gradients or keeps its activations "
                "elsewhere: if it is checkpointed, it would run again in the backward pass, from "
                "other hidden states. Switch that off to explain the model"
            )
        given = pending.pop()
        if args:
            return (given, *args[1:]), kwargs
        return args, {**kwargs, _name_of_states(kwargs): given}

    with ExitStack() as stack:
        stack.enter_context(hooked(block.register_forward_pre_hook, replace, with_kwargs=True))
        for module in skipped:
            stack.enter_context(replaced_forward(module, lambda *_, **__: answer))
        yield
        if pending:
            raise _unreached(block)


def replaced_forward(
    module: nn.Module, forward: Callable[..., Any]
) -> AbstractContextManager[None]:
    """Context manager that replaces the forward function of a module in this thread."""

    def replace() -> Callable[[], object]:
        return set_attribute(module, "forward", in_this_thread(forward, module.forward))

    return changed(replace)


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """Context manager that disables compilation and checkpointing of a model in this thread.

    A compiled graph ignores hooks that are registered later, and a checkpointed block runs again in
    the backward pass, after the hooks have been removed. Values are the same. Nested contexts of
    the same model do nothing. Other threads that explain wait.
    """
    with ExitStack() as stack:
        stack.enter_context(turn())
        if any(id(model) in modules for modules in _AS_WRITTEN):
            yield
            return
        modules = {id(module): module for module in model.modules()}
        stack.enter_context(changed(partial(_record, modules)))
        for module in modules.values():
            compiled = vars(module).get("_compiled_call_impl")
            if "_orig_mod" in module._modules:
                stack.enter_context(replaced_forward(module, module.get_submodule("_orig_mod")))
            elif compiled is not None:
                call = in_this_thread(module._call_impl, compiled)
                stack.enter_context(attribute(module, "_compiled_call_impl", call))
            for flag in _CHECKPOINTING:
                if vars(module).get(flag):
                    stack.enter_context(attribute(module, flag, _TrueInOtherThreads()))
        yield


def _record(modules: dict[int, nn.Module]) -> Callable[[], object]:
    _AS_WRITTEN.append(modules)
    return _AS_WRITTEN.pop


class _TrueInOtherThreads:
    """A flag that is false in the thread that creates it."""

    def __init__(self) -> None:
        self._here = get_ident()

    def __bool__(self) -> bool:
        return get_ident() != self._here


def structure(model: nn.Module) -> int:
    """A hash of the structure of a model: its modules, their hooks and replaced forward functions.

    It does not depend on the values of parameters.
    """
    return hash(
        tuple(
            (id(module), id(vars(module).get("forward")), *hooks)
            for module in model.modules()
            for hooks in [(*module._forward_hooks, -1, *module._forward_pre_hooks)]
        )
    )


def _autograd_modes() -> tuple[bool, bool]:
    """Whether gradients are enabled, and whether saved tensors pass through hooks (checkpoints)."""
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks("there are some"):
            return torch.is_grad_enabled(), False
    except RuntimeError:
        return torch.is_grad_enabled(), True


def _unreached(block: nn.Module) -> RuntimeError:
    return RuntimeError(f"the model gave its output without running {type(block).__name__}")


def entering_states(args: Any, kwargs: Any) -> Tensor:
    """The hidden states among a block's arguments: (B, T, D), (T, B, D) or (B, C, h, w)."""
    states = args[0] if args else kwargs[_name_of_states(kwargs)]
    assert isinstance(states, Tensor)
    return states


def _name_of_states(kwargs: dict[str, Any]) -> str:
    """Name of the keyword argument of a block that holds its hidden states."""
    if "hidden_states" in kwargs:
        return "hidden_states"
    return next(name for name, value in kwargs.items() if isinstance(value, Tensor))
