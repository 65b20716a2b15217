"""Temporary changes to a model, local to one thread and always undone.

Modules are shared by all threads. Therefore a change acts only in the thread that makes it, and
only one thread changes models at a time, so that changes are undone in reverse order. A Ctrl-C
is delivered after a change has been made or undone. A process that is forked meanwhile starts
without the changes of other threads.
"""

from __future__ import annotations

import os
import signal
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from threading import RLock, Timer, current_thread, get_ident, main_thread
from types import FrameType
from typing import Any

from torch.utils.hooks import RemovableHandle

_PACKAGE = __name__.partition(".")[0]
_ENTERING_OR_LEAVING = {"__enter__", "__exit__", "enter_context", "callback"}
"""Functions that enter and leave context managers."""
_MOMENT = 0.01
"""Delay in seconds after which a deferred interrupt is raised again."""

_turn = RLock()
"""Held by the thread that changes models, as long as its changes are active."""
_EDIT = RLock()
"""Held while a change is made or undone, and while the process forks."""
_UNDO: list[Callable[[], object]] = []
"""Functions that undo the active changes, in the order of the changes."""


@contextmanager
def turn() -> Iterator[None]:
    """Context manager in which no other thread changes models, and interrupts are deferred."""
    with _turn, _interrupts_wait_for_changes():
        yield


@contextmanager
def changed(change: Callable[[], Callable[[], object]]) -> Iterator[None]:
    """Context manager in which a change is active.

    Args:
        change (Callable): Makes the change, and returns a function that undoes it. It is called
            when no other thread changes models, so it reads what it replaces.
    """
    with turn():
        with _EDIT:
            _UNDO.append(change())
        try:
            yield
        finally:
            with _EDIT:
                _UNDO.pop()()


def attribute(owner: object, name: str, value: Any) -> AbstractContextManager[None]:
    """Context manager that sets or adds an attribute of an object."""
    return changed(partial(set_attribute, owner, name, value))


def set_attribute(owner: object, name: str, value: Any) -> Callable[[], object]:
    """Set or add an attribute of an object, and return a function that undoes it."""
    own = vars(owner)
    if name in own:
        undo = partial(setattr, owner, name, own[name])
    else:
        undo = partial(delattr, owner, name)
    setattr(owner, name, value)
    return undo


def hooked(
    register: Callable[..., RemovableHandle], hook: Callable[..., Any], **options: Any
) -> AbstractContextManager[None]:
    """Context manager that registers a hook, which acts in this thread only.

    Args:
        register (Callable): A module's method, such as ``module.register_forward_hook``.
        hook (Callable): The hook.
        options: Further arguments of the method.
    """
    own = in_this_thread(hook, lambda *_, **__: None)
    return changed(lambda: register(own, **options).remove)


def in_this_thread(
    function: Callable[..., Any], elsewhere: Callable[..., Any]
) -> Callable[..., Any]:
    """A function that calls one function in this thread, and another in all other threads."""
    here = get_ident()

    def either(*args: Any, **kwargs: Any) -> Any:
        return (function if get_ident() == here else elsewhere)(*args, **kwargs)

    return either


@contextmanager
def _interrupts_wait_for_changes() -> Iterator[None]:
    """Defer Ctrl-C while context managers of this package are being entered or left.

    Python raises KeyboardInterrupt between any two instructions of the main thread, also between a
    change and the record of how to undo it. Other threads receive no interrupts.
    """
    before = signal.getsignal(signal.SIGINT)
    is_set = getattr(before, "__module__", None) == __name__
    if is_set or not callable(before) or current_thread() is not main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if _is_changing(frame):
            Timer(_MOMENT, interrupt_main, [signum]).start()
        else:
            before(signum, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, before)


def _is_changing(frame: FrameType | None) -> bool:
    """Whether a context manager used by this package is being entered or left."""
    while frame is not None:
        is_entering, frame = frame.f_code.co_name in _ENTERING_OR_LEAVING, frame.f_back
        if is_entering and frame is not None:
            module = str(frame.f_globals.get("__name__"))
            if module.partition(".")[0] == _PACKAGE:
                return True
    return False


def _undo_changes_of_other_threads() -> None:
    """Undo all changes in a forked process, where the threads that made them do not exist."""
    global _turn
    with ExitStack() as stack:
        stack.callback(_EDIT.release)
        if _turn.acquire(blocking=False):  # of no thread, or of the thread that forked
            _turn.release()
            return
        _turn = RLock()
        for undo in _UNDO:
            stack.callback(undo)
        _UNDO.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_EDIT.acquire,
        after_in_parent=_EDIT.release,
        after_in_child=_undo_changes_of_other_threads,
    )
