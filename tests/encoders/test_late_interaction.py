"""Scores that sum the best match of each token, against loops over tokens and the slow oracle."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from captum_interactions import (
    InteractionMap,
    SecondOrderIntegratedGradients,
    check_wrapper,
    explain,
)
from captum_interactions.encoders import LateInteractionWrapper, TextTower, TokenTower
from captum_interactions.explanation import is_complete
from captum_interactions.functional import quadrature
from tests import models, tokenizers
from tests.expected import relative_error
from tests.oracle import entering, replaced_input, token_map

QUERIES = ["a red circle", "the blue hat is open"]
DOCUMENTS = ["the cafe is open", "a well made red circle on the table"]
ROUNDING = 1e-5  # of float32 sums over a few hundred products, relative to the largest value


def embedded(model, ids, mask):
    return F.normalize(model(ids, attention_mask=mask).last_hidden_state, dim=-1)


def bert(seed=0):
    tokenizer = tokenizers.bert(lowercase=True)
    sizes = {"hidden_size": 12, "intermediate_size": 24, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=2, pad_token_id=0, **sizes)
    return models.randomise(BertModel(config, add_pooling_layer=False), seed)


def tower(model, **options):
    blocks = [f"encoder.layer.{index}" for index in range(2)]
    tokenizer = tokenizers.bert(lowercase=True)
    encoder = TextTower(model, embedded, blocks, config=model.config, tokenizer=tokenizer)
    return TokenTower(encoder, **options)


@pytest.fixture(scope="module")
def wrapper():
    return LateInteractionWrapper(tower(bert()), tower(bert(1)))


def tokens_of(side, text):
    """Embeddings of all tokens of a text by itself, (T, D)."""
    encoding = side.encoder.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        return embedded(side.encoder.model, encoding["input_ids"], encoding["attention_mask"])[0]


def both_tokens(wrapper, pair):
    return tokens_of(wrapper.tower_a, pair[0]), tokens_of(wrapper.tower_b, pair[1])


def score_of(wrapper, *pair):
    batch = wrapper.prepare(*pair)
    with torch.no_grad():
        return float(wrapper(*batch.inputs, *batch.additional_forward_args))


def best_matches(queries, documents):
    """(index of the best, index of the second, their similarities) for each token of a query."""
    for query in queries:
        similarities = [float(query @ document) for document in documents]
        best, second = sorted(range(len(similarities)), key=similarities.__getitem__)[:-3:-1]
        yield best, second, similarities[best], similarities[second]


def attributed(wrapper, batch, layers=None, n_steps=8, normalization="none"):
    soig = SecondOrderIntegratedGradients(wrapper, layers, normalization=normalization)
    return soig.attribute(batch.inputs, None, None, batch.additional_forward_args, n_steps)


class TestScore:
    @pytest.mark.parametrize("mean", [False, True])
    def test_is_the_sum_of_best_matches(self, mean):
        wrapper = LateInteractionWrapper(tower(bert(), mean=mean), tower(bert(1)))
        together = wrapper.prepare(QUERIES, DOCUMENTS)
        scores = wrapper(*together.inputs, *together.additional_forward_args)
        for row, pair in enumerate(zip(QUERIES, DOCUMENTS, strict=True)):
            sides = both_tokens(wrapper, pair)
            values = [best for _, _, best, _ in best_matches(*sides)]
            expected = torch.tensor(sum(values) / (len(values) if mean else 1))
            alone = wrapper.prepare(*pair)
            score = wrapper(*alone.inputs, *alone.additional_forward_args)[0]
            torch.testing.assert_close(score, expected)
            torch.testing.assert_close(scores[row], expected)

    def test_tokens_that_do_not_count(self):
        """Here those whose id is odd have no part in the score, on either side."""

        def counts(ids, mask):
            return (ids % 2 == 0) & mask.bool()

        sides = tower(bert(), counts=counts), tower(bert(1), counts=counts)
        wrapper = LateInteractionWrapper(*sides)
        pair = QUERIES[0], DOCUMENTS[1]
        own = []
        for side, text in zip(sides, pair, strict=True):
            ids = torch.tensor(side.encoder.tokenizer(text)["input_ids"])
            own.append(tokens_of(side, text)[ids % 2 == 0])
        expected = sum(best for _, _, best, _ in best_matches(*own))
        assert score_of(wrapper, *pair) == pytest.approx(expected, rel=ROUNDING)

    def test_matches(self, wrapper):
        batch = wrapper.prepare(QUERIES, DOCUMENTS)
        found = wrapper.match(*batch.inputs, *batch.additional_forward_args)
        for row, pair in enumerate(zip(QUERIES, DOCUMENTS, strict=True)):
            sides = both_tokens(wrapper, pair)
            expected = list(best_matches(*sides))
            part = row, slice(len(expected))
            assert found.tokens[part].tolist() == list(range(len(expected)))
            assert found.winners[part].tolist() == [best for best, *_ in expected]
            assert found.runners_up[part].tolist() == [second for _, second, *_ in expected]
            margins = torch.tensor([first - second for *_, first, second in expected])
            torch.testing.assert_close(found.margins[part], margins, atol=1e-6, rtol=1e-5)
            similarities = sides[0] @ sides[1].T
            own = found.similarities[part][:, : len(sides[1])]
            torch.testing.assert_close(own, similarities, atol=1e-6, rtol=1e-5)
        # The first query is the shorter one, and so is the first document.
        assert found.winners[0, -1] == found.runners_up[0, -1] == found.tokens[0, -1] == -1
        assert found.similarities[0, 0, -1] == -torch.inf

    def test_a_document_of_one_token_has_no_second(self):
        def first(ids, mask):
            return torch.arange(ids.shape[1]).expand_as(ids) == 0

        wrapper = LateInteractionWrapper(tower(bert()), tower(bert(1), counts=first))
        batch = wrapper.prepare(QUERIES[0], DOCUMENTS[0])
        found = wrapper.match(*batch.inputs, *batch.additional_forward_args)
        assert (found.winners == 0).all()
        assert (found.runners_up == -1).all()
        assert (found.margins == torch.inf).all()
        matches = explain(wrapper, QUERIES[0], DOCUMENTS[0], n_steps=20).settings["matches"]
        assert {(one["runner_up"], one["margin"]) for one in matches} == {(None, None)}


class TestMap:
    @pytest.mark.parametrize("layers", [(0, 0), (1, 0), (-1, -1)])
    def test_against_the_slow_oracle(self, wrapper, layers):
        pair = QUERIES[0], DOCUMENTS[0]
        batch = wrapper.prepare(*pair)
        sides = both_tokens(wrapper, pair)
        places = [tuple(range(len(sides[0]))), tuple(best for best, *_ in best_matches(*sides))]
        functions, paths = [], []
        for side, layer, ids, own in zip(
            (wrapper.tower_a, wrapper.tower_b), layers, batch.inputs, places, strict=True
        ):
            model = side.encoder.model
            block = model.encoder.layer[layer]
            baseline = ids.clone()
            baseline[:, 1:-1] = 0
            ones = torch.ones_like(ids)

            def function(states, model=model, block=block, ids=ids, own=own):
                with replaced_input(block, states):
                    mask = ids.new_ones((len(states), ids.shape[1]))
                    return embedded(model, ids.expand(len(states), -1), mask)[:, list(own)].flatten(
                        1
                    )

            functions.append(function)
            ends = (
                entering(block, lambda x=x, model=model, ones=ones: embedded(model, x, ones))[0]
                for x in (baseline, ids)
            )
            paths.append(tuple(ends))
        rule = quadrature("gausslegendre", 8)
        expected = token_map(*functions, *paths, *rule)
        actual = attributed(wrapper, batch, layers)[0]
        assert relative_error(actual, expected) < ROUNDING

    def test_parts_add_up_under_the_winners(self, wrapper):
        pair = QUERIES[1], DOCUMENTS[1]
        imap = explain(wrapper, *pair, n_steps=60)
        assert abs(imap.convergence_delta) < 1e-3 * imap.score
        assert imap.settings["normalization"] == "none"
        assert is_complete(wrapper, "second_order_integrated_gradients", {})
        batch = wrapper.prepare(*pair)
        of_baselines = []
        for side, ids in zip((wrapper.tower_a, wrapper.tower_b), batch.inputs, strict=True):
            baseline = ids.clone()
            baseline[:, 1:-1] = 0
            with torch.no_grad():
                of_baselines.append(embedded(side.encoder.model, baseline, torch.ones_like(ids))[0])
        constant = sum(
            float(of_baselines[0][one["token"]] @ of_baselines[1][one["winner"]])
            for one in imap.settings["matches"]
        )
        assert imap.constant == pytest.approx(constant, rel=ROUNDING)

    def test_by_itself_as_in_a_batch(self, wrapper):
        assert check_wrapper(wrapper, QUERIES, DOCUMENTS) == []

    def test_the_margin_is_what_another_winner_would_cost(self, wrapper):
        batch = wrapper.prepare(QUERIES[0], DOCUMENTS[1])
        matches = wrapper.match(*batch.inputs, *batch.additional_forward_args)
        *others, winners = batch.additional_forward_args
        winners = winners.clone()
        winners[0, 2] = matches.runners_up[0, 2]
        score, other = (
            wrapper(*batch.inputs, *others, indices)[0] for indices in (matches.winners, winners)
        )
        torch.testing.assert_close(score - other, matches.margins[0, 2], atol=1e-5, rtol=1e-4)
        args = batch.inputs, None, None
        soig = SecondOrderIntegratedGradients(wrapper, normalization="none")
        maps = [soig.attribute(*args, (*others, w)) for w in (matches.winners, winners)]
        assert not torch.allclose(*maps, atol=1e-3)

    def test_is_saved_with_its_matches(self, wrapper, tmp_path):
        imap = explain(wrapper, QUERIES[0], DOCUMENTS[0], n_steps=20)
        imap.save(tmp_path / "map")
        loaded = InteractionMap.load(tmp_path / "map")
        assert loaded.settings == imap.settings
        assert len(loaded.settings["matches"]) == len(imap.axis_a)

    def test_first_order(self, wrapper):
        """Integrated gradients explain the dot product too, not a cosine."""
        fmap = explain(wrapper, QUERIES[0], DOCUMENTS[0], "integrated_gradients", n_steps=60)
        parts = explain(wrapper, QUERIES[0], DOCUMENTS[0], n_steps=60)
        marginal = parts.interactions.sum(1) + parts.main_effects_a
        assert relative_error(fmap.attributions_a, marginal) < 1e-4  # of two runs in float32


class TestPartsOfAQuery:
    def test_maps_of_parts_add_up(self, wrapper):
        sides = wrapper.tower_a, wrapper.tower_b
        n_tokens = len(wrapper.prepare(QUERIES[0], DOCUMENTS[0]).axes_a[0])
        parts = [[0], "a red", list(range(3, n_tokens))]
        maps = [
            explain(
                LateInteractionWrapper(*sides, query_part=part),
                QUERIES[0],
                DOCUMENTS[0],
                n_steps=20,
            )
            for part in parts
        ]
        whole = explain(wrapper, QUERIES[0], DOCUMENTS[0], n_steps=20)
        total = sum(imap.interactions for imap in maps)
        assert relative_error(total, whole.interactions) < ROUNDING
        assert sum(imap.score for imap in maps) == pytest.approx(whole.score, rel=ROUNDING)
        assert [len(imap.settings["matches"]) for imap in maps] == [1, 2, n_tokens - 3]

    def test_no_token_counts(self):
        side = tower(bert(), counts=lambda ids, mask: torch.arange(ids.shape[1]) + 0 * ids == 0)
        wrapper = LateInteractionWrapper(side, tower(bert(1)), query_part="red")
        with pytest.raises(ValueError, match="no token of 'red' in query 0 counts in the score"):
            wrapper.prepare(QUERIES[0], DOCUMENTS[0])


def test_factors_of_documents_serve_any_query(wrapper):
    soig = SecondOrderIntegratedGradients(wrapper, normalization="none")
    inputs, extras, _ = wrapper.tower_b.prepare(DOCUMENTS)
    documents = soig.factors_b(inputs, None, extras, 4)
    for query, row in itertools.product(QUERIES, range(2)):
        ids, own, _ = wrapper.tower_a.prepare(query)
        factors = soig.factors_a(ids, None, own, 4)
        of_pairs = wrapper.under_winners(factors, documents, extras[-1])
        expected = attributed(wrapper, wrapper.prepare(query, DOCUMENTS[row]), n_steps=4)[0]
        actual = (factors @ of_pairs)[0, row, :, : expected.shape[1]]
        assert relative_error(actual, expected) < ROUNDING
        score = score_of(wrapper, query, DOCUMENTS[row])
        assert float(factors.embedding[0] @ of_pairs.embedding[row]) == pytest.approx(score)
    with pytest.raises(ValueError, match="factors of one query with embeddings of 12 dimensions"):
        wrapper.under_winners(documents, documents, extras[-1])


class TestRefused:
    def test_a_cosine(self, wrapper):
        with pytest.raises(ValueError, match="explained with normalization='none', but got 'cosin"):
            SecondOrderIntegratedGradients(wrapper)
        with pytest.raises(ValueError, match="normalization='none', but got 'frozen'"):
            explain(wrapper, QUERIES[0], DOCUMENTS[0], normalization="frozen")

    def test_another_tower(self):
        side = tower(bert())
        with pytest.raises(TypeError, match="tower b of a late interaction must be a TokenTower"):
            LateInteractionWrapper(side, side.encoder)

    def test_indices(self, wrapper):
        batch = wrapper.prepare(QUERIES[0], DOCUMENTS[0])
        *others, winners = batch.additional_forward_args
        with pytest.raises(ValueError, match="needs attention_mask, token_indices beside its inpu"):
            wrapper(*batch.inputs, *others)
        with pytest.raises(ValueError, match=r"integers of shape \(1, M\), but got torch.float32"):
            wrapper(*batch.inputs, *others, winners.float())

    def test_embeddings_of_a_whole(self):
        encoder = tower(bert()).encoder
        pooled = TextTower(
            encoder.model,
            lambda model, ids, mask: embedded(model, ids, mask).mean(1),
            ["encoder.layer.0", "encoder.layer.1"],
            config=encoder.config,
            tokenizer=encoder.tokenizer,
        )
        wrapper = LateInteractionWrapper(TokenTower(pooled), TokenTower(pooled))
        with pytest.raises(ValueError, match=r"embeddings of tokens, \(1, T, D\), but TextTower"):
            wrapper.prepare(QUERIES[0], DOCUMENTS[0])

    def test_no_token_that_counts(self):
        side = tower(bert(), counts=lambda ids, mask: torch.zeros_like(ids))
        with pytest.raises(ValueError, match="no token of input 0 counts in the score"):
            side.prepare(QUERIES)

    def test_similarities_of_single_tokens(self, wrapper):
        with pytest.raises(ValueError, match="LateInteractionWrapper.match gives their similariti"):
            explain(wrapper, QUERIES[0], DOCUMENTS[0], "token_similarity")
