"""Readers meet methods by their names in the literature."""

from captum_interactions.attr import ATTRIBUTIONS
from captum_interactions.maps.titles import TITLES, method_title


def test_every_method_has_a_title():
    assert TITLES.keys() == ATTRIBUTIONS.keys()
    assert len(set(TITLES.values())) == len(TITLES)
    assert method_title("my_own_method") == "my own method"
