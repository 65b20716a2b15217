"""From names, files and processors to wrappers: nothing random, nothing dropped without a word."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from captum_interactions import explain, from_pretrained, wrap
from tests import models
from tests.families import text_config, vision_config

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
SPECIAL = {"bos_token_id": models.BOS, "eos_token_id": models.EOS}


def embedding(wrapper, *inputs):
    with torch.no_grad():
        return wrapper.encode_a(*inputs)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("DPRContextEncoder", transformers.DPRConfig(**text_config(projection_dim=8))),
        (
            "CLIPTextModelWithProjection",
            transformers.CLIPTextConfig(**text_config(**SPECIAL), projection_dim=20),
        ),
    ],
)
def test_the_class_that_was_saved_is_loaded(name, config, tmp_path):
    """The auto class knows another one of the family, which would have random or fewer weights."""
    model = models.randomise(getattr(transformers, name)(config))
    model.save_pretrained(tmp_path)
    models.clip_tokenizer().save_pretrained(tmp_path)
    ids = models.caption(7)
    expected = embedding(wrap(model), ids)
    assert torch.equal(embedding(from_pretrained(tmp_path), ids), expected)


def test_a_model_without_all_its_weights_is_not_loaded(tmp_path):
    config = models.clip_config()
    transformers.CLIPForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(OSError, match=r"the files lack \d+ of its tensors, such as "):
        from_pretrained(tmp_path)


def test_special_tokens_behind_the_patches():
    config = transformers.YolosConfig(
        **vision_config(image_size=[12, 12], num_detection_tokens=3),
        use_mid_position_embeddings=False,
    )
    model = models.randomise(transformers.YolosModel(config))
    wrapper = wrap(model, pooling="cls")
    (axis,) = wrapper.prepare(models.images(), models.images()).axes_a
    assert axis.patches == slice(1, 10)
    assert axis.labels[0] == "[class]"
    assert axis.special == (True, *(False,) * 9, True, True, True)


@pytest.mark.parametrize(
    "processor",
    ["openai/clip", models.clip_tokenizer, (models.clip_tokenizer(), None), object()],
    ids=["a name", "a function", "the wrong side", "an object"],
)
def test_processors_that_serve_no_side_are_refused(clip, processor):
    with pytest.raises(TypeError, match="the processor must be the model's own"):
        wrap(clip, processor)


def test_a_processor_for_each_side():
    model, processor = models.clip_with_processor()
    whole = explain(wrap(model, processor), PICTURE, "a red circle")
    parts = wrap(model, (processor.image_processor, processor.tokenizer))
    assert torch.equal(explain(parts, PICTURE, "a red circle").interactions, whole.interactions)


def test_what_processors_and_tokenizers_give_is_taken_as_it_is():
    model, processor = models.clip_with_processor()
    wrapper = wrap(model, processor)
    pixels = processor.image_processor(images=[PICTURE], return_tensors="pt")
    ids = processor.tokenizer(["a red circle"], return_tensors="pt")
    whole = explain(wrapper, PICTURE, "a red circle")
    assert torch.equal(explain(wrapper, pixels, ids).interactions, whole.interactions)
    with pytest.raises(
        ValueError, match="expected 'pixel_values' among the inputs, but got input_"
    ):
        wrapper.prepare(ids, ids)


def test_special_ids_that_nobody_knows_are_the_ends_of_a_text():
    config = transformers.BertConfig(**text_config())
    tower = wrap(models.randomise(transformers.BertModel(config))).tower_a
    ids = torch.tensor([[2, 9, 8, 7, 3], [0, 0, 2, 9, 3]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    assert tower.baseline(ids, mask).tolist() == [[2, 0, 0, 0, 3], [0, 0, 2, 0, 3]]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("openai/clip", r"got a name: from_pretrained\('openai/clip'\) loads it"),
        ((transformers.BertModel, transformers.BertModel), "tuple is not a dual encoder"),
    ],
)
def test_what_is_no_model(model, message):
    with pytest.raises(TypeError, match=message):
        wrap(model)


def test_models_without_weights():
    with torch.device("meta"):
        model = transformers.CLIPModel(models.clip_config())
    with pytest.raises(TypeError, match="CLIPModel has weights on the meta device"):
        wrap(model)


def test_raw_inputs_are_not_for_the_wrapper_itself():
    wrapper = wrap((nn.Linear(2, 2), nn.Linear(2, 2)))
    with pytest.raises(TypeError, match="input a must be a tensor, but got str: raw inputs go"):
        wrapper("a dog", "b")
