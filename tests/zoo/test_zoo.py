"""The bundled model loads without a network, and its training can be interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, CLIPModel, CLIPTokenizer

from captum_interactions import DualEncoderWrapper
from captum_interactions.datasets import Scenes
from captum_interactions.datasets.scenes import DOMAINS
from captum_interactions.datasets.shapes import COLOURS, SHAPES
from captum_interactions.zoo import (
    DEMO,
    HELD_OUT_SEED,
    REPORT_SEED,
    VALIDATION_SEED,
    knowledge,
    load_demo,
)
from captum_interactions.zoo.batches import KINDS, TRAINING_SEED, Batches, draw_things
from captum_interactions.zoo.knowledge import QUESTIONS, answers, chance
from captum_interactions.zoo.report import Grounding, ground
from captum_interactions.zoo.train import Recipe, train, train_tokenizer, training_captions

training = import_module("captum_interactions.zoo.train")

TINY = Recipe(steps=4, batch=6, warmup=2, width=32, vision_layers=2, text_layers=1)


@pytest.fixture(scope="module")
def demo() -> tuple[DualEncoderWrapper, Scenes]:
    return load_demo()


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return AutoProcessor.from_pretrained(DEMO, local_files_only=True).tokenizer


# The bundled model.


def test_demo_is_small_and_safe() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md"}


def test_demo_loads_offline_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = AutoModel.from_pretrained(DEMO, local_files_only=True)
    AutoProcessor.from_pretrained(DEMO, local_files_only=True)
    assert isinstance(model, CLIPModel)
    assert model.dtype == torch.float32
    layers = json.loads((DEMO / "config.json").read_text())["captum_interactions"]["default_layers"]
    assert load_demo()[0].default_layers == tuple(layers)


def test_special_tokens_are_distinct_and_text_pools_at_its_end(tokenizer: CLIPTokenizer) -> None:
    config = AutoModel.from_pretrained(DEMO, local_files_only=True).config.text_config
    specials = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert specials == (config.pad_token_id, config.bos_token_id, config.eos_token_id)
    assert len(set(specials)) == 3
    assert config.eos_token_id != 2  # for which CLIPTextModel pools at the largest id


@pytest.mark.parametrize(
    "text",
    ["a small striped red circle", "left of, above.", "crème brûlée", "日本 🎈", "x1y22 #?!"],
)
def test_any_text_survives_the_tokenizer(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[1:-1]  # it doubles as the unknown token
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded.replace(" ", "") == text.replace(" ", "")


def test_words_of_phrases_are_single_tokens(tokenizer: CLIPTokenizer) -> None:
    for scene in Scenes(30, seed=1):
        for thing in scene.named:
            assert thing.phrase is not None
            assert len(tokenizer(thing.phrase).input_ids) == 2 + len(thing.phrase.split())


def test_scenes_for_training_choices_and_reports_are_apart(
    demo: tuple[DualEncoderWrapper, Scenes],
) -> None:
    assert demo[1].seed == HELD_OUT_SEED
    assert len({TRAINING_SEED, HELD_OUT_SEED, VALIDATION_SEED, REPORT_SEED}) == 4


def test_what_the_demo_knows(
    demo: tuple[DualEncoderWrapper, Scenes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 60 questions: a share of .9 reaches .75 in all but 2 of 10,000 draws.
    for name in ("colour (of 10)", "shape (of 10)", "other colour (of 2)", "other shape (of 2)"):
        assert answers(demo[0], name, 60, 5, "plain").mean() > 0.75, name
    # Of 128 scenes: shares have a standard error of .04. They were .69 to .80, and .82 to .90.
    monkeypatch.setattr(knowledge, "N_GALLERY", 128)
    monkeypatch.setattr(knowledge, "_N_MARGINAL", 300)
    reached, reachable = knowledge.retrieve(demo[0], 5, "plain")
    for own, best in zip(reached, reachable, strict=True):
        assert 0.4 < own < best < 1


def test_a_guess_is_right_once_in_as_many_captions_as_there_are() -> None:
    assert {name: chance(name) for name in QUESTIONS} == {
        name: 1 / int(name.split()[-1].removesuffix(")")) for name in QUESTIONS
    }


def test_maps_find_the_objects(demo: tuple[DualEncoderWrapper, Scenes]) -> None:
    wrapper, scenes = demo
    layer_a, layer_b = wrapper.default_layers
    assert isinstance(layer_a, int)
    assert isinstance(layer_b, int)
    grounding = ground(wrapper, scenes[:12], (layer_a, layer_b), n_steps=8)
    assert np.median(grounding.inside) > 0.3  # a box covers .05 of an image
    assert np.mean(grounding.own) > 0.9


def test_grounding_by_hand() -> None:
    grounding = Grounding()
    maps = np.array([[3.0, 1.0, -2.0], [-1.0, -1.0, 2.0]], np.float32)
    boxes = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]], np.float32)
    grounding.add(maps, boxes)
    assert grounding.inside == pytest.approx([0.75, 0.5])
    assert grounding.own == [True, True]
    assert grounding.other == [True, True]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_only_the_first_caption_of_a_question_is_true(name: str, domain: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        question = QUESTIONS[name](rng, DOMAINS[domain])
        true, *false = question.captions
        assert len({true, *false}) == (10 if "10" in name else 2)
        if name in ("colour (of 10)", "shape (of 10)", "binding (of 2)"):
            names = [f"{thing.colour} {thing.shape}" for thing in question.things]
            assert all(one in true for one in names)
            assert not any(one in caption for one in names for caption in false)


# Training.


@pytest.mark.parametrize("name", KINDS)
def test_scenes_of_a_kind(name: str) -> None:
    kind = KINDS[name]
    rng = np.random.default_rng(0)
    colours, shapes = tuple(COLOURS)[: kind.n_colours], tuple(SHAPES)[: kind.n_shapes]
    for _ in range(20):
        things = draw_things(rng, kind, colours, shapes)
        assert kind.counts is None or len(things) in kind.counts
        assert {t.colour for t in things} <= set(colours)
        assert {t.shape for t in things} <= set(shapes)
        if kind.is_distinct:
            assert len({t.colour for t in things}) == len({t.shape for t in things}) == 2
        if kind.is_relation:
            assert [(t.colour, t.shape) for t in things] == list(zip(colours, shapes, strict=True))


def test_batches_depend_on_seed_and_step_alone(tokenizer: CLIPTokenizer) -> None:
    batches = Batches(100, 3, 0, tokenizer)
    first, again, other = batches[60], Batches(100, 3, 0, tokenizer)[60], batches[61]
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.images, Batches(100, 3, 1, tokenizer)[60].images)


def test_the_tokenizer_knows_the_words_of_captions() -> None:
    tokenizer = train_tokenizer(training_captions(300))
    for caption in training_captions(20):
        words = caption.replace(",", " ,").replace(".", " .").split()
        assert len(tokenizer(caption).input_ids) <= 2 + len(words) + 4


def test_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tokenizer and first weights are made in every call, of fewer captions and images here.
    monkeypatch.setattr(training, "training_captions", lambda _: training_captions(300))
    monkeypatch.setattr(training, "whiten", partial(training.whiten, n_images=20))
    train(tmp_path / "whole", TINY)
    train(tmp_path / "parts", TINY, stop_at=2)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    train(tmp_path / "parts", TINY)
    whole, parts = (AutoModel.from_pretrained(tmp_path / name) for name in ("whole", "parts"))
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, parts.state_dict()[name]), name
    with pytest.raises(ValueError, match="checkpoint.pt was made with"):
        train(tmp_path / "parts", replace(TINY, steps=5))
