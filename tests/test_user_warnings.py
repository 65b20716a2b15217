"""Warnings point at the user's program."""

from __future__ import annotations

import warnings

from captum_interactions import explain
from captum_interactions.user_warnings import warn_caller
from captum_interactions.zoo import load_demo


def test_a_warning_names_the_line_of_its_caller():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warn_caller("here")
    assert seen[0].filename == __file__


def test_a_warning_from_deep_inside_names_the_users_line():
    wrapper, scenes = load_demo()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        explain(wrapper, scenes[0].image, scenes[0].caption, layers=("input", 0), n_steps=1)
    assert "convergence delta" in str(seen[-1].message)
    assert seen[-1].filename == __file__
