"""No call leaves tensors behind: a program that explains all day keeps its size."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import Tensor

from captum_interactions import (
    SecondOrderIntegratedGradients,
    check_wrapper,
    explain,
    explain_batch,
    wrap,
)
from captum_interactions.attr import attributions, masked_score, parameter_stages
from captum_interactions.corpus import build_index, pair_map, scores
from tests import corpora, models

FEW: dict[str, dict[str, Any]] = {
    "rise": {"n_samples": 20},
    "interaction_lime": {"n_samples": 50},
    "banzhaf_interactions": {"n_samples": 64},
    "shapley_interactions": {"n_samples": 256},
}
LAYERS = [(-1, -1), (0, 1), ("input", 2)]
PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)


@pytest.fixture(autouse=True)
def _quick_and_silent() -> Iterator[None]:
    gc.freeze()  # what is there already, thousands of modules, is not gone through again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about maps of random weights
        yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def raw():
    wrapper = corpora.small_wrapper()
    return wrapper, corpora.picture(1), "a red circle"


def n_tensors() -> int:
    gc.collect()
    # Not isinstance, which asks objects for their __class__ and so runs code of lazy ones.
    return sum(issubclass(type(one), Tensor) for one in gc.get_objects())


def check(call: Callable[[], object]) -> None:
    """Three calls leave as many tensors as one, which may fill caches."""
    call()
    before = n_tensors()
    call()
    call()
    assert n_tensors() == before


@pytest.mark.parametrize("name", [info.name for info in attributions()])
def test_explanations(raw, name):
    if name == "token_decomposition":  # needs a mean of tokens
        wrapper = wrap((models.Sentences(), models.Sentences()))
        raw = wrapper, (IDS[:1] % 10, MASK[:1]), (IDS[1:] % 10, MASK[1:])
    check(lambda: explain(*raw, name, **FEW.get(name, {})))


@pytest.mark.parametrize("layers", LAYERS)
def test_second_order_integrated_gradients(wrapper, layers):
    soig = SecondOrderIntegratedGradients(wrapper, layers)
    options = {"n_steps": 9}  # more rows than are run without asking what memory they take
    pair = {"inputs": (PIXELS, IDS), "additional_forward_args": MASK, **options}
    check(lambda: soig.attribute(**pair, return_convergence_delta=True))
    check(lambda: soig.attribute(**pair, full_resolution="a"))
    check(lambda: soig.decompose(**pair))
    check(lambda: soig.factors_a(PIXELS, **options))
    check(lambda: soig.factors_b(IDS, None, MASK, **options))


def test_steps_by_need_and_small_pieces(wrapper):
    soig = SecondOrderIntegratedGradients(wrapper)
    pair = {"inputs": (PIXELS, IDS), "additional_forward_args": MASK}
    check(lambda: soig.decompose(**pair, n_steps="auto"))
    check(lambda: soig.attribute(**pair, n_steps=9, internal_batch_size=7))


def test_batches_and_cached_baselines(raw):
    wrapper, image, caption = raw

    def batch():
        with wrapper.caching_baselines():
            explain_batch(wrapper, [image] * 2, [caption] * 2)

    check(batch)


def test_indexes(raw, tmp_path):
    wrapper = raw[0]
    folders = iter(tmp_path / str(place) for place in range(3))

    def build():
        folder = next(folders)
        index_a = build_index(folder / "a", wrapper, corpora.images(2), side="a")
        index_b = build_index(folder / "b", wrapper, corpora.texts(), side="b")
        scores(index_a, index_b)
        pair_map(index_a["image 1"], index_b["text 1"])

    check(build)


def test_the_check_of_a_wrapper(wrapper):
    check(lambda: check_wrapper(wrapper))


def test_masked_scores_and_stages(raw):
    wrapper, image, caption = raw
    batch = wrapper.prepare(image, caption)
    inputs, more = batch.inputs, batch.additional_forward_args

    def score():
        masked = masked_score(wrapper, inputs, additional_forward_args=more)
        masked(masked.players_a.unsqueeze(1), ~masked.players_b.unsqueeze(1))

    check(score)
    check(lambda: parameter_stages(wrapper, inputs, more))
