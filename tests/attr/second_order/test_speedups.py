"""What makes products cheaper changes no number."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.activations import ACT2FN

from benchmarks import steps
from captum_interactions import SecondOrderIntegratedGradients, explain, wrap
from captum_interactions.attr._utils.inputs import path_of
from captum_interactions.attr._utils.products import jacobian_products
from captum_interactions.encoders.model.activations import tabulated_activations
from captum_interactions.encoders.model.per_head import per_head
from captum_interactions.encoders.towers.block_tower import BlockTower
from captum_interactions.functional import integrated_jvp, integrated_vjp, quadrature
from captum_interactions.functional.memory import memory_budget, rows_that_fit
from tests import models
from tests.expected import relative_error

PIXELS, (IDS, MASK) = models.images(2), models.captions(9, 6)


@pytest.mark.parametrize("name", ["quick_gelu", "gelu", "gelu_new", "gelu_fast", "silu", "torch"])
def test_tabulated_activations_have_the_same_derivative(name):
    activation = nn.GELU() if name == "torch" else ACT2FN[name]
    x = torch.linspace(-5, 5, 101).requires_grad_()
    expected = activation(x)
    (slope,) = torch.autograd.grad(expected.sum(), x, create_graph=True)
    assert slope.requires_grad
    with tabulated_activations(nn.Sequential(activation)):
        actual = activation(x)
        (tabulated,) = torch.autograd.grad(actual.sum(), x, create_graph=True)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(tabulated, slope)
    assert not tabulated.requires_grad
    assert "forward" not in vars(activation)


def test_activations_of_the_users_own_run_as_they_are():
    class GELU(nn.GELU):
        def forward(self, x: Tensor) -> Tensor:
            return x.sin()

    hooked, own, inplace = nn.GELU(), GELU(), nn.SiLU(inplace=True)
    hooked.register_forward_hook(lambda _, __, output: 2 * output)
    x = torch.rand(3).requires_grad_()
    for module in (hooked, own, nn.Sequential(nn.Identity(), nn.Linear(3, 3), inplace)):
        with tabulated_activations(module):
            (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
        assert slope.requires_grad


@pytest.mark.parametrize("layers", [("input", 0), (0, 0), (1, 2), (2, 1)])
def test_maps_with_plain_activations(clip, layers, monkeypatch):
    soig = SecondOrderIntegratedGradients(wrap(clip), layers)
    options = {"additional_forward_args": MASK, "n_steps": 5}
    quick = soig.attribute((PIXELS, IDS), **options)
    monkeypatch.setattr("captum_interactions.encoders.model.activations._NAMES", set())
    assert relative_error(quick, soig.attribute((PIXELS, IDS), **options)) < 1e-5


@pytest.mark.parametrize("take", [integrated_jvp, integrated_vjp])
def test_products_at_once_are_those_one_by_one(take):
    function = models.mlp(6)
    start, end = torch.zeros(1, 6), torch.rand(3, 6)
    along = torch.eye(6)[:, None] if take is integrated_jvp else torch.eye(5)[:, None]
    one, many = (take(function, start, end, along, quadrature(), batched=b) for b in (False, True))
    torch.testing.assert_close(one, many)


class Sine(torch.autograd.Function):
    """What remembers its input, for backward passes of its own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()


class NoVmap(Sine):
    """A sine whose backward pass leaves PyTorch, so that vmap has no rule for it."""

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(gradient.numpy() * x.cos().detach().numpy())


def test_products_at_once_where_vmap_has_no_rules():
    start, end = torch.zeros(1, 4), torch.rand(3, 4)
    basis = torch.eye(4)[:, None]
    pulled = integrated_vjp(NoVmap.apply, start, end, basis, quadrature(n_steps=9), batched=True)
    expected = torch.diag_embed(end.sin() / end).transpose(0, 1)
    torch.testing.assert_close(pulled, expected)


class Warns(Sine):
    """A sine whose backward pass has something to say."""

    @staticmethod
    def backward(ctx, gradient):
        warnings.warn("this is old", DeprecationWarning, stacklevel=2)
        return gradient * ctx.saved_tensors[0].cos()


def test_products_at_once_of_a_function_that_warns():
    start, end = torch.zeros(1, 4), torch.rand(3, 4)
    basis = torch.eye(4)[:, None]
    with pytest.warns(DeprecationWarning, match="this is old"):
        pulled = integrated_vjp(Warns.apply, start, end, basis, quadrature(n_steps=9), batched=True)
    torch.testing.assert_close(pulled, torch.diag_embed(end.sin() / end).transpose(0, 1))


def test_tokens_that_do_not_differ_have_no_factor(clip):
    """The first token of a causal text is that of its baseline."""
    soig = SecondOrderIntegratedGradients(wrap(clip), (0, 0))
    path = soig._propagate((PIXELS, IDS), None, MASK)[1]
    assert 0 not in path.active
    assert not soig.factors_b(IDS, None, MASK, 3).values[:, 0].any()


