"""Cut a model at one of its blocks, from outside: read what enters it, or start from there.

A model keeps its own forward pass, with its masks, its pooling and its projections. For the time of
one call, a hook reads or replaces the hidden states that enter a block, and what comes before the
block is skipped. Everything is put back when the call ends, also by an error. Cuts hold for the
thread that makes them: another one that runs the model meanwhile gets the model's own output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_interactions.encoders.model.changes import (
    attribute,
    changed,
    hooked,
    in_this_thread,
    turn,
)

_CHECKPOINTING = ("gradient_checkpointing", "grad_checkpointing")
"""Flags by which transformers, open_clip and timm recompute blocks in the backward pass."""

_AS_WRITTEN: list[dict[int, nn.Module]] = []
"""The modules of models for which :func:`as_written` holds, by id. Used by the thread whose turn it
is."""


class _Reached(Exception):  # noqa: N818 - not an error: it ends a run that has given all we want
    def __init__(self, states: Any) -> None:
        super().__init__()
        self.states = states


def find_blocks(module: nn.Module, within: str = "") -> list[str]:
    """Names of an encoder's blocks: those of its list of modules that holds the most parameters.

    Args:
        module (nn.Module): A model.
        within (str): Name of the part of it to look at. Default: all of it

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
    # Of two lists with the same parameters, one inside of the other, the outer comes first.
    name, part = max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    return [f"{name}.{child}" for child, _ in part.named_children()]


def find_embeddings(module: nn.Module, within: str = "") -> list[str]:
    """Name of what makes the first hidden states, if the encoder has a part called so."""
    names = (name for name, _ in module.get_submodule(within).named_modules(prefix=within))
    return [name for name in names if name.rpartition(".")[2] == "embeddings"][:1]


def states_entering(block: nn.Module, run: Callable[[], Any]) -> Tensor:
    """The hidden states that enter a block. What follows the block is not run.

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
    """What a module gives in a run. What follows it is not run.

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
    """The hidden states that enter a block, and its output, the last time that it is run.

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
    """While this holds, a model runs from a block on, with these hidden states.

    Args:
        block (nn.Module): Where to start. If it is run several times, the first time counts.
        states (Tensor): What enters it.
        skipped (sequence of nn.Module): What comes before. These give ``answer`` without running.
        answer (optional): What the model accepts in their place; its values never reach the block.
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


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """While this holds, a module runs another function in this thread."""
    with turn(), attribute(module, "forward", in_this_thread(forward, module.forward)):
        yield


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """While this holds, no part of a model runs compiled in this thread, and none is checkpointed.

    A compiled graph does not know of later hooks, and a checkpointed block runs again in the
    backward pass, when they are gone. Numbers are the same. Inside of another such context that
    holds for the model, there is nothing left to do. Other threads that explain wait.
    """
    with ExitStack() as stack:
        stack.enter_context(turn())
        if any(id(model) in modules for modules in _AS_WRITTEN):
            yield
            return
        modules = {id(module): module for module in model.modules()}
        stack.enter_context(changed(lambda: _AS_WRITTEN.append(modules), _AS_WRITTEN.pop))
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


class _TrueInOtherThreads:
    """A flag that is off in the thread that makes it."""

    def __init__(self) -> None:
        self._here = get_ident()

    def __bool__(self) -> bool:
        return get_ident() != self._here


def structure(model: nn.Module) -> int:
    """A number that tells apart what a model runs: its modules, their hooks and replaced passes.

    What parameters hold does not count.
    """
    return hash(
        tuple(
            (id(module), id(vars(module).get("forward")), *hooks)
            for module in model.modules()
            for hooks in [(*module._forward_hooks, -1, *module._forward_pre_hooks)]
        )
    )


def _autograd_modes() -> tuple[bool, bool]:
    """Whether gradients are on, and whether what they need is saved by hooks, as checkpoints do."""
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks("there are some"):
            return torch.is_grad_enabled(), False
    except RuntimeError:
        return torch.is_grad_enabled(), True


def _unreached(block: nn.Module) -> RuntimeError:
    return RuntimeError(f"the model gave its output without running {type(block).__name__}")


def entering_states(args: Any, kwargs: Any) -> Tensor:
    """Which of a block's arguments holds its hidden states."""
    states = args[0] if args else kwargs[_name_of_states(kwargs)]
    assert isinstance(states, Tensor)
    return states


def _name_of_states(kwargs: dict[str, Any]) -> str:
    """Which keyword argument of a block holds its hidden states."""
    if "hidden_states" in kwargs:
        return "hidden_states"
    return next(name for name, value in kwargs.items() if isinstance(value, Tensor))
