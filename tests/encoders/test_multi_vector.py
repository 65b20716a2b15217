"""``MultiVectorEncoder`` of ``sentence-transformers`` (ColBERT), against its own scores."""

from __future__ import annotations

import json

import pytest
import torch

from captum_interactions import check_wrapper, explain, from_pretrained, wrap
from tests.encoders.test_sentence_encoders import modules, package, randomise, transformer

if not hasattr(package, "MultiVectorEncoder"):
    pytest.skip("this version has no MultiVectorEncoder", allow_module_level=True)

from sentence_transformers.multi_vector_encoder.modules import (
    HierarchicalTokenPooling,
    MultiVectorMask,
)

QUERIES = ["a dog ?", "an old man sings", "running"]
DOCUMENTS = ["one man plays a song : text", "a dog running", "search an old guitar ? a man"]
PROMPTS = {"query": "search : ", "document": "text : ", "other": "one "}


def expansion(strategy, attend, length):
    return {"query_expansion": {"strategy": strategy, "attend": attend, "length": length}}


def colbert(backbone="Bert", skipped=(), similarity="maxsim", prompts=PROMPTS, more=(), **knobs):
    first = transformer(backbone)
    for name, value in knobs.items():
        setattr(first, name, value)
    dense = randomise(modules.Dense(12, 7, module_input_name="token_embeddings"), 3)
    parts = [first, dense, modules.Normalize("token_embeddings"), MultiVectorMask(list(skipped))]
    return package.MultiVectorEncoder(
        modules=[*parts, *more], device="cpu", prompts=prompts, similarity_fn_name=similarity
    ).eval()


def own_scores(model, **options):
    queries = model.encode_query(QUERIES, **options)
    return model.similarity_pairwise(queries, model.encode_document(DOCUMENTS))


def scores_of(wrapper, queries, documents):
    batch = wrapper.prepare(queries, documents)
    with torch.no_grad():
        return wrapper(*batch.inputs, *batch.additional_forward_args)


KINDS = {
    "plain": {},
    "another backbone": {"backbone": "ModernBert"},
    "padding on the left": {"backbone": "Qwen3"},
    "punctuation is skipped": {"skipped": ["?", ":"]},
    "a mean": {"similarity": "meanmaxsim"},
    "expansion": expansion("fixed", attend=False, length=10),
    "expansion that is attended to": expansion("fixed", attend=True, length=10),
    "expansion of short queries, a mean": {
        **expansion("min", attend=False, length=7),
        "similarity": "meanmaxsim",
    },
    "passages": {"prompts": {"query": "", "passage": "text : "}},
    "a default prompt": {"prompts": {}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_scores(kind):
    model = colbert(**KINDS[kind])
    wrapper, expected = wrap(model), own_scores(model)
    torch.testing.assert_close(scores_of(wrapper, QUERIES, DOCUMENTS), expected)
    for pair, score in zip(zip(QUERIES, DOCUMENTS, strict=True), expected, strict=True):
        torch.testing.assert_close(scores_of(wrapper, *pair)[0], score)


@pytest.mark.parametrize("kind", ["padding on the left", "expansion", "a mean"])
def test_is_right_at_every_layer(kind):
    assert check_wrapper(wrap(colbert(**KINDS[kind])), QUERIES, DOCUMENTS) == []


def test_expansions_are_special_tokens_of_the_query():
    wrapper = wrap(colbert(**expansion("fixed", attend=False, length=10)))
    imap = explain(wrapper, QUERIES[0], DOCUMENTS[0], n_steps=40)
    assert imap.axis_a.labels == (
        *("[CLS]", "search", ":", "a", "dog", "?", "[SEP]"),
        *["[MASK]"] * 3,
    )
    assert [word.text for word in imap.axis_a.words] == ["a", "dog", "?"]
    assert all(imap.axis_a.special[-3:])
    assert len(imap.settings["matches"]) == 10
    # They stay in the baseline, so they have no share in the map.
    assert not imap.interactions[-3:].any()


def test_another_prompt():
    model = colbert()
    wrapper = wrap(model, prompts=("other", None))
    expected = own_scores(model, prompt_name="other")
    torch.testing.assert_close(scores_of(wrapper, QUERIES, DOCUMENTS), expected)
    with pytest.raises(ValueError, match="no prompt 'none'; its prompts are .*query, document"):
        wrap(model, prompts=("none", None))


def test_its_own_limits():
    wrapper = wrap(colbert(query_length=6, document_length=8))
    with pytest.raises(ValueError, match="text 0 has 8 tokens .* the model's context holds 6"):
        wrapper.prepare("an old man sings", "a dog")
    with pytest.raises(ValueError, match="text 0 has 11 tokens .* the model's context holds 8"):
        wrapper.prepare("a", "an old man plays one song a")
    first = wrapper.tower_a.model[0]
    first.query_length, first.document_length = 8, 11
    wrapper.prepare("an old man sings", "an old man plays one song a")
    first.query_expansion = {"strategy": "fixed", "length": 7}
    assert [t.encoder.context_length for t in (wrapper.tower_a, wrapper.tower_b)] == [7, 11]


@pytest.mark.parametrize("model_type", ["MultiVectorEncoder", "ColBERT"])
def test_by_name(tmp_path, model_type):
    """Not as a SentenceTransformer, which would pool its tokens."""
    model = colbert()
    model.save(str(tmp_path))
    config = tmp_path / "config_sentence_transformers.json"
    settings = json.loads(config.read_text("utf-8"))
    assert settings["model_type"] == "MultiVectorEncoder"
    if model_type == "MultiVectorEncoder":
        wrapper = from_pretrained(tmp_path)
        torch.testing.assert_close(scores_of(wrapper, QUERIES, DOCUMENTS), own_scores(model))
        return
    config.write_text(json.dumps({**settings, "model_type": model_type}), "utf-8")
    assert type(from_pretrained(tmp_path).tower_a.encoder.model) is package.MultiVectorEncoder


class TestRefused:
    def test_tokens_that_are_merged(self):
        model = colbert(more=[HierarchicalTokenPooling(2)])
        with pytest.raises(TypeError, match="its HierarchicalTokenPooling merges tokens") as info:
            wrap(model)
        without = eval(str(info.value).split("Without it: ")[1], {"wrap": wrap, "model": model})
        torch.testing.assert_close(
            scores_of(without, QUERIES, DOCUMENTS), own_scores(colbert()), check_device=False
        )

    def test_expansions_in_front(self):
        model = colbert("Qwen3", **expansion("fixed", attend=True, length=12))
        with pytest.raises(TypeError, match="it expands queries where its tokenizer puts padding"):
            wrap(model)
        model[0].query_expansion = None
        torch.testing.assert_close(scores_of(wrap(model), QUERIES, DOCUMENTS), own_scores(model))

    def test_one_of_a_pair(self):
        model = colbert()
        with pytest.raises(TypeError, match="so it makes no pair with another one"):
            wrap((model, model))

    def test_a_pooling(self):
        with pytest.raises(TypeError, match="pooling='mean' is not for MultiVectorEncoder, which"):
            wrap(colbert(), pooling="mean")