def test_an_input_that_is_its_own_baseline(clip):
    soig = SecondOrderIntegratedGradients(wrap(clip), (0, 0))
    for baselines in ((None, IDS), (PIXELS, None), (PIXELS, IDS)):
        maps, delta = soig.attribute(
            (PIXELS, IDS), baselines, None, MASK, 3, return_convergence_delta=True
        )
        assert not maps.any()
        assert delta.abs().max() < 1e-6


def test_rows_that_fit_follow_what_autograd_keeps():
    layer = nn.Linear(100, 100)
    x = torch.rand(1, 100, requires_grad=True)

    def run() -> Tensor:
        return layer(x).tanh().exp()

    # Autograd keeps x, the tanh and the exponential, 400 bytes each, but no weights.
    assert rows_that_fit(run, 3 * 1200 * 10) == 10
    assert rows_that_fit(run, 0) == 1


def test_rows_that_fit_do_not_pay_for_all_rows():
    """What a row sees of a storage that holds all of them is that row's part alone."""
    states, scale = torch.rand(64, 100), torch.rand(1, 100, requires_grad=True)
    assert rows_that_fit(lambda: scale * states[:1], 3 * 400 * 10) == 10
    wide = torch.rand(1).expand(1, 100)
    assert rows_that_fit(lambda: scale * wide, 3 * 4 * 10) == 10


