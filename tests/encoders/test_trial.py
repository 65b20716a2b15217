"""Models of kinds that are not tested are tried out when they are wrapped."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from torch import nn

from captum_interactions import SecondOrderIntegratedGradients, explain, wrap
from captum_interactions.encoders.families import trial
from tests import models
from tests.families import FAMILIES, plain_attention, text_config, vision_config

ENDS = {"bos_token_id": models.BOS, "eos_token_id": models.EOS}


def aimv2():
    """Its text encoder is causal only where there is padding."""
    config = transformers.Aimv2Config(
        text_config=text_config(**ENDS),
        vision_config=vision_config(use_head=True),
        projection_dim=24,
    )
    return models.randomise(transformers.Aimv2Model(config))


def embedding_gemma():
    """Its blocks get inputs that are made from the ids."""
    config = transformers.EmbeddingGemma2TextConfig(
        vocab_size=models.VOCABULARY, hidden_size=12, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=6, hidden_size_per_layer_input=4,
        embedding_dim=8, layer_types=["full_attention"] * 2, **ENDS,
    )  # fmt: skip
    return models.randomise(transformers.EmbeddingGemma2TextModel(config))


def test_kinds_of_dual_encoders_that_are_tested():
    built = {family.build().config.model_type for family in FAMILIES}
    # Of AIMv2, a part only is right: that depends on its attention, so it is tried out.
    assert set(trial.DUAL) == built - {"vision-text-dual-encoder", "aimv2"}


def test_padding_that_changes_a_text_is_reported_and_not_removed():
    model = aimv2()
    with pytest.warns(UserWarning, match="padding changes Aimv2Model's embeddings of texts: ") as w:
        wrapper = wrap(model)
    assert (len(w), w[0].filename) == (1, __file__)
    pixels, (ids, mask) = models.images(2), models.captions(5, 9)
    for layer in (0, -1):
        soig = SecondOrderIntegratedGradients(wrapper, (-1, layer))
        # What a batch is, and what a text by itself is, are both explained as the model has them.
        for row, stop in ((slice(0, 2), 9), (slice(0, 1), 5)):
            inputs = pixels[row], ids[row, :stop]
            parts = soig.decompose(inputs, None, mask[row, :stop], n_steps=40)
            score = wrapper(*inputs, mask[row, :stop]).detach()
            # Sums of a few float32 products of unit vectors.
            torch.testing.assert_close(parts.score, score, rtol=0, atol=1e-6)
            assert (parts.convergence_delta.abs() < 1e-2).all()


@pytest.mark.parametrize("as_pair", [False, True])
def test_inputs_of_blocks_that_are_made_from_ids_are_refused(as_pair):
    model = embedding_gemma()
    with pytest.raises(
        TypeError,
        match="EmbeddingGemma2TextModel cannot be explained: its block 0 and those after it depend "
        "on more than hidden states",
    ):
        wrap((model, model) if as_pair else model)


class Skipping(transformers.CLIPModel):
    """A known model changed: what leaves the text encoder is added to what has entered it."""

    def get_text_features(self, input_ids, **options):
        output = super().get_text_features(input_ids, **options)
        words = self.text_model.embeddings.token_embedding(input_ids).mean(1)
        output.pooler_output = output.pooler_output + 5 * self.text_projection(words)
        return output


def test_subclasses_are_not_of_a_tested_kind():
    model = models.family(Skipping)
    assert not trial.is_tested(model)
    assert trial.is_tested(models.clip())
    with pytest.raises(TypeError, match="Skipping cannot be explained: its block 0 and those"):
        wrap(model)


def test_dual_encoders_of_untested_encoders_are_tried():
    def pair(kind):
        text = getattr(transformers, f"{kind}Config")(**text_config(embedding_size=8))
        config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
            transformers.ViTConfig(**vision_config()), text, projection_dim=24
        )
        return transformers.VisionTextDualEncoderModel(config=config)

    assert trial.is_tested(pair("Bert"))
    assert not trial.is_tested(pair("RoCBert"))


def test_a_kind_that_is_fine_is_wrapped_without_a_word():
    wrapper = wrap(plain_attention(aimv2()))
    ids = models.captions(6)[0]
    parts = explain(wrapper, models.images(), ids)
    assert abs(parts.convergence_delta) < 1e-2


def test_short_memory_is_not_a_fault_of_the_model():
    model = copy.deepcopy(aimv2())

    def runs_out(module, args):
        raise torch.OutOfMemoryError("out of memory")

    model.text_model.encoder.register_forward_pre_hook(runs_out)
    with pytest.raises(torch.OutOfMemoryError):
        wrap(model)


def test_what_a_model_raises_is_named():
    model = aimv2()
    model.text_model.rms_norm = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="Aimv2Model cannot be explained: RuntimeError: mat1 and"):
        wrap(model)
