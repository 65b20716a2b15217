"""Recognition in composed pictures: scores by hand, and their table."""

from __future__ import annotations

import numpy as np
import pytest

from captum_interactions import load_demo
from captum_interactions.datasets import SceneRecords
from captum_interactions.evaluation.studies.recognition import READOUTS, Recognition
from tests.evaluation_rows import rows_of

SECOND = "second_order_integrated_gradients"
FAST = f"{SECOND}:n_steps=8,layers=[-1,-1]"
FIRST = "grad_eclip"


@pytest.fixture(scope="module")
def wrapper():
    return load_demo()[0]


@pytest.fixture(scope="module")
def recognition(wrapper):
    study = Recognition(methods=(FAST, FIRST), n_named=(1, 3), cell=48)
    records = study.records(SceneRecords(16, seed=4))[:4]
    return study, records, rows_of(study, wrapper, records)


def test_recognition_of_a_map_by_hand(wrapper, recognition):
    study, records, rows = recognition
    record, values = records[1], next(r.values for r in rows if r.variant == FAST and r.index == 1)
    (imap,) = study.explain(wrapper, FAST, [record])
    assert values["named"] == 3
    for k, phrase in enumerate(record.phrases):
        x0, y0, _, _ = phrase.boxes[0]
        heat = imap.heatmap(phrase.span).astype(float)
        half = heat.shape[0] // 2
        own = np.zeros(heat.shape, bool)
        own[half:, :] |= y0 > 0
        own[:half, :] |= y0 == 0
        own[:, half:] &= x0 > 0
        own[:, :half] &= x0 == 0
        for readout, one in {
            "map": heat,
            "centred": heat - heat.mean(),
            "with main effects": heat
            + imap.axis_a.to_grid(imap.main_effects_a.numpy()).astype(float) / 3,
        }.items():
            right = one[own].clip(0).sum() + (-one[~own]).clip(0).sum()
            assert values[readout][k] == pytest.approx(right / np.abs(one).sum(), abs=1e-4)


def test_recognition_of_one_map_for_all_phrases_can_not_be_right_everywhere(recognition):
    _, _, rows = recognition
    for row in rows:
        if row.variant == FIRST and row.values["named"] == 3:
            # Its positive mass is shared by three cells, each of which is right for one phrase.
            assert sum(row.values["map"]) <= 1 + 1e-6
            assert row.values["map"] == pytest.approx(row.values["with main effects"])


def test_recognition_table(recognition):
    study, _, rows = recognition
    summary = study.summarise(rows, [])
    table = summary.tables["by_method"]
    assert tuple(table.columns) == ("method", "read as", "1 named", "3 named", "chance")
    assert len(table.rows) == 2 * len(READOUTS)
    cell = next(row[3] for row in table.rows if row[0] == FAST and row[1] == "map")
    values = [
        x for r in rows if r.variant == FAST and r.values["named"] == 3 for x in r.values["map"]
    ]
    assert cell == pytest.approx(sum(values) / len(values))
    assert "2 pictures" in summary.notes[0]
    chance = {(row[0], row[1]): row[-1] for row in table.rows}
    assert chance[FIRST, "map"] == pytest.approx(0.25)  # it has no negative values
    assert chance[FIRST, "centred"] == chance[FAST, "both"] == pytest.approx(0.5)
    assert 0.25 < chance[FAST, "map"] < 0.75


def test_the_cell_is_a_setting_that_rows_depend_on():
    assert Recognition().settings != Recognition(cell=48).settings
