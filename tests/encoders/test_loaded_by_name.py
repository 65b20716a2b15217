"""What people load by name from ``sentence-transformers``: CLIP, routes, static and sparse ones."""

from __future__ import annotations

import pytest
import torch
import transformers
from PIL import Image

from captum_interactions import (
    SecondOrderIntegratedGradients,
    check_wrapper,
    explain,
    from_pretrained,
    wrap,
)
from captum_interactions.functional import quadrature
from tests import models, tokenizers
from tests.encoders.test_sentence_encoders import (
    DECODER,
    LONG,
    PROMPTS,
    SHORT,
    TEXTS,
    WORDS,
    chain,
    check_embeddings,
    encoded,
    mapped,
    modules,
    package,
    randomise,
    saved,
    shared,
    tokenizer,
)
from tests.expected import relative_error
from tests.oracle import entering, replaced_input, token_map

sparse = pytest.importorskip("sentence_transformers.sparse_encoder.modules")

PICTURE = Image.effect_noise((20, 16), 90).convert("RGB")


def score_of(wrapper, a, b):
    batch = wrapper.prepare(a, b)
    with torch.no_grad():
        return wrapper(*batch.inputs, *batch.additional_forward_args)


# CLIP inside


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    clip, processor = models.clip_with_processor()
    folder = tmp_path_factory.mktemp("clip")
    clip.save_pretrained(folder / "inside")
    processor.save_pretrained(folder / "inside")
    first = modules.Transformer(str(folder / "inside"))
    package.SentenceTransformer(modules=[first], device="cpu").save(str(folder / "whole"))
    return folder / "whole"


@pytest.fixture(scope="module")
def clip(folder):
    return package.SentenceTransformer(str(folder), device="cpu")


def test_clip_by_name(folder, clip):
    wrapper = from_pretrained(folder)
    expected = torch.cosine_similarity(*(encoded(clip, [x]) for x in (PICTURE, "a red circle")))
    torch.testing.assert_close(score_of(wrapper, PICTURE, "a red circle"), expected)
    imap = explain(wrapper, PICTURE, "a red circle", n_steps=4)
    assert [word.text for word in imap.axis_b.words] == ["a", "red", "circle"]
    pair = [PICTURE, PICTURE.rotate(90)], ["a red", "circle"]
    assert check_wrapper(wrapper, *pair, n_steps=20) == []


def test_clip_and_another_encoder_of_texts(clip):
    """``clip-ViT-B-32-multilingual-v1`` maps texts of many languages to CLIP's space."""
    texts = chain(shared("MPNet"), end="bare")
    texts.append(randomise(modules.Dense(12, 24), seed=3))
    wrapper = wrap((clip, texts))
    expected = torch.cosine_similarity(encoded(clip, [PICTURE]), encoded(texts, [LONG]))
    torch.testing.assert_close(score_of(wrapper, PICTURE, LONG), expected)
    assert check_wrapper(wrapper, n_steps=20) == []


# Routes


def routed(**options):
    routes = {"query": [shared("Bert")], "document": [shared("MPNet")]}
    parts = [modules.Router(routes, default_route="query"), modules.Pooling(12)]
    return package.SentenceTransformer(modules=parts, device="cpu", **options)


@pytest.mark.parametrize("prompts", [None, ("query", "document")])
def test_routes_of_queries_and_documents(prompts):
    model = routed(prompts=PROMPTS).eval()
    wrapper = wrap(model, prompts=prompts)
    names = prompts or (None, None)
    query, document = (
        model.encode(TEXTS, task=task, prompt_name=name, convert_to_tensor=True)
        for task, name in zip(("query", "document"), names, strict=True)
    )
    expected = torch.cosine_similarity(query, document)
    torch.testing.assert_close(score_of(wrapper, TEXTS, TEXTS), expected)
    assert check_wrapper(wrapper, n_steps=20) == []
    assert wrapper.default_layers == (-1, -1)


def test_other_routes_are_refused():
    routes = {"a": [shared("Bert")], "b": [shared("MPNet")]}
    parts = [modules.Router(routes, default_route="a"), modules.Pooling(12)]
    with pytest.raises(TypeError, match="its Router has other routes than 'query' and 'document'"):
        wrap(package.SentenceTransformer(modules=parts, device="cpu"))


# Decoders


