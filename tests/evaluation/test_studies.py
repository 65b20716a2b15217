"""What the studies measure and sum up, on maps made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from captum_interactions import wrap
from captum_interactions.axes import Frame, ImageAxis, TextAxis
from captum_interactions.datasets import HardNegative, Phrase, Record
from captum_interactions.evaluation import STUDIES, Row, run_study
from captum_interactions.evaluation import study as study_module
from captum_interactions.evaluation.rows import read
from captum_interactions.evaluation.signs import background, origins_table, signs
from captum_interactions.evaluation.studies.agreement import Agreement
from captum_interactions.evaluation.studies.classwise import Classwise
from captum_interactions.evaluation.studies.failures import FailureCases
from captum_interactions.evaluation.studies.localization import Localization
from captum_interactions.evaluation.studies.mismatches import Mismatches
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.maps.interaction_map import InteractionMap
from tests import models
from tests.evaluation_rows import written
from tests.evaluation_standin import model

LEFT, RIGHT, TOP = (0.0, 0.0, 4.0, 8.0), (4.0, 0.0, 8.0, 8.0), (0.0, 0.0, 8.0, 4.0)
CAPTION = "cat and dog"
PATCHES = {"top left": 0, "top right": 1, "bottom left": 2, "bottom right": 3}


def image():
    return Image.new("RGB", (8, 8), (200, 30, 30))


def record(
    key="r0", *, cat=(LEFT,), dog=(RIGHT,), caption=CAPTION, hard_negative=None, labels=("a", "b")
):
    phrases = (Phrase("cat", (0, 3), cat, labels[0]), Phrase("dog", (8, 11), dog, labels[1]))
    return Record(key, caption, phrases, image, f"line of {key}", hard_negative)


def axes(caption=CAPTION):
    spans, start = [], 0
    for word in caption.split():
        start = caption.index(word, start)
        spans.append((start, start + len(word)))
    none = (False,) * len(spans)
    text = TextAxis(tuple(caption.split()), none, none, caption, tuple(spans))
    return ImageAxis.of_grid((2, 2), (4, 4), Frame.identity((8, 8)), image()), text


def second_order(words, caption=CAPTION, score=0.5, delta=0.0):
    """A map from word to its values of the four patches, row by row."""
    axis_a, axis_b = axes(caption)
    columns = [words.get(word, (0, 0, 0, 0)) for word in caption.split()]
    return InteractionMap(
        torch.tensor(columns, dtype=torch.float32).T.contiguous(),
        torch.zeros(4), torch.zeros(len(columns)), 0.0, score, delta, axis_a, axis_b,
    )  # fmt: skip


def first_order(values, caption=CAPTION):
    axis_a, axis_b = axes(caption)
    return FirstOrderMap(torch.tensor(values, dtype=torch.float32), None, 0.5, axis_a, axis_b)


def measured(study, monkeypatch, maps, records):
    """Rows of a study whose method gives the maps, by caption and then in turn."""
    given = {text: iter(found) for text, found in maps.items()}

    def explained(self, wrapper, variant, records, captions=None, spans=None):
        captions = captions or [one.caption for one in records]
        return [next(given[text]) for text in captions]

    monkeypatch.setattr(type(study), "explain", explained)
    monkeypatch.setattr(type(study), "is_complete", lambda *_: True)
    values = study.measure(None, "m", records)
    return [
        Row(r.key, "m", i, "measured", v)
        for i, (r, v) in enumerate(zip(records, values, strict=True))
    ]


# Localisation.


def test_energy_and_accuracy_by_hand(monkeypatch):
    maps = [second_order({"cat": (3, 1, -5, 0), "dog": (2, 1, 1, 0)})]
    (row,) = measured(Localization(), monkeypatch, {CAPTION: maps}, [record()])
    cat, dog = row.values["phrases"]
    assert cat["pge"] == pytest.approx(3 / 4)
    assert cat["pga"] == 1
    assert dog["pge"] == pytest.approx(1 / 4)
    assert dog["pga"] == 0
    assert cat["chance"] == dog["chance"] == 0.5
    assert cat["best"] == 1
    assert (cat["area"], cat["n_boxes"], cat["n_alike"]) == (0.5, 1, 1)


def test_sign_and_masks_are_options(monkeypatch):
    phrase = Phrase("cat", (0, 3), (LEFT,), "a", np.eye(8, dtype=bool))
    masked = Record("r", CAPTION, (phrase,), image, "")
    maps = {CAPTION: [second_order({"cat": (3, 1, -5, 4)})]}
    (row,) = measured(Localization(sign="negative"), monkeypatch, maps, [masked])
    assert row.values["phrases"][0]["pge"] == 1  # all that is negative lies at the left
    maps = {CAPTION: [second_order({"cat": (3, 1, -5, 4)})]}
    (row,) = measured(Localization(regions="masks"), monkeypatch, maps, [masked])
    assert row.values["phrases"][0]["pge"] == pytest.approx((3 + 4) / 4 / 8)
    maps = {CAPTION: [second_order({})]}
    with pytest.raises(ValueError, match="a phrase has no mask: take regions=boxes"):
        measured(Localization(regions="masks"), monkeypatch, maps, [record()])


def test_first_order_maps_serve_every_phrase(monkeypatch):
    maps = {CAPTION: [first_order((3, 1, 0, 0))]}
    (row,) = measured(Localization(), monkeypatch, maps, [record()])
    assert [phrase["pge"] for phrase in row.values["phrases"]] == [0.75, 0.25]


@pytest.mark.parametrize("study", [Localization, Mismatches, FailureCases])
def test_boxes_that_miss_the_image_are_an_error(monkeypatch, study):
    """They are in other units, or of another image."""
    off = record(dog=(RIGHT, (8.0, 0.0, 12.0, 4.0)))
    with pytest.raises(ValueError, match=r"box of 'dog' lies outside of the image of 8 × 8 pixels"):
        measured(study(), monkeypatch, {CAPTION: [second_order({})]}, [off])


def test_localization_is_summed_up(monkeypatch):
    records = [record(f"r{i}") for i in range(3)]
    maps = [
        second_order({"cat": (1, 0, 0, 0), "dog": (0, 1, 0, 0)}, delta=0.1),  # 1, 1
        second_order({"cat": (1, 1, 0, 0), "dog": (1, 1, 0, 0)}, delta=-0.3),  # 0.5, 0.5
        second_order({"cat": (-1, -1, 0, 0), "dog": (3, 1, 0, 0)}),  # undefined, 0.25
    ]
    study = Localization()
    rows = measured(study, monkeypatch, {CAPTION: maps}, records)
    summary = study.summarise([with_nulls(row) for row in rows], records)
    table = summary.tables["by_method"]
    found = dict(zip(table.columns, table.rows[0], strict=True))
    # The undefined one has chance, which is a half here.
    assert (found["phrases"], found["images"], found["defined"]) == (6, 3, pytest.approx(5 / 6))
    assert found["PGE median"] == pytest.approx(0.5)
    assert found["PGE mean"] == pytest.approx((1 + 1 + 0.5 + 0.5 + 0.5 + 0.25) / 6)
    assert found["PGA"] == pytest.approx((1 + 1 + 0.5 + 0.5 + 0.5 + 0) / 6)
    assert found["chance median"] == 0.5
    assert found["mean delta"] == pytest.approx((0.1 + 0.3) / 3)
    assert found["95 % from"] <= found["PGE median"] <= found["to"]
    assert set(summary.figures) == {"energy"}
    assert "Medians of fewer than 30 values, to be read with care: m (6)." in summary.notes


def energies(method, values, *, named=1, chance=0.5, area=0.5, cluster=None):
    """A row per record with the PGE of its phrases; None is undefined."""
    return [
        Row(
            f"r{i}", method, i, "measured",
            {
                "phrases": [
                    {
                        "text": "x", "label": "x", "pge": pge, "pga": pge, "chance": chance,
                        "best": 1.0, "area": area, "n_boxes": 1, "n_alike": 1, "named": named,
                    }
                    for pge in own
                ]
            },
            image=f"image {i if cluster is None else cluster[i]}",
        )
        for i, own in enumerate(values)
    ]  # fmt: skip


def table_rows(table, key):
    return {row[key]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_methods_are_compared_on_the_phrases_that_both_have():
    """And where one is undefined, it has chance: leaving hard phrases out wins nothing."""
    first = energies("grad_eclip", [[0.6, 0.8], [0.7], [0.9]])
    second = energies("mask_clip", [[0.4, 0.5], [None]])
    study = Localization(methods=("grad_eclip", "mask_clip"))
    table = study.summarise([*first, *second], []).tables["differences"]
    (found,) = table_rows(table, 0).values()
    assert (found["method"], found["common phrases"]) == ("mask_clip", 3)
    assert found["PGE difference"] == pytest.approx((0.2 + 0.3 + 0.2) / 3)
    assert found["95 % from"] <= found["PGE difference"] <= found["to"]
    assert "number of comparisons: 1" in table.caption
    # One image in common is none.
    one_common = [*first, *second, *energies("legrad", [[0.2]])]
    caption = study.summarise(one_common, []).tables["differences"].caption
    assert "number of comparisons: 1" in caption
    # Phrases of one image are drawn together: two images, whichever method.
    one_image = energies("grad_eclip", [[0.1], [0.9]], cluster=[7, 7])
    (cells,) = study.summarise(one_image, []).tables["by_method"].rows
    assert cells[1:6] == [2, 1, 0.5, None, None]


def test_the_number_of_named_objects_is_a_factor():
    rows = [
        *energies("grad_eclip", [[0.5]]), *energies("grad_eclip", [[0.6, 0.2]], named=2)[-1:],
        *energies("mask_clip", [[0.8]]), *energies("mask_clip", [[0.1, 0.1]], named=2)[-1:],
    ]  # fmt: skip
    rows = [replace(row, record=f"{row.record} {len(row.values['phrases'])}") for row in rows]
    table = Localization(methods=("grad_eclip",)).summarise(rows, []).tables["by_named"]
    found = {(row[0], row[1]): row for row in table.rows}
    assert [row[:2] for row in table.rows] == [
        [1, "grad_eclip"], [1, "mask_clip"], [2, "grad_eclip"], [2, "mask_clip"]
    ]  # fmt: skip
    assert found[1, "mask_clip"][7] == pytest.approx(-0.3)
    assert found[2, "mask_clip"][7] == pytest.approx((0.5 + 0.1) / 2)


def test_another_domain_at_equal_size(tmp_path):
    """Small objects are found worse in either domain, and the other one has more of them."""

    def domain(sizes):
        rows = [energies("m", [[size]], area=size)[0] for size in sizes]
        return [
            replace(row, record=f"r{i}", image="", index=i, variant="grad_eclip")
            for i, row in enumerate(rows)
        ]

    there = domain(np.linspace(0.1, 0.9, 90))
    study = Localization(methods=("grad_eclip",), against=written(tmp_path, there, "phrases"))
    table = study.summarise(domain(np.linspace(0.1, 0.5, 90)), []).tables["other_dataset"]
    (found,) = table_rows(table, 0).values()
    assert found["PGE difference"] == pytest.approx(-0.2)
    assert abs(found["at equal size"]) < 0.03
    with pytest.raises(FileNotFoundError, match="no results to compare with in"):
        replace(study, against=str(tmp_path / "no")).summarise(energies("grad_eclip", [[1]]), [])


def test_rows_of_another_study_are_no_comparison(tmp_path):
    folder = written(tmp_path, energies("grad_eclip", [[1]]), "agreement")
    study = Localization(methods=("grad_eclip",), against=folder)
    with pytest.raises(ValueError, match="rows of 'agreement', but localization .* 'phrases'"):
        study.summarise(energies("grad_eclip", [[1]]), [])


def with_nulls(row):
    """A row as it comes back from its file."""
    import json

    return Row(**json.loads(row.line()))


def test_filters_choose_phrases_after_the_fact(monkeypatch):
    records = [
        record("r0", dog=(RIGHT, TOP)),  # two boxes
        record("r1", labels=("a", "a")),  # two of a kind
        record("r2", dog=((4.0, 4.0, 8.0, 8.0),)),  # a quarter of the image
    ]
    maps = [second_order({"cat": (1, 0, 0, 0), "dog": (0, 1, 0, 0)}) for _ in records]
    rows = measured(Localization(), monkeypatch, {CAPTION: maps}, records)

    def kept(**options):
        phrases = Localization(**options).phrases(rows)["m"]
        return [(phrase["key"][0], phrase["text"]) for phrase in phrases]

    assert len(kept()) == 6
    assert kept(single_instance=True) == [("r0", "cat"), ("r2", "cat"), ("r2", "dog")]
    assert kept(max_area=0.3) == [("r2", "dog")]
    assert kept(min_area=0.6) == [("r0", "dog")]
    nothing = Localization(min_area=0.9).summarise(rows, records)
    assert nothing.notes == ["No phrase passed the filters."]


def test_records_without_ground_truth_are_declined():
    bare = record(cat=(), dog=())
    false = record(hard_negative=HardNegative("r0", CAPTION, (0, 3)))
    for study in (Localization(), FailureCases()):
        assert study.declines(record()) is None
        assert "no phrase" in study.declines(bare)
        assert "false" in study.declines(false)
    assert "fewer than two" in Mismatches().declines(record(cat=()))
    assert "which words are false" in Mismatches().declines(false)


# Classes.


def test_classes_are_ranked(monkeypatch):
    records = [record(f"r{i}") for i in range(6)]
    maps = [
        second_order({"cat": (4 - k, k, 0, 0), "dog": (1, 0, 0, 0)}) for k in (0, 1, 1, 1, 2, 3)
    ]
    study = Classwise(min_phrases=5)
    rows = measured(study, monkeypatch, {CAPTION: maps}, records)
    summary = study.summarise(rows, records)
    table = summary.tables["classes"]
    first, second = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert (first["class"], first["phrases"]) == ("a", 6)
    assert first["PGE median"] == pytest.approx(0.75)
    assert 0.25 <= first["95 % from"] <= 0.75 <= first["to"] <= 1
    assert (second["class"], second["PGE median"]) == ("b", 0)
    assert (second["95 % from"], second["to"]) == (0, 0)
    assert [row[0] for row in summary.tables["extremes"].rows] == ["best", "best"]
    assert summary.tables["trend"].rows[0][1:3] == [2, 0.75]
    assert "m, a (6), m, b (6)" in summary.notes[-1]
    none = Classwise(min_phrases=7).summarise(rows, records)
    assert not none.tables
    assert "fewer than 7 phrases are left out, and there is no other" in none.notes[-1]


def test_the_spread_of_classes_is_compared_with_luck():
    """Ten classes that do not differ are spread too; where one does, it is told from that."""
    rng = np.random.default_rng(0)

    def phrases(shift=0.0):
        return [
            {"label": str(i % 10), "pge": value + shift * (i % 10 == 3), "cluster": str(i)}
            for i, value in enumerate(rng.uniform(0.2, 0.6, 200))
        ]

    study, labels = Classwise(), {str(i) for i in range(10)}
    p_values = [study._shuffled(phrases(), labels)[2] for _ in range(12)]
    # Uniform from 0 to 1: their mean has a standard error of .083.
    assert 0.25 < np.mean(p_values) < 0.75
    actual, spread, p = study._shuffled(phrases(0.3), labels)
    assert 0.05 < spread < 0.3 < actual
    assert p <= 0.01


def test_phrases_of_an_image_are_no_evidence_of_their_own():
    """Five captions an image, which agree: as if each image and class had been seen once."""
    rng = np.random.default_rng(0)

    def images():
        return [
            {"label": str(i % 10), "pge": value, "cluster": str(i)}
            for i, value in enumerate(rng.uniform(0.2, 0.6, 60))
        ]

    study, labels = Classwise(), {str(i) for i in range(10)}
    once = [images() for _ in range(12)]
    found = [study._shuffled([p for p in own for _ in range(5)], labels) for own in once]
    expected = [study._shuffled(own, labels) for own in once]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert 0.25 < np.mean([p for *_, p in found]) < 0.75


# Mismatches.


def test_signs_of_matching_and_cross_attributions(monkeypatch):
    records = [record("r0"), record("r1"), record("r2", labels=("a", "a"))]
    maps = [
        second_order({"cat": (2, -1, 0, 0), "dog": (-1, 3, 0, 0)}),
        second_order({"cat": (1, 2, 0, 0), "dog": (0, -1, 0, -1)}),
        second_order({"cat": (9, 9, 9, 9), "dog": (9, 9, 9, 9)}),
    ]
    study = Mismatches()
    rows = measured(study, monkeypatch, {CAPTION: maps}, records)
    assert [phrase["value"] for phrase in rows[0].values["own"]] == [2, 3]
    assert [pair["value"] for pair in rows[0].values["cross"]] == [-1, -1]
    tables = study.summarise(rows, records).tables
    own, other = (dict(zip(tables["signs"].columns, r, strict=True)) for r in tables["signs"].rows)
    assert [own["sign"], other["sign"]] == ["own object positive", "other object negative"]
    assert [(one["cases"], one["images"]) for one in (own, other)] == [(4, 2), (4, 2)]
    assert (own["share"], other["share"]) == (0.75, 0.5)
    assert own["95 % from"] < 0.75 < own["to"] < 1
    order = next(iter(table_rows(tables["order"], 0).values()))
    assert (order["own above other"], order["chance"]) == (0.5, 0.5)
    # Objects of one class count in the table of origins alone.
    origins = {tuple(row[1:3]): row[3:6] for row in tables["origins"].rows}
    assert origins["class", "same"] == [2, 1, 0.0]
    assert origins["class", "different"] == [4, 2, 0.5]
    whole = Mismatches(different_labels=False).summarise(rows, records).tables["signs"]
    assert whole.rows[0][2] == 6


def test_background_of_the_same_size_by_hand():
    """The shape of the region, with its shares, wherever it lies clear of all objects."""
    heat = np.arange(12, dtype=np.float32).reshape(3, 4)
    region = np.zeros((3, 4), np.float32)
    region[0, :2] = 1, 0.5
    objects = np.zeros((3, 4), np.float32)
    objects[0, :2], objects[1, 3], objects[2, 0] = 1, 1, 0.05
    places = [(0, 2), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    expected = [heat[r, c] + 0.5 * heat[r, c + 1] for r, c in places]
    assert background(heat, region, objects).tolist() == pytest.approx(expected)
    assert not len(background(heat, region, np.ones((3, 4), np.float32)))


def test_signs_beside_background(monkeypatch):
    """A map that is negative everywhere but on its own object clashes with nothing in particular.

    The image has 2 × 2 patches: cat and dog above, nothing below but an object without a name.
    """
    boxes = {"cat": ((0.0, 0.0, 4.0, 4.0),), "dog": ((4.0, 0.0, 8.0, 4.0),)}
    plain = record(**boxes)
    other = replace(record("r1", **boxes), unnamed=((0.0, 4.0, 4.0, 8.0),))
    values = {"cat": (2, -1, -1, -1), "dog": (-1, 3, -1, 1)}
    maps = [second_order(values), second_order(values)]
    study = Mismatches()
    rows = measured(study, monkeypatch, {CAPTION: maps}, [plain, other])
    cat, dog = rows[0].values["own"]
    assert (cat["background"], dog["background"]) == (0.0, 0.5)
    assert [pair["background"] for pair in rows[0].values["cross"]] == [1.0, 0.5]
    assert [pair["background"] for pair in rows[1].values["cross"]] == [1.0, 0.0]
    table = study.summarise(rows, []).tables["signs"]
    found = dict(zip(table.columns, table.rows[1], strict=True))
    assert (found["share"], found["background"]) == (1.0, pytest.approx(2.5 / 4))
    assert (found["with background"], found["difference"]) == (4, pytest.approx(1.5 / 4))


def test_what_both_objects_have_in_common():
    left, right = LEFT, (6.0, 0.0, 8.0, 2.0)
    phrases = (
        Phrase("red cat", (0, 3), (left,), "cat"), Phrase("Red dog", (8, 11), (right,), "dog")
    )  # fmt: skip
    one = Record("r", CAPTION, phrases, image, "")
    pair, back = signs(second_order({"cat": (1, 0, 0, 0)}), one)["cross"]
    assert (pair["same_colour"], pair["same_class"]) == (True, False)
    # Centres at (row .5, column 0) and (0, 1) of a grid of 2 × 2.
    assert pair["distance"] == pytest.approx(np.hypot(0.5, 1) / np.hypot(2, 2))
    cases = [
        {**pair, "key": ("r", 0, 1), "cluster": "r"},
        {**back, "key": ("r", 1, 0), "cluster": "r"},
    ]
    cases[1]["value"], cases[1]["same_colour"] = -1.0, None
    table = origins_table({"m": cases})
    assert {tuple(row[1:3]): (row[3], row[5]) for row in table.rows} == {
        ("class", "different"): (2, 0.5), ("colour", "same"): (1, 0.0),
        ("distance", "near"): (2, 0.5), ("named", "after it"): (1, 0.0),
        ("named", "before it"): (1, 1.0),
    }  # fmt: skip


def test_objects_that_overlap_are_no_mismatch(monkeypatch):
    records = [record(dog=(TOP,))]
    rows = measured(Mismatches(), monkeypatch, {CAPTION: [second_order({})]}, records)
    assert rows[0].values["cross"][0]["overlap"] == 0.5
    assert "signs" not in Mismatches().summarise(rows, records).tables
    assert Mismatches(max_overlap=0.5).summarise(rows, records).tables["signs"].rows[1][2] == 2


@pytest.mark.parametrize("order", [1, 2])
def test_false_words_on_the_boxes_of_the_true_ones(monkeypatch, order):
    false = "fox and dog"
    negative = HardNegative("r0", CAPTION, (0, 3), ("cat", "fox"), (LEFT,))
    records = [record("r0-negative", caption=false, hard_negative=negative), record("r1")]
    maps = {
        false: [second_order({"fox": (-2, 5, 1, 0)}, false, score=0.2)],
        CAPTION: [second_order({"cat": (3, -1, 1, 0)}, score=0.6), second_order({})],
    }
    if order == 1:
        maps[false] = [first_order((-2, 5, 1, 0), false)]
    study = Mismatches()
    rows = measured(study, monkeypatch, maps, records)
    assert rows[0].values["false_words"]["false"] == -1
    assert rows[0].values["false_words"]["true"] == 4
    assert rows[0].values["false_words"]["background"] is None  # the dog is there
    assert rows[1].values.get("false_words") is None
    table = study.summarise(rows, records).tables["false_words"]
    found = dict(zip(table.columns, table.rows[0], strict=True))
    assert (found["false captions"], found["false negative"], found["true positive"]) == (1, 1, 1)
    assert found["false below true"] == 1
    assert found["caption scored lower"] == 1


def test_false_words_of_a_region_that_the_crop_cut_off_have_no_values(monkeypatch):
    """All sums there are zero, which says nothing of their signs."""
    false = "fox and dog"
    negative = HardNegative("r0", CAPTION, (0, 3), ("cat", "fox"), ((0.0, 0.0, 2.0, 8.0),))
    cut = replace(record(caption=false, hard_negative=negative), open_image=wide)
    maps = {
        false: [cropped(second_order({"fox": (-2, -5, 1, 0)}, false))],
        CAPTION: [cropped(second_order({"cat": (3, -1, 1, 0)}))],
    }
    (row,) = measured(Mismatches(), monkeypatch, maps, [cut])
    assert row.values == {"score": 0.5}
    assert "false_words" not in Mismatches().summarise([row], [cut]).tables


def wide():
    return Image.new("RGB", (16, 8))


def cropped(imap):
    """The same map of the middle of a wide image."""
    frame = Frame((8, 16), (8, 8), (1.0, 1.0), (4.0, 0.0))
    return replace(imap, axis_a=ImageAxis.of_grid((2, 2), (4, 4), frame, wide()))


def test_true_words_are_found_where_they_stand(monkeypatch):
    """The true caption is longer before the word than the false one, so spans differ."""
    false, true = "fox and dog", "one cat and dog"
    negative = HardNegative("r0", true, (0, 3), ("cat", "fox"), (LEFT,))
    maps = {
        false: [second_order({"fox": (1, 0, 0, 0)}, false)],
        true: [second_order({"cat": (7, 0, 0, 0)}, true)],
    }
    (row,) = measured(
        Mismatches(), monkeypatch, maps, [record(caption=false, hard_negative=negative)]
    )
    assert row.values["false_words"]["true"] == 7


# Failures.


def test_failures_are_told_apart(monkeypatch):
    records = [record(f"r{i}", dog=((4.0, 0.0, 8.0, 4.0),)) for i in range(3)]
    maps = [
        second_order({"cat": (8, 0, 1, 0), "dog": (0, 1, 0, 0)}, score=0.9),  # half of the cat
        second_order({"cat": (1, 3, 0, 0), "dog": (0, 1, 0, 0)}, score=0.8),  # the dog's credit
        second_order({"cat": (1, 0, 0, 9), "dog": (0, 1, 0, 0)}, score=0.1),  # nothing there
    ]
    study = FailureCases()
    rows = [with_nulls(row) for row in measured(study, monkeypatch, {CAPTION: maps}, records)]
    half, credit, nothing = (row.values["phrases"][0] for row in rows)
    assert (half["hit"], half["context"], half["nowhere"]) == (0.5, 0, 0)
    assert (credit["context"], credit["nowhere"]) == (0.75, 0)
    assert (nothing["context"], nothing["nowhere"]) == (0, 0.9)
    summary = study.summarise(rows, records)
    counts = {row[1]: row[2:4] for row in summary.tables["counts"].rows}
    assert counts["object_coverage"] == [4, 0]  # a half is no quarter
    assert counts["correlated_context"] == [6, 1]
    assert counts["unusual_scenes"] == [2, 1]
    assert counts["background"] == [6, 1]
    columns = summary.tables["counts"].columns
    ends = columns.index("95 % from"), columns.index("to")
    intervals = [[row[i] for i in ends] for row in summary.tables["counts"].rows]
    assert all(0 <= low < high <= 1 for low, high in intervals)  # also where none fails
    worst = [(row[1], row[2], row[3]) for row in summary.tables["worst"].rows]
    assert worst == [
        ("correlated_context", "r1", "cat"),
        ("unusual_scenes", "r2", "cat"),
        ("background", "r2", "cat"),
    ]
    assert set(summary.figures) == {"correlated_context", "unusual_scenes", "background"}


# Clusters.


def test_rows_of_one_image_are_one_cluster(tmp_path):
    """They are read back as such from the file."""
    wrapper = wrap(*models.clip_with_processor())
    shown = [replace(record(f"r{i}"), image_key=key) for i, key in enumerate(("p", "p", ""))]
    run_study(Localization(methods=("input_x_gradient",)), wrapper, shown, tmp_path)
    assert [row.cluster for row in read(tmp_path / "results.jsonl")] == ["p", "p", "r2"]


# Options.


@pytest.mark.parametrize("name", list(STUDIES))
def test_every_study_says_what_it_asks(name):
    study = STUDIES[name]()
    assert study.name == name
    assert study.title
    assert study.question
    assert study.variants


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Localization(methods=("magic",)), "attribution must be one of"),
        (lambda: Localization(methods=("rise:n_samples",)), "NAME:OPTION=VALUE"),
        (lambda: Localization(regions="dots"), "must be 'boxes' or 'masks'"),
        (lambda: Localization(sign="both"), "sign must be"),
        (lambda: Localization(min_area=0.5, max_area=0.2), "shares of the image"),
        (lambda: Mismatches(max_overlap=2), "a share from 0 to 1"),
        (lambda: FailureCases(n_cases=0), "at least 1"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unknown_option_of_a_method_is_refused():
    with pytest.raises(TypeError, match="grad_eclip has no option n_steps"):
        Localization(methods=("grad_eclip:n_steps=3",))


# Captions beyond the text's limit.


LONG = "cat and dog by a red house"
DOG_AND_HOUSE = (
    Phrase("cat", (0, 3), (LEFT,), "a"),
    Phrase("dog by", (8, 14), (RIGHT,), "b"),
    Phrase("red house", (17, 26), (TOP,), "c"),
)


def cut_map(n_words):
    """A map of a caption whose first words alone were read."""
    words = {"cat": (3, 1, 0, 0), "dog": (0, 2, 0, 2), "red": (1, 0, 0, 0)}
    whole = second_order(words, LONG)
    axis = whole.axis_b
    text = TextAxis(
        axis.labels[:n_words], axis.special[:n_words], axis.padding[:n_words], LONG,
        axis.spans[:n_words],
    )  # fmt: skip
    return replace(
        whole,
        interactions=whole.interactions[:, :n_words].contiguous(),
        main_effects_b=whole.main_effects_b[:n_words],
        axis_b=text,
    )


@pytest.mark.parametrize(("n_words", "read"), [(7, 3), (6, 2), (4, 2), (3, 1), (1, 1)])
@pytest.mark.parametrize("study", [Localization(), Classwise(), FailureCases(), Mismatches()])
def test_phrases_beyond_the_limit_are_left_out_and_counted(monkeypatch, study, n_words, read):
    """A part of a phrase is not the phrase: of "red house", "red" alone is not measured."""
    records = [Record("r0", LONG, DOG_AND_HOUSE, image, "")]
    (row,) = measured(study, monkeypatch, {LONG: [cut_map(n_words)]}, records)
    found = row.values["own" if isinstance(study, Mismatches) else "phrases"]
    assert [one["text"] for one in found] == ["cat", "dog by", "red house"][:read]
    assert row.values["unread"] == 3 - read
    notes = study.summarise([row], records).notes
    counted = f"Phrases that stand beyond the text's limit, left out: {3 - read} (captions: 1)."
    assert (counted in notes) == (read < 3)


@pytest.mark.parametrize(("n_words", "read"), [(7, 3), (4, 2), (1, 1)])
def test_methods_agree_on_the_phrases_that_are_read(monkeypatch, n_words, read):
    records = [Record("r0", LONG, DOG_AND_HOUSE, image, "")]
    (row,) = measured(Agreement(), monkeypatch, {LONG: [cut_map(n_words)]}, records)
    assert [len(heat) for heat in row.values["maps"]] == [4] * read
    row = replace(row, variant="legrad")
    summary = Agreement().summarise([row, replace(row, variant="grad_eclip")], records)
    assert summary.tables["intervals"].rows[0][2] == read
    counted = f"Phrases that stand beyond the text's limit, left out: {3 - read} (captions: 1)."
    assert (counted in summary.notes) == (read < 3)


def test_a_caption_of_which_no_phrase_is_read_agrees_with_nothing(monkeypatch):
    records = [Record("r0", LONG, DOG_AND_HOUSE[2:], image, "")]
    (row,) = measured(Agreement(), monkeypatch, {LONG: [cut_map(2)]}, records)
    assert row.values == {"maps": [], "unread": 1}
    row = replace(row, variant="legrad")
    assert Agreement().summarise([row], records).tables["correlations"].rows == [["legrad", None]]


def test_a_hard_negative_whose_false_words_were_cut_has_no_values(monkeypatch):
    false = Record(
        "r0", LONG, (), image, "", HardNegative("p", LONG, (21, 26), ("house", "house"), (LEFT,))
    )
    maps = {LONG: [cut_map(4), cut_map(4)]}
    (row,) = measured(Mismatches(), monkeypatch, maps, [false])
    assert row.values == {"score": 0.5, "unread": 1}
    assert "false_words" not in Mismatches().summarise([row], [false]).tables


def test_a_caption_that_the_model_cuts(tmp_path):
    """Of a real model of 16 tokens: the rest of the record is measured."""
    caption = "a red circle " + "a " * 20 + "circle"
    phrases = (
        Phrase("red circle", (2, 12), (LEFT,), "a"),
        Phrase("circle", (len(caption) - 6, len(caption)), (RIGHT,), "b"),
    )
    study = Localization(methods=("input_x_gradient",))
    summary = run_study(
        study,
        wrap(*models.clip_with_processor()),
        [Record("r0", caption, phrases, image, "here")],
        tmp_path,
    )
    assert [row[:2] for row in summary.tables["by_method"].rows] == [["input_x_gradient", 1]]
    assert any("beyond the text's limit, left out: 1" in note for note in summary.notes)


def test_rows_of_maps_that_are_rounding_say_so(monkeypatch, tmp_path):
    """One of two records: its row is measured, with a remark that the summary lists."""
    words = {"cat": (3, 1, -5, 0), "dog": (2, 1, 1, 0)}
    noise = second_order({word: tuple(1e-8 * v for v in row) for word, row in words.items()})
    maps = iter([second_order(words), noise])
    monkeypatch.setattr(study_module, "explain_batch", lambda *_, **__: [next(maps), next(maps)])
    monkeypatch.setattr(Localization, "is_complete", lambda *_: True)
    study = Localization(methods=("token_similarity",))
    summary = run_study(study, model(), [record("r0"), record("r1")], tmp_path)
    rows = read(tmp_path / "results.jsonl")
    assert [row.status for row in rows] == ["measured", "measured"]
    said = "interactions of the map no larger than rounding errors"
    assert [row.message for row in rows] == ["", said]
    assert summary.tables["problems"].rows == [["token_similarity", "measured", said, 1, "r1"]]
