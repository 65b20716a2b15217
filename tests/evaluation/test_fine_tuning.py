"""Grounding and retrieval before and after fine-tuning, end to end and by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from captum_interactions import load_demo
from captum_interactions.datasets import SceneRecords
from captum_interactions.evaluation import STUDIES, Row, run_study
from captum_interactions.evaluation.studies.agreement import Agreement
from captum_interactions.evaluation.studies.fine_tuning import FineTuningStudy
from captum_interactions.evaluation.studies.recognition import Recognition

SECOND = "second_order_integrated_gradients"
FAST = f"{SECOND}:n_steps=8,layers=[-1,-1]"


@pytest.fixture(scope="module")
def wrapper():
    return load_demo()[0]


def test_it_is_known_by_its_name_as_the_others_are():
    for study in (Recognition, Agreement, FineTuningStudy):
        assert STUDIES[study.name] is study


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
    assert [row[:2] for row in retrieval.rows] == [["before", 4], ["after", 4], ["difference", 4]]
    signs = {row[1]: row for row in summary.tables["signs"].rows}
    values = by_variant[f"before {FAST}", records[0].key]
    assert signs["own object positive"][2] == sum(
        len(by_variant[f"before {FAST}", r.key]["own"]) for r in records if len(r.phrases) > 1
    )
    assert set(values) == {"score", "delta", "phrases", "unread", "own", "cross"}
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
    assert (table.rows[0][2], table.rows[0][5]) == pytest.approx((1 / 3, 2 / 3))
    assert table.rows[2][2:] == [0.0] * 6  # nothing changed


def retrieved(a, b, images):
    """Recall of image to caption and of caption to image."""
    rows = [
        Row(f"r{i}", "before retrieval", i, "measured", {"a": a[i], "b": b[i]}, image=image)
        for i, image in enumerate(images)
    ]
    (row, _) = FineTuningStudy(methods=(FAST,)).summarise(rows, []).tables["retrieval"].rows
    return row[2], row[5]


def test_every_caption_of_an_image_counts_as_its_own():
    """Two captions each: an image finds either of them, and they find the image of both records."""
    a = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    b = [[0.6, 0.8], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]
    assert retrieved(a, b, ["p", "p", "q", "q"]) == (1.0, 3 / 4)  # the first caption finds image q


def test_equal_captions_of_several_images_share_a_hit():
    """Whichever of them comes first; equal are also those that differ in the last digit alone."""
    a, b = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], [[1.0, 0.0], [1.0, 1e-5], [0.0, 1.0]]
    assert retrieved(a, b, "pqr") == pytest.approx(((1 / 2 + 1 / 2 + 1) / 3, 2 / 3))
    assert retrieved(a[::-1], b[::-1], "rqp") == pytest.approx((2 / 3, 2 / 3))


def test_settings_that_rows_depend_on():
    study = FineTuningStudy()
    assert study.settings != replace(study, steps=7).settings
    assert study.settings == replace(study, checkpoint="elsewhere.pt").settings
