"""Models of ``open_clip`` and OpenAI's ``clip``, small ones with random weights."""

from __future__ import annotations

import inspect
from functools import cache, partial
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

from captum_interactions import SecondOrderIntegratedGradients, check_wrapper, explain, wrap
from captum_interactions.encoders.inputs.texts import tokenize
from captum_interactions.functional import quadrature
from tests import models
from tests.encoders import test_timm
from tests.expected import relative_error
from tests.oracle import entering, leaving, replaced_input, replaced_output, token_map
from tests.vision_packages import needed

VOCABULARY, CONTEXT = 100, 77
START, END = VOCABULARY - 2, VOCABULARY - 1


def openai(vision_layers=3, width=64, image_size=12, patch=4, **options):
    """``clip.model.CLIP``; a tuple of layers makes a ResNet."""
    texts = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "transformer_width": 64}
    texts |= {"transformer_heads": 2, "transformer_layers": 3}
    needed("clip")
    from clip.model import CLIP

    return CLIP(24, image_size, vision_layers, width, patch, **texts | options)


def of_open_clip(kind="CustomTextCLIP", vision=(), text=(), **options):
    size = {"layers": 3, "width": 16, "head_width": 8, "patch_size": 4, "image_size": 12}
    texts = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 12, "heads": 2}
    own = {"vision_cfg": size | dict(vision), "text_cfg": texts | {"layers": 3} | dict(text)}
    return getattr(needed("open_clip"), kind)(embed_dim=24, **own, **options)


def coca():
    tokens = {"output_tokens": True}
    return of_open_clip(
        "CoCa",
        tokens | {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 5},
        tokens | {"embed_cls": True},
        multimodal_cfg={"width": 12, "heads": 2, "layers": 1},
    )


def with_text_encoder(encoder):
    """A model whose texts are encoded by one of ``transformers``, which is not downloaded."""
    needed("open_clip")
    from open_clip.hf_model import HFTextEncoder

    model = of_open_clip()
    text = HFTextEncoder.__new__(HFTextEncoder)
    torch.nn.Module.__init__(text)
    text.output_tokens, text.transformer, text.config = False, encoder, encoder.config
    text.context_length = 16
    text.pooler = needed("open_clip").hf_model.MeanPooler()
    text.proj = torch.nn.Linear(encoder.config.hidden_size, 24)
    model.text = text
    return model


def bert():
    size = models.clip_config().text_config.to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    config = BertConfig(**{name: size[name] for name in names}, num_attention_heads=2)
    return with_text_encoder(BertModel(config, add_pooling_layer=False))


def with_trunk(kind, head="linear", **text):
    """A model whose images are encoded by one of ``timm``, a small one."""
    needed("open_clip")
    from open_clip.timm_model import TimmModel

    model, trunk = of_open_clip(text=text), test_timm.KINDS[kind][0]()
    visual = TimmModel.__new__(TimmModel)
    torch.nn.Module.__init__(visual)
    visual.trunk, visual.image_size = trunk, tuple(test_timm.pixels_of(trunk).shape[2:])
    visual.head = torch.nn.Identity()
    if head:
        visual.head = torch.nn.Sequential(torch.nn.Linear(trunk.num_features, 24, bias=False))
    model.visual = visual
    return model


