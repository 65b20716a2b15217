"""Integrated Jacobian products against dense Jacobians."""

from __future__ import annotations

import pytest
import torch
from torch.func import jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_interactions.functional import METHODS, integrated_jvp, integrated_vjp, quadrature
from tests import models

B, T, D, K = 4, 3, 6, 5
TOKENS = torch.eye(T).reshape(T, 1, T, 1)


@pytest.fixture(scope="module", params=["attention", "scaled by an argument"])
def case(request):
    """(function, args): args have one row an example, or are plain values."""
    model = models.Attention(D, K)
    if request.param == "attention":
        return model, ()
    scales = torch.tensor([0.5, 1.0, -1.0, 2.0])

    def function(x, scale, power):
        return model(x) ** power * scale[:, None]

    return function, (scales, 2)


@pytest.fixture(scope="module")
def path():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(B, T, D, generator=generator) for _ in range(2))


def dense(case, path, rule):
    """Integrated Jacobians (B, K, T, D), one example and one node at a time."""
    function, args = case
    integrals = []
    for index in range(B):
        start, end = (points[index] for points in path)
        own = [arg[index : index + 1] if torch.is_tensor(arg) else arg for arg in args]
        jacobian = jacrev(lambda x, own=own: function(x[None], *own)[0])
        with sdpa_kernel(SDPBackend.MATH):  # vmap has no rule for fused attention
            jacobians = [jacobian(start + alpha * (end - start)) for alpha in rule.nodes]
        integrals.append(torch.einsum("n,nktd->ktd", rule.weights, torch.stack(jacobians)))
    return torch.stack(integrals)


@pytest.mark.parametrize("internal_batch_size", [None, 1, 3, 4, 10, 1000])
@pytest.mark.parametrize("method", METHODS)
def test_jvp_is_the_dense_product(case, path, method, internal_batch_size):
    rule = quadrature(method, 5)
    function, args = case
    start, end = path
    actual = integrated_jvp(
        function, start, end, TOKENS, rule, args=args, internal_batch_size=internal_batch_size
    )
    expected = torch.einsum("bktd,btd->tbk", dense(case, path, rule), end - start)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("internal_batch_size", [None, 1, 3, 4, 10, 1000])
@pytest.mark.parametrize("method", METHODS)
def test_vjp_is_the_dense_product(case, path, method, internal_batch_size):
    rule = quadrature(method, 5)
    function, args = case
    cotangents = torch.randn(2, B, K, generator=torch.Generator().manual_seed(1))
    actual = integrated_vjp(
        function, *path, cotangents, rule, args=args, internal_batch_size=internal_batch_size
    )
    expected = torch.einsum("cbk,bktd->cbtd", cotangents, dense(case, path, rule))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_masks_and_directions_of_one_row_or_of_one_row_an_example(case, path):
    rule = quadrature("gausslegendre", 4)
    function, args = case
    direction = torch.randn(B, T, D, generator=torch.Generator().manual_seed(2))
    weights = torch.rand(2, B, T, 1, generator=torch.Generator().manual_seed(3))
    jacobian = dense(case, path, rule)
    for masks in (weights, weights[:, :1]):
        actual = integrated_jvp(function, *path, masks, rule, args=args, direction=direction)
        expected = torch.einsum("bktd,gbtd->gbk", jacobian, masks * direction)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_one_start_and_one_cotangent_serve_all_examples(case, path):
    rule = quadrature("gausslegendre", 4)
    function, args = case
    start, end = path[0][:1], path[1]
    jacobian = dense(case, (start.expand(B, T, D), end), rule)
    pushed = integrated_jvp(function, start, end, TOKENS, rule, args=args)
    expected = torch.einsum("bktd,btd->tbk", jacobian, end - start)
    torch.testing.assert_close(pushed, expected, rtol=1e-5, atol=1e-6)
    basis = torch.eye(K).unsqueeze(1)
    pulled = integrated_vjp(function, start, end, basis, rule, args=args)
    torch.testing.assert_close(pulled, jacobian.transpose(0, 1), rtol=1e-5, atol=1e-6)


