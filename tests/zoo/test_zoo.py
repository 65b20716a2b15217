"""The bundled model loads without a network, and its training can be interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, CLIPModel, CLIPTokenizer

from captum_interactions import DualEncoderWrapper
from captum_interactions.datasets import Scenes
from captum_interactions.datasets.scenes import DOMAINS, alter, arrange, scene_rng
from captum_interactions.zoo import DEMO, HELD_OUT_SEED, load_demo
from captum_interactions.zoo.report import REPORT_SEED, Grounding, ground, recall_at_1
from captum_interactions.zoo.train import Recipe, draw_batch, train, train_tokenizer
from captum_interactions.zoo.training_set import (
    SIBLINGS,
    TRAINING_SEED,
    UNSTATED,
    TrainingSet,
    is_true,
    load_or_draw,
    training_captions,
)

TINY = Recipe(
    groups=12, steps=4, batch_groups=3, warmup=2, width=32, vision_layers=2, text_layers=1, patch=24
)


@pytest.fixture(scope="module")
def demo() -> tuple[DualEncoderWrapper, Scenes]:
    return load_demo()


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return AutoProcessor.from_pretrained(DEMO, local_files_only=True).tokenizer


# The bundled model.


def test_demo_is_small_and_safe() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6e6
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


def test_sample_scenes_are_held_out(demo: tuple[DualEncoderWrapper, Scenes]) -> None:
    assert demo[1].seed == HELD_OUT_SEED
    assert len({TRAINING_SEED, HELD_OUT_SEED, REPORT_SEED}) == 3


def test_captions_fit_their_images_and_maps_their_objects(
    demo: tuple[DualEncoderWrapper, Scenes],
) -> None:
    wrapper, scenes = demo
    assert min(recall_at_1(wrapper, scenes[:])) > 0.5  # chance: 1 in 64
    layers = wrapper.default_layers
    assert isinstance(layers[0], int)
    assert isinstance(layers[1], int)
    grounding = ground(wrapper, scenes[:12], (layers[0], layers[1]), n_steps=8)
    assert np.median(grounding.inside) > 0.5
    assert np.mean(grounding.own) > 0.9


def test_grounding_by_hand() -> None:
    grounding = Grounding()
    maps = np.array([[3.0, 1.0, -2.0], [-1.0, -1.0, 2.0]], np.float32)
    boxes = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]], np.float32)
    grounding.add(maps, boxes)
    assert grounding.inside == pytest.approx([0.75, 0.5])
    assert grounding.own == [True, True]
    assert grounding.other == [True, True]


# Training.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSet, CLIPTokenizer]:
    tokenizer = train_tokenizer(training_captions(TINY.groups))
    folder = tmp_path_factory.mktemp("scenes")
    return load_or_draw(folder, TINY.groups, tokenizer), tokenizer


def test_captions_are_true_of_their_own_image(tiny: tuple[TrainingSet, CLIPTokenizer]) -> None:
    data, _ = tiny
    assert is_true(data.mentions, data.objects[:, None]).all()


def test_siblings_make_some_captions_false(tiny: tuple[TrainingSet, CLIPTokenizer]) -> None:
    data, _ = tiny
    originals = is_true(data.mentions[::SIBLINGS, 0], data.objects[1::SIBLINGS])
    assert 0 < originals.mean() < 1
    assert is_true(np.full((3, 4), UNSTATED, np.int8), data.objects).all()
    rng = scene_rng(0, "plain", 0)
    things = arrange(rng, DOMAINS["plain"])
    assert alter(rng, things, DOMAINS["plain"]) != things


def test_places_are_the_tokens_of_the_stated_words(
    tiny: tuple[TrainingSet, CLIPTokenizer],
) -> None:
    data, tokenizer = tiny
    for row in range(8):
        for mention, places in zip(data.mentions[row, 0], data.places[row, 0], strict=True):
            for value, place in zip(mention, places, strict=True):
                if value != UNSTATED:
                    assert data.tokens[row, 0, place] not in tokenizer.all_special_ids
                else:
                    assert place == 0


def test_batches_depend_on_seed_and_step_alone(tiny: tuple[TrainingSet, CLIPTokenizer]) -> None:
    data, _ = tiny
    first, again, other = (draw_batch(data, TINY, step) for step in (3, 3, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.pixels, other.pixels)
    assert not first.unknown.diagonal().any()


def test_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    train(tmp_path / "whole", TINY)
    train(tmp_path / "parts", TINY, stop_at=2)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    train(tmp_path / "parts", TINY)
    whole, parts = (AutoModel.from_pretrained(tmp_path / name) for name in ("whole", "parts"))
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, parts.state_dict()[name]), name
    with pytest.raises(ValueError, match="checkpoint.pt was made with"):
        train(tmp_path / "parts", Recipe())