SIGLIP_TEXT = {"no_causal_mask": True, "pool_type": "last"}
RESNET = {"layers": [1, 1, 1, 1], "width": 2, "head_width": 16, "image_size": 64}
KINDS = {
    "OpenAI's clip, ViT": openai,
    "OpenAI's clip, ResNet": partial(openai, (1, 1, 1, 1), 2, 64),
    "CLIP": partial(of_open_clip, "CLIP"),
    "ModifiedResNet": partial(of_open_clip, "CLIP", RESNET),
    "CustomTextCLIP": partial(of_open_clip, quick_gelu=True),
    "end of text": partial(of_open_clip, text={"pool_type": "eos", "eos_id": END}),
    "not causal": partial(of_open_clip, text={"no_causal_mask": True}),
    "mean of patches": partial(of_open_clip, vision={"pool_type": "avg"}),
    "CoCa": coca,
    "text encoder of transformers": bert,
    "timm, SigLIP and SigLIP 2": partial(with_trunk, "ViT, SigLIP's", **SIGLIP_TEXT),
    "timm, Perception Encoder": partial(with_trunk, "Perception Encoder"),
    "timm, EVA-02": partial(with_trunk, "EVA-02"),
    "timm, ViTamin": partial(with_trunk, "ViTamin"),
    "timm, ConvNeXt": partial(with_trunk, "ConvNeXt"),
    "timm, MobileCLIP": partial(with_trunk, "MobileCLIP's FastViT"),
    "timm, Swin": partial(with_trunk, "Swin"),
}


@cache
def built(kind):
    return randomise(KINDS[kind]())


def randomise(model):
    """Random weights, and statistics of normalisations that matter."""
    test_timm.randomise(model.visual)
    visual = {name: value.clone() for name, value in model.visual.state_dict().items()}
    models.randomise(model)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2, torch.Generator().manual_seed(1))
    model.visual.load_state_dict(visual)
    return model


@pytest.fixture(params=KINDS, scope="module")
def model(request):
    return built(request.param)


@pytest.fixture
def clip():
    return randomise(openai())


@pytest.fixture
def wrapper():
    """With the vocabulary of OpenAI's CLIP."""
    return wrap(words(), (preprocess(12), needed("clip").tokenize))


def words(image_size=12):
    return randomise(openai(vocab_size=49408, image_size=image_size))


def preprocess(size):
    return needed("open_clip").image_transform(size, is_train=False)


def inputs(model, *lengths):
    """Pixel values and padded ids of captions of these lengths."""
    tower = wrap(model).tower_a
    ids = torch.zeros(len(lengths), CONTEXT, dtype=torch.long)
    generator = torch.Generator().manual_seed(4)
    is_bert = hasattr(getattr(model, "text", None), "config")
    start, end = (models.BOS, models.EOS) if is_bert else (START, END)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(1, start, (length,), generator=generator)
        row[0], row[length - 1] = start, end
    return models.images(len(lengths), tower.image_size), ids


def own(encode, x):
    """The model's own embedding before it is normalised."""
    named = inspect.signature(encode).parameters
    with torch.no_grad():
        output = encode(x, **({"normalize": False} if "normalize" in named else {}))
    return output[0] if isinstance(output, tuple) else output


def test_every_layer_leads_to_the_models_own_embedding(model):
    wrapper, (pixels, ids) = wrap(model), inputs(model, 9, 77, 5)
    for tower, encode, x in (
        (wrapper.tower_a, model.encode_image, pixels),
        (wrapper.tower_b, model.encode_text, ids),
    ):
        expected = own(encode, x)
        assert len(expected.unique(dim=0)) == 3
        assert relative_error(tower.encode(x).detach(), expected) < 1e-6
        for layer in tower.layers:
            with torch.no_grad():
                states, context = tower.prefix(layer, x)
                actual = tower.tail(layer, states, *context)
            assert states.shape[0] == 3
            assert relative_error(actual, expected) < 1e-6


def test_the_score_is_the_models_own(model):
    pixels, ids = inputs(model, 9, 77)
    with torch.no_grad():
        actual, output = wrap(model)(pixels, ids), None
        if hasattr(model, "input_resolution") or type(model).__module__ == "clip.model":
            output = model(pixels, ids)[0].diagonal() / model.logit_scale.exp()
        else:
            a, b = model.encode_image(pixels), model.encode_text(ids)
            output = torch.nn.functional.cosine_similarity(a, b)
    torch.testing.assert_close(actual, output)


