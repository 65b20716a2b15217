"""Ablations: settings are read, tried and sorted into tables."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from captum_interactions import explain, wrap
from captum_interactions.datasets import HardNegative, Record
from captum_interactions.evaluation import Row, run_study
from captum_interactions.evaluation.studies.ablations import (
    Ablations,
    blurred,
    parse_setting,
    relative_error,
)
from tests import models
from tests.evaluation.test_perturbation import record

# Random weights bend paths so much that few nodes miss the score, which warns.
pytestmark = pytest.mark.filterwarnings("ignore:attributions sum to")


@pytest.fixture(scope="module")
def wrapper():
    return wrap(*models.clip_with_processor())


def measured(wrapper, setting, records):
    return Ablations(varied=(setting,)).measure(wrapper, setting, records)


def test_all_default_settings_are_varied_one_at_a_time():
    study = Ablations()
    assert len(study.variants) == 38
    for one in study.variants.values():
        assert len(one["options"].keys() - {"method"}) <= 1
    assert json.dumps({name: dict(v) for name, v in study.variants.items()})


def test_more_nodes_leave_smaller_errors(wrapper):
    records = [record(f"r{seed}", seed) for seed in range(3)]
    errors = [
        sum(
            abs(values["delta"])
            for values in measured(wrapper, f"n_steps={n},method=riemann_right", records)
        )
        for n in (2, 8, 32)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 0


def test_settings_are_those_of_explain(wrapper):
    one = record()
    for setting, options in (
        ("default", {}),
        ("layers=[0,-1],n_steps=4", {"layers": (0, -1), "n_steps": 4}),
        ("normalization=none", {"normalization": "none"}),
        ("baseline_a=0.5", {"baselines": (0.5, None)}),
        ("baseline_a=[0.5,-1]", {"baselines": ([0.5, -1.0], None)}),
    ):
        (values,) = measured(wrapper, setting, [one])
        imap = explain(wrapper, one.image, one.caption, **options)
        assert values["delta"] == pytest.approx(imap.convergence_delta, abs=1e-6)
        assert values["constant"] == pytest.approx(imap.constant, abs=1e-6)
        assert values["layers"] == imap.settings["layers"]
        line = json.loads(Row("r", setting, 0, "measured", values).line())
        assert line["values"]["phrases"][0]["pge"] == values["phrases"][0]["pge"]


def test_the_blurred_image(wrapper):
    pixels = wrapper.prepare(record().image, record().caption).inputs[0]
    soft = blurred(wrapper, record())
    assert soft.shape == pixels.shape
    assert soft.std() < 0.5 * pixels.std()
    flat = Record("flat", "a red circle", (), lambda: Image.new("RGB", (12, 12), (200, 30, 9)), "")
    expected = wrapper.prepare(flat.image, flat.caption).inputs[0]
    torch.testing.assert_close(blurred(wrapper, flat), expected)
    (values,) = measured(wrapper, "baseline_a=blurred", [record()])
    imap = explain(wrapper, record().image, record().caption, baselines=(soft, None))
    assert values["constant"] == pytest.approx(imap.constant, abs=1e-6)


def test_only_pixels_are_blurred():
    patches = SimpleNamespace(inputs=(torch.rand(1, 9, 48), torch.ones(1, 5)))
    packed = SimpleNamespace(prepare=lambda *_, **__: patches)
    with pytest.raises(ValueError, match=r"only pixels of shape .* shape \(1, 9, 48\)"):
        blurred(packed, record())


def row(setting, name, delta, pge, *, n=4, rule="gausslegendre", score=0.5, constant=0.1):
    phrases = [{"pge": pge, "pga": 1.0, "chance": 0.25}]
    values = {
        "delta": delta, "score": score, "constant": constant, "phrases": phrases,
        "n_steps": n, "rule": rule, "layers": [0, 0],
    }  # fmt: skip
    return Row(name, setting, 0, "measured", values, seconds=1.0)


def test_summary_by_hand():
    two, eight = "n_steps=2,method=riemann_right", "n_steps=8,method=riemann_right"
    rows = [
        row("default", "r0", 0.01, 0.5), row("default", "r1", -0.03, 0.7),
        row(eight, "r0", 0.04, 0.6, n=8, rule="riemann_right"),
        row(two, "r0", -0.2, 0.4, n=2, rule="riemann_right"),
        row("normalization=none", "r0", 0.5, 0.3, score=0.1, constant=0.1),
        row("layers=[0,0],n_steps=3", "r0", 0.0, 0.1, n=3),
    ]  # fmt: skip
    found = Ablations().summarise(rows, [])
    differences = found.tables["differences"]
    names = {
        name: [cells[0] for cells in table.rows]
        for name, table in found.tables.items()
        if table is not differences
    }
    assert names == {
        "steps": ["default", eight, two],
        "normalization": ["default", "normalization=none"],
        "others": ["default", "layers=[0,0],n_steps=3"],
    }
    table = found.tables["steps"]
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert "steps" not in table.details  # which differ, unlike those of another normalization
    assert "steps" in found.tables["normalization"].details
    assert cells["error, thousandths"] == pytest.approx(20)
    assert cells["relative error"] == pytest.approx(0.05)
    assert cells["PGE median"] == pytest.approx(0.6)
    assert relative_error(rows[4:5]) is None
    (line,) = found.figures["error"].axes[0].lines
    assert list(line.get_xdata()) == [2, 8]
    assert list(line.get_ydata()) == pytest.approx([0.5, 0.1])
    assert list(found.figures["energy"].axes[0].lines[0].get_ydata()) == [0.4, 0.6]
    assert not Ablations().summarise(rows[:2], []).figures
    gaps = {cells[0]: cells for cells in differences.rows}
    assert list(gaps) == [eight, two, "normalization=none", "layers=[0,0],n_steps=3"]
    place = differences.columns.index("PGE difference")
    assert gaps[two][1:3] == [1, pytest.approx(190)]  # .2 against .01, in thousandths
    assert gaps[two][place] == pytest.approx(-0.1)
    # Each has one record in common with the default, which is no test.
    assert "number of comparisons: 0" in differences.caption


def test_phrases_without_mass_count_as_chance():
    rows = [row("default", "r0", 0.01, 0.5), row("default", "r1", 0.01, None)]
    table = Ablations().summarise(rows, []).tables["others"]
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    chance = rows[1].values["phrases"][0]["chance"]
    assert cells["PGE median"] == pytest.approx((0.5 + chance) / 2)


def test_further_settings_are_added(wrapper, tmp_path):
    false = Record(
        "f",
        "a dred circle",
        (),
        record().open_image,
        "",
        HardNegative("r0", "a red circle", (2, 6)),
    )
    for varied in (("default",), ("n_steps=2", "layers=[0,0]")):
        found = run_study(Ablations(varied=varied), wrapper, [record(), false], tmp_path)
    assert set(found.tables) >= {"steps", "layers"}
    assert {cells[0]: cells[1:3] for cells in found.tables["records"].rows} == {
        name: [1, 1] for name in ("default", "n_steps=2", "layers=[0,0]")
    }


def test_bad_settings():
    with pytest.raises(ValueError, match="NAME:OPTION=VALUE"):
        parse_setting("steps")
    with pytest.raises(TypeError, match="has no option nodes"):
        Ablations(varied=("nodes=3",))
    for text in ("baseline_a=sharp", "baseline_a=[0.0,null]", "baseline_a=true"):
        with pytest.raises(ValueError, match="must be a number, blurred, or a list"):
            Ablations(varied=(text,))
