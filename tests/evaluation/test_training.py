"""Contrastive fine-tuning: it learns, it resumes, and it leaves the given model alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from captum_interactions import load_demo
from captum_interactions.datasets import HardNegative, Record, SceneRecords, Scenes
from captum_interactions.encoders.wrapper import unit
from captum_interactions.evaluation.studies.training import (
    FineTuning,
    _loss,
    _pairs,
    _scale,
    fine_tune,
)

SETTING = FineTuning(steps=6, batch_size=8, warmup=2, learning_rate=3e-4)


def record(index, scene):
    return Record(str(index), scene.caption, (), lambda: scene.image, f"scene {index}")


@pytest.fixture(scope="module")
def wrapper():
    return load_demo()[0]


@pytest.fixture(scope="module")
def records():
    return [record(i, scene) for i, scene in enumerate(Scenes(16, seed=3, domain="shifted"))]


def loss_of(wrapper, records):
    batch = wrapper.prepare([r.image for r in records], [r.caption for r in records])
    with torch.no_grad():
        a = unit(wrapper.encode_a(batch.inputs[0]))
        b = unit(wrapper.encode_b(batch.inputs[1], *batch.additional_forward_args))
    logits = 20 * a @ b.T
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))


def same(a, b):
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_it_learns_its_pairs_and_leaves_the_model_as_it_was(wrapper, records):
    before = [parameter.clone() for parameter in wrapper.parameters()]
    mode = wrapper.training
    tuned = fine_tune(wrapper, records, replace(SETTING, steps=12))
    assert loss_of(tuned, records) < 0.9 * loss_of(wrapper, records)
    assert not tuned.training
    assert wrapper.training == mode
    assert all(torch.equal(x, y) for x, y in zip(before, wrapper.parameters(), strict=True))


class Interrupted(list):
    """Records that can be read a number of times only."""

    def __init__(self, records, reads):
        super().__init__(records)
        self.reads = reads

    def __getitem__(self, index):
        self.reads -= 1
        if self.reads < 0:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_interrupted_it_ends_with_the_weights_of_an_uninterrupted_run(wrapper, records, tmp_path):
    path = tmp_path / "state.pt"
    whole = fine_tune(wrapper, records, SETTING)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            wrapper, Interrupted(records, 5 * 8), SETTING, checkpoint=path, checkpoint_every=2
        )
    assert int(torch.load(path, weights_only=True)["step"]) == 4
    resumed = fine_tune(wrapper, records, SETTING, checkpoint=path, checkpoint_every=2)
    assert same(whole, resumed)


def test_a_penalty_keeps_weights_near(wrapper, records):
    def drift(setting):
        tuned = fine_tune(wrapper, records, setting)
        pairs = zip(tuned.parameters(), wrapper.parameters(), strict=True)
        return sum(float((x - y).detach().square().sum()) for x, y in pairs)

    assert drift(replace(SETTING, l2_penalty=100.0)) < 0.5 * drift(SETTING)


def test_images_choose_from_false_captions_too(wrapper, records):
    """The loss by hand; every batch takes the false captions of its own images along."""
    negative = HardNegative("1", records[1].caption, None)
    false = [replace(records[1], key="f", caption="a red ring", hard_negative=negative)]
    true, captions = _pairs([*records[:4], *false], replace(SETTING, hard_negatives=True))
    assert (list(true), captions) == ([0, 1, 2, 3], {"1": ["a red ring"]})
    with torch.no_grad():
        # Captions of the other image, or the loss would be near zero.
        swapped = [replace(records[i], caption=records[1 - i].caption) for i in range(2)]
        loss = _loss(wrapper, swapped, captions["1"])
        texts = [records[1].caption, records[0].caption, "a red ring"]
        a = unit(wrapper.encode_a(wrapper.tower_a.prepare([r.image for r in records[:2]]).inputs))
        prepared = wrapper.tower_b.prepare(texts)
        b = unit(wrapper.encode_b(prepared.inputs, *prepared.extras))
        p = (_scale(wrapper) * a @ b.T).exp()
    of_images = -(p[0, 0] / p[0].sum()).log() - (p[1, 1] / p[1].sum()).log()
    of_texts = -(p[0, 0] / p[:, 0].sum()).log() - (p[1, 1] / p[:, 1].sum()).log()
    # Exponentials of up to 100 times a cosine, whose rounding errors they multiply by as much.
    assert float(loss) == pytest.approx(float(of_images + of_texts) / 4, rel=1e-4)


def test_hard_negatives_are_learnt(wrapper, records):
    """Scores of false captions fall below those of true ones more than without them."""
    pairs = SceneRecords(12, seed=5, hard_negatives=True)[:]
    true, false = pairs[::2], pairs[1::2]

    def gap(model):
        with torch.no_grad():
            scores = []
            for own in (true, false):
                batch = model.prepare([r.image for r in own], [r.caption for r in own])
                scores.append(model(*batch.inputs, *batch.additional_forward_args))
        return float((scores[0] - scores[1]).mean())

    setting = replace(SETTING, steps=8)
    plain = fine_tune(wrapper, true, setting)
    hard = fine_tune(wrapper, pairs, replace(setting, hard_negatives=True))
    assert gap(hard) > gap(plain)


def test_bad_input(wrapper, records, tmp_path):
    with pytest.raises(ValueError, match="takes 8 records, but there are only 3"):
        fine_tune(wrapper, records[:3], SETTING)
    hard_negatives = [
        replace(r, hard_negative=HardNegative(r.key, r.caption, None)) for r in records
    ]
    with pytest.raises(ValueError, match=r"must be true, but that of '\d+' is false"):
        fine_tune(wrapper, hard_negatives, SETTING)
    with pytest.raises(ValueError, match="no record of these has a false caption"):
        fine_tune(wrapper, records, replace(SETTING, hard_negatives=True))
    path = tmp_path / "state.pt"
    fine_tune(wrapper, records, replace(SETTING, steps=1), checkpoint=path)
    with pytest.raises(ValueError, match="was made with"):
        fine_tune(wrapper, records, SETTING, checkpoint=path)