def oracle_side(model, tower, layer, encode, x, baseline):
    """States at a layer as tokens (T, D), and the embedding of them: by hooks alone."""
    at_pool = layer == "pool"
    module = model.get_submodule(tower.pool.module if at_pool else tower._blocks[layer])
    seen, replaced = (leaving, replaced_output) if at_pool else (entering, replaced_input)
    start, end = (seen(module, lambda x=x: encode(x)) for x in (baseline, x))
    if end.dim() == 4:  # cells
        shape = end.shape[2:]
        to_states = lambda x: x.transpose(1, 2).unflatten(2, shape)  # noqa: E731
        to_tokens = lambda x: x[0].flatten(1).T  # noqa: E731
    elif end.shape[0] == 1:
        to_states, to_tokens = (lambda x: x), (lambda x: x[0])
    else:  # tokens first
        to_states, to_tokens = (lambda x: x.transpose(0, 1)), (lambda x: x[:, 0])

    def run(tokens):
        with replaced(module, to_states(tokens)):
            output = encode(x.expand(len(tokens), *x.shape[1:]))
        embedding = output[0] if isinstance(output, tuple) else output
        return embedding / embedding.norm(dim=-1, keepdim=True)

    return run, (to_tokens(start), to_tokens(end))


@pytest.mark.parametrize("layer", [-1, 1, "default"])
def test_the_map_is_the_oracles(model, layer):
    pixels, ids = inputs(model, 7, 12)
    wrapper = wrap(model)
    layers = wrapper.default_layers if layer == "default" else (layer, layer)
    if "input" in wrapper.default_layers or (layer == "default" and "pool" not in layers):
        pytest.skip("there is no such layer, or it is another one of these")
    actual = SecondOrderIntegratedGradients(wrapper, layers).attribute((pixels, ids), n_steps=4)
    baseline = wrapper.tower_b.baseline(ids[:1])
    run_a, path_a = oracle_side(
        model, wrapper.tower_a, layers[0], model.encode_image, pixels[:1], 0 * pixels[:1]
    )
    run_b, path_b = oracle_side(
        model, wrapper.tower_b, layers[1], model.encode_text, ids[:1], baseline
    )
    expected = token_map(run_a, run_b, path_a, path_b, *quadrature(n_steps=4))
    # Convolutions of two batch sizes sum in different orders: many of them leave 3e-5 in float32.
    is_resnet = hasattr(model.visual, "attnpool")
    assert relative_error(actual[0], expected) < (1e-4 if is_resnet else 1e-5)


def test_the_checker_finds_nothing(model):
    wrapper = wrap(model)
    # Pixels pass more bends than hidden states.
    at_input = "input" in wrapper.default_layers
    n_steps = 60 if hasattr(model.visual, "attnpool") else 20
    options = {"n_steps": 40, "tolerance": 1e-3} if at_input else {"n_steps": n_steps}
    assert check_wrapper(wrapper, *inputs(model, 6, 11), **options) == []


def test_tokens_behind_the_text_have_no_part(model):
    """Texts are as long as the context; models without a mask read what is behind their end."""
    pixels, ids = inputs(model, 9, 77)
    at_input = "input" in wrap(model).default_layers
    soig = SecondOrderIntegratedGradients(wrap(model), ("input" if at_input else 1, 1))
    maps = soig.attribute((pixels, ids), n_steps=3)
    axis = wrap(model).prepare(pixels, ids).axes_b[0]
    text = getattr(model, "text", None)
    if getattr(text, "attn_mask", ...) is None:
        assert maps[0, :, 9:77].count_nonzero() > 0
        return
    ends = 9 + (getattr(text, "cls_emb", None) is not None)  # CoCa sees one token more
    assert maps[0, :, ends:77].count_nonzero() == 0
    assert maps[0, :, :ends].any(0).sum() >= 7
    assert [i for i, padding in enumerate(axis.padding[:77]) if padding] == list(range(ends, 77))
    assert len(axis) == maps.shape[2]


