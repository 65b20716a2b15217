"""The README's first example does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

from captum_interactions import InteractionMap

matplotlib.use("Agg")
README = Path(__file__).parents[1] / "README.md"


def test_five_lines_and_the_slices_after_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    five, slices, *_ = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len([line for line in five.splitlines() if line]) == 5
    names: dict[str, object] = {}
    exec(five + slices, names)
    assert isinstance(names["imap"], InteractionMap)
    assert (tmp_path / "pair.safetensors").is_file()
    plt.close("all")
