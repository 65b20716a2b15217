"""Which input of a map is a picture or a text, and what readers call the inputs."""

import pytest

from captum_interactions.axes import TokenAxis
from captum_interactions.maps.sides import picture_side, side_names, text_side
from tests.pages import WHITE, image_axis, make, picture_and_text, sound, two_texts


def test_names_of_inputs():
    assert side_names(picture_and_text("red")) == ("image", "text")
    assert side_names(sound()) == ("sound", "text")
    assert side_names(two_texts("red", "blue")) == ("first text", "second text")
    numbers = TokenAxis.numbered(2)
    assert side_names(make(numbers, numbers)) == ("first input", "second input")


def test_pictures_are_looked_for_in_a_first_and_texts_in_b():
    assert (picture_side(sound()), text_side(sound())) == ("a", "b")
    images = make(image_axis(WHITE), image_axis(WHITE))
    assert (picture_side(images), picture_side(images, "b")) == ("a", "b")
    assert text_side(two_texts("red", "blue")) == "b"


def test_a_pair_without_the_kind_says_what_it_has():
    texts = two_texts("red", "blue")
    with pytest.raises(TypeError, match="neither input is an image or a sound: .* TextAxis and T"):
        texts.heatmap()
    with pytest.raises(TypeError, match="input a is a text: the axes are ImageAxis and TextAxis"):
        text_side(picture_and_text("red"), "a")
    with pytest.raises(TypeError, match="neither input is a text: the axes are ImageAxis and Im"):
        make(image_axis(WHITE), image_axis(WHITE)).word_weights()
