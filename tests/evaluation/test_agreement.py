"""Agreement of methods with each other and with analytic answers."""

from __future__ import annotations

import numpy as np
import pytest

from captum_interactions import load_demo
from captum_interactions.datasets import SceneRecords
from captum_interactions.evaluation import Row
from captum_interactions.evaluation.studies.agreement import Agreement
from tests.evaluation_rows import rows_of

SECOND = "second_order_integrated_gradients"
FAST = f"{SECOND}:n_steps=8,layers=[-1,-1]"
FIRST = "grad_eclip"


@pytest.fixture(scope="module")
def wrapper():
    return load_demo()[0]


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


def test_intervals_are_of_images_and_say_what_is_defined():
    constant, rising, falling = [2.0] * 4, [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]
    maps = {
        SECOND: {"r00": [rising, rising], "r01": [rising], "r10": [rising], "r11": [constant]},
        FIRST: {"r00": [rising, rising], "r01": [rising], "r10": [falling], "r11": [rising]},
    }
    rows = [
        Row(record, method, 0, "measured", {"maps": found}, image=record[:2])
        for method, by_record in maps.items()
        for record, found in by_record.items()
    ]
    tables = Agreement().summarise(rows, []).tables
    (cells,) = tables["intervals"].rows
    # Four phrases are defined: three of one image at 1, one of the other at -1.
    assert cells == [SECOND, FIRST, 5, 0.8, *map(pytest.approx, (0.5, -1, 1))]
    assert tables["correlations"].rows[0][1:] == [pytest.approx(1), pytest.approx(0.5)]


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
