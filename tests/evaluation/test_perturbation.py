"""Insertion and deletion as a study: maps and masked scores in the same units."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from captum_interactions import explain, wrap
from captum_interactions.attr import masked_score
from captum_interactions.axes import Frame, ImageAxis, TextAxis
from captum_interactions.datasets import Phrase, Record
from captum_interactions.evaluation import Row, run_study
from captum_interactions.evaluation.studies.perturbation import (
    CURVES,
    GRID,
    JOINT,
    PAIRS,
    RANDOM,
    Perturbation,
    Ranking,
    curves,
    random_ranking,
    rankings_of,
)
from captum_interactions.evaluation.units import by_unit, masked_units, own_seed
from captum_interactions.functional import Decomposition
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.maps.interaction_map import InteractionMap
from captum_interactions.metrics import insertion_deletion_area, joint_curves
from tests import models

CAPTION = "a red circle"
# Random weights bend paths so much that few nodes miss the score, which warns.
pytestmark = pytest.mark.filterwarnings("ignore:attributions sum to")


@pytest.fixture(scope="module")
def wrapper():
    return wrap(*models.clip_with_processor())


def record(key="r0", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    phrases = (Phrase("red circle", (2, 12), ((0.0, 0.0, 8.0, 8.0),), "circle"),)
    return Record(key, CAPTION, phrases, lambda: Image.fromarray(pixels), f"line of {key}")


def axes():
    image = ImageAxis.of_grid((1, 2), (4, 4), Frame.identity((4, 8)), before=["[class]"])
    special = (True, False, False, False, True)
    spans = ((0, 0), (0, 1), (2, 5), (5, 8), (8, 8))
    text = TextAxis(("<", "a", "cir", "cle", ">"), special, (False,) * 5, "a circle", spans)
    return image, text


class Bilinear:
    """A score that is the sum of what is there and of pairs that are there."""

    def __init__(self, of_a, of_b, pairs):
        self.of_a, self.of_b, self.pairs = of_a, of_b, pairs
        self.players = (of_a[None] == of_a[None], of_b[None] == of_b[None])

    def __call__(self, present_a, present_b):
        a = torch.ones(1, 1, len(self.of_a)) if present_a is None else present_a.float()
        b = torch.ones(1, 1, len(self.of_b)) if present_b is None else present_b.float()
        return a @ self.of_a + b @ self.of_b + ((a @ self.pairs) * b).sum(-1)


def test_masked_units_are_groups_of_tokens(wrapper):
    batch = wrapper.prepare(record().image, "a dred circle")  # words of several tokens
    units_a, units_b = ([list(u.tokens) for u in a[0].units] for a in (batch.axes_a, batch.axes_b))
    assert max(map(len, units_b)) > 1
    expected = masked_score(
        wrapper, batch.inputs, None, batch.additional_forward_args,
        groups_a=units_a, groups_b=units_b,
    )  # fmt: skip
    one = Record("r", "a dred circle", (), record().open_image, "")
    score = masked_units(wrapper, one)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, 6, len(u), generator=generator) < 0.5 for u in (units_a, units_b))
    torch.testing.assert_close(score(a, b), expected(a, b))
    torch.testing.assert_close(score.grid(a, b), expected.grid(a, b))
    assert [p.tolist() for p in score.players] == [[[True] * 9], [[True] * len(units_b)]]


def test_maps_by_unit():
    axis_a, axis_b = axes()
    values = torch.arange(15.0).reshape(3, 5)
    imap = InteractionMap(
        values, torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 2, 3, 4, 5]), 0.5, 0.3, 0.0,
        axis_a, axis_b,
    )  # fmt: skip
    parts = by_unit(imap)
    # Patches, then the class token; words, then both ends of the text.
    assert parts.interactions[0].tolist() == [[6, 15, 14], [11, 25, 24], [1, 5, 4]]
    assert parts.main_effects_a[0].tolist() == [2, 3, 1]
    assert parts.main_effects_b[0].tolist() == [2, 7, 6]
    plain, full = rankings_of(imap).values()
    assert plain.a.tolist() == [[35, 60]]
    assert plain.b.tolist() == [[18, 45]]
    assert plain.pairs.tolist() == [[[6, 15], [11, 25]]]
    assert full.a.tolist() == [[37, 63]]
    assert full.b.tolist() == [[20, 52]]
    first = FirstOrderMap(torch.tensor([9.0, -1, 2]), None, 0.3, axis_a, axis_b)
    assert by_unit(first).convergence_delta.item() == pytest.approx(0)
    ((a, b, pairs, own),) = rankings_of(first).values()
    assert (a.tolist(), b, pairs) == ([[-1, 2]], None, None)
    assert (own.main_effects_a.tolist(), own.interactions.any().item()) == ([[-1, 2, 9]], False)
    # Read as a map, coalitions are worth their interactions alone.
    assert not plain.parts.main_effects_a.any()
    assert not plain.parts.main_effects_b.any()
    assert torch.equal(plain.parts.interactions, parts.interactions)
    assert all(map(torch.equal, full.parts, parts))


def test_the_oracle_order_is_the_best_of_all():
    of_a, of_b = torch.tensor([0.3, -0.2, 0.5, 0.1]), torch.tensor([0.2, 0.4, -0.1])
    pairs = torch.tensor([[0.3, 0, 0], [0, 0.1, 0], [0, -0.4, 0.2], [0, 0, 0]])
    score = Bilinear(of_a, of_b, pairs)
    oracle = Ranking((of_a + pairs.sum(1))[None], (of_b + pairs.sum(0))[None], pairs[None])
    best = curves(score, oracle, 4, True)
    assert list(best) == [*CURVES, PAIRS]
    orders = [
        torch.tensor([order], dtype=torch.float) for order in itertools.permutations(range(4))
    ]
    areas = [curves(score, Ranking(order, None, None), 4, True) for order in orders]
    inserted = [one["patches inserted"]["area"] for one in areas]
    deleted = [one["patches deleted"]["area"] for one in areas]
    assert best["patches inserted"]["area"] == pytest.approx(max(inserted))
    assert best["patches deleted"]["area"] == pytest.approx(min(deleted))
    assert max(deleted) - min(deleted) > 0.1
    assert set(areas[0]) == {"patches inserted", "patches deleted"}
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        order = Ranking(None, None, torch.rand(1, 4, 3, generator=generator))
        worse = curves(score, order, 12, True)[PAIRS]["area"]
        assert worse >= curves(score, oracle, 12, True)[PAIRS]["area"]


def test_joint_insertion_deletion_leaves_what_is_no_unit_alone():
    of_a, of_b = torch.tensor([0.3, -0.2, 0.5]), torch.tensor([0.2, 0.4])
    pairs = torch.tensor([[0.3, 0], [0, 0.1], [0, -0.4]])
    score = Bilinear(of_a, of_b, pairs)
    none = torch.zeros(1)
    right = Decomposition(none, of_a[None], of_b[None], pairs[None], none)
    expected = float(insertion_deletion_area(*joint_curves(score, right, n_steps=5)))
    # The class token has an effect and interactions: half of those that patch and word 0 have.
    parts = Decomposition(
        none,
        torch.tensor([[0.3, -0.2, 0.5, 9.0]]),
        torch.tensor([[0.1, 0.4, 0.0]]),
        torch.cat([F.pad(pairs, (0, 1)), torch.tensor([[0.1, 0, 0]])])[None],
        none,
    )
    found = curves(score, Ranking(None, None, None, parts), 5, True)
    assert found == {JOINT: {"area": pytest.approx(expected)}}
    assert expected > 0.2
    reverse = parts._replace(
        main_effects_a=-parts.main_effects_a,
        main_effects_b=-parts.main_effects_b,
        interactions=-parts.interactions,
    )
    found = curves(score, Ranking(None, None, None, reverse), 5, True)
    assert found[JOINT]["area"] == pytest.approx(-expected)


def test_curves_on_the_common_grid():
    score = Bilinear(torch.tensor([3.0, 1.0]), torch.tensor([0.0]), torch.zeros(2, 1))
    found = curves(score, Ranking(torch.tensor([[2.0, 1.0]]), None, None), 2, False)
    deleted = found["patches deleted"]
    np.testing.assert_allclose(deleted["scores"][[0, 5, 10, 20]], [4, 2.5, 1, 0])
    np.testing.assert_allclose(found["patches inserted"]["scores"][[0, 5, 10, 20]], [0, 1.5, 3, 4])
    assert (deleted["area"], deleted["normalized"]) == (1.5, 1.5 / 4)


def test_random_order_is_a_records_own(wrapper):
    score = masked_units(wrapper, record())
    values = [random_ranking(score, own_seed(0, record(key))).a for key in ("x", "x", "y")]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    assert own_seed(0, record("x")) != own_seed(1, record("x"))


def test_rows_of_a_model(wrapper):
    study = Perturbation(methods=("second_order_integrated_gradients:n_steps=2,layers=[-1,-1]",))
    assert list(study.variants)[-1] == RANDOM
    imap = explain(wrapper, record().image, CAPTION, n_steps=2)
    for variant, readouts in ((*study.methods, 2), (RANDOM, 1)):
        together = study.measure(wrapper, variant, [record("r0", 1), record("r1", 2)])
        (alone,) = study.measure(wrapper, variant, [record("r1", 2)])
        line = Row("r", variant, 0, "measured", together[0]).line()
        assert len(json.loads(line)["values"]) == readouts
        for curve in (*CURVES, PAIRS):
            one, other = together[1]["map"][curve], alone["map"][curve]
            np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-5)
            assert one["scores"].shape == GRID.shape
        assert together[1]["map"][JOINT]["area"] == pytest.approx(alone["map"][JOINT]["area"])
    (values,) = study.measure(wrapper, RANDOM, [record()])
    assert values["map"]["patches deleted"]["scores"][0] == pytest.approx(imap.score, abs=1e-5)
    assert values["map"]["words inserted"]["scores"][-1] == pytest.approx(imap.score, abs=1e-5)


def row(name, variant, area, start, image="", joint=1.0):
    curve = {"area": area, "normalized": area, "scores": [start, *[0.5] * 19, 0.1]}
    values = {"patches deleted": curve, JOINT: {"area": joint}, PAIRS: curve}
    return Row(name, variant, 0, "measured", {"map": values}, image=image)


def test_summary_by_hand():
    rows = [row("r0", "good", 0.1, 1.0), row("r1", "good", 0.2, 0.0), row("r0", RANDOM, 0.5, 1.0)]
    found = Perturbation().summarise(rows, [])
    areas = found.tables["areas"].rows
    assert [(r[1], r[3], r[4], r[7], r[-1]) for r in areas] == [
        ("good", 2, pytest.approx(0.15), pytest.approx(0.15), 1), (RANDOM, 1, 0.5, 0.5, 0)
    ]  # fmt: skip
    by_method = found.tables["by_method"]
    place = by_method.columns.index("patches deleted")
    assert [r[place] for r in by_method.rows] == [pytest.approx(0.15), 0.5]
    (line, _) = found.figures["curves"].axes[1].lines
    assert line.get_ydata()[0] == 0.5
    assert line.get_ydata()[-1] == pytest.approx(0.1)
    assert found.notes == [
        f"Medians of fewer than 30 values, to be read with care: good, map (2), {RANDOM}, map (1)."
    ]


def test_what_is_no_mean_score_has_tables_of_its_own():
    rows = [
        row("r0", "good", 0.1, 1.0, joint=0.2), row("r1", "good", 0.2, 0.0, joint=None),
        row("r0", RANDOM, 0.5, 1.0),
    ]  # fmt: skip
    tables = Perturbation().summarise(rows, []).tables
    assert not {JOINT, PAIRS} & {*tables["by_method"].columns}
    joint = [(r[0], r[2], r[3], r[4], r[7]) for r in tables["joint_insertion_deletion"].rows]
    assert joint == [("good", 2, 0.5, 0.2, 0.2), (RANDOM, 1, 1.0, 1.0, 1.0)]
    assert "not to be compared" in tables["pairs_subtracted"].caption


def test_rankings_are_compared_on_common_records_and_images_are_clusters():
    rows = [
        row(f"r{i}{j}", variant, area + 0.1 * i, 1.0, image=f"i{i}")
        for variant, area in (("good", 0.1), (RANDOM, 0.4))
        for i in range(3)
        for j in range(5)
        if (variant, i, j) != (RANDOM, 0, 0)
    ]
    tables = Perturbation().summarise(rows, []).tables
    table = tables["differences"]
    assert [r[0] for r in table.rows] == ["patches deleted", JOINT, PAIRS]
    assert table.rows[0][1:5] == [RANDOM, "map", 14, pytest.approx(-0.3)]
    assert "number of comparisons: 3" in table.caption
    (good, _) = tables["areas"].rows
    # Three images of five captions each: some resample has one image alone.
    assert good[5:7] == pytest.approx([0.1, 0.3])


def test_further_methods_are_added(wrapper, tmp_path):
    records = [record("r0", 1), record("r1", 2)]
    run_study(Perturbation(methods=("grad_eclip",), n_steps=3), wrapper, records, tmp_path)
    before = (tmp_path / "results.jsonl").read_text()
    study = Perturbation(methods=("grad_eclip", "mask_clip"), n_steps=3)
    found = run_study(study, wrapper, records, tmp_path)
    ranked = [r[0] for r in found.tables["by_method"].rows]
    assert sorted(ranked) == ["grad_eclip", "mask_clip", RANDOM]
    assert all(line in (tmp_path / "results.jsonl").read_text() for line in before.splitlines())
    assert not found.tables.get("problems")


def test_bad_input(wrapper):
    with pytest.raises(ValueError, match="n_steps must be at least 1, but got 0"):
        Perturbation(n_steps=0)
    axis_a, axis_b = axes()
    other = FirstOrderMap(torch.ones(3), None, 0.3, axis_a, axis_b)
    with pytest.raises(ValueError, match="the map has 2 units of input a, but 9 others"):
        masked_units(wrapper, record()).check(other)