@pytest.mark.parametrize("kind", ["OpenAI's clip, ViT", "OpenAI's clip, ResNet", "CustomTextCLIP"])
def test_frozen_models_have_the_same_products(kind, caplog):
    """PyTorch's attention takes a fast path without derivatives where nothing asks for any."""
    caplog.set_level("INFO")
    model = randomise(KINDS[kind]())
    pair = inputs(model, 6)
    trainable = SecondOrderIntegratedGradients(wrap(model), (1, 1)).attribute(pair, n_steps=3)
    model.requires_grad_(False)
    soig = SecondOrderIntegratedGradients(wrap(model), (1, 1))
    with torch.no_grad():
        frozen = soig.attribute(pair, n_steps=3)
    assert relative_error(frozen, trainable) < 1e-5
    assert "products a node" not in caplog.text  # as it says where there is no second derivative


@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
def test_checkpointed_models(kind):
    model = randomise(KINDS[kind]())
    pair = inputs(model, 6)
    expected = SecondOrderIntegratedGradients(wrap(model), (0, 0)).attribute(pair, n_steps=3)
    for part in (model.visual.transformer, getattr(model, "text", model).transformer):
        part.grad_checkpointing = True
    actual = SecondOrderIntegratedGradients(wrap(model), (0, 0)).attribute(pair, n_steps=3)
    torch.testing.assert_close(actual, expected)
    assert model.visual.transformer.grad_checkpointing


def halved(kind, precision):
    """Convolutions and projections are halved, as the packages do it; norms stay as they are."""
    if kind == "openai":
        model = randomise(openai())
        needed("clip").model.convert_weights(model)
        return model
    model = randomise(of_open_clip("CLIP", cast_dtype=precision))
    needed("open_clip").model.convert_weights_to_lp(model, dtype=precision)
    return model


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("openai", torch.float16), ("CLIP", torch.float16), ("CLIP", torch.bfloat16)],
)
def test_half_precision_as_the_packages_have_it(kind, precision):
    whole = randomise(openai() if kind == "openai" else of_open_clip("CLIP"))
    expected = SecondOrderIntegratedGradients(wrap(whole)).attribute(inputs(whole, 6))
    model = halved(kind, precision)
    batch = wrap(model).prepare(*inputs(whole, 6))
    assert batch.inputs[0].dtype == precision
    actual = SecondOrderIntegratedGradients(wrap(model)).attribute(batch.inputs)
    assert actual.dtype == torch.float32
    assert relative_error(actual, expected) < 0.1


def test_a_t5_can_be_entered_at_its_embeddings_only():
    size = {"vocab_size": 64, "d_model": 12, "d_kv": 6, "d_ff": 24, "num_heads": 2}
    encoder = T5EncoderModel(T5Config(**size, num_layers=2)).encoder
    model = randomise(with_text_encoder(encoder))
    tower, (_, ids) = wrap(model).tower_b, inputs(model, 6)
    assert tower.n_blocks == 1
    states, context = tower.prefix(0, ids)
    actual = tower.tail(0, states, *context).detach()
    assert relative_error(actual, own(model.encode_text, ids)) < 1e-6


# From raw inputs


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
RAW = [
    ("A  Red\tcircle", ["A", "Red", "circle"]),
    ("a dog 🙂🙂 👩‍💻!", ["a", "dog", "🙂", "🙂", "👩‍💻", "!"]),
    ("Émile’s café &amp; dog", ["Émile’s", "café", "&", "dog"]),
    ("東京 красный ΟΔΟΣ", ["東", "京", "красный", "ΟΔΟΣ"]),
    ("  it isn't İ  ", ["it", "isn't", "İ"]),
]


@pytest.mark.parametrize(("text", "words"), RAW)
def test_words_of_the_byte_pair_tokenizer(wrapper, text, words):
    batch = wrapper.prepare(PICTURE, text)
    assert torch.equal(batch.inputs[1], needed("clip").tokenize([text]).long())
    (axis,) = batch.axes_b
    found = [word.text for word in axis.words if word.text not in ("amp", ";")]
    assert found == words
    length = int(batch.inputs[1].argmax()) + 1
    assert all(span is not None for span in axis.spans[1 : length - 1])
    assert axis.special == (True, *(False,) * (length - 2), True, *(False,) * (77 - length))
    assert axis.padding == (False,) * length + (True,) * (77 - length)


