"""Ctrl-C at any line of set-up and restore: the model is as it was, and the next call works."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time

import pytest
import torch
from torch import nn
from torch.autograd import grad_mode
from transformers import PretrainedConfig
from transformers.modeling_utils import AttentionInterface

from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.attr import GAME
from captum_interactions.encoders import attention
from captum_interactions.encoders.model import activations, changes, hooks, modes
from tests import models
from tests.attr.test_model_states import Checkpointing, OfStates, set_up

MODULES = (contextlib, grad_mode, torch.nn.attention, activations, attention, changes, hooks, modes)
FILES = {module.__file__ for module in MODULES}
"""What sets up and restores a model."""


@pytest.fixture(autouse=True)
def _interrupts_are_raised():
    """Also where the tests run in the background of a shell, which ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupter:
    """Counts calls, lines and returns of these files, and interrupts at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.is_due = False
        self.places: list[tuple[str, int]] = []

    def __call__(self, frame, event, _):
        code = frame.f_code
        # Python itself drops an interrupt that comes while it throws a generator away.
        if code.co_filename not in FILES or code.co_name == "<genexpr>":
            return None
        if len(self.places) == self.at or self.is_due:
            self.interrupt()
        self.places.append((code.co_filename, frame.f_lineno))
        return self

    def interrupt(self) -> None:
        """It is raised here, or it has to wait: then it is due at the next line."""
        self.is_due = False
        signal.raise_signal(signal.SIGINT)

    def wait(self, seconds, function, args) -> Interrupter:
        """In the place of a timer, which may strike anywhere."""
        self.is_due = True
        return self

    def start(self) -> None:
        pass


def interrupted(call, at: int | None = None) -> Interrupter:
    interrupter = Interrupter(at)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "Timer", interrupter.wait)
        sys.settrace(interrupter)
        try:
            call()
        finally:
            sys.settrace(None)
        if interrupter.is_due:
            interrupter.interrupt()
    return interrupter


def second_order():
    """A model about which there is much to change."""
    model = Checkpointing(True, False).train()
    model.blocks[0].append(nn.GELU()).compile(backend="eager")
    soig = SecondOrderIntegratedGradients(wrap((OfStates(model), models.mlp(5, 4))), (1, "input"))
    inputs = torch.rand(1, 3, 4), torch.rand(1, 5)
    return model, lambda: soig.attribute(inputs, n_steps=1)


def first_order():
    """Attention that is recorded."""
    model = models.clip(layers=1, dropout=0.5).train()
    method = GAME(wrap(model))
    inputs = models.images(), models.caption(4)
    return model, lambda: method.attribute(inputs)


@pytest.mark.parametrize("setting", [second_order, first_order])
def test_the_model_is_untouched(setting):
    model, call = setting()
    call()
    before, handler = everything(model), signal.getsignal(signal.SIGINT)
    places = interrupted(call).places
    for place in dict.fromkeys(places):
        # The first time or the last time that the line is reached: the halves of a long way.
        times = [number for number, own in enumerate(places) if own == place]
        number = times[place[1] % 2 - 1]
        with pytest.raises(KeyboardInterrupt):
            interrupted(call, number)
        assert everything(model) == before, place
        assert signal.getsignal(signal.SIGINT) is handler
    assert not changes._UNDO
    in_another_thread(call)


def everything(model):
    """All that an explanation changes for a while."""
    cuda = torch.backends.cuda
    return (
        set_up(model),
        AttentionInterface.get_interface,
        [name for name in vars(PretrainedConfig) if "attn" in name],
        (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled()),
    )


def in_another_thread(call) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_an_interrupt_waits_for_a_moment(monkeypatch):
    monkeypatch.setattr(changes, "_MOMENT", 0.001)
    monkeypatch.setattr(changes, "_PACKAGE", "tests")  # whose context managers are waited for
    done = []

    def change():
        signal.raise_signal(signal.SIGINT)
        done.append("changed")
        return lambda: done.append("undone")

    def wait():
        with changes.changed(change):
            done.append("waiting")
            for _ in range(60_000):
                time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert done == ["changed", "waiting", "undone"]
