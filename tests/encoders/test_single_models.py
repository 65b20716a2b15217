"""One encoder of ``transformers`` on both sides, for texts or images, with a choice of pooling."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
import transformers
from torch.nn.functional import normalize

from captum_interactions import SecondOrderIntegratedGradients, check_wrapper, wrap
from captum_interactions.encoders.families import trial
from captum_interactions.functional import quadrature
from tests import models
from tests.expected import relative_error
from tests.families import roberta_config, text_config, vision_config
from tests.oracle import entering, replaced_input, token_map

T5 = {"d_model": 12, "d_kv": 6, "d_ff": 24, "num_layers": 3, "num_heads": 2}
T5 |= {"vocab_size": models.VOCABULARY, "pad_token_id": 0, "eos_token_id": 3}
DECODER = text_config(num_key_value_heads=1, head_dim=6, bos_token_id=2, eos_token_id=3)
DISTIL = {"dim": 12, "hidden_dim": 24, "n_layers": 3, "n_heads": 2, "max_position_embeddings": 16}
SPECIAL = {"bos_token_id": models.BOS, "eos_token_id": models.EOS}
MODERN = {"global_attn_every_n_layers": 2, "local_attention": 4}
MODERN |= {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}

POOLED = ("mean", "cls", "last", "pooler")
TEXTS = {
    "Albert": (text_config(embedding_size=8), POOLED),
    "Bert": (text_config(), POOLED),
    "CLIPText": (text_config(**SPECIAL), POOLED),
    "Deberta": (text_config(**DISENTANGLED), POOLED[:3]),
    "DebertaV2": (text_config(**DISENTANGLED, position_buckets=4), POOLED[:3]),
    "DistilBert": (DISTIL | {"vocab_size": models.VOCABULARY}, POOLED[:3]),
    "DPRContextEncoder": (text_config(projection_dim=8), ("pooler",)),
    "DPRQuestionEncoder": (text_config(), ("pooler",)),
    "Electra": (text_config(embedding_size=8), POOLED[:3]),
    "Llama": (DECODER, POOLED[:3]),
    "Mistral": (DECODER, POOLED[:3]),
    "ModernBert": (text_config(**MODERN), POOLED[:3]),
    "MPNet": (roberta_config(), POOLED),
    "MT5Encoder": (T5, POOLED[:3]),
    "Qwen2": ({k: v for k, v in DECODER.items() if k != "head_dim"}, POOLED[:3]),
    "Qwen3": (DECODER, POOLED[:3]),
    "Roberta": (roberta_config(), POOLED),
    "SiglipText": (text_config(**SPECIAL), POOLED),
    "T5Encoder": (T5, POOLED[:3]),
    "XLMRoberta": (roberta_config(), POOLED),
    # Of these, nothing is known before they are tried.
    "EuroBert": (DECODER | {"mask_token_id": 4}, POOLED[:3]),
    "GPT2": (
        {"n_embd": 12, "n_layer": 3, "n_head": 2, "n_positions": 16, **SPECIAL}
        | {"vocab_size": models.VOCABULARY, "pad_token_id": 0},
        POOLED[:3],
    ),
    "NomicBert": (text_config(), POOLED[:3]),
}
"""Configurations and the poolings that a model has."""

STAGES = {"hidden_sizes": [8, 12, 12, 16], "depths": [1, 1, 2, 1], "image_size": 64}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 12, 12, 16], "depths": [1, 2, 1, 1]}
REGISTERS = vision_config(num_register_tokens=2)
IMAGES = {
    "Beit": (vision_config(use_relative_position_bias=True), ("[class]",), "cls"),
    "CLIPVision": (vision_config(), ("[class]",), "cls"),
    "Data2VecVision": (vision_config(), ("[class]",), "cls"),
    "DeiT": (vision_config(), ("[class]", "[distillation]"), "cls"),
    "Dinov2": (vision_config(), ("[class]",), "cls"),
    "Dinov2WithRegisters": (REGISTERS, ("[class]", "[register 1]", "[register 2]"), "cls"),
    "DINOv3ViT": (REGISTERS, ("[class]", "[register 1]", "[register 2]"), "cls"),
    "SiglipVision": (vision_config(), (), "pooler"),
    "ViT": (vision_config(), ("[class]",), "cls"),
    "ConvNext": (STAGES, (), "pooler"),
    "DINOv3ConvNext": (STAGES, (), "pooler"),
    "ResNet": (RESNET | {"layer_type": "basic"}, (), "pooler"),
    # Of these, nothing is known before they are tried.
    "Aimv2Vision": (vision_config(), (), "pooler"),
    "ConvNextV2": (STAGES, (), "pooler"),
    "IJepa": (vision_config(), (), "mean"),
    "ViTMSN": (vision_config(), ("[class]",), "cls"),
}
"""Configurations, special tokens, and how images are pooled unless told otherwise."""
FEATURE_MAPS = ("ConvNext", "ConvNextV2", "DINOv3ConvNext", "ResNet")

IDS = torch.tensor([[2, 9, 30, 17, 41, 22, 3], [2, 33, 12, 3, 0, 0, 0], [2, 50, 7, 19, 8, 3, 0]])


@cache
def built(name, changes=(), seed=0):
    config, *_ = (TEXTS | IMAGES)[name]
    family = name
    for part in ("Encoder", "Context", "Question"):
        family = family.removesuffix(part)
    if not hasattr(transformers, f"{name}Config") and family == "DPR":
        configuration = transformers.DPRConfig(**config | dict(changes))
    else:
        configuration = getattr(transformers, f"{family}Config")(**config | dict(changes))
    suffix = "" if name.startswith("DPR") else "Model"
    model = models.randomise(getattr(transformers, name + suffix)(configuration), seed)
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2, generator)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2, generator)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5, generator)
        if hasattr(module, "layer_scale_parameter"):
            torch.nn.init.uniform_(module.layer_scale_parameter, 0.5, 1.0, generator)
    return model


def ids_of(model, left=False):
    """Ids and mask of texts of unequal lengths, with padding as the model has it."""
    pad = model.config.pad_token_id
    ids = IDS.clone()
    if "clip" in model.config.model_type or "siglip" in model.config.model_type:
        ids[ids == 2], ids[ids == 3] = models.BOS, models.EOS
    mask = (IDS != 0).long()
    ids[mask == 0] = pad
    if model.config.model_type.startswith("siglip"):
        ids = torch.nn.functional.pad(ids, (0, 9), value=pad)  # its context
        return ids, None
    if left:
        shifts = (mask == 0).sum(1).tolist()
        ids = torch.stack([row.roll(shift) for row, shift in zip(ids, shifts, strict=True)])
        mask = torch.stack([row.roll(shift) for row, shift in zip(mask, shifts, strict=True)])
    return ids, mask


def pooled(model, pooling, ids, mask):
    """The definition, a text at a time."""
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask)
    if pooling == "pooler":
        return output.pooler_output
    rows = []
    for row, states in enumerate(output.last_hidden_state):
        own = states if mask is None else states[mask[row] == 1]
        rows.append({"mean": own.mean(0), "cls": own[0], "last": own[-1]}[pooling])
    return torch.stack(rows)


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=3e-6 * float(expected.abs().max()))


def check_layers(tower, expected, *inputs):
    with torch.no_grad():
        same(tower.encode(*inputs), expected)
        for layer in range(tower.n_blocks):
            states, context = tower.prefix(layer, *inputs)
            same(tower.tail(layer, states, *context), expected)


def extras_of(tower, mask):
    return (mask,) if tower.extra_names else ()


TEXT_POOLINGS = [(name, pooling) for name, (_, poolings) in TEXTS.items() for pooling in poolings]


@pytest.mark.parametrize(("name", "pooling"), TEXT_POOLINGS)
def test_texts_are_pooled_as_said(name, pooling):
    model = built(name)
    tower = wrap(model, pooling=pooling).tower_a
    assert tower.n_blocks == (1 if name == "Albert" else 3)
    ids, mask = ids_of(model)
    check_layers(tower, pooled(model, pooling, ids, mask), ids, *extras_of(tower, mask))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("name", ["Llama", "Mistral", "Qwen2", "Qwen3", "T5Encoder"])
def test_padding_on_the_left(name, pooling):
    """These know relative positions only, so they pool what they do without padding."""
    model = built(name)
    tower = wrap(model, pooling=pooling).tower_a
    ids, mask = ids_of(model, left=True)
    check_layers(tower, pooled(model, pooling, *ids_of(model)), ids, mask)


@pytest.mark.parametrize("name", TEXTS)
def test_the_checker_finds_nothing_in_texts(name):
    assert check_wrapper(wrap(built(name))) == []


def test_what_is_pooled_unless_told():
    for name in ("CLIPText", "DPRQuestionEncoder", "SiglipText"):
        model = built(name)
        ids, mask = ids_of(model)
        tower = wrap(model).tower_a
        same(
            tower.encode(ids, *extras_of(tower, mask)).detach(), pooled(model, "pooler", ids, mask)
        )
    bert = built("Bert")
    same(wrap(bert).encode_a(*ids_of(bert)).detach(), pooled(bert, "mean", *ids_of(bert)))


def block_of(model, tower, layer):
    return model.get_submodule(tower._blocks[layer])


def text_side(model, tower, layer, ids, pooling):
    block = block_of(model, tower, layer)

    def run(ids):
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        if pooling == "pooler":
            return normalize(output.pooler_output)
        states = output.last_hidden_state
        return normalize(
            {"mean": states.mean(1), "cls": states[:, 0], "last": states[:, -1]}[pooling]
        )

    def function(states):
        pending = [states]  # a block that is run several times gets them the first time

        def replace(_, args):
            return (pending.pop(), *args[1:]) if pending else None

        hook = block.register_forward_pre_hook(replace)
        try:
            return run(ids.expand(len(states), -1))
        finally:
            hook.remove()

    def first_entering(ids):
        seen = []
        hook = block.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
        with torch.no_grad():
            run(ids)
        hook.remove()
        return seen[0][0]

    return function, (first_entering(tower.baseline(ids)), first_entering(ids))


@pytest.mark.parametrize(
    ("name", "pooling"),
    [(name, poolings[0]) for name, (_, poolings) in TEXTS.items() if name != "SiglipText"]
    + [("Bert", "cls"), ("Bert", "pooler"), ("Qwen3", "last"), ("CLIPText", "pooler")],
)
def test_texts_against_the_oracle(name, pooling):
    model = built(name)
    wrapper = wrap(model, pooling=pooling)
    tower, ids = wrapper.tower_a, ids_of(model)[0]
    pair = ids[:1], ids[1:2, :4]
    for layers in ((0, -1), (-1, 1 % tower.n_blocks)):
        soig = SecondOrderIntegratedGradients(wrapper, layers)
        (run_a, path_a), (run_b, path_b) = (
            text_side(model, tower, layer, x, pooling)
            for layer, x in zip(layers, pair, strict=True)
        )
        expected = token_map(run_a, run_b, path_a, path_b, *quadrature(n_steps=5))
        assert relative_error(soig.attribute(pair, n_steps=5)[0], expected) < 1e-5


def test_two_encoders_of_one_kind():
    """DPR: questions and contexts."""
    question, context = (
        built("DPRQuestionEncoder", (("projection_dim", 8),)),
        built("DPRContextEncoder"),
    )
    wrapper = wrap((question, context))
    ids, mask = ids_of(question)
    with torch.no_grad():
        expected = torch.cosine_similarity(
            question(ids, attention_mask=mask).pooler_output,
            context(ids, attention_mask=mask).pooler_output,
        )
        torch.testing.assert_close(wrapper(ids, ids, mask, mask), expected)
    assert check_wrapper(wrapper) == []


def test_blocks_that_share_their_weights_count_once():
    """Layer 0 is what enters the first of three rounds; there is no other."""
    tower = wrap(built("Albert")).tower_a
    assert [tower.resolve_layer(layer) for layer in (0, -1)] == [0, 0]
    with pytest.raises(ValueError, match="an int from -1 to 0"):
        tower.resolve_layer(2)
    grouped = built("Albert", (("num_hidden_groups", 3),))
    tower = wrap(grouped).tower_a
    assert tower.n_blocks == 3
    check_layers(tower, pooled(grouped, "mean", *ids_of(grouped)), *ids_of(grouped))


def test_a_copy_of_the_tower_is_a_copy_of_the_model():
    model = built("T5Encoder")
    tower = wrap(model).tower_a
    other = copy.deepcopy(tower)
    bias = other.model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
    torch.nn.init.normal_(bias.weight, generator=torch.Generator().manual_seed(1))
    ids, mask = ids_of(model)
    check_layers(tower, pooled(model, "mean", ids, mask), ids, mask)
    check_layers(other, pooled(other.model, "mean", ids, mask), ids, mask)


def test_texts_of_clip_that_pool_at_the_largest_id():
    """Their configs say that the end of a text has id 2."""
    model = models.randomise(
        transformers.CLIPTextModelWithProjection(
            transformers.CLIPTextConfig(
                **text_config(bos_token_id=models.BOS, eos_token_id=2), projection_dim=8
            )
        )
    )
    ids, mask = models.captions(7, 5)
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).text_embeds
    check_layers(wrap(model).tower_a, expected, ids, mask)
    mean = wrap(model, pooling="mean").tower_a
    check_layers(mean, pooled(model, "mean", ids, mask), ids, mask)


# Images


def pixels_of(model):
    size = getattr(model.config, "image_size", 64)
    return models.images(2, (size, size))


def pooled_images(model, pooling, pixels):
    with torch.no_grad():
        output = model(pixel_values=pixels)
    if pooling == "pooler":
        return output.pooler_output.flatten(1)
    states = output.last_hidden_state
    if states.dim() == 4:
        states = states.flatten(2).transpose(1, 2)
    return {"mean": states.mean(1), "cls": states[:, 0]}[pooling]


@pytest.mark.parametrize("pooling", [None, "mean"])
@pytest.mark.parametrize("name", IMAGES)
def test_images_are_pooled_as_said(name, pooling):
    model = built(name)
    tower = wrap(model, pooling=pooling).tower_a
    assert tower.n_blocks >= 3
    pixels = pixels_of(model)
    check_layers(tower, pooled_images(model, pooling or IMAGES[name][2], pixels), pixels)


@pytest.mark.parametrize("name", IMAGES)
def test_the_checker_finds_nothing_in_images(name):
    model = built(name)
    assert check_wrapper(wrap(model), pixels_of(model), pixels_of(model).flip(0)) == []


@pytest.mark.parametrize("name", IMAGES)
def test_patches_and_special_tokens(name):
    model = built(name)
    wrapper, pixels = wrap(model), pixels_of(model)
    axis = wrapper.tower_a.prepare(pixels).axes[0]
    assert tuple(label for label in axis.labels if label.startswith("[")) == IMAGES[name][1]
    assert axis.special.index(False) == len(IMAGES[name][1])
    if name not in FEATURE_MAPS:
        assert (axis.grid, axis.cell) == ((3, 3), (4, 4))
        return
    sides = {}
    for layer in range(wrapper.tower_a.n_blocks):
        n_tokens = wrapper.tower_a.prefix(layer, pixels)[0].shape[1]
        at_layer = wrapper.tower_a.axis_at(layer, axis, n_tokens)
        sides[at_layer.grid[0]] = at_layer.cell[0]
        assert at_layer.grid[0] * at_layer.cell[0] == 64
        assert not any(at_layer.special)
    assert len(sides) >= 3


@pytest.mark.parametrize("name", ["ViT", "Dinov2WithRegisters", "SiglipVision", "ResNet"])
def test_images_against_the_oracle(name):
    model = built(name)
    wrapper, pixels = wrap(model), pixels_of(model)
    tower, pooling = wrapper.tower_a, IMAGES[name][2]
    block = block_of(model, tower, 1)

    def run(pixels):
        output = model(pixel_values=pixels)
        return normalize(
            output.pooler_output.flatten(1)
            if pooling == "pooler"
            else output.last_hidden_state[:, 0]
        )

    def side(image):
        start, end = (entering(block, lambda x=x: run(x)) for x in (0 * image, image))

        def function(tokens):
            cells = end.shape[2:]
            states = tokens if end.dim() == 3 else tokens.transpose(1, 2).unflatten(2, cells)
            with replaced_input(block, states):
                return run(image.expand(len(tokens), -1, -1, -1))

        return function, tuple(x[0] if x.dim() == 3 else x[0].flatten(1).T for x in (start, end))

    (run_a, path_a), (run_b, path_b) = side(pixels[:1]), side(pixels[1:])
    expected = token_map(run_a, run_b, path_a, path_b, *quadrature(n_steps=4))
    soig = SecondOrderIntegratedGradients(wrapper, (1, 1))
    actual = soig.attribute((pixels[:1], pixels[1:]), n_steps=4)
    assert relative_error(actual[0], expected) < 1e-5


def test_projected_images():
    config = transformers.CLIPVisionConfig(**vision_config(), projection_dim=8)
    model = models.randomise(transformers.CLIPVisionModelWithProjection(config))
    pixels = models.images(2)
    with torch.no_grad():
        expected = model(pixels).image_embeds
    check_layers(wrap(model).tower_a, expected, pixels)
    check_layers(wrap(model, pooling="mean").tower_a, pooled_images(model, "mean", pixels), pixels)
    wider = models.images(2, (16, 8))
    with torch.no_grad():
        expected = model(wider, interpolate_pos_encoding=True).image_embeds
    check_layers(wrap(model).tower_a, expected, wider)


def test_images_of_any_shape():
    config = {k: v for k, v in vision_config(num_patches=16).items() if k != "image_size"}
    model = transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**config))
    tower = wrap(models.randomise(model)).tower_a
    patches, mask, shapes = tower.sample()
    with torch.no_grad():
        expected = model(patches, pixel_attention_mask=mask, spatial_shapes=shapes).pooler_output
    check_layers(tower, expected, patches, mask, shapes)
    assert check_wrapper(wrap(model)) == []


HIERARCHICAL = {
    "Swin": {"image_size": 64, "embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2]},
    "Pvt": {
        "image_size": 64,
        "hidden_sizes": [8] * 4,
        "num_attention_heads": [1] * 4,
        "depths": [1] * 4,
    },
}


@pytest.mark.parametrize("name", HIERARCHICAL)
def test_blocks_at_which_no_run_can_start_are_no_layers(name):
    config = getattr(transformers, f"{name}Config")(
        **HIERARCHICAL[name], **({"window_size": 4} if name == "Swin" else {})
    )
    model = models.randomise(getattr(transformers, f"{name}Model")(config))
    wrapper, pixels = wrap(model), models.images(2, (64, 64))
    assert wrapper.default_layers == ("input", "input")
    pooling, n_steps = ("pooler", 40) if name == "Swin" else ("cls", 150)
    with torch.no_grad():
        same(wrapper.encode_a(pixels), pooled_images(model, pooling, pixels))
    assert check_wrapper(wrapper, pixels, pixels.flip(0), n_steps=n_steps, tolerance=1e-3) == []
    maps = SecondOrderIntegratedGradients(wrapper).attribute((pixels, pixels), n_steps=2)
    assert maps.shape == (2, 4, 4)
    with pytest.raises(ValueError, match="layer must be 'input' for ImageTower, but got 0"):
        SecondOrderIntegratedGradients(wrapper, (0, "input"))


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "config", "message"),
        [
            ("T5", T5, "T5Model .*blocks of its decoder read its encoder's output.*get_encoder"),
            ("FNet", text_config(), "FNetModel cannot be explained: it takes no attention mask"),
            (
                "Longformer",
                roberta_config(attention_window=4),
                "what enters its block 0 are not the hidden states of its tokens",
            ),
            (
                "XLNet",
                {"vocab_size": 64, "d_model": 12, "n_layer": 2, "n_head": 2, "d_inner": 24},
                "what enters its block 0 are not the hidden states of its tokens",
            ),
            (
                "XLM",
                {"vocab_size": 64, "emb_dim": 12, "n_layers": 2, "n_heads": 2, "pad_index": 0},
                "XLMModel cannot be explained: its block . and those after it depend on more",
            ),
            (
                "ViTMAE",  # a random quarter of 36 patches is seldom the same one twice
                vision_config(image_size=24),
                "ViTMAEModel .*: an input has another embedding each time",
            ),
        ],
    )
    def test_models(self, name, config, message):
        configuration = getattr(transformers, f"{name}Config")(**config)
        model = models.randomise(getattr(transformers, f"{name}Model")(configuration))
        for given in (model, (model, model)):
            with pytest.raises(TypeError, match=message):
                wrap(given)

    def test_an_encoder_of_a_refused_model_is_taken(self):
        model = models.randomise(transformers.T5Model(transformers.T5Config(**T5)))
        assert check_wrapper(wrap(model.get_encoder())) == []

    def test_models_of_two_kinds_of_inputs(self):
        config = transformers.ViltConfig(**vision_config(), vocab_size=64)
        with pytest.raises(TypeError, match="ViltModel is not a .*: its layers mix both"):
            wrap(transformers.ViltModel(config))

    def test_models_with_a_head(self):
        config = transformers.GPT2Config(**TEXTS["GPT2"][0])
        with pytest.raises(TypeError, match="GPT2LMHeadModel is not a dual encoder of a known"):
            wrap(transformers.GPT2LMHeadModel(config))

    @pytest.mark.parametrize(
        ("name", "pooling"),
        [("SiglipVision", "cls"), ("ResNet", "cls"), ("ViT", "last"), ("IJepa", "cls")],
    )
    def test_tokens_that_an_image_does_not_have(self, name, pooling):
        with pytest.raises(ValueError, match=f"no token for pooling='{pooling}': take 'mean' or"):
            wrap(built(name), pooling=pooling)

    @pytest.mark.parametrize(
        ("name", "pooling", "message"),
        [
            ("DistilBert", "pooler", "pooling='pooler' needs a model that has a pooler"),
            ("GPT2", "pooler", "pooling='pooler' needs a model that has a pooler"),
            ("DPRQuestionEncoder", "mean", "pooling='mean' needs hidden states.*take 'pooler'"),
            ("Bert", "max", "pooling must be one of cls, last, mean, pooler, but got 'max'"),
        ],
    )
    def test_poolings(self, name, pooling, message):
        with pytest.raises(ValueError, match=message):
            wrap(built(name), pooling=pooling).encode_a(IDS)


def test_every_kind_that_is_not_tried_when_wrapped_is_tried_here():
    kinds = {built(name).config.model_type for name in TEXTS | IMAGES}
    assert set(trial.SINGLE) - kinds == {"siglip2_vision_model"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kinds_are_tried_in_their_own_precision(dtype):
    model = copy.deepcopy(built("NomicBert")).to(dtype)
    assert wrap(model).tower_a.n_blocks == 3
