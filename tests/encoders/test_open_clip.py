"""Models of ``open_clip`` and OpenAI's ``clip``: stand-ins, and the real package if it imports."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

from captum_interactions import SecondOrderIntegratedGradients, check_wrapper, explain, wrap
from captum_interactions.encoders.inputs.texts import tokenize
from captum_interactions.functional import quadrature
from tests import models
from tests import open_clip_standin as standin
from tests.expected import relative_error
from tests.oracle import entering, replaced_input, token_map

START, END = standin.VOCABULARY - 2, standin.VOCABULARY - 1


def real() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import open_clip
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"open_clip cannot be imported here: {error}")
    return open_clip


def real_model(kind="CLIP", vision=(), text=(), **options):
    size = {"layers": 3, "width": 16, "head_width": 8, "patch_size": 4, "image_size": 12}
    texts = {"context_length": 77, "vocab_size": standin.VOCABULARY, "width": 12, "heads": 2}
    own = {"vision_cfg": size | dict(vision), "text_cfg": texts | {"layers": 3} | dict(text)}
    return getattr(real(), kind)(embed_dim=24, **own, **options)


def coca():
    tokens = {"output_tokens": True}
    return standin.randomise(
        real_model(
            "CoCa",
            tokens | {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 5},
            tokens | {"embed_cls": True},
            multimodal_cfg={"width": 12, "heads": 2, "layers": 1},
        )
    )


def encoder_of_transformers():
    size = models.clip_config().text_config.to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    config = BertConfig(**{name: size[name] for name in names}, num_attention_heads=2)
    return standin.HFTextEncoder(BertModel(config, add_pooling_layer=False))


def custom(text, **options):
    return standin.CustomTextCLIP(standin.VisionTransformer(batch_first=True), text, **options)


RESNET = {"layers": [1, 1, 1, 1], "width": 2, "head_width": 16, "image_size": 64}
STANDINS = {
    "clip, ViT": lambda: standin.CLIP(standin.VisionTransformer()),
    "clip, ResNet": lambda: standin.CLIP(standin.ModifiedResNet()),
    "open_clip": lambda: custom(standin.TextTransformer()),
    "open_clip, end of text": lambda: custom(standin.TextTransformer("eos")),
    "open_clip, SigLIP": lambda: custom(standin.TextTransformer("last", no_causal_mask=True)),
    "open_clip, not causal": lambda: custom(standin.TextTransformer(no_causal_mask=True)),
    "open_clip, CoCa": lambda: custom(standin.TextTransformer(embed_cls=True), normalize=True),
    "open_clip, BERT": lambda: custom(encoder_of_transformers()),
    "open_clip, mean of patches": lambda: standin.CustomTextCLIP(
        standin.VisionTransformer(batch_first=True, pool_type="avg"), standin.TextTransformer()
    ),
}
REAL = {
    "real ViT": real_model,
    "real ResNet": lambda: real_model(vision=RESNET),
    "real CustomTextCLIP": lambda: real_model("CustomTextCLIP", quick_gelu=True),
    "real SigLIP": lambda: real_model(
        "CustomTextCLIP", text={"no_causal_mask": True, "pool_type": "last"}
    ),
    "real CoCa": coca,
}
BUILDERS = {**STANDINS, **REAL}


@pytest.fixture(params=BUILDERS, scope="module")
def model(request):
    return standin.randomise(BUILDERS[request.param]())


@pytest.fixture
def clip():
    return standin.randomise(STANDINS["clip, ViT"]())


@pytest.fixture
def wrapper(clip):
    return wrap(clip, (standin.preprocess(12), standin.tokenize))


def inputs(model, *lengths):
    """Pixel values and padded ids of captions of these lengths."""
    tower = wrap(model).tower_a
    ids = torch.zeros(len(lengths), standin.CONTEXT, dtype=torch.long)
    generator = torch.Generator().manual_seed(4)
    is_bert = isinstance(getattr(model, "text", None), standin.HFTextEncoder)
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
        for layer in range(tower.n_blocks):
            with torch.no_grad():
                states, context = tower.prefix(layer, x)
                actual = tower.tail(layer, states, *context)
            assert states.shape[0] == 3
            assert relative_error(actual, expected) < 1e-6


def test_the_score_is_the_models_own(model):
    pixels, ids = inputs(model, 9, 77)
    with torch.no_grad():
        actual, output = wrap(model)(pixels, ids), None
        if isinstance(model, standin.CLIP):
            output = model(pixels, ids)[0].diagonal() / model.logit_scale.exp()
        else:
            a, b = model.encode_image(pixels), model.encode_text(ids)
            output = torch.nn.functional.cosine_similarity(a, b)
    torch.testing.assert_close(actual, output)


def oracle_side(model, block, encode, x, reference):
    """States that enter a block as tokens (T, D), and the embedding of them: by hooks alone."""
    start, end = (entering(block, lambda x=x: encode(x)) for x in (reference, x))
    if end.dim() == 4:  # cells
        shape = end.shape[2:]
        to_states = lambda x: x.transpose(1, 2).unflatten(2, shape)  # noqa: E731
        to_tokens = lambda x: x[0].flatten(1).T  # noqa: E731
    elif end.shape[0] == 1:
        to_states, to_tokens = (lambda x: x), (lambda x: x[0])
    else:  # tokens first
        to_states, to_tokens = (lambda x: x.transpose(0, 1)), (lambda x: x[:, 0])

    def run(tokens):
        with replaced_input(block, to_states(tokens)):
            output = encode(x.expand(len(tokens), *x.shape[1:]))
        embedding = output[0] if isinstance(output, tuple) else output
        return embedding / embedding.norm(dim=-1, keepdim=True)

    return run, (to_tokens(start), to_tokens(end))


def blocks_of(model):
    visual, text = model.visual, getattr(model, "text", model)
    if hasattr(visual, "attnpool"):
        images = [visual.layer1, visual.layer2, visual.layer3, visual.layer4, visual.attnpool]
    else:
        images = list(visual.transformer.resblocks)
    hf = getattr(text.transformer, "encoder", None)
    return images, list(hf.layer if hf is not None else text.transformer.resblocks)


@pytest.mark.parametrize("layer", [-1, 1])
def test_the_map_is_the_oracles(model, layer):
    pixels, ids = inputs(model, 7, 12)
    wrapper = wrap(model)
    actual = SecondOrderIntegratedGradients(wrapper, (layer, layer)).attribute(
        (pixels, ids), n_steps=4
    )
    blocks_a, blocks_b = blocks_of(model)
    reference = wrapper.tower_b.reference(ids[:1])
    run_a, path_a = oracle_side(
        model, blocks_a[layer], model.encode_image, pixels[:1], torch.zeros_like(pixels[:1])
    )
    run_b, path_b = oracle_side(model, blocks_b[layer], model.encode_text, ids[:1], reference)
    expected = token_map(run_a, run_b, path_a, path_b, *quadrature(n_steps=4))
    assert relative_error(actual[0], expected) < 1e-5


def test_the_checker_finds_nothing(model):
    wrapper = wrap(model)
    assert check_wrapper(wrapper, *inputs(model, 6, 11)) == []
    assert check_wrapper(wrapper) == []


def test_tokens_behind_the_text_have_no_part(model):
    """Texts are as long as the context; models without a mask read what is behind their end."""
    pixels, ids = inputs(model, 9, 77)
    soig = SecondOrderIntegratedGradients(wrap(model), (1, 1))
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


@pytest.mark.parametrize("name", ["clip, ViT", "clip, ResNet", "open_clip"])
def test_frozen_models_have_the_same_products(name, caplog):
    """PyTorch's attention takes a fast path without derivatives where nothing asks for any."""
    caplog.set_level("INFO")
    model = standin.randomise(STANDINS[name]())
    pair = inputs(model, 6)
    trainable = SecondOrderIntegratedGradients(wrap(model), (1, 1)).attribute(pair, n_steps=3)
    model.requires_grad_(False)
    soig = SecondOrderIntegratedGradients(wrap(model), (1, 1))
    with torch.no_grad():
        frozen = soig.attribute(pair, n_steps=3)
    assert relative_error(frozen, trainable) < 1e-5
    assert "products a node" not in caplog.text  # as it says where there is no second derivative


