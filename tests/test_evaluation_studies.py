"""Recognition, agreement and fine-tuning: what they measure, and what they make of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from captum_interactions import load_demo
from captum_interactions.datasets import SceneRecords
from captum_interactions.evaluation import STUDIES, Row, run_study
from captum_interactions.evaluation.agreement import Agreement
from captum_interactions.evaluation.fine_tuning import FineTuningStudy
from captum_interactions.evaluation.recognition import READOUTS, Recognition

SECOND = "second_order_integrated_gradients"
FAST = f"{SECOND}:n_steps=8,layers=[-1,-1]"
FIRST = "grad_eclip"


@pytest.fixture(scope="module")
def wrapper():
    return load_demo()[0]


def rows_of(study, wrapper, records, variants=None):
    """Rows as the runner makes them, through JSON."""
    rows = []
    for variant in variants or study.variants:
        for index, (record, values) in enumerate(
            zip(records, study.measure(wrapper, variant, records), strict=True)
        ):
            row = Row(record.key, variant, index, "measured", values)
            rows.append(Row(**json.loads(row.line())))
    return rows


def test_they_are_known_by_their_names():
    for study in (Recognition, Agreement, FineTuningStudy):
        assert STUDIES[study.name] is study


# Recognition.


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
    assert tuple(table.columns) == ("method", "read as", "1 named", "3 named")
    assert len(table.rows) == 2 * len(READOUTS)
    cell = next(row[3] for row in table.rows if row[0] == FAST and row[1] == "map")
    values = [
        x for r in rows if r.variant == FAST and r.values["named"] == 3 for x in r.values["map"]
    ]
    assert cell == pytest.approx(sum(values) / len(values))
    assert "2 pictures" in summary.notes[0]


# Agreement.


def test_agreement_with_oneself_with_the_opposite_and_with_a_monotone_copy():
    study = Agreement()
    maps = {"one": [[1.0, 2.0, 5.0, 3.0]], "opposite": [[-1.0, -2.0, -5.0, -3.0]]}
    maps["copy"] = [[1.0, 8.0, 125.0, 27.0]]
    rows = [
        Row("r", f"{SECOND}:n_steps={i}", 0, "measured", {"maps": values})
        for i, values in enumerate(maps.values(), 1)
    ]
    table = study.summarise(rows, []).tables["correlations"]
    found = np.array([row[1:] for row in table.rows], float)
    np.testing.assert_allclose(found, [[1, -1, 1], [-1, 1, -1], [1, -1, 1]], atol=1e-9)


def test_agreement_on_bilinear_models_is_exact_for_complete_second_order_methods():
    study = Agreement()
    methods = (SECOND, "banzhaf_interactions", "archipelago", "token_similarity", FIRST)
    rows = [Row("r", m, 0, "measured", {"maps": [[1.0, 2.0, 4.0]]}) for m in methods]
    table = study.summarise(rows, []).tables["bilinear"]
    by_method = {row[0]: row[1:] for row in table.rows}
    for method in methods[:3]:
        correlation, rank, difference = by_method[method]
        assert correlation == pytest.approx(1, abs=1e-5)
        assert rank == pytest.approx(1, abs=1e-5)
        assert difference < 1e-4
    assert by_method[FIRST] == [None, None, None]


def test_agreement_measures_a_map_for_each_phrase(wrapper):
    study = Agreement(methods=(FAST,))
    records = SceneRecords(3, seed=5)[:]
    for row, record in zip(rows_of(study, wrapper, records), records, strict=True):
        assert len(row.values["maps"]) == len(record.phrases)
        (imap,) = study.explain(wrapper, FAST, [record])
        np.testing.assert_allclose(
            row.values["maps"][0],
            imap.heatmap(record.phrases[0].span).ravel(),
            rtol=1e-4,
            atol=1e-6,
        )


# Fine-tuning.


def test_fine_tuning_end_to_end(wrapper, tmp_path):
    study = FineTuningStudy(
        methods=(FAST,),
        train="scenes:n=16,seed=9,domain=shifted",
        steps=3,
        train_batch=8,
        learning_rate=1e-3,
        checkpoint=str(tmp_path / "weights.pt"),
    )
    records = SceneRecords(4, seed=6, domain="shifted")
    summary = run_study(study, wrapper, records, tmp_path / "out", batch_size=4)
    rows = [json.loads(x) for x in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    by_variant = {(row["variant"], row["record"]): row["values"] for row in rows}
    assert {row["variant"] for row in rows} == {
        f"{stage} {what}" for stage in ("before", "after") for what in (FAST, "retrieval")
    }
    key = records[0].key
    before, after = (by_variant[f"{s} {FAST}", key]["phrases"] for s in ("before", "after"))
    assert before[0]["pge"] != after[0]["pge"]
    grounding, retrieval = summary.tables["grounding"], summary.tables["retrieval"]
    changes = [
        new["pge"] - old["pge"]
        for record in records
        for old, new in zip(
            by_variant[f"before {FAST}", record.key]["phrases"],
            by_variant[f"after {FAST}", record.key]["phrases"],
            strict=True,
        )
    ]
    assert grounding.rows[0][4] == pytest.approx(np.mean(changes))
    assert [row[1] for row in retrieval.rows] == [4, 4]
    # The trained weights are kept: with them there, nothing is trained again.
    assert int(torch.load(tmp_path / "weights.pt", weights_only=True)["step"]) == 3


def test_recall_of_embeddings_by_hand():
    study = FineTuningStudy(methods=(FAST,))
    a = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]
    b = [[1.0, 0.1], [0.1, 1.0], [1.0, 0.0]]  # the third caption is like the first image
    rows = [
        Row(f"r{i}", f"{stage} retrieval", i, "measured", {"a": a[i], "b": b[i]})
        for stage in ("before", "after")
        for i in range(3)
    ]
    table = study.summarise(rows, []).tables["retrieval"]
    # Image 3 fits caption 2 better than its own, and caption 3 image 1.
    assert table.rows[0][2:] == pytest.approx([1 / 3, 2 / 3])


def test_settings_that_rows_depend_on():
    study = FineTuningStudy()
    assert study.settings != replace(study, steps=7).settings
    assert study.settings == replace(study, checkpoint="elsewhere.pt").settings
    assert Recognition().settings != Recognition(cell=48).settings
