"""The picture of the packages is drawn from their imports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("grimp")

from docs import architecture

ROOT = Path(__file__).parents[1]


def test_arrows_that_follow_from_others_are_left_out():
    chain = {("a", "b"), ("b", "c"), ("c", "d")}
    assert architecture.reduced(chain | {("a", "c"), ("a", "d"), ("b", "d")}) == chain
    square = {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")}
    assert architecture.reduced(square) == square


def test_all_packages_are_drawn_and_arrows_run_downwards():
    svg = architecture.picture()
    package = ROOT / "captum_interactions"
    found = {path.stem for path in package.glob("[!_]*") if path.suffix in ("", ".py")}
    assert set(re.findall(r">(\w+)</text>", svg)) >= found - {"hub", "user_warnings", "writing"}
    lines = re.findall(r'd="M\S+ (\S+) \S+ (\S+)" fill="none".*?/>', svg)
    assert len(lines) == svg.count("marker-end")
    assert sum(float(end) < float(start) for start, end in lines) == svg.count("dasharray") == 1
    assert ">tensor mathematics<" in svg
