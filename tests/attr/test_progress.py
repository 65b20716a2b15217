"""The progress bar counts the Jacobian products that are planned, and no more are taken."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn.functional import pad

from captum_interactions import SecondOrderIntegratedGradients, wrap
from tests import models
from tests.attr.second_order.test_second_derivatives import Once, Opaque, Sine

# Ten image tokens, and captions of six and four tokens that are padded to sixteen.
IDS, MASK = (pad(values, (0, 10)) for values in models.captions(6, 4))
# The first token is that of the baseline: it has no product.
BATCH = {"inputs": (models.images(2), IDS), "additional_forward_args": MASK, "n_steps": 5}


@pytest.mark.parametrize(
    ("dimension", "options", "n_products"),
    [
        (24, {}, 5 + 5),  # a forward product per word, then a backward product per word
        (4, {}, 4 + 4),  # a backward product per dimension on both sides
        (7, {}, 5 + 5),
        (24, {"groups_a": [[1], [2, 3]]}, 2 + 2),
        (24, {"groups_b": [[2, 3]]}, 1 + 1),
        (4, {"groups_b": [[2, 3]]}, 1 + 1),
        (24, {"groups_b": torch.rand(30, 16)}, 10 + 10),
        (24, {"internal_batch_size": 4}, (5 + 5) * 3),  # two nodes for both pairs at once
        (24, {"internal_batch_size": 1}, (5 + 5) * 10),
        (24, {"baselines": ([0.0, 1.0], None)}, 5 + 5 * 2),
        (24, {"baselines": (None, [1, 2, 3])}, 5 * 3 + 5),
        (24, {"full_resolution": "a"}, 5 + 5),
        (24, {"full_resolution": "b"}, 10 + 10),
        (4, {"full_resolution": "a"}, 4 + 5),
    ],
)
def test_attribute(capsys, dimension, options, n_products):
    soig = SecondOrderIntegratedGradients(wrap(models.clip(dimension=dimension)))
    soig.attribute(**BATCH, **options, show_progress=True)
    assert counted(capsys) == (n_products, n_products)


def counted(capsys) -> tuple[int, ...]:
    """(products taken, products planned) when the bar was closed."""
    return tuple(map(int, re.findall(r"(\d+)/(\d+)", capsys.readouterr().err)[-1]))


def test_main_effects_cost_one_product_more(capsys, wrapper):
    SecondOrderIntegratedGradients(wrapper).decompose(**BATCH, show_progress=True)
    assert counted(capsys) == (5 + 6, 5 + 6)


def test_factors(capsys, wrapper):
    soig = SecondOrderIntegratedGradients(wrapper)
    soig.factors_a(BATCH["inputs"][0], n_steps=5, show_progress=True)
    assert counted(capsys) == (10, 10)
    soig.factors_b(IDS, None, MASK, 5, show_progress=True)
    assert counted(capsys) == (5, 5)


def test_silence_is_the_default(capsys, wrapper):
    SecondOrderIntegratedGradients(wrapper).attribute(**BATCH)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


@pytest.mark.parametrize("sine", [Once, Opaque])
def test_products_of_a_model_without_second_derivatives(capsys, sine):
    """If forward products fail, there is one backward product per dimension: 6 for 4 features."""
    soig = SecondOrderIntegratedGradients(wrap((Sine(sine), Sine(sine))))
    for size in (None, 2):
        soig.attribute(
            (torch.rand(2, 4), torch.rand(2, 4)), n_steps=3, internal_batch_size=size,
            show_progress=True,
        )  # fmt: skip
        taken, planned = counted(capsys)
        assert taken == planned
        assert taken >= (6 + 4) * (1 if size is None else 3)
