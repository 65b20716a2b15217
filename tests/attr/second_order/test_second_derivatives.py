"""Operations without a second derivative, and what is left behind after they were met."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.functional import NotTwiceDifferentiableError, integrated_jvp, quadrature
from tests import models
from tests.expected import relative_error
from tests.oracle import feature_map


class Once(torch.autograd.Function):
    """A sine that says that it has no second derivative."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * ctx.saved_tensors[0].cos()


class Opaque(torch.autograd.Function):
    """A sine whose backward pass autograd cannot see, as in kernels that write to raw memory."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.detach() * ctx.saved_tensors[0].detach().cos()


class Sine(nn.Module):
    """A small encoder (B, F) -> (B, K) around one of these sines, with a way past it."""

    def __init__(self, sine: type[torch.autograd.Function], way_past: bool = True) -> None:
        super().__init__()
        self.sine, self.way_past = sine, way_past
        self.inner, self.head = models.mlp(4, 4), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(x)
        return self.head(self.sine.apply(hidden) + (hidden if self.way_past else 0))


def flash_alone(x: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return models.Attention()(x)


@pytest.fixture(params=["once", "opaque", "opaque without a way past"])
def tower(request):
    sine = Once if request.param == "once" else Opaque
    return Sine(sine, way_past="without" not in request.param)


def test_jvp_refuses(tower):
    with pytest.raises(NotTwiceDifferentiableError):
        integrated_jvp(
            tower, torch.zeros(1, 4), torch.ones(2, 4), torch.eye(4)[:, None], quadrature()
        )


def test_jvp_refuses_fused_attention_that_a_function_insists_on():
    with pytest.raises(NotTwiceDifferentiableError, match="second derivative.*not implemented"):
        integrated_jvp(
            flash_alone,
            torch.zeros(1, 3, 6),
            torch.ones(2, 3, 6),
            torch.ones(1, 1, 1, 1),
            quadrature(),
        )


def test_other_errors_pass_through():
    def function(x: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory") as caught:
        integrated_jvp(
            function, torch.zeros(1, 4), torch.ones(2, 4), torch.ones(1, 1, 4), quadrature()
        )
    assert not isinstance(caught.value, NotTwiceDifferentiableError)


@pytest.mark.parametrize("groups", [None, [[0, 1], [2]]])
def test_attributions_are_right_all_the_same(tower, groups, caplog):
    caplog.set_level("INFO", "captum_interactions")
    other = models.mlp(9, 6)
    inputs = torch.rand(1, 4), torch.rand(1, 9)
    soig = SecondOrderIntegratedGradients(wrap((tower, other)), normalization="none")
    actual = soig.attribute(inputs, n_steps=7, groups_a=groups)[0]
    rule = quadrature(n_steps=7)
    paths = [(torch.zeros_like(x[0]), x[0]) for x in inputs]
    expected = feature_map(tower, other, *paths, *rule)
    if groups is not None:
        expected = torch.stack([expected[group].sum(0) for group in groups])
    assert relative_error(actual, expected) < 1e-5
    assert f"6 products a node instead of {4 if groups is None else 2}" in caplog.text


@pytest.mark.parametrize("function", [models.Attention(), flash_alone, lambda x: 1 / 0])
def test_attention_backends_are_as_before(function):
    def backends() -> list[bool]:
        cuda = torch.backends.cuda
        return [
            cuda.flash_sdp_enabled(),
            cuda.math_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            cuda.cudnn_sdp_enabled(),
        ]

    before = backends()
    with contextlib.suppress(NotTwiceDifferentiableError, ZeroDivisionError):
        integrated_jvp(
            function,
            torch.zeros(1, 3, 6),
            torch.ones(2, 3, 6),
            torch.ones(1, 1, 1, 1),
            quadrature(),
        )
    assert backends() == before
    assert before[0]


def test_a_missing_path_is_noticed_whatever_the_direction():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @once_differentiable
        def backward(ctx, gradient):
            return gradient

    weight = torch.randn(4, 3)
    with pytest.raises(NotTwiceDifferentiableError, match="no path"):
        integrated_jvp(
            lambda x: Once.apply(x) @ weight,
            torch.zeros(1, 4),
            torch.ones(1, 4),
            torch.zeros(2, 1, 4),
            quadrature(n_steps=2),
        )