def test_an_apostrophe_and_an_entity_are_found_where_they_are(wrapper):
    (axis,) = wrapper.prepare(PICTURE, "Émile’s &amp; İ").axes_b
    spans = [axis.text[slice(*span)] for span in axis.spans if span is not None]
    assert spans == ["É", "mile", "’s", "&", "İ", "İ"]


def test_kinds_of_byte_pair_tokenizers():
    clip = needed("clip")
    expected = clip.tokenize(["a red dog"]).long()
    own = needed("open_clip").tokenizer.SimpleTokenizer()
    for tokenizer in (clip.tokenize, clip.clip._tokenizer, own):
        ids = wrap(words(), (None, tokenizer)).prepare(models.images(), ["a red dog"]).inputs[1]
        assert torch.equal(ids, expected)


def test_captions_that_are_too_long(wrapper):
    text = " ".join(["dog 🙂"] * 40)
    with pytest.raises(ValueError, match="text 0 has 82 tokens .* holds 77; shorten"):
        wrapper.prepare(PICTURE, text)
    batch = wrapper.prepare(PICTURE, text, truncation=True)
    expected = needed("clip").tokenize([text], truncate=True)
    assert torch.equal(batch.inputs[1], expected.long())
    assert [word.text for word in batch.axes_b[0].words][:3] == ["dog", "🙂", "dog"]


def cleaning(inner, clean, **options):
    """``open_clip.tokenizer.HFTokenizer`` around a tokenizer that is not downloaded."""
    kind = needed("open_clip").tokenizer.HFTokenizer
    with TemporaryDirectory() as folder:
        inner.save_pretrained(folder)
        return kind(folder, context_length=16, clean=clean, **options)


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("clean", ["whitespace", "lower", "canonicalize"])
def test_words_of_tokenizers_that_clean(clean, strip):
    inner = models.clip_tokenizer()
    inner.sep_token = "<|endoftext|>"
    tokenizer = cleaning(inner, clean, strip_sep_token=strip)
    wrapped = wrap(built("CustomTextCLIP"), (None, tokenizer)).tower_b.tokenizer
    texts = ["A,  Red.. circle!", "##red a"]
    ids, _, axes = tokenize(wrapped, texts, 16, padding="max_length")
    assert torch.equal(ids, tokenizer(texts))
    words = [word.text for word in axes[0].words if word.text.isalpha()]
    assert words == ["A", "Red", "circle"]
    assert [axes[1].text[slice(*span)] for span in axes[1].spans if span][-2:] == ["red", "a"]


@pytest.mark.parametrize(
    "build",
    [
        partial(openai, vocab_size=49408),
        partial(openai, (1, 1, 1, 1), 2, 64, vocab_size=49408),
        partial(of_open_clip, text={"vocab_size": 49408}),
    ],
)
def test_from_a_picture_and_a_caption_to_a_heatmap(build):
    model = randomise(build())
    size = wrap(model).tower_a.image_size[0]
    tokenizer = needed("open_clip").tokenizer.SimpleTokenizer()
    tower = wrap(model, (preprocess(size), tokenizer))
    imap = explain(tower, PICTURE, "A Red Circle, a dog", n_steps=40)
    axis = imap.axis_a
    rows = size // axis.cell[0]
    heat = imap.heatmap("red circle")
    assert heat.shape == axis.grid == (rows, rows)
    first = imap.axis_b.labels.index("Red")
    tokens = [first, first + 1]
    whole = imap.interactions[:, tokens].sum(1)[axis.patches]
    np.testing.assert_allclose(heat.ravel(), whole.numpy(), rtol=1e-5, atol=1e-6)
    assert [word for word, _ in imap.word_weights()] == ["A", "Red", "Circle", ",", "a", "dog"]
    parts = imap.constant + imap.main_effects_a.sum() + imap.main_effects_b.sum()
    assert abs(float(parts + imap.interactions.sum()) - imap.score) < 0.02
    # The crop shows the columns from 10 to 50 of 60 × 40 pixels.
    left, right, bottom, top = axis.extent()
    np.testing.assert_allclose((left, right, bottom, top), (10, 50, 40, 0), atol=40 / size)