def decoder(kind, pooling, **options):
    own = tokenizer(padding_side="left")
    ids = {name: getattr(own, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")}
    sizes = DECODER | {"vocab_size": len(own), "bos_token_id": 2, "eos_token_id": 3, **ids}
    if kind == "Gemma3Text":
        sizes |= {"use_bidirectional_attention": True, "sliding_window": 64}
        sizes |= {"query_pre_attn_scalar": 6}
    config = getattr(transformers, f"{kind}Config")(**sizes)
    first = saved(randomise(getattr(transformers, f"{kind}Model")(config)), own)
    return chain(first, pooling, **options)


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("Qwen3", "lasttoken"), ("Mistral", "lasttoken"), ("Gemma3Text", "mean")],
)
def test_decoders_alone_and_padded(kind, pooling, include_prompt):
    """As Qwen3-Embedding, E5-Mistral and EmbeddingGemma: padding on the left, prompts."""
    model = decoder(kind, pooling, prompts=PROMPTS, include_prompt=include_prompt)
    wrapper = wrap(model, prompts=("query", "document"))
    check_embeddings(wrapper, model, prompt_name="query")
    for layers in ((0, 1), (-1, -1)):
        maps = mapped(wrapper, [SHORT, LONG], [LONG, SHORT], layers)
        for row, pair in enumerate(((SHORT, LONG), (LONG, SHORT))):
            (alone,) = mapped(wrapper, *pair, layers)
            n_a, n_b = alone.shape
            assert relative_error(maps[row][-n_a:, -n_b:], alone) < 1e-5
            assert torch.count_nonzero(maps[row]) == torch.count_nonzero(maps[row][-n_a:, -n_b:])


# Static embeddings


def static(end=()):
    own = tokenizers.numbered("[UNK]", "[PAD]", *WORDS)
    words = transformers.BertTokenizer(own, cls_token="[UNK]", sep_token="[UNK]").backend_tokenizer
    weights = torch.randn(words.get_vocab_size(), 8, generator=torch.Generator().manual_seed(0))
    first = modules.StaticEmbedding(words, embedding_weights=weights.numpy())
    return package.SentenceTransformer(modules=[first, *end], device="cpu").eval()


@pytest.mark.parametrize("end", [(), (modules.Normalize(),)])
def test_static_embeddings(end):
    model = static(end)
    wrapper = wrap(model)
    assert wrapper.default_layers == ("pool", "pool")
    check_embeddings(wrapper, model)
    assert check_wrapper(wrapper) == []
    if end:
        return
    a, b = TEXTS[0], TEXTS[1]
    imap = explain(wrapper, a, b, n_steps=1, normalization="none")
    # The mean is linear: one node is exact, and a token's share is its vector's distance.
    vectors = model[0].embedding.weight.detach()
    sides = []
    for text in (a, b):
        ids = torch.tensor(model[0].tokenizer.encode(text, add_special_tokens=False).ids)
        sides.append((vectors[ids] - vectors[1]) / len(ids))
    torch.testing.assert_close(imap.interactions, sides[0] @ sides[1].T)
    assert abs(imap.convergence_delta) < 1e-6
    assert [word.text for word in imap.axis_a.words] == a.split()


def test_unknown_words_of_static_embeddings_are_words():
    imap = explain(wrap(static()), f"{WORDS[0]} ⚇ {WORDS[1]}", TEXTS[1])
    assert [word.text for word in imap.axis_a.words] == [WORDS[0], "⚇", WORDS[1]]
    assert not any(imap.axis_a.special)
    torch.testing.assert_close(imap.by_unit().sum(), imap.interactions.sum())


def test_model2vec():
    model2vec = pytest.importorskip("model2vec")
    model = static()
    weights = model[0].embedding.weight.detach().numpy()
    source = model2vec.StaticModel(weights, model[0].tokenizer, normalize=False)
    expected = torch.as_tensor(source.encode([SHORT, LONG]))
    wrapper = wrap(model)
    inputs, extras, _ = wrapper.tower_a.prepare([SHORT, LONG])
    torch.testing.assert_close(wrapper.encode_a(inputs, *extras).detach(), expected)


def test_static_embeddings_without_a_word_for_a_baseline():
    words = transformers.BertTokenizer(
        tokenizers.numbered(*WORDS, "[X]"),
        **{f"{name}_token": "[X]" for name in ("unk", "pad", "cls", "sep", "mask")},
    ).backend_tokenizer
    first = modules.StaticEmbedding(words, embedding_dim=4)
    with pytest.raises(ValueError, match=r"none of \[PAD\], <pad>, \[UNK\], <unk>"):
        wrap(package.SentenceTransformer(modules=[first], device="cpu"))


