"""The last post-norm block in closed form, against automatic differentiation of the block."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from torch import Tensor
from torch.autograd.functional import jacobian
from transformers.models.altclip.modeling_altclip import AltRobertaModel

from captum_interactions import SecondOrderIntegratedGradients, wrap
from captum_interactions.attr._utils.path import Path
from captum_interactions.encoders.model import post_norm_path
from captum_interactions.encoders.model.post_norm_path import MeanAlong, post_norm_parts
from tests.expected import relative_error

SIZES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 60, "max_position_embeddings": 20, "pad_token_id": 0,
}  # fmt: skip
NAMES = (
    *(
        "AlignText",
        "AltRoberta",
        "Bert",
        "Camembert",
        "ChineseCLIPText",
        "ClapText",
        "Data2VecText",
        "Electra",
    ),
    *("Roberta", "XLMRoberta"),
)
IDS = torch.tensor([[1, 5, 9, 7, 2], [1, 8, 2, 0, 0]])
OTHER = torch.tensor([[1, 9, 11, 2], [1, 20, 30, 2]])
MASK = (IDS != 0).long()


def _model(name: str = "Bert") -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "AltRoberta":
        model = AltRobertaModel(transformers.AltCLIPTextConfig(**SIZES)).eval()
    else:
        config = getattr(transformers, f"{name}Config")(**SIZES)
        model = getattr(transformers, f"{name}Model")(config).eval()
    with torch.no_grad():  # every part matters
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def _last_block(model: torch.nn.Module) -> torch.nn.Module:
    return (getattr(model.encoder, "layer", None) or model.encoder.layers)[-1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "weights",
    [(0.25, 0.25, 0.25, 0.25), (0, 1, 0, 0), (0.5, 0, 0.2, 0.3), (1.0,), (*8 * [0.1], 0, 0.2)],
    ids=["mean", "one of four", "weighted", "a single token", "long"],
)
@pytest.mark.parametrize("at_once", [1, 2**22], ids=["point by point", "both points"])
def test_mean_and_derivatives_are_those_of_the_block(name, weights, at_once, monkeypatch):
    """Four tokens of four heads are more vectors than the block is wide, one token is not.

    Eight outputs or more are summed head by head, fewer token by token.
    """
    monkeypatch.setattr(post_norm_path, "_AT_ONCE", at_once)
    block = _last_block(_model(name)).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    n_tokens = len(weights)
    start, end = torch.randn(2, n_tokens, 16, generator=generator, dtype=torch.float64)
    weights = torch.tensor(weights, dtype=torch.float64)
    points = torch.tensor([0.1, 0.7], dtype=torch.float64)
    means, derivatives = MeanAlong(post_norm_parts(block), start, end, weights).derivatives(points)

    def mean(z: Tensor) -> Tensor:
        states = start + z.unsqueeze(-1) * (end - start)
        output = block(states.unsqueeze(0))
        output = output[0] if isinstance(output, tuple) else output
        return weights @ output.reshape(n_tokens, 16)

    for point, actual, own in zip(points, means, derivatives, strict=True):
        z = point.expand(n_tokens).clone()
        # Some of these blocks compute the softmax in float32 whatever their type.
        torch.testing.assert_close(actual, mean(z), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(own, jacobian(mean, z).T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalization", ["cosine", "frozen", "none"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_maps_are_those_of_automatic_differentiation(normalization, pooling, monkeypatch):
    wrapper = wrap(_model().double(), pooling=pooling)
    explainer = SecondOrderIntegratedGradients(wrapper, (-1, -1), normalization=normalization)
    groups = [[[1, 2], [3]], [[1], [2]]]

    def maps() -> list[Tensor]:
        options = {"additional_forward_args": (MASK, None), "n_steps": 3}
        parts = explainer.decompose((IDS, OTHER), **options)
        return [
            explainer.attribute((IDS, OTHER), **options),
            explainer.attribute(
                (IDS, OTHER), groups_a=groups[0], groups_b=groups[1],
                baselines=([0, 4], None), **options,
            ),
            parts.main_effects_a, parts.main_effects_b,
        ]  # fmt: skip

    actual = maps()
    assert not actual[0][1, 3:].any()  # padding
    monkeypatch.setattr(Path, "has_closed_form", False)
    # Rounding of float64 through two blocks and sums of 5 x 5 terms.
    for one, expected in zip(actual, maps(), strict=True):
        assert relative_error(one, expected) < 1e-10


def test_single_precision(monkeypatch):
    wrapper = wrap(_model(), pooling="mean")
    explainer = SecondOrderIntegratedGradients(wrapper, (-1, -1))
    exact = SecondOrderIntegratedGradients(
        wrap(copy.deepcopy(wrapper.tower_a.model).double(), pooling="mean"), (-1, -1)
    )
    options = {"additional_forward_args": (MASK, None), "n_steps": 3}
    monkeypatch.setattr(Path, "has_closed_form", False)
    expected = exact.attribute((IDS, OTHER), **options)
    error_of_autograd = relative_error(
        explainer.attribute((IDS, OTHER), **options).double(), expected
    )
    monkeypatch.undo()
    error = relative_error(explainer.attribute((IDS, OTHER), **options).double(), expected)
    # As precise as automatic differentiation, up to the luck of rounding.
    assert error < 10 * max(error_of_autograd, 1e-7)


def test_a_hook_behind_the_block_is_seen(monkeypatch):
    model = _model().double()
    wrapper = wrap(model, pooling="mean")
    explainer = SecondOrderIntegratedGradients(wrapper, (-1, -1))

    def first_token_twice(_, __, output):
        output = output[0] if isinstance(output, tuple) else output
        return torch.cat([2 * output[:, :1], output[:, 1:]], 1)

    handle = model.encoder.layer[-1].output.register_forward_hook(first_token_twice)
    assert post_norm_parts(_last_block(model)) is None
    handle.remove()
    handle = model.encoder.register_forward_hook(
        lambda _, __, output: type(output)(
            last_hidden_state=first_token_twice(None, None, output.last_hidden_state)
        )
    )
    actual = explainer.attribute((IDS[:1], OTHER[:1]), n_steps=3)
    monkeypatch.setattr(Path, "has_closed_form", False)
    expected = explainer.attribute((IDS[:1], OTHER[:1]), n_steps=3)
    handle.remove()
    assert relative_error(actual, expected) < 1e-10


def test_changed_blocks_run_as_they_are():
    block = _last_block(_model())
    assert post_norm_parts(block) is not None
    block.attention.self.value = torch.nn.Sequential(block.attention.self.value)
    assert post_norm_parts(block) is None
    other = _last_block(_model())
    other.extra = torch.nn.Linear(2, 2)
    assert post_norm_parts(other) is None