def test_reduce_sees_the_gradients_of_its_rows(case, path):
    rule = quadrature("gausslegendre", 4)
    function, args = case
    basis = torch.eye(K).unsqueeze(1)
    scales = torch.tensor([1.0, 10.0, 100.0, 1000.0])[:, None]
    options = {"args": args, "internal_batch_size": 3}
    actual = integrated_vjp(
        function, *path, basis, rule, reduce=lambda g, rows: g.sum(-1) * scales[rows], **options
    )
    expected = integrated_vjp(function, *path, basis, rule, **options).sum(-1) * scales
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_products_add_up_to_the_difference_of_the_ends(case, path):
    function, args = case
    start, end = path
    total = integrated_jvp(function, start, end, TOKENS, quadrature(n_steps=30), args=args).sum(0)
    with torch.no_grad():
        expected = function(end, *args) - function(start, *args)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)


def test_small_cotangents_survive_half_precision():
    model = torch.nn.Linear(3, 3, bias=False, dtype=torch.bfloat16)
    torch.nn.init.eye_(model.weight)
    end = torch.ones(1, 3, dtype=torch.bfloat16)
    cotangents = torch.tensor([1e-35, 1e-30, 0.0]).diag().unsqueeze(1)
    product = integrated_vjp(model, end * 0, end, cotangents, quadrature(n_steps=1))
    torch.testing.assert_close(product, cotangents, rtol=1e-6, atol=0)


def test_the_number_of_evaluated_rows_is_bounded(path):
    model, seen = models.Attention(D, K), []

    def function(x):
        seen.append(len(x))
        return model(x)

    for bound, sizes in ((1, {1}), (3, {1, 3}), (8, {8}), (11, {8}), (20, {20})):
        seen.clear()
        integrated_jvp(function, *path, TOKENS, quadrature(n_steps=10), internal_batch_size=bound)
        assert sum(seen) == 10 * B
        assert set(seen) == sizes


@pytest.mark.parametrize("product", ["jvp", "vjp"])
def test_each_product_is_reported(path, product):
    ticks = []
    model, rule = models.Attention(D, K), quadrature(n_steps=6)
    options = {"internal_batch_size": 8, "on_product": lambda: ticks.append(1)}
    if product == "jvp":
        integrated_jvp(model, *path, TOKENS, rule, **options)
    else:
        integrated_vjp(model, *path, torch.ones(T, 1, K), rule, **options)
    assert len(ticks) == T * 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.sum(), r"must map \(20, 3, 6\) to \(20, K\), but returned shape \(\)"),
        (lambda x: x[:1].sum(1), r"must map \(20, 3, 6\) to \(20, K\), .* shape \(1, 6\)"),
        (lambda x: x.detach().sum(1), "does not depend differentiably on its input"),
        (
            lambda x: x.detach().sum(1) * torch.ones(1, requires_grad=True),
            "does not depend differentiably on its input",
        ),
    ],
    ids=["a scalar", "too few rows", "detached", "detached, with parameters"],
)
@pytest.mark.parametrize("product", ["jvp", "vjp"])
def test_bad_functions(path, product, function, message):
    rule = quadrature(n_steps=5)
    take = {"jvp": integrated_jvp, "vjp": integrated_vjp}[product]
    along = {"jvp": TOKENS, "vjp": torch.ones(1, 1, 6)}[product]
    with pytest.raises(ValueError, match=message):
        take(function, *path, along, rule)


def test_bad_internal_batch_size(path):
    with pytest.raises(ValueError, match="internal_batch_size must be at least 1, but got 0"):
        integrated_jvp(
            models.Attention(D, K), *path, TOKENS, quadrature(n_steps=2), internal_batch_size=0
        )
