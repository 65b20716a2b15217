"""The generated scenes: reproducible, and their ground truth true."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from captum_interactions.datasets import DOMAINS, Scene, Scenes
from captum_interactions.datasets.scenes import IMAGE_SIZE
from captum_interactions.datasets.shapes import COLOURS, FILLS, SHAPES, draw_background, draw_shape

RELATION_WORDS = {
    "left": (" left of ", " to the left of "),
    "right": (" right of ", " to the right of "),
    "above": (" above ", " over "),
    "below": (" below ", " under "),
}


@pytest.fixture(scope="module", params=list(DOMAINS))
def scenes(request: pytest.FixtureRequest) -> list[Scene]:
    return Scenes(200, seed=5, domain=request.param)[:]


def same(a: Scene, b: Scene) -> bool:
    pixels = np.array_equal(np.asarray(a.image), np.asarray(b.image))
    boxes = [o.box for o in a.objects] == [o.box for o in b.objects]
    return pixels and boxes and a.caption == b.caption


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_scene_depends_on_seed_domain_and_index_alone(domain: str) -> None:
    forwards = Scenes(6, seed=3, domain=domain)[:]
    backwards = [Scenes(99, seed=3, domain=domain)[i] for i in reversed(range(6))]
    assert all(same(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert not any(same(a, b) for a, b in itertools.combinations(forwards, 2))
    assert not same(forwards[0], Scenes(6, seed=4, domain=domain)[0])


def test_sequence_protocol() -> None:
    scenes = Scenes(3)
    assert len(scenes) == 3
    assert len(list(scenes)) == 3
    assert same(scenes[-1], scenes[2])
    assert len(scenes[1:]) == 2
    with pytest.raises(IndexError, match="scene 3 of 3"):
        scenes[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n=-1"),
        ({"n": 1, "seed": -2}, "seed=-2"),
        (
            {"n": 1, "domain": "real"},
            r"unknown domain 'real', expected one of \['plain', 'shifted'\]",
        ),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scenes(**arguments)  # type: ignore[arg-type]


def test_images_and_captions_are_plain_types(scenes: list[Scene]) -> None:
    for scene in scenes[:20]:
        assert scene.image.mode == "RGB"
        assert scene.image.size == (IMAGE_SIZE, IMAGE_SIZE)
        assert type(scene.caption) is str
        assert 1 <= len(scene.objects) <= 4


def test_spans_are_the_phrases_and_say_what_the_objects_are(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert 1 <= len(scene.named) <= 3
        for thing in scene.objects:
            assert (thing.span is None) == (thing.phrase is None)
        for thing in scene.named:
            assert thing.span is not None
            assert thing.phrase is not None
            assert scene.caption[slice(*thing.span)] == thing.phrase
            stated = thing.phrase.replace("little", "small").replace("big", "large").split()
            assert stated[-2:] == [thing.colour, thing.shape]
            assert set(stated) <= {*thing.name.split()}
        spans = sorted(o.span for o in scene.named if o.span)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))


def test_phrases_are_unambiguous(scenes: list[Scene]) -> None:
    for scene in scenes:
        kinds = [(o.shape, o.colour) for o in scene.objects]
        assert len(set(kinds)) == len(kinds)


def test_some_captions_leave_objects_out(scenes: list[Scene]) -> None:
    left_out = sum(len(scene.named) < len(scene.objects) for scene in scenes)
    assert 0.2 < left_out / len(scenes) < 0.8


def test_boxes_are_tight_around_masks_and_do_not_overlap(scenes: list[Scene]) -> None:
    for scene in scenes:
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= IMAGE_SIZE
            assert 0 <= y0 < y1 <= IMAGE_SIZE
            assert thing.mask.shape == (IMAGE_SIZE, IMAGE_SIZE)
            assert thing.mask.dtype == bool
            assert thing.mask[y0:y1, x0:x1].sum() == thing.mask.sum() > 30
            sides = (thing.mask[y0], thing.mask[y1 - 1], thing.mask[:, x0], thing.mask[:, x1 - 1])
            assert all(side.any() for side in sides)
        for a, b in itertools.combinations(scene.objects, 2):
            assert not (a.mask & b.mask).any()


def test_masks_cover_the_object_that_was_drawn(scenes: list[Scene]) -> None:
    for scene in scenes:
        pixels = np.asarray(scene.image, float)
        for thing in scene.objects:
            off = np.abs(pixels[thing.mask] - COLOURS[thing.colour]).max(-1)
            assert (off < 30).mean() > 0.08, thing


def test_relations_are_true(scenes: list[Scene]) -> None:
    seen: set[str] = set()
    for scene in scenes:
        for first, second in itertools.pairwise(scene.named):
            assert first.span is not None
            assert second.span is not None
            between = scene.caption[first.span[1] : second.span[0]]
            for name, words in RELATION_WORDS.items():
                if any(between in (word + "a ", word + "an ") for word in words):
                    seen.add(name)
                    a, b = first.box, second.box
                    holds = {
                        "left": a[2] <= b[0],
                        "right": b[2] <= a[0],
                        "above": a[3] <= b[1],
                        "below": b[3] <= a[1],
                    }
                    assert holds[name], scene.caption
    assert seen == set(RELATION_WORDS)


def test_domains_differ_in_looks_and_not_in_words() -> None:
    plain, shifted = (Scenes(150, seed=1, domain=domain) for domain in ("plain", "shifted"))

    def roughness(scene: Scene) -> float:
        pixels = np.asarray(scene.image, float)
        background = ~np.any([o.mask for o in scene.objects], axis=0)
        return float(np.abs(np.diff(pixels, axis=0)).mean(-1)[background[1:]].mean())

    def share(scenes: Scenes) -> float:
        return float(np.mean([o.mask.mean() for scene in scenes for o in scene.objects]))

    def words(scenes: Scenes) -> set[str]:
        return {word for scene in scenes for o in scene.named for word in (o.phrase or "").split()}

    assert np.median([roughness(s) for s in shifted]) > 2 * np.median([roughness(s) for s in plain])
    assert share(shifted) < 0.9 * share(plain)
    assert words(plain) == words(shifted)


def test_there_is_enough_variety(scenes: list[Scene]) -> None:
    things = [o for scene in scenes for o in scene.objects]
    assert {o.shape for o in things} == set(SHAPES)
    assert {o.colour for o in things} == set(COLOURS)
    assert {o.fill for o in things} == set(FILLS)
    assert {o.size for o in things} == {"small", "medium", "large"}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_anti_aliased_and_keep_to_their_radius(shape: str) -> None:
    canvas = np.full((64, 64, 3), 128, np.float32)
    mask = draw_shape(canvas, shape, "white", "plain", centre=(32, 32), radius=20, angle=0.2)
    assert 0.15 < mask.sum() / 40**2 < 0.9
    rows, columns = np.nonzero(mask)
    assert np.abs([rows - 31.5, columns - 31.5]).max() < 1.1 * 20
    assert len(np.unique(canvas[..., 0])) > 10


def test_unknown_background() -> None:
    with pytest.raises(ValueError, match="unknown background 'beach'"):
        draw_background("beach", 8, np.random.default_rng(0))


def test_importing_datasets_is_light() -> None:
    code = (
        "import sys; import captum_interactions.datasets;assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