@pytest.mark.parametrize("build", [STANDINS["open_clip"], REAL["real ViT"]])
def test_checkpointed_models(build):
    model = standin.randomise(build())
    pair = inputs(model, 6)
    expected = SecondOrderIntegratedGradients(wrap(model), (0, 0)).attribute(pair, n_steps=3)
    for part in (model.visual.transformer, getattr(model, "text", model).transformer):
        part.grad_checkpointing = True
    actual = SecondOrderIntegratedGradients(wrap(model), (0, 0)).attribute(pair, n_steps=3)
    torch.testing.assert_close(actual, expected)
    assert model.visual.transformer.grad_checkpointing


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_as_clip_has_it(clip, precision):
    """Convolutions and projections are halved; positions and norms stay as they are."""
    expected = SecondOrderIntegratedGradients(wrap(clip)).attribute(inputs(clip, 6))
    clip.visual.to(precision)
    pixels, ids = inputs(clip, 6)
    batch = wrap(clip).prepare(pixels, ids)
    assert batch.inputs[0].dtype == precision
    actual = SecondOrderIntegratedGradients(wrap(clip)).attribute(batch.inputs)
    assert actual.dtype == torch.float32
    assert relative_error(actual, expected) < 0.1


def test_a_t5_can_be_entered_at_its_embeddings_only():
    size = {"vocab_size": 64, "d_model": 12, "d_kv": 6, "d_ff": 24, "num_heads": 2}
    encoder = T5EncoderModel(T5Config(**size, num_layers=2)).encoder
    model = standin.randomise(custom(standin.HFTextEncoder(encoder)))
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
    assert torch.equal(batch.inputs[1], standin.tokenize([text]))
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
    assert spans == [*"ÉÉmile", "’", "s", "&", *"İİİ"]


