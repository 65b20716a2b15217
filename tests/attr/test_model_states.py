"""Models as they are met: in half precision, compiled, adapted, checkpointed, among threads."""

from __future__ import annotations

import copy
import io
import shutil
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertModel, SiglipConfig, SiglipModel

from captum_interactions import CallableTower, SecondOrderIntegratedGradients, wrap
from captum_interactions.encoders.towers.block_tower import BlockTower
from tests import models
from tests.expected import relative_error
from tests.families import text_config, vision_config
from tests.oracle import entering, replaced_input

PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)
OTHER_IDS, OTHER_MASK = models.captions(4, 7)
LAYERS = [(0, 0), (1, 2), (-1, -1)]
EXACT, CLOSE = 1e-6, 1e-4


class Kind(NamedTuple):
    build: Callable[..., Any]
    inputs: tuple[Tensor, Tensor]
    extras: tuple[Tensor, ...]
    towers: tuple[str, str]
    """Names of the parts of the model that hold the encoders."""
    embed: Callable[[Any, Any], tuple[Tensor, Tensor]]
    """The embeddings that the model itself gives."""
    projections: tuple[str, ...]
    """Names of linear layers in every block and at the end."""


def siglip(attention: str = "sdpa") -> SiglipModel:
    config = SiglipConfig(
        text_config=text_config(projection_size=16), vision_config=vision_config()
    )
    config._attn_implementation = attention
    return models.randomise(SiglipModel(config))


def bert(attention: str = "sdpa") -> BertModel:
    config = BertConfig(**text_config())
    config._attn_implementation = attention
    model = models.randomise(BertModel(config))
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
    return model


def of_pair(model, kind):
    pixels, ids = kind.inputs
    mask = kind.extras[0] if kind.extras else None
    return (
        model.get_image_features(pixel_values=pixels.to(model.dtype)).pooler_output,
        model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output,
    )


def of_texts(model, kind):
    def mean(ids, mask):
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weights = mask.float().unsqueeze(-1)
        return (states * weights).sum(1) / weights.sum(1)

    return tuple(mean(*pair) for pair in zip(kind.inputs, kind.extras, strict=True))


LONG_IDS = torch.nn.functional.pad(IDS, (0, 9))
TOWERS = ("vision_model", "text_model")
KINDS = {
    "CLIP": Kind(
        lambda attention="sdpa": models.clip(attention=attention),
        (PIXELS, IDS), (MASK,), TOWERS, of_pair, ("q_proj", "fc1", "visual_projection"),
    ),
    "SigLIP": Kind(siglip, (PIXELS, LONG_IDS), (), TOWERS, of_pair, ("q_proj", "fc1", "fc2")),
    "BERT": Kind(
        bert, (IDS, OTHER_IDS), (MASK, OTHER_MASK), ("encoder", "encoder"), of_texts,
        ("query", "dense"),
    ),
}  # fmt: skip


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request):
    return request.param


@pytest.fixture
def model(kind):
    return kind.build()


def explain(model, kind, layers=(-1, -1), dtype=None, **options):
    soig = SecondOrderIntegratedGradients(wrap(model), layers)
    options = {"additional_forward_args": kind.extras, "n_steps": 3, **options}
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in kind.inputs)
    return soig.attribute(inputs, **options)


@cache
def plain_maps(kind) -> list[Tensor]:
    """At each of the layers, of a model that nothing was done to; all builds are alike."""
    return [explain(kind.build(), kind, layers) for layers in LAYERS]


def encoder(model, name) -> nn.Module:
    """Where the blocks of an encoder are."""
    part = model.get_submodule(name)
    return part if hasattr(part, "layer") else part.encoder


def blocks(model, kind) -> dict[int, nn.ModuleList]:
    parts = (encoder(model, name) for name in kind.towers)
    lists = (part.layer if hasattr(part, "layer") else part.layers for part in parts)
    return {id(part): part for part in lists}


