"""Every family of models × every first-order method: it works, or says why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional as F

from captum_interactions import wrap
from captum_interactions.attr import (
    ATTRIBUTIONS,
    GAME,
    RISE,
    AttentionRollout,
    FirstOrderOcclusion,
    LeGrad,
    MaskCLIP,
)
from captum_interactions.attr.first_order.attention_base import AttentionAttribution
from tests import models
from tests.expected import relative_error
from tests.families import FAMILIES, roberta_config, text_config, vision_config

METHODS = {
    name: method for name, method in ATTRIBUTIONS.items() if getattr(method, "order", 2) == 1
}
QUICK = {RISE: {"n_samples": 4}, FirstOrderOcclusion: {"perturbations_per_eval": 64}}
ATTENTION = {name for name, method in METHODS.items() if issubclass(method, AttentionAttribution)}

_UNSEEN, _SEVERAL = "attention interface of transformers", "several tokens"
_CAUSAL, _POST_NORM = "causal", "normalise"
_CAUSAL_TEXT = dict.fromkeys(("legrad", "mask_clip", "clip_surgery", "gem"), _CAUSAL)
_PROBE = dict.fromkeys(ATTENTION - {"mask_clip", "gem"}, _SEVERAL)
_BERT = dict.fromkeys(("clip_surgery", "gem"), _POST_NORM)
_CLOSED = dict.fromkeys(ATTENTION, _UNSEEN)

REFUSED = {
    "CLIP": ({}, _CAUSAL_TEXT),
    "MetaCLIP 2": ({}, _CAUSAL_TEXT),
    "Chinese-CLIP": ({}, _BERT),
    "AltCLIP": ({}, _BERT),
    "SigLIP, SigLIP 2 (fixed resolution)": (_PROBE, {}),
    "SigLIP 2 (NaFlex)": (_PROBE, {}),
    "ALIGN": (_CLOSED, _BERT),
    "BLIP": (_CLOSED, _CLOSED),
    "BLIP image–text retrieval": (_CLOSED, _CLOSED),
    "CLIPSeg": ({}, _CAUSAL_TEXT),
    "GroupViT": (_CLOSED, _CLOSED),
    "VisionTextDualEncoder (ViT, BERT)": ({}, _BERT),
    "VisionTextDualEncoder (DINOv2, RoBERTa)": ({}, _BERT),
    "CLAP": (_CLOSED, _BERT),
    "AIMv2": (_PROBE, _CAUSAL_TEXT),
    "FLAVA": (_CLOSED, _CLOSED),
    "OWL-ViT": ({}, _CAUSAL_TEXT),
    "OWLv2": ({}, _CAUSAL_TEXT),
    "TIPSv2": ({}, _PROBE),
}
"""Per family: methods that are not defined for its first and second tower, and why."""


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name, scope="module")
def family(request):
    return request.param


@pytest.fixture(scope="module")
def wrapper(family):
    return wrap(family.build())


@pytest.fixture(scope="module")
def batch(wrapper):
    return wrapper.prepare(wrapper.tower_a.sample(), wrapper.tower_b.sample())


def run(method, wrapper, batch):
    return method(wrapper).attribute(
        batch.inputs,
        additional_forward_args=batch.additional_forward_args,
        **QUICK.get(method, {}),
    )


@pytest.mark.parametrize("name", METHODS)
def test_it_works_or_says_why_not(family, wrapper, batch, name):
    refused = [reasons.get(name) for reasons in REFUSED[family.name]]
    method = METHODS[name](wrapper)
    if all(refused):
        with pytest.raises(ValueError, match="is not defined for this model") as error:
            run(METHODS[name], wrapper, batch)
        assert all(reason in str(error.value) for reason in refused)
        return
    maps = method.attribute(
        batch.inputs,
        additional_forward_args=batch.additional_forward_args,
        **QUICK.get(METHODS[name], {}),
    )
    towers = (wrapper.tower_a, wrapper.tower_b)
    extras = wrapper.split_additional(batch.additional_forward_args)
    for index, (attribution, reason) in enumerate(zip(maps, refused, strict=True)):
        tower, layer = towers[index], method.layers[index]
        if reason is not None:
            assert attribution is None
            assert reason in method.undefined["ab"[index]]
            continue
        with torch.no_grad():
            states, _ = tower.features(layer, batch.inputs[index], *extras[index])
        assert attribution.shape == tower.fold(layer, states).shape
        assert attribution.isfinite().all()
        mask = tower.token_mask(batch.inputs[index], *extras[index])
        if mask is not None:
            assert attribution[~mask].count_nonzero() == 0


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_says_of_itself(name):
    method = METHODS[name]
    assert method.order == 1
    assert method.needs
    assert "pass" in method.cost


def test_the_value_path_of_a_probe(family, wrapper, batch):
    """MaskCLIP of a tower that pools by attention from a probe, written out."""
    if "SigLIP" not in family.name:
        pytest.skip("pools otherwise")
    model = wrapper.tower_a.model
    head = model.vision_model.head
    extras = wrapper.split_additional(batch.additional_forward_args)
    with torch.no_grad():
        kwargs = dict(zip(wrapper.tower_a.extra_names, extras[0], strict=True))
        final = model.vision_model(batch.inputs[0], **kwargs).last_hidden_state
        width = final.shape[-1]
        attention = head.attention
        value = F.linear(final, attention.in_proj_weight[2 * width :],
                         attention.in_proj_bias[2 * width :])  # fmt: skip
        out = attention.out_proj(value)
        tokens = out + head.mlp(head.layernorm(out))
        text = wrapper.encode_b(batch.inputs[1], *extras[1])
        expected = F.cosine_similarity(tokens, text[:, None], dim=-1)
    mask = wrapper.tower_a.token_mask(batch.inputs[0], *extras[0])
    expected = expected if mask is None else expected * mask
    assert relative_error(run(MaskCLIP, wrapper, batch)[0], expected) < 1e-4


# Encoders of one kind, as users pool them.


def sentences(pooling):
    model = models.randomise(transformers.BertModel(transformers.BertConfig(**text_config())))
    return wrap(model, pooling=pooling)


@pytest.mark.parametrize("pooling", ["cls", "pooler", "last"])
def test_sentences_pooled_at_one_token(pooling):
    wrapper = sentences(pooling)
    inputs = models.captions(7, 5), models.captions(6, 6)
    batch = wrapper.prepare(*inputs)
    position = {"last": [6, 4]}.get(pooling, [0, 0])
    for name in sorted(ATTENTION - {*_BERT}):
        maps = run(METHODS[name], wrapper, batch)
        for attribution in maps:
            assert attribution.isfinite().all()
            # A rectified map may have nothing left on one of a few words.
            assert attribution.count_nonzero() > 0 or name == "grad_eclip"
        assert maps[0][[0, 1], position].count_nonzero() == 0
        assert maps[0][1, 5:].count_nonzero() == 0


def test_sentences_pooled_by_a_mean():
    wrapper = sentences("mean")
    batch = wrapper.prepare(models.captions(7, 5), models.captions(6, 6))
    for method in (GAME, AttentionRollout, LeGrad):
        with pytest.raises(ValueError, match="pooled from several tokens"):
            run(method, wrapper, batch)
    a, _ = run(MaskCLIP, wrapper, batch)
    ids, mask = models.captions(7, 5)
    with torch.no_grad():
        states = wrapper.tower_a.model(input_ids=ids, attention_mask=mask).last_hidden_state
        other = wrapper.encode_b(*models.captions(6, 6))
    expected = F.cosine_similarity(states, other[:, None], dim=-1) * mask
    expected = expected * ~wrapper.tower_a.special_tokens(ids, mask)
    assert relative_error(a, expected) < 1e-4


@pytest.mark.parametrize("registers", [0, 2])
def test_images_of_one_encoder(registers):
    if registers:
        config = transformers.Dinov2WithRegistersConfig(
            **vision_config(), num_register_tokens=registers
        )
        model = transformers.Dinov2WithRegistersModel(config)
    else:
        model = transformers.ViTModel(transformers.ViTConfig(**vision_config()))
    wrapper = wrap(models.randomise(model))
    batch = wrapper.prepare(models.images(2), models.images(2, seed=5))
    for name in sorted(ATTENTION):
        for attribution in run(METHODS[name], wrapper, batch):
            assert attribution.shape == (2, 10 + registers)
            assert attribution[:, : 1 + registers].count_nonzero() == 0
            assert attribution[:, 1 + registers :].count_nonzero() > 0


def test_a_shared_encoder_is_right_on_both_sides():
    """Two images in one encoder, against two copies of it."""
    shared = wrap(
        models.randomise(transformers.ViTModel(transformers.ViTConfig(**vision_config())))
    )
    copies = [
        models.randomise(transformers.ViTModel(transformers.ViTConfig(**vision_config())))
        for _ in range(2)
    ]
    apart = wrap((copies[0], copies[1]))
    batch = shared.prepare(models.images(2), models.images(2, seed=5))
    for method in METHODS.values():
        for one, two in zip(run(method, shared, batch), run(method, apart, batch), strict=True):
            assert relative_error(one, two) < 1e-5


def test_open_clip_is_refused():
    open_clip = pytest.importorskip("open_clip")
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"layers": 2, "width": 16, "head_width": 8, "patch_size": 4, "image_size": 12},
        text_cfg={"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2},
    )
    wrapper = wrap(model.eval())
    ids = torch.tensor([[62, 3, 4, 63, 0, 0, 0, 0]])
    with pytest.raises(ValueError, match="attention interface of transformers"):
        GAME(wrapper).attribute((models.images(1), ids))


def test_roberta_of_another_padding_id():
    """Its padding id is 1 and its positions start behind it."""
    model = models.randomise(
        transformers.RobertaModel(transformers.RobertaConfig(**roberta_config()))
    )
    wrapper = wrap(model, pooling="cls")
    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 60, (2, 6)))
    alone = GAME(wrapper).attribute((ids[:1, :4], ids[1:]))
    ids[0, 4:] = 1
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    together = GAME(wrapper).attribute(
        (ids, ids.flip(0)), additional_forward_args=(mask, mask.flip(0))
    )
    assert relative_error(together[0][:1, :4], alone[0]) < 1e-3
