"""Image encoders of ``timm``: by themselves, and as ``TimmWrapperModel`` of ``transformers``."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch
import transformers
from PIL import Image

from captum_interactions import SecondOrderIntegratedGradients, check_wrapper, explain, wrap
from captum_interactions.functional import quadrature
from tests import models
from tests.expected import relative_error
from tests.oracle import entering, leaving, replaced_input, replaced_output, token_map
from tests.vision_packages import needed


def transformer(module="vision_transformer", name="VisionTransformer", **options):
    size = {"embed_dim": 16, "depth": 3, "num_heads": 2, "img_size": 12, "patch_size": 4}
    kind = getattr(getattr(needed("timm").models, module), name)
    return kind(**size | {"num_classes": 0} | options)


eva = partial(transformer, "eva", "Eva", use_rot_pos_emb=True)


def perception_encoder(**options):
    return eva(
        class_token=True,
        global_pool="map",
        attn_pool_num_heads=2,
        attn_pool_mlp_ratio=4.0,
        use_pre_transformer_norm=True,
        use_fc_norm=False,
        ref_feat_shape=(3, 3),
        rope_grid_offset=1.0,
        rope_grid_indexing="xy",
        **options,
    )


def vitamin():
    """Convolutions that end in patches of 16 pixels, and a transformer of them."""
    timm = needed("timm")
    parts = timm.models.vitamin
    convolutions = parts.VitCfg(
        embed_dim=(8, 8, 16),
        depths=(1, 1, 1),
        stem_width=8,
        conv_cfg=parts.VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6),
        head_type="1d",
    )
    backbone = parts.MbConvStages(convolutions)
    embed = partial(timm.layers.HybridEmbed, backbone=backbone, proj=False)
    return transformer(img_size=48, patch_size=1, embed_layer=embed, global_pool="avg")


def convolutional(module, name, *args, **options):
    kind = getattr(getattr(needed("timm").models, module), name)
    return kind(*args, num_classes=0, **options)


def resnet():
    block = needed("timm").models.resnet.BasicBlock
    sizes = {"layers": (1, 1, 1, 1), "channels": (8, 12, 16, 24), "stem_width": 8}
    return convolutional("resnet", "ResNet", block, **sizes)


FOUR = {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24)}
KINDS = {
    "ViT": (transformer, "last block"),
    "ViT with classes": (partial(transformer, num_classes=5), "last block"),
    "ViT, registers": (partial(transformer, reg_tokens=2), "last block"),
    "ViT, mean": (partial(transformer, global_pool="avg"), "last block"),
    "ViT, images of any size": (partial(transformer, dynamic_img_size=True), "last block"),
    "ViT, SigLIP's": (partial(transformer, class_token=False, global_pool="map"), "pool"),
    "relative positions": (
        partial(transformer, "vision_transformer_relpos", "VisionTransformerRelPos"),
        "last block",
    ),
    "EVA-02": (partial(eva, swiglu_mlp=True, scale_mlp=True, global_pool="token"), "last block"),
    "Perception Encoder": (perception_encoder, "pool"),
    "ViTamin": (vitamin, "last block"),
    "ConvNeXt": (partial(convolutional, "convnext", "ConvNeXt", **FOUR), "last block"),
    "ResNet": (resnet, "last block"),
    "MobileCLIP's FastViT": (
        partial(
            convolutional,
            "fastvit",
            "FastVit",
            layers=(1, 1, 1, 1),
            embed_dims=(8, 16, 32, 64),
            mlp_ratios=(2, 2, 2, 2),
            token_mixers=("repmixer", "repmixer", "repmixer", "attention"),
        ),
        "last block",
    ),
    "Swin": (
        partial(
            convolutional,
            "swin_transformer",
            "SwinTransformer",
            img_size=64,
            embed_dim=8,
            depths=(1, 1),
            num_heads=(2, 2),
            window_size=4,
        ),
        "input",
    ),
}
"""How a kind is built, and the layer that is explained unless told otherwise."""


@cache
def built(kind):
    return randomise(KINDS[kind][0]())


def randomise(model):
    models.randomise(model)
    generator = torch.Generator().manual_seed(1)
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if "Norm" in type(module).__name__ and weight is not None:
            torch.nn.init.uniform_(weight, 0.8, 1.2, generator)
        if "scale" in name.rpartition(".")[2]:
            for parameter in module.parameters():
                torch.nn.init.uniform_(parameter, 0.5, 1.0, generator)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if norms:  # statistics as training leaves them, or activations grow from layer to layer
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(models.images(4, (64, 64)))
    return model.eval()


def pixels_of(model):
    patches = getattr(model, "patch_embed", None)
    size = getattr(patches, "img_size", None) or (64, 64)
    return models.images(2, tuple(size))


def embeddings(model, pixels):
    with torch.no_grad():
        return model.forward_head(model.forward_features(pixels), pre_logits=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_leads_to_the_models_own_embedding(kind):
    model = built(kind)
    wrapper, pixels = wrap(model), pixels_of(model)
    tower, expected = wrapper.tower_a, embeddings(model, pixels)
    assert relative_error(tower.encode(pixels).detach(), expected) < 1e-6
    default = {"last block": -1}.get(KINDS[kind][1], KINDS[kind][1])
    assert wrapper.default_layers == (default, default)
    for layer in tower.layers:
        with torch.no_grad():
            states, context = tower.prefix(layer, pixels)
            assert relative_error(tower.tail(layer, states, *context), expected) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_checker_finds_nothing(kind):
    model = built(kind)
    pixels = pixels_of(model)
    # Pixels pass more bends than hidden states.
    options = {"n_steps": 40, "tolerance": 1e-3} if kind == "Swin" else {"n_steps": 20}
    assert check_wrapper(wrap(model), pixels, pixels.flip(0), **options) == []


def side(model, tower, layer, pixels):
    """A layer without the tower's own help: a function of tokens, and a path."""
    at_pool = layer == "pool"
    module = model.get_submodule(tower.pool.module if at_pool else tower._blocks[layer])
    seen, replaced = (leaving, replaced_output) if at_pool else (entering, replaced_input)

    def run(x):
        return model.forward_head(model.forward_features(x), pre_logits=True)

    start, end = (seen(module, lambda x=x: run(x)) for x in (0 * pixels, pixels))

    def function(tokens):
        cells = end.shape[2:]
        states = tokens if end.dim() == 3 else tokens.transpose(1, 2).unflatten(2, cells)
        with replaced(module, states):
            return torch.nn.functional.normalize(run(pixels.expand(len(tokens), -1, -1, -1)))

    return function, tuple(x[0] if x.dim() == 3 else x[0].flatten(1).T for x in (start, end))