@pytest.mark.parametrize(
    "tokenizer", [standin.tokenize, standin._tokenizer, standin.SimpleTokenizer("<start_of_text>")]
)
def test_kinds_of_byte_pair_tokenizers(clip, tokenizer):
    ids = wrap(clip, (None, tokenizer)).prepare(models.images(), ["a red dog"]).inputs[1]
    assert torch.equal(ids, standin.tokenize(["a red dog"]))


def test_captions_that_are_too_long(wrapper):
    text = " ".join(["dog 🙂"] * 30)
    with pytest.raises(ValueError, match="text 0 has 152 tokens .* holds 77; shorten"):
        wrapper.prepare(PICTURE, text)
    batch = wrapper.prepare(PICTURE, text, truncation=True)
    assert torch.equal(batch.inputs[1], standin.tokenize([text], truncate=True))
    assert [word.text for word in batch.axes_b[0].words][:3] == ["dog", "🙂", "dog"]


def plain(text):
    """Cleaning as SigLIP's models in open_clip have it."""
    return " ".join("".join(x for x in text if x not in "!,.#_").lower().split())


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("clean", [str, str.lower, plain])
def test_words_of_tokenizers_that_clean(clean, strip):
    inner = models.clip_tokenizer()
    inner.sep_token = "<|endoftext|>"
    tokenizer = standin.HFTokenizer(inner, clean, strip=strip)
    wrapped = wrap(standin.randomise(STANDINS["open_clip"]()), (None, tokenizer)).tower_b.tokenizer
    texts = ["A,  Red.. circle!", "##red a"]
    ids, _, axes = tokenize(wrapped, texts, 16, padding="max_length")
    assert torch.equal(ids, tokenizer(texts))
    words = [word.text for word in axes[0].words if word.text.isalpha()]
    assert words == ["A", "Red", "circle"]
    assert [axes[1].text[slice(*span)] for span in axes[1].spans if span][-2:] == ["red", "a"]


@pytest.mark.parametrize("name", ["clip, ViT", "clip, ResNet", "open_clip, CoCa"])
def test_from_a_picture_and_a_caption_to_a_heatmap(name):
    model = standin.randomise(STANDINS[name]())
    size = wrap(model).tower_a.image_size[0]
    tower = wrap(model, (standin.preprocess(size), standin._tokenizer))
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


def test_references_keep_both_ends_of_a_text(clip):
    _, ids = inputs(clip, 6)
    for tokenizer in (None, standin.tokenize):
        reference = wrap(clip, (None, tokenizer)).tower_b.reference(ids)
        assert reference[0].nonzero().flatten().tolist() == [0, 5]
        assert torch.equal(reference[0, [0, 5]], ids[0, [0, 5]])


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (standin.tokenize, r"is a tuple \(preprocess, tokenizer\).* but got function"),
        ((None, None, None), "but got tuple of 3"),
        ((12, None), "preprocess must be a function .* but got int"),
        ((None, str.split), "expected a SimpleTokenizer .* but got method_descriptor"),
        ((None, "bert"), "expected a SimpleTokenizer .* but got str"),
        (
            (None, standin.HFTokenizer(models.clip_tokenizer(), str, mode="clips")),
            "tokenizer_mode='clips' are not known",
        ),
    ],
)
def test_processors_of_other_kinds(clip, processor, message):
    with pytest.raises(TypeError, match=message):
        wrap(clip, processor)


def test_raw_inputs_need_a_processor(clip):
    with pytest.raises(ValueError, match="raw images .* need a processor"):
        wrap(clip).prepare(PICTURE, "a dog")
    with pytest.raises(ValueError, match="raw text .* needs a processor"):
        wrap(clip, (standin.preprocess(12), None)).prepare(PICTURE, "a dog")


def test_inputs_of_other_shapes(clip):
    wrapper, (pixels, ids) = wrap(clip), inputs(clip, 6)
    with pytest.raises(ValueError, match=r"images of \(12, 12\) pixels .* \(1, 3, 16, 12\)"):
        wrapper.prepare(models.images(1, (16, 12)), ids)
    with pytest.raises(ValueError, match="texts padded to 77 tokens, but got 9"):
        wrapper.prepare(pixels, ids[:, :9])
    with pytest.raises(ValueError, match=f"from 0 to {END}, but lie from 0 to {END + 1}"):
        wrapper.prepare(pixels, ids + (ids == END))


def without_pooling(part):
    model = custom(standin.TextTransformer())
    getattr(model, part).pool_type = "none"
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (standin.timm_model, "Sequential is neither a vision .* timm are not known.*write a Tower"),
        (lambda: custom(torch.nn.Linear(1, 1)), "text encoder Linear is neither a text trans"),
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
