"""Towers of the user's own: callables with arguments, and a family whose blocks can be opened."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from captum_interactions import CallableTower, SecondOrderIntegratedGradients, explain, wrap
from captum_interactions.encoders import TextTower, Tower
from captum_interactions.functional import quadrature
from tests import models
from tests.expected import relative_error
from tests.oracle import token_map


def unit(embedding: Tensor) -> Tensor:
    return nn.functional.normalize(embedding, dim=-1)


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_a_family_with_blocks(layer):
    torch.manual_seed(0)
    tower, other = models.Sentences(), models.Recurrent(dimension=5)
    ids, mask = torch.tensor([[3, 1, 4, 1], [5, 9, 0, 0]]), torch.tensor([[1.0] * 4, [1, 1, 0, 0]])
    states = torch.randn(2, 3, 4)
    soig = SecondOrderIntegratedGradients(wrap((tower, other)), (layer, "input"))
    actual = soig.attribute((ids, states), additional_forward_args=mask, n_steps=5)
    assert actual[1, 2:].count_nonzero() == 0
    for row, length in enumerate((4, 2)):
        own, ones = ids[row : row + 1, :length], mask[row : row + 1, :length]
        ends = [tower.prefix(layer % 2, these, ones)[0][0].detach() for these in (0 * own, own)]

        def encode(x, ones=ones):
            return unit(tower.tail(layer % 2, x, ones.expand(len(x), -1)))

        expected = token_map(
            encode,
            lambda x: unit(other(x)),
            tuple(ends),
            (torch.zeros_like(states[row]), states[row]),
            *quadrature(n_steps=5),
        )
        assert relative_error(actual[row, :length], expected) < 1e-5


@pytest.mark.parametrize(
    "baseline",
    [0.5, torch.full((6,), 0.5), lambda x, *_: torch.full_like(x, 0.5)],
    ids=["a number", "a tensor", "a function"],
)
def test_baselines_of_callables(baseline):
    encoders = models.mlp(6), models.mlp(9, seed=1)
    towers = CallableTower(encoders[0], baseline), CallableTower(encoders[1])
    inputs = torch.rand(2, 6), torch.rand(2, 9)
    actual = SecondOrderIntegratedGradients(wrap(towers)).attribute(inputs, n_steps=4)
    plain = SecondOrderIntegratedGradients(wrap(encoders))
    expected = plain.attribute(inputs, (0.5, None), n_steps=4)
    assert torch.equal(actual, expected)


def test_arguments_of_callables_go_to_their_tower():
    encoder_a, encoder_b = models.mlp(6), models.mlp(9, seed=1)
    wrapper = wrap(
        (
            CallableTower(lambda x, scale: encoder_a(x * scale), extra_names=["scale"]),
            CallableTower(
                lambda x, shift, power: (encoder_b(x) + shift) ** power,
                extra_names=["shift", "power"],
            ),
        )
    )
    a, b = torch.rand(2, 6), torch.rand(2, 9)
    scale, shift = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [0.5]])
    additional = (scale, shift, 2)
    soig = SecondOrderIntegratedGradients(wrapper)
    maps = soig.attribute((a, b), additional_forward_args=additional, n_steps=4)
    for row in range(2):
        one = slice(row, row + 1)
        alone = soig.attribute(
            (a[one], b[one]), additional_forward_args=(scale[one], shift[one], 2), n_steps=4
        )
        assert relative_error(maps[one], alone) < 1e-5
    factors = soig.factors_b(b, None, (shift, 2), 4)
    pair = soig.factors_a(a, None, scale, 4) @ factors
    assert relative_error(pair[[0, 1], [0, 1]], maps) < 1e-5


def test_prepared_tensors_of_callables():
    wrapper = wrap((models.Recurrent(), CallableTower(models.mlp(9), extra_names=["unused"])))
    extra = torch.ones(2, 3)
    batch = wrapper.prepare(torch.rand(2, 5, 4), (torch.rand(2, 9), extra))
    assert batch.additional_forward_args == (extra,)
    assert [len(axis) for axis in batch.axes_a + batch.axes_b] == [5, 5, 9, 9]
    with pytest.raises(ValueError, match="as many first as second inputs, but got 1 and 2"):
        wrapper.prepare(torch.rand(1, 5, 4), (torch.rand(2, 9), extra))


def test_what_a_family_must_implement():
    tower, x = Tower(), torch.ones(1, 2)
    calls = (
        lambda: tower.encode(x),
        lambda: tower.baseline(x),
        lambda: tower.prepare(x),
        lambda: tower.prefix(0, x),
        lambda: tower.tail(0, x),
    )
    for call in calls:
        with pytest.raises(NotImplementedError):
            call()


class Pooled(nn.Module):
    """A text encoder whose named block takes what is pooled already, (B, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embeddings(ids).mean(1))


def test_a_block_behind_the_pooling_is_refused():
    config = SimpleNamespace(vocab_size=10, pad_token_id=0)
    tower = TextTower(
        Pooled(),
        run=lambda model, ids: model(ids),
        blocks=["head"],
        skipped=["embeddings"],
        config=config,
    )
    ids = torch.tensor([[1, 2, 3]])
    message = r"states at layer 0 of TextTower must have shape \(2, T, D\), but have \(2, 4\)"
    with pytest.raises(ValueError, match=message):
        explain(wrap((tower, tower)), ids, ids)
