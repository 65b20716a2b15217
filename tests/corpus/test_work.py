"""Builds that meet in one folder."""

from __future__ import annotations

import pytest

from captum_interactions.corpus import FactorIndex, build_index
from tests import corpora


@pytest.fixture(scope="module")
def wrapper():
    return corpora.small_wrapper()


def build(folder, wrapper, items, **options):
    options = corpora.OPTIONS | {"storage": "float32"} | options
    return build_index(folder, wrapper, items, side="a", **options)


def meeting(meet, number=4):
    """The images, with something that happens when one of them is opened."""
    items = corpora.images()
    opener = items[f"image {number}"]

    def open_image():
        meet()
        return opener()

    return items | {f"image {number}": open_image}


def test_builds_of_other_items_are_refused_while_one_is_at_work(tmp_path, wrapper):
    """The second would give up what the first has not finished, and the first would write it."""
    others = {"another": corpora.images(9)["image 8"]}

    def meet():
        before = corpora.files(tmp_path)
        with pytest.raises(RuntimeError, match=f"another build is at work in '{tmp_path}'"):
            build(tmp_path, wrapper, others)
        assert corpora.files(tmp_path) == before

    assert build(tmp_path, wrapper, meeting(meet)).keys == tuple(corpora.images())
    assert FactorIndex(tmp_path).keys == tuple(corpora.images())
    assert build(tmp_path, wrapper, others).keys == (*corpora.images(), "another")


def test_workers_of_one_build_are_not_in_each_others_way(tmp_path, wrapper):
    def meet():
        with pytest.raises(RuntimeError, match="another build is at work"):
            build(tmp_path, wrapper, corpora.images(), rank=0, world_size=2)
        build(tmp_path, wrapper, corpora.images(), rank=1, world_size=2)

    index = build(tmp_path, wrapper, meeting(meet, 0), rank=0, world_size=2)
    assert not index.missing
    assert not list(tmp_path.glob(".[0-9]*"))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_work_ends_however_it_ends(tmp_path, wrapper, stop):
    def fail():
        raise stop

    with pytest.raises((stop, ValueError)):
        build(tmp_path, wrapper, meeting(fail))
    killed = tmp_path / ".0007-0123456789ab-3.lock"  # nobody holds it
    killed.write_text("")
    others = {"another": corpora.images(9)["image 8"]}
    assert build(tmp_path, wrapper, others).keys == ("image 0", "image 1", "image 2", "another")
    assert [path.name for path in tmp_path.glob(".*")] == [".lock"]
