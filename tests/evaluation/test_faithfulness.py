"""Faithfulness against cost: passes are counted, and predictions held against the model."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_interactions import explain, wrap
from captum_interactions.attr import BanzhafInteractions, SecondOrderIntegratedGradients
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation import Row, run_study
from captum_interactions.evaluation.studies.faithfulness import Faithfulness, quality
from captum_interactions.evaluation.studies.passes import counted_passes
from captum_interactions.evaluation.units import by_unit, masked_units
from captum_interactions.metrics import draw_present, pearson
from tests import models
from tests.evaluation.test_perturbation import record

# Random weights bend paths so much that few nodes miss the score, which warns.
pytestmark = pytest.mark.filterwarnings("ignore:attributions sum to")

EXACT = "banzhaf_interactions:n_samples=512"  # nine patches have as many coalitions


@pytest.fixture(scope="module")
def wrapper():
    return wrap(*models.clip_with_processor())


def totals(passes):
    return [value for one in passes for value in (one.forward, one.backward)]


def test_passes_of_a_score_and_its_gradients(wrapper):
    batch = wrapper.prepare(record().image, "a red circle")
    a = torch.cat([batch.inputs[0]] * 3).requires_grad_()
    # Fused attention has no second derivative.
    with counted_passes(wrapper) as passes, sdpa_kernel(SDPBackend.MATH):
        embedding = wrapper.encode_a(a)
        assert totals(passes) == [3, 0, 0, 0]
        cotangent = torch.ones_like(embedding).requires_grad_()
        (gradient,) = torch.autograd.grad(embedding, a, cotangent, create_graph=True)
        assert totals(passes) == [3, 3, 0, 0]
        torch.autograd.grad(gradient, cotangent, a.detach())
        assert totals(passes) == [3, 6, 0, 0]
        wrapper.encode_b(batch.inputs[1], *batch.additional_forward_args)
    assert totals(passes) == [3, 6, 1, 0]


def test_parts_of_a_pass(wrapper):
    batch = wrapper.prepare(record().image, "a red circle")
    with counted_passes(wrapper) as passes:
        states, context = wrapper.tower_a.prefix(0, *batch.inputs[:1])
        assert totals(passes) == [0, 0, 0, 0]
        wrapper.tower_a.prefix(2, *batch.inputs[:1])
        wrapper.tower_a.tail(1, torch.cat([states] * 2), *context)
    assert totals(passes) == pytest.approx([2 / 3 + 2 * 2 / 3, 0, 0, 0])


def test_passes_of_second_order_integrated_gradients(wrapper):
    batch = wrapper.prepare(record().image, "a red circle")
    soig = SecondOrderIntegratedGradients(wrapper, layers=(0, 0))

    def counted(n_steps):
        with counted_passes(wrapper) as passes:
            soig.attribute(
                batch.inputs,
                additional_forward_args=batch.additional_forward_args,
                n_steps=n_steps,
            )
        return totals(passes)

    few, many = counted(3), counted(7)
    n_words = batch.inputs[1].shape[1] - 2  # start and end are the same in the baseline
    # A node: a forward pass of each, a backward pass that shows the way to tangents of the text,
    # a tangent for each word, and a gradient of the image for each of them.
    node = [(y - x) / 4 for x, y in zip(few, many, strict=True)]
    assert node == pytest.approx([1, n_words, 1, n_words + 1])


def test_passes_of_games_are_masked_inputs(wrapper):
    batch = wrapper.prepare(record().image, "a red circle")
    banzhaf = BanzhafInteractions(wrapper)

    def counted(n_samples):
        with counted_passes(wrapper) as passes:
            game = banzhaf.game(
                batch.inputs,
                additional_forward_args=batch.additional_forward_args,
                n_samples=n_samples,
            )
        return totals(passes), game.n_encoded

    (few, n_few), (many, n_many) = counted(64), counted(256)
    assert many[0] - few[0] == pytest.approx(n_many[0] - n_few[0], rel=1e-6)
    assert n_many[0] > n_few[0]
    assert few[1] == few[3] == 0


def test_nothing_is_left_on_the_towers(wrapper):
    before = [dict(vars(tower)) for tower in (wrapper.tower_a, wrapper.tower_b)]
    with pytest.raises(RuntimeError, match="on the way"), counted_passes(wrapper):
        raise RuntimeError("on the way")
    assert [dict(vars(tower)) for tower in (wrapper.tower_a, wrapper.tower_b)] == before


def test_a_tower_of_both_inputs_is_counted_once():
    tower = models.Sentences()
    shared = DualEncoderWrapper(tower, tower)
    ids, mask = torch.tensor([[1, 2, 3]]), torch.ones(1, 3)
    with counted_passes(shared) as passes:
        tower.tail(0, *_flat(tower.prefix(0, ids, mask)))
        tower.tail(1, *_flat(tower.prefix(1, ids, mask)))
    assert totals(passes) == pytest.approx([2, 0, 0, 0])


def _flat(opened):
    states, context = opened
    return (states, *context)


def test_exact_banzhaf_interactions_are_most_faithful(wrapper):
    one = record()
    score = masked_units(wrapper, one)

    def fit(method, **options):
        imap = explain(wrapper, one.image, one.caption, method, **options)
        return quality(imap, score, 400, 0.5, seed=3)

    best = fit("banzhaf_interactions", n_samples=512)
    assert 0.2 < best["r_squared"] < 1
    for other in (
        fit("second_order_integrated_gradients", layers=(0, 0)),
        fit("shapley_interactions", n_samples=512),
        fit("integrated_gradients"),
        fit("occlusion"),
    ):
        assert other["r_squared"] < best["r_squared"]
    few = fit("banzhaf_interactions", n_samples=(64, 512), seed=1)
    assert few["r_squared"] < best["r_squared"]


def test_all_methods_face_the_same_inputs(wrapper):
    study = Faithfulness(methods=(EXACT,), n_masks=8)
    one, other = record("r0", 1), record("r1", 2)
    together = study.measure(wrapper, EXACT, [one, other])
    assert study.measure(wrapper, EXACT, [other]) == together[1:]
    again = Faithfulness(methods=(EXACT,), n_masks=8, seed=1).measure(wrapper, EXACT, [other])
    assert again[0]["r_squared"] != together[1]["r_squared"]
    line = json.loads(Row("r", EXACT, 0, "measured", together[0]).line())
    assert line["values"]["image"]["forward"] >= 512
    assert [phrase["text"] for phrase in line["values"]["phrases"]] == ["red circle"]


def row(name, variant, r_squared, pge, forward, image=""):
    values = {
        "r_squared": r_squared, "pearson": 0.5, "spearman": r_squared,
        "joint_r_squared": 0.0, "joint_pearson": 0.25, "joint_spearman": 0.125,
        "phrases": [{"pge": pge, "pga": 1.0, "chance": 0.25}],
        "image": {"forward": forward, "backward": 2.0}, "text": {"forward": 1.0, "backward": 0.0},
    }  # fmt: skip
    return Row(name, variant, 0, "measured", values, image=image)


def test_joint_coalitions_meet_once_each(wrapper):
    one = record()
    score = masked_units(wrapper, one)
    imap = explain(wrapper, one.image, one.caption, "grad_eclip")
    found = quality(imap, score, 5, 0.5, seed=3)
    a, b = (draw_present(p, 5, 0.5, 2 * 3 + side) for side, p in enumerate(score.players))
    truth = score(a, b)  # aligned, not the grid
    parts = by_unit(imap)
    main_a, main_b = parts.main_effects_a[0], parts.main_effects_b[0]
    predicted = torch.stack(
        [
            main_a[:-1][a[0, m]].sum() + main_a[-1] + main_b[:-1][b[0, m]].sum() + main_b[-1]
            for m in range(5)
        ]
    )
    expected = pearson(predicted[None], truth.double())
    assert found["joint_pearson"] == pytest.approx(float(expected), abs=1e-6)
    assert found["joint_pearson"] != pytest.approx(found["pearson"], abs=1e-3)


def test_methods_are_compared_on_common_records_and_images_are_clusters():
    rows = [
        row(f"r{i}{j}", method, level + 0.01 * i, pge, 1, image=f"i{i}")
        for method, level, pge in (("x", 0.8, 0.5), ("y", 0.2, None))
        for i in range(3)
        for j in range(5)
        if (method, i, j) != ("x", 0, 0)
    ]
    found = Faithfulness(methods=("grad_eclip",)).summarise(rows, [])
    table = found.tables["differences"]
    (cells,) = [dict(zip(table.columns, one, strict=True)) for one in table.rows]
    assert (cells["method"], cells["common records"], cells["common phrases"]) == ("y", 14, 14)
    assert cells["Spearman difference"] == pytest.approx(0.6)
    # Undefined phrases of the second have chance, so they are compared too.
    assert cells["PGE difference"] == pytest.approx(0.5 - 0.25)
    assert "number of comparisons: 2" in table.caption
    by_method = found.tables["by_method"]
    one = dict(zip(by_method.columns, by_method.rows[1], strict=True))
    assert (one["method"], one["PGE median"], one["PGA"], one["defined"]) == ("y", 0.25, 0.25, 0)
    # Three images of five captions each: some resample has one image alone.
    assert (one["95 % from"], one["to"]) == pytest.approx((0.2, 0.22))
    assert "Medians of fewer than 30 values, to be read with care: x (14), y (15)." in found.notes


def test_summary_by_hand():
    rows = [
        row("r0", "x:n_steps=2", 0.2, 0.5, 10), row("r1", "x:n_steps=2", 0.4, None, 30),
        row("r0", "x:n_steps=4,layers=[0,0]", 0.9, 0.7, 100),
        row("r0", "x:n_steps=8", None, 0.6, 50),
    ]  # fmt: skip
    found = Faithfulness().summarise(rows, [])
    table = found.tables["by_method"]
    cells = [dict(zip(table.columns, one, strict=True)) for one in table.rows]
    assert [one["method"] for one in cells] == [
        "x:n_steps=4,layers=[0,0]", "x:n_steps=2", "x:n_steps=8"
    ]  # fmt: skip
    assert cells[1]["R²"] == pytest.approx(0.3)
    assert cells[1]["PGE median"] == 0.375  # of .5 and of chance, where there is no mass
    assert cells[1]["defined"] == 0.5
    assert (cells[1]["joint Pearson"], cells[1]["joint Spearman"]) == (0.25, 0.125)
    assert cells[1]["image forward"] == 20
    assert cells[1]["passes"] == 23
    assert cells[2]["R²"] is None
    assert "Chance of PGE: 0.250 (median)." in found.notes
    lines = {line.get_label(): line for line in found.figures["cost"].axes[1].lines}
    assert lines["x"].get_xdata().tolist() == [23, 53]
    assert lines["x (layers=[0, 0])"].get_ydata().tolist() == [0.7]


def test_further_budgets_are_added(wrapper, tmp_path):
    for methods in (("grad_eclip",), (EXACT,)):
        study = Faithfulness(methods=methods, n_masks=4)
        found = run_study(study, wrapper, [record()], tmp_path)
    assert {one[0] for one in found.tables["by_method"].rows} == {"grad_eclip", EXACT}


@pytest.mark.parametrize("options", [{"p": 0.0}, {"p": 1.0}, {"n_masks": 1}])
def test_bad_input(options):
    with pytest.raises(ValueError, match="p must lie between 0 and 1 and n_masks be at least 2"):
        Faithfulness(**options)
