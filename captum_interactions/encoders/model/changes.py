"""Temporary changes to a model: in force in one thread, and undone whatever happens.

Modules are shared by all threads. So a change acts in the thread that makes it alone, and one
thread changes models at a time, which undoes changes in order. A Ctrl-C waits until a change is
made or undone. A process that is forked meanwhile starts without the changes of other threads.
"""

from __future__ import annotations

import os
import signal
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock, Timer, current_thread, get_ident, main_thread
from types import FrameType
from typing import Any

from torch.utils.hooks import RemovableHandle

_PACKAGE = __name__.partition(".")[0]
_ENTERING_OR_LEAVING = {"__enter__", "__exit__", "enter_context", "callback"}
"""Functions that enter and leave context managers."""
_MOMENT = 0.01
"""Seconds after which an interrupt that had to wait is raised again."""

_turn = RLock()
"""Held by the thread that changes models, for as long as its changes are in force."""
_EDIT = RLock()
"""Held for the moment in which a change is made or undone, and while the process forks."""
_UNDO: list[Callable[[], object]] = []
"""How to undo the changes that are in force, the last one last."""


@contextmanager
def turn() -> Iterator[None]:
    """While this holds, no other thread changes models, and interrupts wait for changes."""
    with _turn, _interrupts_wait_for_changes():
        yield


@contextmanager
def changed(change: Callable[[], object], undo: Callable[[], object]) -> Iterator[None]:
    """While this holds, a change is in force."""
    with turn():
        with _EDIT:
            change()
            _UNDO.append(undo)
        try:
            yield
        finally:
            with _EDIT:
                _UNDO.pop()()


@contextmanager
def attribute(owner: object, name: str, value: Any) -> Iterator[None]:
    """While this holds, an object has another value of an attribute, or one that it lacks."""
    with turn():
        own = vars(owner)
        if name in own:
            before = own[name]
            undo: Callable[[], object] = lambda: setattr(owner, name, before)  # noqa: E731
        else:
            undo = lambda: delattr(owner, name)  # noqa: E731
        with changed(lambda: setattr(owner, name, value), undo):
            yield


@contextmanager
def hooked(
    register: Callable[..., RemovableHandle], hook: Callable[..., Any], **options: Any
) -> Iterator[None]:
    """While this holds, a hook acts in this thread.

    Args:
        register (Callable): A module's method, such as ``module.register_forward_hook``.
        hook (Callable): The hook.
        options: Further arguments of the method.
    """
    handles: list[RemovableHandle] = []
    own = in_this_thread(hook, lambda *_, **__: None)
    with changed(lambda: handles.append(register(own, **options)), lambda: handles.pop().remove()):
        yield


def in_this_thread(
    function: Callable[..., Any], elsewhere: Callable[..., Any]
) -> Callable[..., Any]:
    """A function that is one in the thread that calls this, and another one in other threads."""
    here = get_ident()

    def either(*args: Any, **kwargs: Any) -> Any:
        return (function if get_ident() == here else elsewhere)(*args, **kwargs)

    return either


@contextmanager
def _interrupts_wait_for_changes() -> Iterator[None]:
    """While this holds, Ctrl-C waits for context managers of this package to be entered or left.

    Python raises it between any two instructions of the main thread, also between a change and
    the note of how to undo it. Other threads have no interrupts.
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
    """Whether a context manager that this package uses is being entered or left."""
    while frame is not None:
        is_entering, frame = frame.f_code.co_name in _ENTERING_OR_LEAVING, frame.f_back
        if is_entering and frame is not None:
            module = str(frame.f_globals.get("__name__"))
            if module.partition(".")[0] == _PACKAGE:
                return True
    return False


def _undo_changes_of_other_threads() -> None:
    """In a process that was forked: threads that made the changes do not exist there."""
    global _turn
    with ExitStack() as stack:
        stack.callback(_EDIT.release)
        if _turn.acquire(blocking=False):  # no thread's, or that of the thread which forked
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