def set_up(model):
    """All about a model that an explanation changes for a while."""
    own = ("forward", "_compiled_call_impl", "gradient_checkpointing", "grad_checkpointing")
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        name: (
            sorted(vars(m)),
            m.training,
            [vars(m).get(key) for key in own],
            [list(getattr(m, key)) for key in hooks],
        )
        for name, m in model.named_modules()
    }


# Precision


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.015)])
def test_half_precision(kind, model, dtype, tolerance):
    """The map of the rounded weights in float32, up to the rounding of activations."""
    half = model.to(dtype)
    wrapper = wrap(half)
    extras = wrapper.split_additional(kind.extras)
    with torch.no_grad():
        a, b = (x.to(dtype) if x.is_floating_point() else x for x in kind.inputs)
        actual = wrapper.encode_a(a, *extras[0]), wrapper.encode_b(b, *extras[1])
        for embedding, expected in zip(actual, kind.embed(half, kind), strict=True):
            torch.testing.assert_close(embedding, expected)
    for layers in LAYERS:
        narrow = explain(half, kind, layers, dtype)
        wide = explain(copy.deepcopy(half).float(), kind, layers)
        assert narrow.dtype == torch.float32
        assert relative_error(narrow, wide) < tolerance


def test_autocast(kind, model):
    """Attributions are wide, though the model computes in bfloat16."""
    soig = SecondOrderIntegratedGradients(wrap(model))
    options = {"additional_forward_args": kind.extras, "n_steps": 3}
    expected = soig.attribute(kind.inputs, **options)
    with torch.autocast("cpu", torch.bfloat16):
        actual, delta = soig.attribute(kind.inputs, return_convergence_delta=True, **options)
    assert actual.dtype == delta.dtype == torch.float32
    assert relative_error(actual, expected) < 0.1


def test_autocast_narrows_no_result(kind, model):
    soig = SecondOrderIntegratedGradients(wrap(model))
    extras = soig.wrapper.split_additional(kind.extras)
    with torch.autocast("cpu", torch.bfloat16):
        parts = soig.decompose(kind.inputs, additional_forward_args=kind.extras, n_steps=2)
        a = soig.factors_a(kind.inputs[0], None, extras[0] or None, 2)
        b = soig.factors_b(kind.inputs[1], None, extras[1] or None, 2)
        assert {part.dtype for part in (*parts, a @ b)} == {torch.float32}


# Compiled models


def replace_encoders(model, kind):
    for name in set(kind.towers):
        parent, _, child = name.rpartition(".")
        part = torch.compile(model.get_submodule(name), backend="eager")
        setattr(model.get_submodule(parent), child, part)
    return model


def replace_blocks(model, kind):
    for layers in blocks(model, kind).values():
        for index, block in enumerate(layers):
            layers[index] = torch.compile(block, backend="eager")
    return model


def in_place(parts):
    def change(model, kind):
        for part in parts(model, kind):
            part.compile(backend="eager")
        return model

    return change


COMPILED = {
    "torch.compile(model)": lambda model, kind: torch.compile(model, backend="eager"),
    "model.compile()": in_place(lambda model, kind: [model]),
    "encoders replaced": replace_encoders,
    "encoders in place": in_place(
        lambda model, kind: [model.get_submodule(name) for name in set(kind.towers)]
    ),
    "blocks replaced": replace_blocks,
    "blocks in place": in_place(
        lambda model, kind: [block for part in blocks(model, kind).values() for block in part]
    ),
}


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("change", COMPILED.values(), ids=COMPILED.keys())
def test_compiled(kind, model, change):
    early = wrap(model)
    compiled = change(model, kind)
    with torch.no_grad():
        embeddings = kind.embed(compiled, kind)
    before = set_up(compiled)
    for layers, expected in zip(LAYERS, plain_maps(kind), strict=True):
        for wrapped in (compiled, early):
            assert relative_error(explain(wrapped, kind, layers), expected) < EXACT
    assert set_up(compiled) == before
    with torch.no_grad():
        assert all(map(torch.equal, kind.embed(compiled, kind), embeddings))


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own code
@pytest.mark.usefixtures("fresh_compiler")
def test_code_from_inductor():
    kind = KINDS["BERT"]
    model = kind.build()
    plain = explain(model, kind, (0, 1))
    model.encoder.layer[1] = torch.compile(model.encoder.layer[1])
    with torch.no_grad():
        kind.embed(model, kind)
    assert relative_error(explain(model, kind, (0, 1)), plain) < EXACT


