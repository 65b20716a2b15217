"""Which words of a caption name things, and which only look as if they did."""

from __future__ import annotations

import pytest

from captum_interactions.datasets import CocoRecords
from captum_interactions.datasets.coco_matching import Mentions
from captum_interactions.datasets.coco_words import COCO_WORDS
from tests.shared_data import shared_data

MENTIONS = Mentions({word: kind for kind, words in COCO_WORDS.items() for word in words})


def named(caption: str) -> list[str]:
    """The words found in a caption; the category follows where it is another word."""
    return [
        caption[slice(*one.span)]
        if caption[slice(*one.span)].lower().rstrip("s") == one.category.rstrip("s")
        else f"{caption[slice(*one.span)]}: {one.category}"
        for one in MENTIONS.find(caption)
    ]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        # A noun that describes the next one.
        ("A toothbrush holder with four toothbrushes", ["toothbrushes: toothbrush"]),
        ("A boat next to a ship dock and train tracks", ["boat"]),
        ("a teddy bear with a teddy bear umbrella", ["teddy bear", "umbrella"]),
        ("car trunk door open behind a car", ["car"]),
        ("a baseball pitcher in the baseball field", ["pitcher: person"]),
        ("a horse-drawn carriage and a dog-shaped cake", ["cake"]),
        ("a dog bowl, a cat litter box, luggage racks", ["bowl"]),
        ("the dog's bowl", ["dog", "bowl"]),
        ("a bus stop where the bus stops", ["bus"]),
        ("A stop sign stands by the bus that passes", ["stop sign", "bus"]),
        ("children stand, sheep stand", ["children: person", "sheep"]),
        ("dogs cats and birds", ["dogs", "cats", "birds"]),
        # Neighbours of one category are one thing.
        ("jumbo jet airplanes", ["jumbo jet airplanes: airplane"]),
        ("a stove top oven and a woman tennis player",
         ["stove top oven: oven", "woman tennis player: person"]),
        # Verbs.
        ("A young boy skateboards on a dirt pathway", ["boy: person"]),
        ("two men ski down, a woman bikes home", ["men: person", "woman: person"]),
        ("a man on skis who skis and likes to ski", ["man: person", "skis"]),
        ("a boy next to skateboards", ["boy: person", "skateboards"]),
        # Colours, games, adjectives.
        ("yellow and orange fruit", []),
        ("an orange cat in an orange, red and blue hat", ["cat"]),
        ("an orange and black bus", ["bus"]),
        ("an orange and a banana", ["orange", "banana"]),
        ("oranges by a peeled orange.", ["oranges", "orange"]),
        ("hitting a baseball with a bat", ["baseball: sports ball", "bat: baseball bat"]),
        ("playing baseball in a football stadium", []),
        ("Men playing Frisbee with a frisbee", ["Men: person", "frisbee"]),
        ("a remote beach, and a remote on a bed", ["remote", "bed"]),
        # Likenesses.
        ("a statue of a man on a horse", ["horse"]),
        ("a hat like a cat", []),
        ("ghost like people", ["people: person"]),
        # Expressions that mislead, and hyphens.
        ("a hot-dog in a toilet bowl by a cd player", ["hot-dog: hot dog"]),
    ],
)  # fmt: skip
def test_mentions_by_hand(caption: str, expected: list[str]) -> None:
    assert named(caption) == expected


def test_categories_of_ones_own_come_before_the_rules() -> None:
    own = Mentions({"bus stop": "bus stop", "bus": "bus", "buses": "bus"})
    assert [one.category for one in own.find("a bus at a bus stop sign by buses")] == [
        "bus", "bus stop", "bus",
    ]  # fmt: skip


def test_real_captions() -> None:
    """All 400 captions were read word by word; see docs/howto/datasets.rst for what was found."""
    records = CocoRecords(shared_data("coco_mini"))
    assert len(records) == 400
    assert sum(len(record.phrases) for record in records) == 545
    known = {
        "551259": ["stuffed bear", "umbrella", "teddy bear"],  # the last, a face, is an error
        "76735": ["toothbrushes"],
        "237768": ["boat"],
        "545571": ["teddy bear", "umbrella"],
        "530451": ["boy"],
        "534179": ["Man", "cell phone"],
        "69676": ["Men", "dog"],
        "821330": ["buses", "jumbo jet airplanes"],
        "679113": ["person"],  # "ski's", on which she stands, is missed
    }
    found = {record.key: [phrase.text for phrase in record.phrases] for record in records}
    assert {key: found[key] for key in known} == known
