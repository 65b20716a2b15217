"""InteractionCAM against mixed second derivatives, one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_interactions import DualEncoderWrapper, wrap
from captum_interactions.attr import InteractionCAM
from tests import models
from tests.expected import relative_error

GENERATOR = torch.Generator().manual_seed(0)
STATES = tuple(torch.randn(1, *shape, generator=GENERATOR) for shape in ((5, 4), (3, 2)))


def toy(dimension):
    return wrap((models.Attention(4, dimension), models.Attention(2, dimension, seed=1)))


@pytest.mark.parametrize("dimension", [6, 2], ids=["by token", "by dimension"])
@pytest.mark.parametrize("normalization", ["cosine", "none"])
def test_the_formula(dimension, normalization):
    wrapper = toy(dimension)

    def score(x, y):
        if normalization == "cosine":
            return wrapper(x, y).squeeze()
        return (wrapper.encode_a(x) * wrapper.encode_b(y)).sum()

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        mixed = torch.autograd.functional.hessian(score, STATES)[0][1]
    weights = mixed.squeeze().reshape(5, 4, 3, 2).mean((0, 2))
    expected = STATES[0][0] @ weights @ STATES[1][0].T
    actual = InteractionCAM(wrapper, normalization=normalization).attribute(STATES)
    assert relative_error(actual[0], expected) < 1e-4


def test_padding_does_not_count():
    towers = models.Sentences(), models.Sentences()
    wrapper = DualEncoderWrapper(*towers)
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 9]])
    mask = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    cam = InteractionCAM(wrapper, (1, 0))
    both = cam.attribute((ids, ids.flip(0)), None, None, (mask, mask.flip(0)))
    short = ids[1:, :3], mask[1:, :3]
    alone = cam.attribute((short[0], ids[:1]), None, None, (short[1], mask[:1]))
    assert both[1, 3:].count_nonzero() == both[0, :, 3:].count_nonzero() == 0
    assert relative_error(both[1, :3], alone[0]) < 1e-5


def test_functions_without_second_derivatives(monkeypatch):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return gradient

    wrapper = toy(6)
    a, b = wrapper.tower_a.function, wrapper.tower_b.function
    once = wrap((lambda x: a(Once.apply(x)), lambda y: b(Once.apply(y))))
    expected = InteractionCAM(wrapper).attribute(STATES)
    assert relative_error(InteractionCAM(once).attribute(STATES), expected) < 1e-5


def test_the_shorter_side_makes_no_difference():
    wrapper = toy(6)
    mirrored = wrap((wrapper.tower_b.function, wrapper.tower_a.function))
    maps = InteractionCAM(wrapper).attribute(STATES)
    other = InteractionCAM(mirrored).attribute(STATES[::-1])
    assert relative_error(other.transpose(1, 2), maps) < 1e-5


@pytest.mark.parametrize("layers", [(-1, -1), (0, 1)])
def test_marginals_are_grad_cam_with_weights_of_the_other(wrapper, layers):
    """Summed over b, the map is Grad-CAM of a for the part of the score that b's tokens make."""
    inputs, mask = (models.images(2), models.captions(7, 5)[0]), models.captions(7, 5)[1]
    cam = InteractionCAM(wrapper, layers)
    maps = cam.attribute(inputs, None, None, mask)
    assert (
        relative_error(cam.attribute(inputs, None, None, mask, internal_batch_size=1), maps) < 1e-5
    )
    tower = wrapper.tower_b
    states, context = tower.prefix(tower.resolve_layer(layers[1]), inputs[1], mask)
    active = mask.float()

    def embed_b(x):
        return nn.functional.normalize(
            tower.tail(tower.resolve_layer(layers[1]), x, *context), dim=-1
        )

    pooled = (states * active.unsqueeze(-1)).sum(1, keepdim=True) / active.sum(1)[:, None, None]
    direction = (pooled * active.unsqueeze(-1)).detach()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        _, tangent = torch.autograd.functional.jvp(embed_b, states.detach(), direction)
    tower, layer = wrapper.tower_a, wrapper.tower_a.resolve_layer(layers[0])
    x, context = tower.prefix(layer, inputs[0])
    x = x.detach().requires_grad_()
    embedding = nn.functional.normalize(tower.tail(layer, x, *context), dim=-1)
    (gradient,) = torch.autograd.grad((embedding * tangent).sum(), x)
    expected = (x * gradient.mean(1, keepdim=True)).sum(-1).detach()
    assert relative_error(maps.sum(2), expected) < 1e-4


def test_features_without_channels_are_refused():
    wrapper = wrap((nn.Linear(4, 3), nn.Linear(5, 3)))
    with pytest.raises(ValueError, match=r"features of shape \(B, T, D\)"):
        InteractionCAM(wrapper).attribute((torch.rand(1, 4), torch.rand(1, 5)))
    with pytest.raises(ValueError, match="no baseline"):
        InteractionCAM(toy(3)).attribute(STATES, 0.0)