# Weights of words


@pytest.fixture(scope="module", params=["max", "sum"])
def splade(request, tmp_path_factory):
    own = tokenizer()
    sizes = {"hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 24, "vocab_size": len(own)}
    config = transformers.BertConfig(**sizes, pad_token_id=own.pad_token_id)
    model = randomise(transformers.BertForMaskedLM(config))
    folder = tmp_path_factory.mktemp("splade")
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    kinds = {"max": modules.Transformer, "sum": sparse.MLMTransformer}
    task = {"transformer_task": "fill-mask"} if request.param == "max" else {}
    parts = [kinds[request.param](str(folder), **task), sparse.SpladePooling(request.param)]
    return package.SparseEncoder(modules=parts, device="cpu").eval()


@pytest.fixture
def sparse_wrapper(splade):
    with pytest.warns(UserWarning, match="own similarity is 'dot'"):
        return wrap(splade)


def test_sparse_embeddings(splade, sparse_wrapper):
    tower = sparse_wrapper.tower_a
    inputs, extras, _ = tower.prepare(TEXTS)
    expected = splade.encode(TEXTS, convert_to_sparse_tensor=False)
    torch.testing.assert_close(tower.encode(inputs, *extras).detach(), expected)
    assert check_wrapper(sparse_wrapper, n_steps=400) == []


def test_the_length_of_sparse_texts_is_changed_later(splade, monkeypatch):
    """The package asks for it at every call, and so does the tower."""
    monkeypatch.setattr(splade, "max_seq_length", 5)
    with pytest.warns(UserWarning, match="own similarity is 'dot'"):
        tower = wrap(splade).tower_a
    assert tower.context_length == 5
    splade.max_seq_length = 7
    assert tower.context_length == 7
    splade.max_seq_length = 1000  # no more than there are positions
    assert tower.context_length == 24


def test_sparse_maps_are_the_oracles(splade, sparse_wrapper):
    block = splade[0].auto_model.bert.encoder.layer[1]
    tower = sparse_wrapper.tower_a
    sides = []
    for text in (SHORT, LONG):
        ids, (mask,), _ = tower.prepare(text)

        def run(ids=ids, mask=mask):
            logits = splade[0].auto_model(ids, attention_mask=mask).logits
            weights = logits.relu().log1p()
            return weights.amax(1) if splade[1].pooling_strategy == "max" else weights.sum(1)

        def function(states, run=run, ids=ids, mask=mask):
            with replaced_input(block, states):
                return run(ids.expand(len(states), -1), mask.expand(len(states), -1))

        baseline = tower.baseline(ids, mask)
        path = tuple(entering(block, lambda x=x, run=run: run(x))[0] for x in (baseline, ids))
        sides.append((function, path))
    (run_a, path_a), (run_b, path_b) = sides
    expected = token_map(run_a, run_b, path_a, path_b, *quadrature(n_steps=3))
    batch = sparse_wrapper.prepare(SHORT, LONG)
    soig = SecondOrderIntegratedGradients(sparse_wrapper, (-1, -1), normalization="none")
    actual = soig.attribute(
        batch.inputs, additional_forward_args=batch.additional_forward_args, n_steps=3
    )
    assert relative_error(actual[0], expected) < 1e-5


# What is pooled, as a layer


@pytest.mark.parametrize("pooling", ["mean", "weightedmean"])
def test_a_mean_is_exact_behind_the_last_block(pooling):
    model = chain(shared("MPNet"), pooling, end="bare")
    wrapper = wrap(model)
    check_embeddings(wrapper, model)
    assert wrapper.default_layers == (-1, -1)
    assert wrapper.tower_a.layers == (0, 1, 2, "pool")
    options = {"layers": ("pool", "pool"), "normalization": "none"}
    imap = explain(wrapper, SHORT, LONG, n_steps=1, **options)
    assert abs(imap.convergence_delta) < 1e-5 * abs(imap.score)
    more = explain(wrapper, SHORT, LONG, n_steps=9, **options)
    torch.testing.assert_close(imap.interactions, more.interactions)


@pytest.mark.parametrize("pooling", ["cls", "lasttoken"])
def test_one_token_is_no_layer(pooling):
    wrapper = wrap(chain(shared("MPNet"), pooling))
    assert not wrapper.tower_a.has_pool
    with pytest.raises(ValueError, match="an int from -3 to 2, or 'input' .* but got 'pool'"):
        SecondOrderIntegratedGradients(wrapper, ("pool", -1))