def test_a_box_selects_the_patches_under_it(wrapper):
    (axis,) = wrapper.prepare(PICTURE, "a dog").axes_a
    assert axis.image.size == (60, 40)
    weights = axis.select((10, 0, 10 + 40 / 3, 40 / 3))
    assert weights.argmax() == 1
    assert weights[1] > 0.9
    assert weights[2:].max() < 0.1


# What cannot be


def test_baselines_keep_both_ends_of_a_text(clip):
    _, ids = inputs(clip, 6)
    for model, tokenizer in ((clip, None), (words(), needed("clip").tokenize)):
        if tokenizer is not None:
            ids[0, 0], ids[0, 5] = 49406, 49407
        baseline = wrap(model, (None, tokenizer)).tower_b.baseline(ids)
        assert baseline[0].nonzero().flatten().tolist() == [0, 5]
        assert torch.equal(baseline[0, [0, 5]], ids[0, [0, 5]])


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (str.split, r"is a tuple \(preprocess, tokenizer\).* but got method_descriptor"),
        ((None, None, None), "but got tuple of 3"),
        ((12, None), "preprocess must be a function .* but got int"),
        ((None, str.split), "expected a SimpleTokenizer .* but got method_descriptor"),
        ((None, "bert"), "expected a SimpleTokenizer .* but got str"),
    ],
)
def test_processors_of_other_kinds(clip, processor, message):
    with pytest.raises(TypeError, match=message):
        wrap(clip, processor)


def test_a_mode_of_tokenizers_that_is_not_known(clip):
    tokenizer = cleaning(models.clip_tokenizer(), "lower", tokenizer_mode="clips")
    with pytest.raises(TypeError, match="tokenizer_mode='clips' are not known"):
        wrap(clip, (None, tokenizer))


def test_raw_inputs_need_a_processor(clip):
    with pytest.raises(ValueError, match="raw images .* need an image processor"):
        wrap(clip).prepare(PICTURE, "a dog")
    with pytest.raises(ValueError, match="raw text .* needs a tokenizer"):
        wrap(clip, (preprocess(12), None)).prepare(PICTURE, "a dog")


def test_inputs_of_other_shapes(clip):
    wrapper, (pixels, ids) = wrap(clip), inputs(clip, 6)
    with pytest.raises(ValueError, match=r"images of \(12, 12\) pixels .* \(1, 3, 16, 12\)"):
        wrapper.prepare(models.images(1, (16, 12)), ids)
    with pytest.raises(ValueError, match="texts padded to 77 tokens, but got 9"):
        wrapper.prepare(pixels, ids[:, :9])
    with pytest.raises(ValueError, match=f"from 0 to {END}, but lie from 0 to {END + 1}"):
        wrapper.prepare(pixels, ids + (ids == END))


def without_pooling(part):
    model = of_open_clip()
    getattr(model, part).pool_type = "none"
    return model


def of_other_parts(part):
    model = of_open_clip()
    setattr(model, part, torch.nn.Linear(1, 1))
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: of_other_parts("visual"), "Linear is neither a vision .* timm: write a Tower"),
        (lambda: of_other_parts("text"), "text encoder Linear is neither a text trans"),
        (lambda: without_pooling("visual"), "VisionTransformer has pool_type 'none': it gives"),
        (lambda: without_pooling("text"), "TextTransformer has pool_type 'none': it gives"),
    ],
)
def test_models_that_are_refused(build, message):
    with pytest.raises(TypeError, match=message):
        wrap(build())


@pytest.mark.filterwarnings("ignore")  # PyTorch announces the end of TorchScript
def test_torchscript_is_refused(clip):
    traced = torch.jit.trace_module(
        clip, {"encode_image": models.images(), "encode_text": inputs(clip, 6)[1]}
    )
    with pytest.raises(TypeError, match="TorchScript .* jit=False"):
        wrap(traced)
