"""Generated scenes as records, and datasets by name."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from captum_interactions.datasets import Record, SceneRecords, Scenes, load_dataset
from captum_interactions.datasets.shapes import COLOURS, SHAPES


@pytest.fixture(scope="module")
def with_negatives() -> list[Record]:
    return SceneRecords(150, seed=4, hard_negatives=True)[:]


def test_records_say_what_scenes_say() -> None:
    records, scenes = SceneRecords(30, seed=9, domain="shifted"), Scenes(30, 9, "shifted")
    assert len(records) == 30
    for record, scene in zip(records, scenes, strict=True):
        assert record.caption == scene.caption
        assert np.array_equal(np.asarray(record.image), np.asarray(scene.image))
        assert [p.boxes for p in record.phrases] == [(thing.box,) for thing in scene.named]
        assert [p.label for p in record.phrases] == [thing.shape for thing in scene.named]
        for phrase, thing in zip(record.phrases, scene.named, strict=True):
            assert record.caption[slice(*phrase.span)] == phrase.text == thing.phrase
            assert phrase.mask is not None
            assert np.array_equal(phrase.mask, thing.mask)
        assert record.grounded == record.phrases
        boxes = sorted(thing.box for thing in scene.objects)
        named = [phrase.boxes[0] for phrase in record.phrases]
        assert sorted([*named, *record.unnamed]) == boxes
        assert record.image_key == record.key
        assert record.hard_negative is None
    assert records[-1].source == "Scenes(seed=9, domain='shifted')[29]"
    assert len({record.key for record in records}) == 30


def test_a_key_depends_on_the_scene_alone() -> None:
    assert SceneRecords(50, seed=2)[3].key == SceneRecords(4, seed=2)[-1].key
    assert SceneRecords(50, seed=2, hard_negatives=True)[6].key == SceneRecords(4, seed=2)[-1].key


def test_hard_negatives_are_false_in_one_word(with_negatives: list[Record]) -> None:
    scenes = Scenes(150, seed=4)
    kinds = set()
    for i, (positive, negative) in enumerate(
        zip(with_negatives[::2], with_negatives[1::2], strict=True)
    ):
        assert positive.hard_negative is None
        assert negative.hard_negative is not None
        assert negative.hard_negative.positive_key == positive.key
        assert negative.hard_negative.positive_caption == positive.caption
        assert negative.image_key == positive.image_key
        true, false = negative.hard_negative.replaced or ("", "")
        start, stop = negative.hard_negative.span or (0, 0)
        assert negative.caption[start:stop] == false
        assert negative.caption[:start] + true + negative.caption[stop:] == positive.caption
        changed = [p for p in negative.phrases if not p.boxes]
        assert len(changed) == 1
        assert len(negative.phrases) == len(positive.phrases)
        words = changed[0].text.split()
        colour, shape = (
            next(w for w in words if w in COLOURS),
            next(w for w in words if w in SHAPES),
        )
        assert (colour, shape) not in {(o.colour, o.shape) for o in scenes[i].objects}
        assert (
            negative.hard_negative.boxes
            == positive.phrases[negative.phrases.index(changed[0])].boxes
        )
        assert np.array_equal(np.asarray(negative.image), np.asarray(positive.image))
        for before, after in zip(positive.phrases, negative.phrases, strict=True):
            assert negative.caption[slice(*after.span)] == after.text
            assert after in changed or (after.text, after.boxes) == (before.text, before.boxes)
        kinds.add("colour" if true in COLOURS else "shape")
    assert kinds == {"colour", "shape"}
    assert " a orange" not in " ".join(record.caption for record in with_negatives)


def test_sequence() -> None:
    records = load_dataset("scenes", n=3, seed=1)
    assert [r.key for r in records] == ["plain-1-0", "plain-1-1", "plain-1-2"]
    assert [r.key for r in records[1:]] == ["plain-1-1", "plain-1-2"]
    assert pickle.loads(pickle.dumps(records))[2].caption == records[2].caption
    again = pickle.loads(pickle.dumps(records[0]))
    assert np.array_equal(np.asarray(again.image), np.asarray(records[0].image))
    with pytest.raises(IndexError, match="record 3 of 3"):
        records[3]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "sceens"}, ValueError, "unknown dataset 'sceens', expected one of .*scenes"),
        ({"name": "scenes", "n": 1, "path": "x"}, TypeError, "'scenes' takes no path, but got 'x'"),
        ({"name": "scenes", "n": 1, "split": "val"}, TypeError, "'scenes' has no splits.*'val'"),
        (
            {"name": "scenes", "n": 1, "sede": 2},
            TypeError,
            "unknown option 'sede' of the dataset 'scenes', .* n, seed, domain, hard_negatives",
        ),
    ],
)
def test_bad_names_and_options(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_dataset(**arguments)  # type: ignore[arg-type]
