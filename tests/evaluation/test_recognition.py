"""Recognition in composed pictures: scores by hand, and their table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from captum_interactions import load_demo
from captum_interactions.datasets import SceneRecords
from captum_interactions.evaluation.studies.recognition import READOUTS, Recognition
from tests.evaluation_rows import rows_of, written

SECOND = "second_order_integrated_gradients"
FAST = f"{SECOND}:n_steps=32,layers=[-1,-1]"
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
    assert tuple(table.columns) == (
        "method", "read as", "averaged", "1 named", "3 named", "chance"
    )  # fmt: skip
    assert len(table.rows) == 2 * 2 * len(READOUTS)
    cells = {tuple(row[:3]): row[3:] for row in table.rows}
    of_three = [r for r in rows if r.variant == FAST and r.values["named"] == 3]
    each = [x for r in of_three for x in r.values["map"]]
    assert cells[FAST, "map", "over phrases"][1] == pytest.approx(np.mean(each))
    pooled = [r.values["pooled"]["map"] for r in of_three]
    assert cells[FAST, "map", "pooled"][1] == pytest.approx(np.mean(pooled))
    assert np.mean(pooled) != pytest.approx(np.mean(each))
    assert "2 pictures. The best of 8 readings is partly luck" in summary.notes[0]
    assert cells[FIRST, "map", "over phrases"][2] == pytest.approx(0.25)  # no negative values
    assert cells[FIRST, "map", "pooled"][2] == pytest.approx(0.25)
    assert cells[FIRST, "centred", "over phrases"][2] == pytest.approx(0.5)
    assert cells[FAST, "both", "over phrases"][2] == pytest.approx(0.5)
    assert 0.25 < cells[FAST, "map", "over phrases"][2] < 0.75
    intervals = {tuple(row[:4]): row[4:] for row in summary.tables["intervals"].rows}
    n, pictures, value, low, high = intervals[FAST, "map", "over phrases", 3]
    assert (n, pictures, value) == (6, 2, pytest.approx(np.mean(each)))
    assert low <= value <= high
    (_, difference) = summary.tables["differences"].rows
    other = [x for r in rows if r.variant == FIRST and r.values["named"] == 3
             for x in r.values["map"]]  # fmt: skip
    assert difference[:4] == [FIRST, 3, 6, pytest.approx(np.mean(each) - np.mean(other))]


def test_the_best_reading_is_chosen_on_other_pictures(recognition, tmp_path):
    """There, centred maps of the first order are made the best ones with three named objects."""
    study, _, rows = recognition
    there = [
        replace(row, values={**row.values, "centred": [2.0] * len(row.values["centred"])})
        if row.variant == FIRST and row.values["named"] == 3
        else row
        for row in rows
    ]
    validation = written(tmp_path, there, "recognition")
    table = replace(study, validation=validation).summarise(rows, []).tables["chosen"]
    found = {(row[0], row[3]): row for row in table.rows}
    here = [x for r in rows if r.variant == FIRST and r.values["named"] == 3
            for x in r.values["centred"]]  # fmt: skip
    chosen = found[3, "over phrases"]
    assert chosen[1:3] == [FIRST, "centred"]
    assert chosen[4:6] == [2.0, pytest.approx(np.mean(here))]
    assert chosen[8] == 2 * len(READOUTS)
    assert set(found) == {(n, averaged) for n in (1, 3) for averaged in ("over phrases", "pooled")}


def test_a_run_that_was_killed_is_summed_up(recognition, tmp_path):
    """Of the second method it has the pictures with one named object alone."""
    study, _, rows = recognition
    killed = [row for row in rows if row.variant == FAST or row.values["named"] == 1]
    validation = written(tmp_path, killed, "recognition")
    tables = replace(study, validation=validation).summarise(killed, []).tables
    cells = {tuple(row[:3]): row[3:] for row in tables["by_method"].rows}
    assert cells[FIRST, "map", "over phrases"][1] is None
    assert [row[:2] for row in tables["differences"].rows] == [[FIRST, 1]]
    n_readings = {(row[0], row[3]): row[-1] for row in tables["chosen"].rows}
    assert n_readings[1, "pooled"] == 2 * len(READOUTS)
    assert n_readings[3, "pooled"] == len(READOUTS)  # of the first method alone
    backwards = study.summarise(killed[::-1], []).tables  # the second method is the first one
    assert [row[:2] for row in backwards["differences"].rows] == [[FAST, 1]]


def test_nothing_is_chosen_on_pictures_that_share_no_reading(recognition, tmp_path):
    study, _, rows = recognition
    validation = written(tmp_path, [row for row in rows if row.variant == FIRST], "recognition")
    here = [row for row in rows if row.variant == FAST]
    table = replace(study, validation=validation).summarise(here, []).tables["chosen"]
    assert not table.rows


def test_the_cell_is_a_setting_that_rows_depend_on():
    assert Recognition().settings != Recognition(cell=48).settings