@pytest.mark.parametrize(
    ("kind", "layer"),
    [(kind, -1) for kind, (_, default) in KINDS.items() if default != "input"]
    + [("ViT, SigLIP's", "pool"), ("Perception Encoder", "pool"), ("ViT, mean", "pool")]
    + [("ViT", 0), ("ViT, SigLIP's", 1), ("EVA-02", 1), ("ConvNeXt", 2)],
)
def test_the_map_is_the_oracles(kind, layer):
    model = built(kind)
    wrapper, pixels = wrap(model), pixels_of(model)
    pair = pixels[:1], pixels[1:]
    (run_a, path_a), (run_b, path_b) = (
        side(model, wrapper.tower_a, layer, image) for image in pair
    )
    expected = token_map(run_a, run_b, path_a, path_b, *quadrature(n_steps=3))
    actual = SecondOrderIntegratedGradients(wrapper, (layer, layer)).attribute(pair, n_steps=3)
    assert relative_error(actual[0], expected) < 1e-5


@pytest.mark.parametrize("kind", ["ViT, SigLIP's", "Perception Encoder"])
def test_attention_pools_along_coordinates(kind):
    model = built(kind)
    tower, pixels = wrap(model).tower_a, pixels_of(model)
    with torch.no_grad():
        states, context = tower.prefix("pool", pixels)
        assert tower.along("pool", 0 * states[:1], states, *context) is not None


def test_patches_and_special_tokens():
    for kind, before in (("ViT, registers", 3), ("ViT, SigLIP's", 0), ("Perception Encoder", 1)):
        axis = wrap(built(kind)).tower_a.prepare(pixels_of(built(kind))).axes[0]
        assert (axis.grid, axis.cell) == ((3, 3), (4, 4))
        assert [i for i, special in enumerate(axis.special) if special] == list(range(before))
    axis = wrap(built("ViTamin")).tower_a.prepare(pixels_of(built("ViTamin"))).axes[0]
    assert (axis.grid, axis.cell) == ((3, 3), (16, 16))
    axis = wrap(built("ResNet")).tower_a.prepare(models.images(1, (64, 64))).axes[0]
    assert (axis.grid, axis.cell) == ((2, 2), (32, 32))


def test_two_photographs():
    model = built("ViT")
    data = needed("timm").data
    transform = data.create_transform((3, 12, 12), is_training=False)
    pictures = [Image.effect_noise(size, 90).convert("RGB") for size in ((20, 16), (14, 30))]
    imap = explain(wrap(model, transform), *pictures, n_steps=5)
    assert imap.interactions.shape == (10, 10)
    pixels = torch.stack([transform(picture) for picture in pictures])
    expected = torch.cosine_similarity(*embeddings(model, pixels).split(1))
    torch.testing.assert_close(torch.tensor([imap.score]), expected)


def test_kinds_that_are_not_known_are_tried():
    """These are wrapped at their stages, or at their input if their stages pass on more."""
    timm = needed("timm")
    wrapper = wrap(randomise(convolutional("metaformer", "MetaFormer", **FOUR)))
    assert wrapper.tower_a.n_blocks == 4
    sizes = {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 32, 64), "num_heads": (1, 2, 4, 8)}
    wrapper = wrap(randomise(timm.create_model("pvt_v2_b0", num_classes=0, **sizes)))
    assert wrapper.default_layers == ("input", "input")


@cache
def wrapped_by_transformers():
    needed("timm")
    sizes = {"embed_dim": 16, "depth": 3, "num_heads": 2, "img_size": 12, "patch_size": 4}
    config = transformers.TimmWrapperConfig(
        architecture="vit_base_patch16_siglip_224",
        model_args=sizes,
        pretrained_cfg={"input_size": [3, 12, 12]},
    )
    return randomise(transformers.TimmWrapperModel(config))


def test_of_transformers():
    model, pixels = wrapped_by_transformers(), models.images(2)
    wrapper = wrap(model)
    assert wrapper.default_layers == ("pool", "pool")
    with torch.no_grad():
        expected = model(pixels).pooler_output
        for layer in wrapper.tower_a.layers:
            states, context = wrapper.tower_a.prefix(layer, pixels)
            assert relative_error(wrapper.tower_a.tail(layer, states, *context), expected) < 1e-6
    assert check_wrapper(wrapper, pixels, pixels.flip(0), n_steps=20) == []


def test_of_transformers_from_pictures():
    model = wrapped_by_transformers()
    processor = transformers.TimmWrapperImageProcessor({"input_size": [3, 12, 12]})
    picture = Image.effect_noise((20, 16), 90).convert("RGB")
    pixels = wrap(model, processor).tower_a.prepare(picture).inputs
    torch.testing.assert_close(pixels, processor(picture)["pixel_values"])