@pytest.mark.usefixtures("fresh_compiler")
def test_hooks_on_a_compiled_block_count():
    kind, results = KINDS["CLIP"], []
    for compiled in (False, True):
        model = kind.build()
        if compiled:
            replace_blocks(model, kind)
        for part in blocks(model, kind).values():
            part[-1].register_forward_hook(lambda _, args, output: output.cumsum(1))
        results.append(explain(model, kind))
    assert relative_error(results[1], results[0]) < EXACT
    assert relative_error(results[0], explain(kind.build(), kind)) > 0.1


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_functions_are_refused_until_they_keep_what_gradients_need():
    """A function of the user's own runs as compiled. PyTorch says what to set."""
    encoder, other = models.mlp(6), models.mlp(9, seed=1)
    inputs = torch.rand(2, 6), torch.rand(2, 9)
    compiled = torch.compile(encoder, backend="aot_eager")
    soig = SecondOrderIntegratedGradients(wrap((lambda x: compiled(x), other)))
    with pytest.raises(RuntimeError, match="donated_buffer=False"):
        soig.attribute(inputs)
    torch.compiler.reset()
    with torch._functorch.config.patch(donated_buffer=False):
        actual = soig.attribute(inputs)
    plain = SecondOrderIntegratedGradients(wrap((encoder, other))).attribute(inputs)
    assert relative_error(actual, plain) < EXACT


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_parts_of_the_users_own_modules():
    compiled = nn.Sequential(torch.compile(models.mlp(6), backend="aot_eager"), nn.Tanh())
    plain, other = nn.Sequential(models.mlp(6), nn.Tanh()), models.mlp(9, seed=1)
    inputs = torch.rand(2, 6), torch.rand(2, 9)
    actual, expected = (
        SecondOrderIntegratedGradients(wrap((first, other))).attribute(inputs)
        for first in (compiled, plain)
    )
    assert relative_error(actual, expected) < EXACT


# Adapters


def lora(model, kind, **options):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=list(kind.projections), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks models by names that transformers renames
        adapted = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return adapted


@pytest.mark.parametrize("layers", LAYERS)
def test_low_rank_adapters(kind, model, layers):
    base = explain(model, kind, layers)
    early = wrap(model)
    adapted = lora(model, kind, lora_dropout=0.3).train()
    late, injected = explain(adapted, kind, layers), explain(early, kind, layers)
    with adapted.disable_adapter():
        assert relative_error(explain(adapted, kind, layers), base) < EXACT
    merged = explain(adapted.merge_and_unload(), kind, layers)
    assert relative_error(merged, base) > 0.1
    assert relative_error(late, merged) < CLOSE
    assert relative_error(injected, merged) < CLOSE


