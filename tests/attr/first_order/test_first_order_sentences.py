"""Sentence encoders × attention methods: right, or refused with the reason."""

from __future__ import annotations

import pytest
import torch

from captum_interactions import wrap
from captum_interactions.attr import GAME, AttentionRollout, GradECLIP, LeGrad, MaskCLIP
from captum_interactions.encoders.attention import UndefinedError, record
from tests.encoders.test_sentence_encoders import BACKBONES, chain, shared

PAIR = ["a b c d", "c"], ["b a", "d c b"]
POOLINGS = ("mean", "cls", "lasttoken", "weightedmean")
UNSEEN = {"MPNet": "interface of transformers", "T5Encoder": "position_bias"}
"""Backbones whose attention is not recorded, and why."""


@pytest.fixture(params=BACKBONES, scope="module")
def backbone(request):
    return request.param


def prepared(backbone, pooling):
    wrapper = wrap(chain(shared(backbone), pooling))
    return wrapper, wrapper.prepare(*PAIR)


def refused(backbone, pooling, method):
    """Why a method is not defined, or None if it is."""
    if backbone in UNSEEN:
        return UNSEEN[backbone]
    if "mean" in pooling and method is not MaskCLIP:
        return "several tokens"
    return "causal" if backbone == "Qwen3" and method in (LeGrad, MaskCLIP) else None


@pytest.mark.parametrize("pooling", POOLINGS)
def test_recorded_attention_gives_the_models_embedding(backbone, pooling):
    wrapper, batch = prepared(backbone, pooling)
    tower, ids, mask = wrapper.tower_a, batch.inputs[0], batch.additional_forward_args[0]
    states, context = tower.prefix(0, ids, mask)
    if backbone in UNSEEN:
        with pytest.raises(UndefinedError, match=UNSEEN[backbone]):
            record(tower, 0, states, *context)
        return
    recording = record(tower, 0, states, *context)
    with torch.no_grad():
        expected = tower.encode(ids, mask)
    torch.testing.assert_close(recording.embedding, expected, rtol=1e-4, atol=1e-5)
    assert (recording.pooled is None) == ("mean" in pooling)


@pytest.mark.parametrize("method", [GAME, AttentionRollout, GradECLIP, LeGrad, MaskCLIP])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_batch_is_its_examples_or_is_refused(backbone, pooling, method):
    wrapper, batch = prepared(backbone, pooling)
    attribution = method(wrapper)

    def attribute(pairs):
        return attribution.attribute(
            pairs.inputs, additional_forward_args=pairs.additional_forward_args
        )

    reason = refused(backbone, pooling, method)
    if reason is not None:
        with pytest.raises(ValueError, match=f"is not defined for this model.*{reason}"):
            attribute(batch)
        return
    together = attribute(batch)
    for row in range(2):
        alone = attribute(wrapper.prepare(PAIR[0][row], PAIR[1][row]))
        masks = batch.additional_forward_args
        for ours, theirs, mask in zip(together, alone, masks, strict=True):
            present = mask[row].bool()
            assert ours[row, ~present].count_nonzero() == 0
            # Some maps are zero, where all that is not positive is cut off.
            tolerance = 1e-6 + 1e-3 * float(ours.abs().max())
            torch.testing.assert_close(ours[row, present], theirs[0], rtol=0, atol=tolerance)
