"""Composed pictures: what is cut out, what is said of it, and what can not be composed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from captum_interactions.datasets import ObjectGrids, Phrase, Record, SceneRecords

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255,) * 3}


def record(
    index, words, article="a ", box=(30.0, 20.0, 50.0, 40.0), size=(100, 80), boxes=None, label=None
):
    """One object of a colour on black, named after an article."""

    def image():
        picture = Image.new("RGB", size)
        picture.paste(COLOURS[words], tuple(int(x) for x in box))
        return picture

    caption = f"here is {article}{words} thing"
    start = caption.index(words)
    phrase = Phrase(words, (start, start + len(words)), boxes or (box,), label or words)
    return Record(f"r{index}", caption, (phrase,), image, f"record {index}")


def records():
    return [record(i, words) for i, words in enumerate(COLOURS)]


def test_a_cell_shows_the_object_in_its_middle_and_the_caption_names_the_first_ones():
    grids = ObjectGrids(records(), cell=40)
    assert len(grids) == 4
    for n, grid in enumerate(grids, 1):
        assert len(grid.phrases) == n
        pixels = np.asarray(grid.image)
        assert pixels.shape == (80, 80, 3)
        for phrase in grid.phrases:
            assert grid.caption[slice(*phrase.span)] == phrase.text
            ((x0, y0, x1, y1),) = phrase.boxes
            assert (x1 - x0, y1 - y0) == (40, 40)
            # The square is 5/4 of the object, which fills the middle 32 pixels of the cell.
            cell = pixels[int(y0) : int(y1), int(x0) : int(x1)]
            assert (cell[7:33, 7:33] == COLOURS[phrase.text]).all()
            assert cell[0].max() == cell[-1].max() == cell[:, 0].max() == cell[:, -1].max() == 0


def test_captions_are_lists_with_the_articles_of_the_phrases():
    mixed = [
        record(0, "red", "an "), record(1, "green", ""), record(2, "blue"), record(3, "white"),
    ]  # fmt: skip
    caption = ObjectGrids(mixed, n_named=(4,))[0].caption
    assert caption.count(" and ") == 1
    assert caption.count(", ") == 2
    assert "an red" in caption
    assert re.search(r"(^|, |and )green", caption)


def test_squares_at_the_border_stay_inside():
    corner = [record(i, words, box=(0.0, 60.0, 20.0, 80.0)) for i, words in enumerate(COLOURS)]
    grid = ObjectGrids(corner, n_named=(1,), cell=40)[0]
    ((x0, y0, _, _),) = grid.phrases[0].boxes
    pixels = np.asarray(grid.image)[int(y0) : int(y0) + 40, int(x0) : int(x0) + 40]
    assert tuple(pixels[35, 5]) == COLOURS[grid.phrases[0].text]  # below, left
    assert pixels[5, 35].max() == 0


def test_objects_of_a_picture_share_no_word_and_come_from_different_records():
    scenes = SceneRecords(40, seed=2)
    grids = ObjectGrids(scenes, n_named=(4,))
    assert len(grids) >= 5
    for grid in grids:
        words = [word for p in grid.phrases for word in p.text.split()]
        assert len(set(words)) == len(words)
        sources = [key.rpartition(".")[0] for key in grid.key.rpartition("/")[0].split("+")]
        assert len(set(sources)) == 4
    keys = [grid.key for grid in grids]
    assert len(set(keys)) == len(keys)
    assert [g.caption for g in ObjectGrids(scenes, n_named=(4,))] == [g.caption for g in grids]


def test_nothing_is_opened_before_a_grid_is_used():
    def closed():
        raise AssertionError("opened")

    unopened = [Record(r.key, r.caption, r.phrases, closed, r.source) for r in records()]
    grids = ObjectGrids(unopened, n_named=(2,))
    assert grids[0].caption
    with pytest.raises(AssertionError, match="opened"):
        _ = grids[0].image


@pytest.mark.parametrize("n_named", [(), (0,), (5,)])
def test_numbers_of_named_objects_are_checked(n_named):
    with pytest.raises(ValueError, match="1 to 4 objects of a picture are named"):
        ObjectGrids(records(), n_named=n_named)


def test_a_cell_has_pixels():
    with pytest.raises(ValueError, match="at least 1 pixel a side, but got 0"):
        ObjectGrids(records(), cell=0)


def test_what_can_not_be_composed_is_an_error():
    two = ((1.0, 1.0, 30.0, 30.0), (40.0, 1.0, 70.0, 30.0))
    for unsuitable in (
        records()[:3],
        [record(i, words, box=(1.0, 1.0, 9.0, 30.0)) for i, words in enumerate(COLOURS)],
        [record(i, words, boxes=two) for i, words in enumerate(COLOURS)],
        [record(i, "red") for i in range(6)],
        [record(i, words, label="thing") for i, words in enumerate(COLOURS)],  # synonyms
    ):
        with pytest.raises(ValueError, match="no picture of 4 objects can be composed"):
            ObjectGrids(unsuitable)
