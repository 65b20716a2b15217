"""Models that cannot be explained: the reason, and a line that works instead."""

from __future__ import annotations

import pytest
import torch
import transformers

from captum_interactions import check_wrapper, from_pretrained, wrap
from tests import models
from tests.families import text_config, vision_config


def refused(model, message):
    with pytest.raises(TypeError, match=message) as caught:
        wrap(model)
    return str(caught.value)


def instead(message, model):
    """Runs the line of code that a message ends with."""
    line = message.rpartition(": ")[2]
    return eval(line, {"wrap": wrap, "model": model})


def small(name, **options):
    config = getattr(transformers, f"{name}Config")(**options)
    return models.randomise(getattr(transformers, f"{name}Model")(config))


def test_texts_that_depend_on_a_video():
    text = text_config(bos_token_id=models.BOS, eos_token_id=models.EOS)
    vision = vision_config(mit_hidden_size=16, mit_intermediate_size=16, mit_num_hidden_layers=1)
    model = small(
        "XCLIP", text_config=text, vision_config=vision | {"mit_num_attention_heads": 2},
        projection_dim=12, prompt_num_attention_heads=2,
    )  # fmt: skip
    wrapper = instead(refused(model, "its embedding of a text depends on the video"), model)
    assert check_wrapper(wrapper, n_steps=20) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PeAudioModel", "PeAudioModel is .*its first input is a waveform"),
        ("PeVideoModel", "PeVideoModel is .*its first input is a video"),
        ("PeAudioVideoModel", "its first input is a video with sound"),
        ("VideoPrismClipModel", "its first input is a video"),
    ],
)
def test_waveforms_and_videos(name, message):
    kind = type(name, (torch.nn.Module,), {"main_input_name": "input_ids", "config": None})
    refused(kind(), message)


class Elsewhere(torch.nn.Parameter):
    """A parameter that says it is on a GPU."""

    device = torch.device("cuda:1")


class TestPlacement:
    def test_two_devices(self):
        model = models.clip()
        weight = model.visual_projection.weight.detach()
        model.visual_projection.weight = Elsewhere(weight)
        message = refused(model, "CLIPModel is split among cpu, cuda:1, but .* device_map=None")
        assert "from_pretrained(name, device_map=None)" in message
        with pytest.raises(TypeError, match="split among"):
            wrap((model, models.clip()))

    def test_parts_that_accelerate_has_placed(self):
        model = models.clip()
        model.hf_device_map = {"vision_model": 0, "text_model": "cpu"}
        refused(model, "CLIPModel is split among 0, cpu")
        model.hf_device_map = {"": "cpu"}
        wrap(model)

    def test_the_meta_device(self):
        refused(models.clip().to("meta"), "has weights on the meta device.*device_map=None")

    def test_layers_of_rounded_weights(self):
        model = models.clip()
        model.visual_projection.__class__ = type(
            "Linear4bit", (torch.nn.Linear,), {"__module__": "bitsandbytes.nn.modules"}
        )
        refused(model, "CLIPModel is quantised by bitsandbytes.* no second derivative: load")

    def test_models_that_say_so(self):
        model = models.clip()
        model.is_quantized = True
        refused(model, "CLIPModel is quantised, and what")


def test_blip_that_generates_is_named_as_such(tmp_path):
    """Before its weights are read: of a checkpoint, from its config."""
    config = transformers.BlipConfig(architectures=["BlipForConditionalGeneration"])
    config.save_pretrained(tmp_path)
    for load in (
        lambda: from_pretrained(tmp_path),
        lambda: wrap(type("BlipForConditionalGeneration", (torch.nn.Module,), {})()),
    ):
        with pytest.raises(TypeError, match=r"a generative model.*BlipForImageTextRetrieval"):
            load()
