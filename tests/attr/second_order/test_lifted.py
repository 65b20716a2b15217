"""Captum's explainers, lifted: against Captum itself, against sums, and written out."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from captum.attr import (
    DeepLift,
    DeepLiftShap,
    FeatureAblation,
    FeaturePermutation,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerFeatureAblation,
    LayerGradCam,
    LayerIntegratedGradients,
    NeuronGradient,
    NoiseTunnel,
    Occlusion,
    Saliency,
    ShapleyValues,
    ShapleyValueSampling,
)
from torch import nn

from captum_interactions import DualEncoderWrapper, SecondOrderIntegratedGradients, wrap
from captum_interactions.attr import InteractionCAM, LiftedAttribution
from captum_interactions.functional import corner_difference
from tests import models
from tests.ablation import Game
from tests.expected import relative_error

PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)
INPUTS = PIXELS, IDS
VECTORS = tuple(torch.rand(2, n, generator=torch.Generator().manual_seed(n)) for n in (6, 9))


@pytest.fixture(scope="module")
def of_callables():
    return wrap((models.mlp(6), models.mlp(9, seed=1)))


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("layers", [(-1, -1), (0, 1), ("input", 0)])
@pytest.mark.parametrize("explainer", [IntegratedGradients, LayerIntegratedGradients])
def test_integrated_gradients_are_second_order_ones(wrapper, explainer, layers, side):
    lifted = LiftedAttribution(wrapper, layers, explainer=explainer, side=side)
    soig = SecondOrderIntegratedGradients(wrapper, layers)
    options = {"additional_forward_args": MASK, "n_steps": 6, "method": "riemann_middle"}
    actual, expected = (method.decompose(INPUTS, **options) for method in (lifted, soig))
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("side", ["a", "b"])
def test_groups_baselines_and_chunks(wrapper, side):
    lifted = LiftedAttribution(wrapper, (1, 1), explainer=IntegratedGradients, side=side)
    soig = SecondOrderIntegratedGradients(wrapper, (1, 1))
    options = {
        "baselines": ([0.0, 0.3], [0, 5]),
        "additional_forward_args": MASK,
        "n_steps": 4,
        "groups_a": [[0, 1], [4], [2, 8, 9]],
        "groups_b": torch.tensor([[0.5, 1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0]]),
    }
    expected = soig.attribute(INPUTS, **options)
    assert relative_error(lifted.attribute(INPUTS, **options), expected) < 1e-5
    chunked = lifted.attribute(INPUTS, **options, internal_batch_size=3)
    assert relative_error(chunked, expected) < 1e-5


def by_captum(wrapper, y, explain):
    """For each feature of b a call of Captum's own, of a function written out here."""
    soig = SecondOrderIntegratedGradients(wrapper)
    psi = soig.factors_b(y).values
    columns = []
    for j in range(y.shape[1]):

        def function(x, j=j):
            embedding = wrapper.encode_a(x)
            embedding = embedding / embedding.norm(dim=1, keepdim=True)
            vectors = psi[:, j].repeat(len(x) // 2, 1)
            return (embedding * vectors).sum(1)

        columns.append(explain(function))
    return torch.stack(columns, -1)


@pytest.mark.parametrize(
    ("explainer", "options"),
    [
        (InputXGradient, {}),
        (Saliency, {"abs": False}),
        (FeatureAblation, {"perturbations_per_eval": 3}),
        (Occlusion, {"sliding_window_shapes": (2,)}),
        (Occlusion, {"sliding_window_shapes": (3,), "strides": 2, "perturbations_per_eval": 2}),
        (ShapleyValues, {}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_captum_says_of_each_part(explainer, options):
    # Shapley values take all orders of the features of a.
    x, y = VECTORS if explainer is not ShapleyValues else (part[:, :4] for part in VECTORS)
    wrapper = wrap((models.mlp(x.shape[1]), models.mlp(y.shape[1], seed=1)))
    lifted = LiftedAttribution(wrapper, explainer=explainer)
    actual = lifted.attribute((x, y), options=options)

    def explain(function):
        own = x.clone().requires_grad_()
        return explainer(function).attribute(own, **options).detach()

    assert relative_error(actual, by_captum(wrapper, y, explain)) < 1e-5


def test_shapley_values_of_all_coalitions():
    wrapper = wrap((models.mlp(4), models.mlp(3, seed=1)))
    x, y = torch.rand(1, 4), torch.rand(1, 3)
    psi = SecondOrderIntegratedGradients(wrapper).factors_b(y).values[0]
    game = Game(wrapper, ("input", "input"), (x, y))
    expected = torch.zeros(4, 3)
    for i in range(4):
        others = [k for k in range(4) if k != i]
        for size in range(4):
            weight = math.factorial(size) * math.factorial(3 - size) / math.factorial(4)
            for coalition in itertools.combinations(others, size):
                present = torch.zeros(4)
                present[list(coalition)] = 1
                before = game.embedding(0, present)
                present[i] = 1
                expected[i] += weight * (psi @ (game.embedding(0, present) - before))
    actual = LiftedAttribution(wrapper, explainer=ShapleyValues).attribute((x, y))
    assert relative_error(actual[0], expected) < 1e-4


COMPLETE = [(ShapleyValueSampling, {"n_samples": 2}), (IntegratedGradients, {})]


@pytest.mark.parametrize(("explainer", "options"), COMPLETE)
@pytest.mark.parametrize("side", ["a", "b"])
def test_efficient_methods_are_complete(wrapper, explainer, options, side):
    lifted = LiftedAttribution(wrapper, (1, 1), explainer=explainer, side=side)
    parts = lifted.decompose(INPUTS, None, MASK, options=options, n_steps=40)
    assert parts.convergence_delta.abs().max() < 1e-4
    with torch.no_grad():
        torch.testing.assert_close(parts.score, wrapper(*INPUTS, MASK), rtol=0, atol=1e-5)
    soig = SecondOrderIntegratedGradients(wrapper, (1, 1))
    a, b = soig.factors_a(PIXELS), soig.factors_b(IDS, None, MASK)
    expected = corner_difference(a.embedding, b.embedding, a.baseline, b.baseline)
    torch.testing.assert_close(parts.interactions.sum((1, 2)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layers", [(-1, -1), (0, 0), ("input", 0)])
@pytest.mark.parametrize("side", ["a", "b"])
def test_ablation_takes_whole_tokens_away(wrapper, layers, side):
    pair = PIXELS[:1], IDS[:1]
    soig = SecondOrderIntegratedGradients(wrapper, layers)
    index = "ab".index(side)
    psi = (soig.factors_b(pair[1]) if side == "a" else soig.factors_a(pair[0])).values[0]
    game = Game(wrapper, layers, pair)
    n_tokens = game.n_tokens(index)
    expected = []
    for i in range(n_tokens):
        present = torch.ones(n_tokens)
        whole = game.embedding(index, present)
        present[i] = 0
        expected.append(psi @ (whole - game.embedding(index, present)))
    expected = torch.stack(expected, 0 if side == "a" else 1)
    for explainer in (FeatureAblation, Occlusion):
        lifted = LiftedAttribution(wrapper, layers, explainer=explainer, side=side)
        assert relative_error(lifted.attribute(pair)[0], expected) < 1e-4


def test_ablation_of_groups_that_leave_tokens_out(wrapper):
    groups = [[0, 3], [5, 6, 7]]
    lifted = LiftedAttribution(wrapper, (1, 1), explainer=FeatureAblation)
    actual = lifted.attribute(INPUTS, None, None, MASK, groups_a=groups)
    psi = SecondOrderIntegratedGradients(wrapper, (1, 1)).factors_b(IDS, None, MASK).values
    game = Game(wrapper, (1, 1), (PIXELS[:1], IDS[:1]))
    for index, group in enumerate(groups):
        present = torch.ones(10)
        whole = game.embedding(0, present)
        present[group] = 0
        expected = psi[0] @ (whole - game.embedding(0, present))
        torch.testing.assert_close(actual[0, index], expected, rtol=1e-3, atol=1e-5)


def test_one_evaluation_serves_all_tokens_of_the_other_input():
    class Counting(nn.Module):
        rows = 0

        def __init__(self):
            super().__init__()
            self.encoder = models.mlp(6)

        def forward(self, x):
            self.rows += len(x)
            return self.encoder(x)

    counting = Counting()
    lifted = LiftedAttribution(wrap((counting, models.mlp(9, seed=1))), explainer=FeatureAblation)
    expected = LiftedAttribution(
        wrap((counting.encoder, models.mlp(9, seed=1))), explainer=FeatureAblation
    ).attribute(VECTORS)
    for size in (1, 4):
        counting.rows = 0
        actual = lifted.attribute(VECTORS, options={"perturbations_per_eval": size})
        assert relative_error(actual, expected) < 1e-5
        # Seven evaluations of two examples, and those that open the path.
        assert counting.rows <= 2 * 7 + 8


def test_gradient_shap_keeps_baselines_to_their_examples():
    a, b = nn.Linear(6, 4), nn.Linear(9, 4)
    baseline = torch.randn(2, 6)
    lifted = LiftedAttribution(wrap((a, b)), explainer=GradientShap, normalization="none")
    torch.manual_seed(0)
    actual = lifted.attribute(VECTORS, (baseline, None), options={"n_samples": 4})
    weights = torch.einsum("ki,kj->ij", a.weight, b.weight).detach()
    expected = (VECTORS[0] - baseline).unsqueeze(2) * weights * VECTORS[1].unsqueeze(1)
    # The encoder is linear, so each example's difference from its own baseline is exact.
    assert relative_error(actual, expected) < 1e-5


def test_gradient_shap_nears_its_expectation(of_callables):
    torch.manual_seed(0)
    lifted = LiftedAttribution(of_callables, explainer=GradientShap)
    actual = lifted.attribute(VECTORS, options={"n_samples": 2000})
    expected = SecondOrderIntegratedGradients(of_callables).attribute(VECTORS)
    assert relative_error(actual, expected) < 0.05


def relu_tower(features, seed):
    layers = nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 5)
    return models.randomise(nn.Sequential(*layers), seed)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.parametrize("explainer", [DeepLift, DeepLiftShap])
@pytest.mark.parametrize("normalization", ["none", "frozen"])
def test_deep_lift_sums_up_for_modules_that_run_once(explainer, normalization):
    wrapper = wrap((relu_tower(6, 0), relu_tower(9, 1)))
    lifted = LiftedAttribution(wrapper, explainer=explainer, normalization=normalization)
    baselines = ([torch.zeros(2, 6), -torch.ones(2, 6)], None)
    if explainer is DeepLift:
        baselines = (torch.zeros(2, 6), None)
    parts = lifted.decompose(VECTORS, baselines, n_steps=400)
    b = SecondOrderIntegratedGradients(wrapper, normalization=normalization).factors_b(
        VECTORS[1], n_steps=400
    )
    a = SecondOrderIntegratedGradients(wrapper, normalization=normalization).factors_a(
        VECTORS[0], baselines[0], n_steps=1
    )
    expected = b.values @ (a.embedding - a.baseline).unsqueeze(-1)
    assert relative_error(parts.interactions.sum(1), expected.squeeze(-1)) < 1e-4


def test_grad_cam_of_both_sides_is_interaction_cam(wrapper):
    """With one side's factors, Grad-CAM of the other is what InteractionCAM makes of them."""
    states = torch.rand(1, 5, 4), torch.rand(1, 6, 3)
    towers = models.Attention(4, 5), models.Attention(3, 5, seed=1)
    pair = wrap(towers)
    actual = LiftedAttribution(pair, explainer=LayerGradCam).attribute(states)
    psi = SecondOrderIntegratedGradients(pair).factors_b(states[1]).values
    x = states[0].clone().requires_grad_()
    embedding = nn.functional.normalize(towers[0](x), dim=-1)
    for j in range(6):
        score = (embedding * psi[:, j]).sum()
        (gradient,) = torch.autograd.grad(score, x, retain_graph=True)
        expected = (states[0] * gradient.mean(1, keepdim=True)).sum(-1)
        torch.testing.assert_close(actual[:, :, j], expected, rtol=1e-4, atol=1e-6)
    # Linear towers have the same CAM with factors of either kind.
    linear = wrap(
        (lambda x: (x @ torch.ones(4, 2)).mean(1), lambda y: (y @ torch.ones(3, 2)).mean(1))
    )
    lifted = LiftedAttribution(linear, explainer=LayerGradCam, normalization="none")
    cam = InteractionCAM(linear, normalization="none")
    assert relative_error(lifted.attribute(states), cam.attribute(states)) < 1e-5


@pytest.mark.filterwarnings("ignore:You are providing multiple inputs")
def test_other_explainers_run(wrapper):
    for explainer, options in (
        (KernelShap, {"n_samples": 40}),
        (lambda f: NoiseTunnel(IntegratedGradients(f)), {"nt_samples": 2, "stdevs": 0.0}),
        (lambda f: LayerGradCam(f, f.features), {"relu_attributions": True}),
    ):
        lifted = LiftedAttribution(wrapper, (1, 1), explainer=explainer)
        maps = lifted.attribute(INPUTS, None, None, MASK, options=options)
        assert maps.shape == (2, 10, 7)
        assert maps[1, :, 5:].count_nonzero() == 0
        assert maps.abs().max() > 1e-3
    expected = SecondOrderIntegratedGradients(wrapper, (1, 1)).attribute(INPUTS, None, None, MASK)
    lifted = LiftedAttribution(
        wrapper, (1, 1), explainer=lambda f: NoiseTunnel(IntegratedGradients(f))
    )
    noise = {"nt_samples": 2, "stdevs": 0.0}
    actual = lifted.attribute(INPUTS, None, None, MASK, options=noise)
    assert relative_error(actual, expected) < 1e-5


@pytest.mark.parametrize(
    ("explainer", "error", "message"),
    [
        (NeuronGradient, ValueError, "explains a neuron"),
        (FeaturePermutation, ValueError, "take FeatureAblation"),
        (LayerFeatureAblation, ValueError, "take FeatureAblation"),
        ("DeepLift", TypeError, "a class of captum.attr"),
    ],
)
def test_what_has_no_twin_is_refused(wrapper, explainer, error, message):
    with pytest.raises(error, match=message):
        LiftedAttribution(wrapper, explainer=explainer)


def test_saliency_is_refused_with_a_reason(of_callables):
    lifted = LiftedAttribution(of_callables, explainer=Saliency)
    with pytest.raises(ValueError, match="absolute values.*options={'abs': False}"):
        lifted.attribute(VECTORS)


def test_bad_options(of_callables):
    lifted = LiftedAttribution(of_callables)
    with pytest.raises(TypeError, match="InputXGradient has no option n_samples"):
        lifted.attribute(VECTORS, options={"n_samples": 3})
    with pytest.raises(TypeError, match="these are set here"):
        LiftedAttribution(of_callables, explainer=IntegratedGradients).attribute(
            VECTORS, options={"return_convergence_delta": True}
        )
    with pytest.raises(TypeError, match="must give an Attribution"):
        LiftedAttribution(of_callables, explainer=lambda f: f).attribute(VECTORS)
    with pytest.raises(ValueError, match="a sliding window has no groups_a"):
        LiftedAttribution(of_callables, explainer=Occlusion).attribute(VECTORS, groups_a=[[0]])
    with pytest.raises(ValueError, match="of whole tokens, and share none"):
        LiftedAttribution(of_callables, explainer=FeatureAblation).attribute(
            VECTORS, groups_a=[[0], [0, 1]]
        )
    with pytest.raises(ValueError, match="side must be"):
        LiftedAttribution(of_callables, side="c")


def test_one_encoder_for_both_sides():
    tower = models.Sentences()
    shared = DualEncoderWrapper(tower, tower)
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 9]])
    mask = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    pair, extras = (ids, ids.flip(0)), (mask, mask.flip(0))
    expected = SecondOrderIntegratedGradients(shared, (0, 1)).attribute(pair, None, None, extras)
    for explainer in (IntegratedGradients, LayerIntegratedGradients):
        lifted = LiftedAttribution(shared, (0, 1), explainer=explainer)
        assert relative_error(lifted.attribute(pair, None, None, extras), expected) < 1e-5
