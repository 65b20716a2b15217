"""Explanations beside other threads that run or explain the same model, and beside forks."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from captum_interactions import explain, wrap
from captum_interactions.attr import ATTRIBUTIONS
from captum_interactions.attr.first_order.attention_base import AttentionAttribution
from captum_interactions.encoders.model.changes import turn
from captum_interactions.encoders.model.hooks import as_written
from captum_interactions.maps.interaction_map import InteractionMap
from tests import corpora, models
from tests.attr.test_model_states import Checkpointing
from tests.attr.test_model_untouched import state
from tests.children import forked, joined, needs_fork
from tests.test_explain_batch import FEW, UNDEFINED

METHODS = [name for name in ATTRIBUTIONS if name not in UNDEFINED]
PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)
ROUNDING = 1e-5
"""PyTorch chooses its kernels of attention for all threads, and two of them differ by the rounding
of a few dozen terms, 6e-8 each, of embeddings of length one. Passes that are disturbed differ by
1e-2."""


@pytest.fixture(autouse=True)
def _many_switches() -> Iterator[None]:
    """Threads take turns every few lines, and not every 5 ms."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about maps of random weights
        yield
    sys.setswitchinterval(interval)


def embed(model) -> Tensor:
    with torch.no_grad():
        output = model(pixel_values=PIXELS, input_ids=IDS, attention_mask=MASK)
    return torch.cat([output.image_embeds, output.text_embeds])


def assert_own(embeddings: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(embeddings, expected, rtol=0, atol=ROUNDING)


def attributions(wrapper, a, b, name) -> tuple[Tensor | None, ...]:
    made = explain(wrapper, a, b, name, **FEW.get(name, {}))
    if isinstance(made, InteractionMap):
        return (made.interactions,)
    return made.attributions_a, made.attributions_b


def assert_same(actual, expected) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize(
    ("name", "attention"),
    [(name, "sdpa") for name in METHODS]
    + [(n, "eager") for n in METHODS if issubclass(ATTRIBUTIONS[n], AttentionAttribution)],
)
def test_one_inside_the_other(name, attention):
    """The user's pass while a method is at a place of the model, and the other way round."""
    model = models.clip(attention=attention)
    wrapper, expected = wrap(model), embed(model)
    left, seen = {}, []
    """How often a thread stops at such a place to let the other one run."""

    def in_the_middle(*_):
        here = threading.get_ident()
        if left.get(here, 0):
            left[here] -= 1
            seen.append(pool.submit(other).result())

    for part in (model.vision_model, model.text_model):
        last = part.encoder.layers[-1]
        for module in (last, last.mlp):
            module.register_forward_pre_hook(in_the_middle)

    def run_method():
        return attributions(wrapper, PIXELS[:1], IDS[:1], name)

    plain = run_method()
    with ThreadPoolExecutor(1) as pool:
        other, left[threading.get_ident()] = (lambda: embed(model)), 24
        assert_same(run_method(), plain)
        assert seen
        for embeddings in seen:
            assert_own(embeddings, expected)
        seen.clear()
        other, left[threading.get_ident()] = run_method, 2
        assert_own(embed(model), expected)
        assert len(seen) == 2
        for maps in seen:
            assert_same(maps, plain)


def test_the_users_own_passes_all_the_time():
    """They are the model's own, whatever is explained meanwhile, and how."""
    model = models.clip()
    wrapper, expected = wrap(model), embed(model)
    stop, seen = threading.Event(), []

    def repeat():
        while not stop.is_set():
            seen.append(embed(model))

    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(repeat)
        try:
            for name in METHODS:
                explain(wrapper, PIXELS[:1], IDS[:1], name, **FEW.get(name, {}))
        finally:
            stop.set()
        thread.result()
    for embeddings in seen:
        assert_own(embeddings, expected)


def test_eight_threads():
    """All explain one pair, by one method after the other; each method runs in two threads."""
    wrapper = wrap(*models.clip_with_processor())
    image = corpora.picture(1)

    def run(name):
        return attributions(wrapper, image, "a red circle", name)

    expected = {name: run(name) for name in METHODS}

    def run_some(first):
        for name in METHODS[first::8] + METHODS[(first + 1) % 8 :: 8]:
            assert_same(run(name), expected[name])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run_some, range(8)))


def test_parts_stay_compiled_and_checkpointed_for_other_threads():
    model = Checkpointing(True, False)
    model.blocks[0]._compiled_call_impl = lambda x: "compiled"

    def seen():
        return bool(model.grad_checkpointing), model.blocks[0](torch.rand(1, 4)) == "compiled"

    with ThreadPoolExecutor(1) as pool:
        assert seen() == (True, True)
        with as_written(model):
            here = bool(model.grad_checkpointing), isinstance(model.blocks[0](torch.rand(4)), str)
            assert here == (False, False)
            assert pool.submit(seen).result() == (True, True)
        assert seen() == (True, True)


def test_baselines_are_cached_as_long_as_a_thread_wants_them():
    wrapper = wrap(models.clip())
    here, there = wrapper.caching_baselines(), wrapper.caching_baselines()
    with ThreadPoolExecutor(1) as pool:
        here.__enter__()
        cached = wrapper.tower_a.cached_baselines
        pool.submit(there.__enter__).result()
        here.__exit__(None, None, None)
        assert wrapper.tower_a.cached_baselines is cached is not None
        pool.submit(there.__exit__, None, None, None).result()
    assert wrapper.tower_a.cached_baselines is wrapper.tower_b.cached_baselines is None


# Processes that are forked


@needs_fork
@pytest.mark.parametrize("name", ["game", "second_order_integrated_gradients"])
def test_a_child_is_forked_while_another_thread_explains(name):
    """It has the model as it is, and explains, though the thread that changed it is not there."""
    model = models.clip().train()
    wrapper, expected, before = wrap(model), embed(model), state(model)
    inside, leave, parent = threading.Event(), threading.Event(), os.getpid()

    def wait(*_):
        if os.getpid() == parent:
            inside.set()
            assert leave.wait(120)

    def child():
        assert state(model) == before
        torch.testing.assert_close(embed(model), expected)
        explain(wrapper, PIXELS[:1], IDS[:1], name)
        assert state(model) == before

    model.vision_model.encoder.layers[-1].register_forward_pre_hook(wait)
    before = state(model)
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(explain, wrapper, PIXELS[:1], IDS[:1], name)
        try:
            assert inside.wait(120)
            assert state(model) != before
            assert joined(forked(child)) == 0
        finally:
            leave.set()
        thread.result()
    assert state(model) == before


@needs_fork
def test_a_child_of_the_thread_that_explains_goes_on():
    def again():
        with turn():
            pass

    with turn():
        assert joined(forked(again)) == 0
    again()
