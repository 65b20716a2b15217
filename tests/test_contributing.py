"""The worked examples of CONTRIBUTING.md run, each section by itself."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from captum_interactions import explain, load_demo
from captum_interactions.attr import ATTRIBUTIONS
from captum_interactions.datasets import load_dataset
from captum_interactions.datasets.catalogue import DATASETS

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
SECTIONS = {
    title: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for title, text in re.findall(r"^## (Add .*?)\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
}


def check_method(names):
    assert names["heatmap"].any()
    assert all(weight > 0 for _, weight in names["words"])


def check_family(names):
    assert names["wrapper"].tower_b.n_blocks == names["wrapper"].tower_a.n_blocks == 2


def check_dataset(names):
    assert names["record"].source == "captions.tsv, line 1"


def check_study(names):
    wrapper, _ = load_demo()
    deltas = [
        abs(explain(wrapper, record.image, record.caption, n_steps=4).convergence_delta)
        for record in load_dataset("scenes", n=4, seed=5)
    ]
    assert names["error"] == pytest.approx(sum(deltas) / 4, rel=1e-3)


RESULTS = {
    "Add a method": check_method,
    "Add a model family": check_family,
    "Add a dataset": check_dataset,
    "Add a study": check_study,
}


@pytest.fixture
def registries():
    """The registries of methods and datasets, as they were before the examples."""
    before = [(registry, dict(registry)) for registry in (ATTRIBUTIONS, DATASETS)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


def test_all_examples_run():
    assert SECTIONS.keys() == RESULTS.keys()
    assert PAGE.count("```python") == sum(map(len, SECTIONS.values()))


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("title", RESULTS)
@pytest.mark.filterwarnings("ignore:attributions sum to")  # four nodes are few
def test_an_example(title, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names: dict[str, object] = {"__name__": "contributing"}
    for block in SECTIONS[title]:
        exec(compile(block, "CONTRIBUTING.md", "exec", dont_inherit=True), names)
    RESULTS[title](names)
