"""From factors to maps: numbers that can be added by eye."""

from __future__ import annotations

import pytest
import torch

from captum_interactions.functional import (
    Factors,
    contract,
    contract_all,
    corner_difference,
    decompose,
)

PHI = torch.tensor([[[1.0, 2.0], [0.0, -1.0]]])  # tokens "p" and "q" of a
PSI = torch.tensor([[[3.0, 1.0], [1.0, 1.0], [0.0, 2.0]]])  # tokens "x", "y" and "z" of b
BASELINE_A, BASELINE_B = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 1.0]])
A, B = BASELINE_A + PHI.sum(1), BASELINE_B + PSI.sum(1)


def test_a_map_holds_the_products_of_all_tokens():
    assert contract(PHI, PSI).tolist() == [[[5.0, 3.0, 4.0], [-1.0, -1.0, -2.0]]]


def test_all_pairs():
    phi = torch.cat([PHI, 2 * PHI, 3 * PHI])
    psi = torch.cat([PSI, -PSI])
    expected = [[i * j * contract(PHI, PSI)[0] for j in (1, -1)] for i in (1, 2, 3)]
    assert torch.equal(contract_all(phi, psi), torch.stack([torch.stack(row) for row in expected]))


def test_all_pairs_are_written_once():
    maps = contract_all(torch.rand(3, 4, 5), torch.rand(2, 6, 5))
    assert maps.shape == (3, 2, 4, 6)
    assert maps.transpose(1, 2).is_contiguous()


def test_the_corner_difference_is_that_of_four_scores():
    four = A @ B.T - A @ BASELINE_B.T - BASELINE_A @ B.T + BASELINE_A @ BASELINE_B.T
    assert corner_difference(A, B, BASELINE_A, BASELINE_B) == four.squeeze()
    assert four.item() == contract(PHI, PSI).sum().item() == 8.0


def test_four_parts_make_the_score():
    parts = decompose(PHI, PSI, A, B, BASELINE_A, BASELINE_B)
    assert parts.constant.tolist() == [0.5]
    assert parts.main_effects_a.tolist() == [[2.5, -1.0]]
    assert parts.main_effects_b.tolist() == [[3.0, 1.0, 0.0]]
    assert torch.equal(parts.interactions, contract(PHI, PSI))
    assert parts.score.tolist() == (A @ B.T)[0].tolist() == [14.0]
    assert parts.convergence_delta.tolist() == [0.0]


def test_one_baseline_serves_all_examples():
    phi, psi = PHI.repeat(2, 1, 1), PSI.repeat(2, 1, 1)
    parts = decompose(phi, psi, A.repeat(2, 1), B.repeat(2, 1), BASELINE_A, BASELINE_B)
    assert parts.constant.tolist() == [0.5, 0.5]
    assert parts.convergence_delta.tolist() == [0.0, 0.0]


def test_the_delta_of_factors_is_what_the_map_has_too_much():
    exact = Factors(PHI, A, BASELINE_A), Factors(PSI, B, BASELINE_B)
    assert len(exact[0]) == 1
    assert (exact[0] @ exact[1]).tolist() == [contract(PHI, PSI).tolist()]
    assert exact[0].convergence_delta(exact[1]).tolist() == [[0.0]]
    off = Factors(PHI, A + torch.tensor([0.0, 0.25]), BASELINE_A)
    assert off.convergence_delta(exact[1]).tolist() == [[-1.0]]


def test_factors_of_several_batches_are_one():
    generator = torch.Generator().manual_seed(0)

    def factors(n, tokens):
        parts = ((n, tokens, 3), (n, 3), (n, 3))
        return Factors(*(torch.randn(shape, generator=generator) for shape in parts))

    short, long, other = factors(2, 4), factors(3, 6), factors(1, 5)
    joined = Factors.cat([short, long])
    maps = joined @ other
    assert maps.shape == (5, 1, 6, 5)
    assert torch.equal(maps[:2, :, :4], short @ other)
    assert maps[:2, :, 4:].count_nonzero() == 0
    assert torch.equal(maps[2:], long @ other)
    # Products of more rows may round otherwise.
    delta = joined[2:].convergence_delta(other)
    assert torch.allclose(joined.convergence_delta(other)[2:], delta, atol=1e-6)
    with pytest.raises(ValueError, match="must have one dimension, but have"):
        Factors.cat([short, Factors(torch.ones(1, 4, 2), torch.ones(1, 2), torch.ones(1, 2))])