def test_budget_of_this_machine():
    assert 0 < memory_budget(torch.device("cpu")) <= 2**30
    assert memory_budget(torch.device("meta")) == 2**30


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/job/step", "", ("memory.max", "memory.current", "inactive_file")),
        (
            "5:cpu,memory:/job/step",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
@pytest.mark.parametrize("group", ["job/step", "job", ""])
def test_budget_of_a_container(line, folder, names, group, tmp_path, monkeypatch):
    """The least limit counts, of the own group or of one that holds it; cached files give way."""
    limit, usage, cache = names
    root = tmp_path / "groups" / folder
    for name, most in (("job/step", "max"), ("job", str(2**50)), (group, str(50 * 2**20))):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / limit).write_text(f"{most}\n")
        (root / name / usage).write_text(f"{20 * 2**20}\n")
        (root / name / "memory.stat").write_text(f"anon 5\n{cache} {10 * 2**20}\nfile 7\n")
    (tmp_path / "cgroup").write_text(f"1:name=systemd:/x\n{line}\n")
    monkeypatch.setattr("captum_interactions.functional.memory._OWN_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr("captum_interactions.functional.memory._GROUPS", tmp_path / "groups")
    assert memory_budget(torch.device("cpu")) == 10 * 2**20


@pytest.mark.parametrize("layers", [(0, 0), (-1, -1)])
def test_little_memory_means_small_pieces(clip, layers, monkeypatch):
    soig = SecondOrderIntegratedGradients(wrap(clip), layers)
    options = {"additional_forward_args": MASK, "n_steps": 10}
    expected = soig.attribute((PIXELS, IDS), **options)
    seen = []
    for name in ("tail", "project"):
        own = getattr(BlockTower, name)

        def spy(tower, *args, own=own):
            if torch.is_grad_enabled():
                seen.append(next(len(arg) for arg in args if torch.is_tensor(arg)))
            return own(tower, *args)

        monkeypatch.setattr(BlockTower, name, spy)
    monkeypatch.setattr("captum_interactions.attr._utils.products.memory_budget", lambda _: 0)
    assert relative_error(soig.attribute((PIXELS, IDS), **options), expected) < 1e-5
    assert max(seen) == 1


def test_cached_baselines(monkeypatch):
    clip = models.clip()
    wrapper = wrap(clip)
    soig = SecondOrderIntegratedGradients(wrapper, (1, 1))
    expected = [soig.attribute((PIXELS[[i]], IDS[[0]]), n_steps=3) for i in (0, 1)]
    rows, prefix = [], wrapper.tower_a.prefix

    def spy(layer, inputs):
        rows.append(len(inputs))
        return prefix(layer, inputs)

    monkeypatch.setattr(wrapper.tower_a, "prefix", spy)
    with wrapper.caching_baselines():
        actual = [soig.attribute((PIXELS[[i]], IDS[[0]]), n_steps=3) for i in (0, 1)]
        assert rows == [1, 1, 1]  # the baseline, and both images
        other = soig.attribute((PIXELS[:1], IDS[:1]), baselines=(1.0, None), n_steps=3)
        assert rows == [1] * 5
        with torch.no_grad():
            clip.vision_model.embeddings.class_embedding.add_(0.5)
        changed = soig.attribute((PIXELS[:1], IDS[:1]), n_steps=3)
    for ours, theirs in zip(actual, expected, strict=True):
        assert relative_error(ours, theirs) < 1e-5
    assert relative_error(changed, soig.attribute((PIXELS[:1], IDS[:1]), n_steps=3)) < 1e-5
    assert relative_error(other, changed) > 0.01
    assert wrapper.tower_a.cached_baselines is None


def test_baselines_are_dropped_after_an_error(clip):
    wrapper = wrap(clip)
    with pytest.raises(KeyError), wrapper.caching_baselines():
        raise KeyError
    assert wrapper.tower_a.cached_baselines is wrapper.tower_b.cached_baselines is None


def test_the_score_is_checked_once_for_each_set_of_hooks(monkeypatch):
    clip = models.clip()
    wrapper = wrap(clip)
    runs = []
    forward = type(wrapper).forward

    def spy(*args):
        runs.append(1)
        return forward(*args)

    monkeypatch.setattr(type(wrapper), "forward", spy)

    def n_runs(*pair):
        runs.clear()
        explain(wrapper, *pair, n_steps=30)
        return len(runs)

    pair = PIXELS[:1], IDS[:1]
    assert [n_runs(*pair), n_runs(*pair)] == [1, 0]
    assert [n_runs(PIXELS[:1], IDS[1:, :6]), n_runs(*pair)] == [1, 0]
    hook = clip.vision_model.encoder.layers[0].register_forward_hook(lambda *_: None)
    assert [n_runs(*pair), n_runs(*pair)] == [1, 0]
    hook.remove()


def test_products_per_head_are_batched_without_copies():
    rows, weights = torch.randn(4, 2, 3, 5), torch.randn(3, 5, 7)
    cotangents = torch.randn(6, 4, 2, 3, 7)
    rows.requires_grad_()
    expected = torch.einsum("...he,hed->...hd", rows, weights)
    actual = per_head(rows, weights)
    torch.testing.assert_close(actual, expected)

    def pull(output):
        return lambda cotangent: torch.autograd.grad(output, rows, cotangent, retain_graph=True)[0]

    seen = []
    with Shapes(seen):
        batched = torch.vmap(pull(actual))(cotangents)
    torch.testing.assert_close(batched, torch.stack([*map(pull(expected), cotangents)]))
    assert seen == [(3, 6 * 4 * 2, 5)]


class Shapes(TorchDispatchMode):
    """Notes the shape of each batched matrix product."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.bmm.default:
            self.seen.append(tuple(result.shape))
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_quick_gelu_without_gradients_is_the_same_to_the_bit(dtype):
    activation, x = ACT2FN["quick_gelu"], torch.randn(1000, dtype=dtype)
    before = x.clone()
    with torch.no_grad(), tabulated_activations(activation):
        quick = activation(x)
    assert torch.equal(quick, activation(x))
    assert torch.equal(x, before)


def test_a_few_rows_ask_for_memory_unless_they_are_little_work(clip, monkeypatch):
    monkeypatch.setattr("captum_interactions.attr._utils.products.memory_budget", lambda _: 0)
    for layer, expected in ((0, 1), (2, None)):
        path = path_of("a", wrap(clip).tower_a, layer, PIXELS, None, (), normalization="none")
        with jacobian_products(quadrature(n_steps=2), None, False) as products:
            assert products.rows_at_once(path) == expected


def test_batched_products_ask_for_memory(clip, monkeypatch):
    path = path_of("b", wrap(clip).tower_b, 2, IDS, None, (MASK,), normalization="none")
    integrand = path.integrand()
    assert integrand.is_cheap
    rule = quadrature(n_steps=5)
    for size, budget, expected in (
        (None, 2**30, True), (None, 0, False), (299, 2**30, False), (300, 0, True)
    ):  # fmt: skip
        monkeypatch.setattr(
            "captum_interactions.attr._utils.products.memory_budget", lambda _, b=budget: b
        )
        with jacobian_products(rule, size, False) as products:
            assert products.is_batched(path, integrand, 30) is expected
            assert products.is_batched(path, integrand, 2) is (size != 1)


def test_hooks_that_know_places_of_tokens(clip):
    """What follows the last block must not take the pooled token for the first one."""
    shift = torch.randn(1, 20, clip.text_model.config.hidden_size)
    soig = SecondOrderIntegratedGradients(wrap(clip), (2, 2))
    options = {"additional_forward_args": MASK, "n_steps": 5}

    def hook(_, __, output):
        return output + shift[:, : output.shape[1]]

    with clip.text_model.final_layer_norm.register_forward_hook(hook):
        actual = soig.attribute((PIXELS, IDS), **options)
        with steps.SWITCHES["all rows of the last block"]():
            expected = soig.attribute((PIXELS, IDS), **options)
    assert relative_error(actual, expected) < 1e-5


def test_hooks_that_need_all_tokens(clip):
    def hook(_, __, output):
        return output.index_fill(1, torch.tensor([3]), 0.0)

    soig = SecondOrderIntegratedGradients(wrap(clip), (2, 2))
    options = {"additional_forward_args": MASK, "n_steps": 5}
    with clip.vision_model.encoder.layers[0].register_forward_hook(hook):
        actual = soig.attribute((PIXELS, IDS), **options)
        with steps.SWITCHES["all rows of the last block"]():
            expected = soig.attribute((PIXELS, IDS), **options)
    assert relative_error(actual, expected) < 1e-5


def test_prefix_with_gradients_is_differentiable_twice(clip):
    tower = wrap(clip).tower_a
    pixels = PIXELS[:1].clone().requires_grad_()
    states, _ = tower.prefix(1, pixels)
    (gradient,) = torch.autograd.grad((states**3).sum(), pixels, create_graph=True)
    assert gradient.requires_grad