@pytest.mark.parametrize("config", ["PrefixTuningConfig", "PromptTuningConfig"])
def test_learned_prompts_are_refused(config):
    """They live in the shell around the model, which wrap() takes off."""
    peft = pytest.importorskip("peft")
    options = {"num_virtual_tokens": 3, "task_type": "FEATURE_EXTRACTION"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(bert(), getattr(peft, config)(**options))
    with pytest.raises(TypeError, match="prompt"):
        wrap(adapted)


# Checkpointing


@pytest.mark.parametrize("training", [True, False])
def test_gradient_checkpointing(kind, model, training):
    plain = [explain(model, kind, layers) for layers in LAYERS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable()
    model.train(training)
    before = set_up(model)
    for layers, expected in zip(LAYERS, plain, strict=True):
        assert relative_error(explain(model, kind, layers), expected) < EXACT
    assert set_up(model) == before


class Checkpointing(nn.Module):
    """Two blocks that run again in the backward pass, in evaluation mode too, as in open_clip."""

    def __init__(self, flagged: bool, reentrant: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(models.mlp(4, 4, seed) for seed in range(2))
        self.grad_checkpointing = flagged
        self.always, self.reentrant = not flagged, reentrant

    def forward(self, states: Tensor) -> Tensor:
        for block in self.blocks:
            if self.grad_checkpointing or self.always:
                states = checkpoint(block, states, use_reentrant=self.reentrant)
            else:
                states = block(states)
        return states.mean(1)


class OfStates(BlockTower):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, lambda model, x: model(x), ["blocks.0", "blocks.1"])

    def baseline(self, inputs: Tensor) -> Tensor:
        return torch.zeros_like(inputs)

    def context(self, inputs: Tensor) -> tuple[Any, ...]:
        return (inputs,)

    def recall(self, states: Tensor, inputs: Tensor) -> Any:
        return states, inputs, (), None


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_that_a_flag_switches_off(reentrant):
    model, inputs = Checkpointing(True, reentrant), (torch.rand(2, 3, 4), torch.rand(2, 5))
    for layer in ("input", 1):
        soig = SecondOrderIntegratedGradients(
            wrap((OfStates(model), models.mlp(5, 4))), (layer, "input")
        )
        actual = soig.attribute(inputs)
        assert model.grad_checkpointing
        model.grad_checkpointing = False
        assert relative_error(actual, soig.attribute(inputs)) < EXACT
        model.grad_checkpointing = True


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_that_cannot_be_switched_off(reentrant):
    tower = OfStates(Checkpointing(False, reentrant))
    soig = SecondOrderIntegratedGradients(wrap((tower, models.mlp(5, 4))), (1, "input"))
    with pytest.raises(RuntimeError, match="Sequential.*checkpointed.*Switch that off"):
        soig.attribute((torch.rand(2, 3, 4), torch.rand(2, 5)))


# Other shells and settings


def accelerated(model, kind):
    hooks = pytest.importorskip("accelerate.hooks")
    for part in blocks(model, kind).values():
        for block in part:
            hooks.add_hook_to_module(block, hooks.ModelHook())
    return model


def frozen(model, kind):
    return model.requires_grad_(False)


def eager(model, kind):
    return kind.build("eager")


def reporting(model, kind):
    """A model whose config asks for all that transformers can give."""
    model = kind.build("eager")
    configs = (getattr(model.config, name, None) for name in ("text_config", "vision_config"))
    for config in (model.config, *configs):
        if config is not None:
            config.output_hidden_states = config.output_attentions = True
    return model


SHELLS = {
    "data parallel": lambda model, kind: nn.DataParallel(model),
    "forwards replaced by accelerate": accelerated,
    "in training": lambda model, kind: model.train(),
    "frozen": frozen,
    "eager attention": eager,
    "all outputs": reporting,
    "a copy": lambda model, kind: copy.deepcopy(wrap(model)),
}


@pytest.mark.parametrize("change", SHELLS.values(), ids=SHELLS.keys())
@pytest.mark.parametrize("around", [nullcontext, torch.no_grad, torch.inference_mode])
def test_the_same_map(kind, model, change, around):
    for name, module in model.named_modules():
        if "dropout" in name and isinstance(module, nn.Dropout):
            module.p = 0.5
    changed = change(model, kind)
    for layers, expected in zip(LAYERS, plain_maps(kind), strict=True):
        with around():
            actual = explain(changed, kind, layers)
        assert relative_error(actual, expected) < CLOSE


def test_offloaded_weights_are_refused():
    accelerate = pytest.importorskip("accelerate")
    kind = KINDS["CLIP"]
    offloaded = accelerate.cpu_offload(kind.build(), execution_device=torch.device("cpu"))
    with pytest.raises(TypeError, match="has weights on the meta device"):
        explain(offloaded, kind)


@pytest.mark.filterwarnings("ignore")  # PyTorch announces the end of this kind of quantisation
@pytest.mark.parametrize("layers", LAYERS)
def test_quantised_models_are_refused(kind, model, layers):
    """Also a single quantised part, around which gradients find another way."""
    few = {
        name for name, _ in model.named_modules() if name.endswith(("0.mlp.fc1", "0.output.dense"))
    }
    for chosen in ({nn.Linear}, few):
        small = torch.ao.quantization.quantize_dynamic(model, chosen, dtype=torch.qint8)
        with torch.no_grad():
            assert wrap(small)(*kind.inputs, *kind.extras).isfinite().all()
        with pytest.raises(TypeError, match="Linear quantised for inference.*no derivative"):
            explain(small, kind, layers)


# Hooks of the user's own


def wide_mixing(_, args, output):
    return output.roll(1, 1) + output


def before_positional(_, args):
    return (args[0] * torch.arange(1, args[0].shape[1] + 1).unsqueeze(-1), *args[1:])


def before_by_keyword(_, args, kwargs):
    return before_positional(_, args), kwargs


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize(
    "register",
    [
        lambda block: block.register_forward_hook(wide_mixing),
        lambda block: block.register_forward_pre_hook(before_positional),
        lambda block: block.register_forward_pre_hook(before_by_keyword, with_kwargs=True),
    ],
    ids=["hook", "pre-hook", "pre-hook with keywords"],
)
def test_hooks_count(kind, model, register, where):
    """Hidden states and embeddings are those of the hooked model, from every layer."""
    plain = kind.embed(model, kind)
    for part in blocks(model, kind).values():
        register(part[where])
    hooked = kind.embed(model, kind)
    assert all(not torch.allclose(*pair) for pair in zip(plain, hooked, strict=True))
    wrapper = wrap(model)
    extras = wrapper.split_additional(kind.extras)
    for side, tower in enumerate((wrapper.tower_a, wrapper.tower_b)):
        for layer in range(3):
            inputs = (kind.inputs[side], *extras[side])
            states, context = tower.prefix(layer, *inputs)
            block = model.get_submodule(tower._blocks[layer])
            assert torch.equal(states, entering(block, lambda t=tower, i=inputs: t.encode(*i)))
            embedding = tower.tail(layer, states, *context)
            torch.testing.assert_close(embedding, hooked[side], rtol=1e-4, atol=1e-5)
            with replaced_input(block, 2 * states):
                expected = tower.encode(*inputs)
            # A hook that is registered later has the last word, here as in the model.
            actual = tower.tail(layer, 2 * states, *context)
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


# Copies


def test_a_copy_runs_its_own_weights(kind, model):
    wrapper = wrap(model)
    other = copy.deepcopy(wrapper)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.3)
    assert relative_error(explain(other, kind), explain(wrapper, kind)) > 0.05
    scaled = wrap(other.tower_a.model)
    assert torch.equal(explain(other, kind), explain(scaled, kind))
    assert torch.equal(explain(wrapper, kind), explain(kind.build(), kind))


def test_a_saved_wrapper_is_loaded_as_code(kind, model):
    """A wrapper is pickled whole, so only a trusted file may be loaded."""
    file = io.BytesIO()
    torch.save(wrap(model), file)
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    loaded = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert torch.equal(explain(loaded, kind), explain(model, kind))


# Threads


def run_all(*functions):
    """Run functions at once, and raise what they raise."""
    errors = []

    def guarded(function):
        try:
            function()
        except Exception as error:  # noqa: BLE001 - it is raised again
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_the_model_runs_as_it_is_in_another_thread(kind, model):
    """A cut is in force in the thread that made it alone."""
    expected, plain = kind.embed(model, kind), explain(model, kind, (1, 1))
    seen: list[tuple[Tensor, ...]] = []
    explainer = threading.get_ident()

    def look(*_):
        if threading.get_ident() == explainer and len(seen) < 4:
            run_all(lambda: seen.append(kind.embed(model, kind)))

    for part in blocks(model, kind).values():
        part[1].register_forward_pre_hook(look)
    assert torch.equal(explain(model, kind, (1, 1)), plain)
    assert len(seen) == 4
    for embeddings in seen:
        assert all(map(torch.equal, embeddings, expected))


def test_two_explanations_at_once(kind, model):
    plain, before = explain(model, kind, (1, 1)), set_up(model)

    def repeat():
        for _ in range(5):
            assert relative_error(explain(model, kind, (1, 1)), plain) < CLOSE

    run_all(repeat, repeat, repeat)
    assert set_up(model) == before


def test_two_explanations_at_once_put_everything_back():
    """The mode of a module and PyTorch's choice of kernels are shared by threads."""
    module = nn.Sequential(models.mlp(4), nn.Dropout(0.0)).train()
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def attribute(function):
        tower = CallableTower(function)
        tower.module = module
        soig = SecondOrderIntegratedGradients(wrap((tower, models.mlp(4, seed=1))))
        soig.attribute((torch.rand(1, 4), torch.rand(1, 4)), n_steps=1)

    def first():
        def function(x):
            if torch.is_grad_enabled() and x.requires_grad:
                first_is_in.set()
                second_is_in.wait(0.5)
            return module(x)

        attribute(function)
        first_is_out.set()

    def second():
        def function(x):
            if torch.is_grad_enabled() and x.requires_grad:
                second_is_in.set()
                first_is_out.wait(5)
            return module(x)

        first_is_in.wait(5)
        attribute(function)

    try:
        run_all(first, second)
        assert torch.backends.cuda.flash_sdp_enabled()
        assert all(part.training for part in module.modules())
    finally:
        torch.backends.cuda.enable_flash_sdp(True)
        torch.backends.cuda.enable_mem_efficient_sdp(True)


# Errors


class FuseError(Exception):
    """Blown on purpose."""


@pytest.mark.usefixtures("fresh_compiler")
def test_after_an_error_at_any_module(kind, model):
    """Whichever call of whichever module fails, the model is left as it was."""
    COMPILED["blocks in place"](model, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable()
    model.train()
    before = set_up(model)
    calls = {"made": 0, "allowed": 10**9}

    def burn(*_):
        calls["made"] += 1
        if calls["made"] > calls["allowed"]:
            raise FuseError

    hook = nn.modules.module.register_module_forward_pre_hook(burn)
    try:
        explain(model, kind, (1, 0), n_steps=1)
        total = calls["made"]
        for allowed in range(0, total, max(1, total // 40)):
            calls.update(made=0, allowed=allowed)
            with pytest.raises(FuseError):
                explain(model, kind, (1, 0), n_steps=1)
            assert set_up(model) == before
    finally:
        hook.remove()


# Accelerators


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_an_accelerator(kind, model, dtype):
    """The same map as on the CPU, from inputs and masks that live where the model lives."""
    expected = explain(model, kind, (1, 1))
    there = kind._replace(
        inputs=tuple(x.cuda() for x in kind.inputs), extras=tuple(x.cuda() for x in kind.extras)
    )
    actual = explain(model.to("cuda", dtype), there, (1, 1), dtype)
    assert actual.device.type == "cuda"
    assert actual.dtype == torch.float32
    tolerance = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.2}[dtype]
    assert relative_error(actual.cpu(), expected) < tolerance
