"""``captum-interactions evaluate``, the summary's files, and small parts of the evaluation."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from captum_interactions.cli import main
from captum_interactions.evaluation import STUDIES, Summary, Table
from captum_interactions.evaluation.rows import plain
from captum_interactions.evaluation.statistics import bootstrap_interval, mean, median, quantile
from captum_interactions.evaluation.study import parse_method
from captum_interactions.zoo import DEMO, REPORT_SEED, Scenes
from tests.datasets.test_coco import files
from tests.on_disk import write

FAST = ["--methods", "grad_eclip"]


def evaluate(*arguments):
    return main(["evaluate", *map(str, arguments)])


@pytest.mark.parametrize("study", ["localization", "classwise", "mismatches", "failures"])
def test_a_study_runs_on_the_bundled_model(study, tmp_path, capsys):
    arguments = [study, "--limit", 4, "--output", tmp_path, *FAST]
    assert evaluate(*arguments) == 0
    printed = capsys.readouterr().out
    assert f"written to {tmp_path}" in printed
    assert "\ngrad_eclip " in printed
    assert "| Grad-ECLIP | " in (tmp_path / study / "summary.md").read_text()
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dataset"]["options"]["seed"] == REPORT_SEED
    assert config["variants"] == {"grad_eclip": {"attribution": "grad_eclip", "options": {}}}
    assert len(config["model"]["weights"]) == 64
    assert "torch" in config["made_with"][0]


def test_studies_of_the_same_rows_share_a_folder(tmp_path, capsys):
    """The filters too may change, with nothing measured anew."""
    assert evaluate("localization", "--limit", 4, "--output", tmp_path, *FAST) == 0
    before = (tmp_path / "results.jsonl").read_bytes()
    options = ["--summarise", "--set", "min_phrases=1", "--set", "max_area=0.3"]
    assert evaluate("classwise", "--limit", 4, "--output", tmp_path, *options) == 0
    assert "0 to 0.3 of the image" in capsys.readouterr().out
    assert (tmp_path / "results.jsonl").read_bytes() == before
    assert (tmp_path / "localization" / "by_method.csv").exists()
    assert (tmp_path / "classwise" / "classes.csv").exists()


def test_another_domain_is_refused_in_one_line(tmp_path, capsys):
    arguments = ["localization", "--limit", 2, "--output", tmp_path, *FAST]
    assert evaluate(*arguments) == 0
    capsys.readouterr()
    assert evaluate(*arguments, "--dataset-option", "domain=shifted") == 2
    assert 'dataset.options.domain: null there, "shifted" now' in capsys.readouterr().err


def test_coco_is_read_from_its_files(tmp_path, capsys):
    data = write(tmp_path / "coco", files())
    output = tmp_path / "out"
    arguments = ["--dataset", "coco", "--data", data, "--split", "val2017", "--model", DEMO]
    assert evaluate("localization", *arguments, "--output", output, *FAST) == 0
    with (output / "localization" / "by_method.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert int(row["phrases"]) > 0
    assert (
        "| Grad-ECLIP | declined | no phrase of the caption has a box |"
        in (output / "localization" / "problems.md").read_text()
    )


def test_a_run_that_measures_nothing_fails_after_its_summary(tmp_path, capsys):
    arguments = ["localization", "--limit", 2, "--output", tmp_path]
    methods = ["--methods", "second_order_integrated_gradients:layers=[99,99]"]
    assert evaluate(*arguments, *methods) == 2
    printed = capsys.readouterr()
    assert "layer must be an int" in printed.out
    assert "no record was measured, the first one because: " in printed.err
    assert f"{tmp_path / 'localization' / 'problems.md'}" in printed.err
    assert "with figures" not in printed.out


def test_markdown_is_for_readers_and_csv_for_programs():
    """Tables of studies had ids of methods and up to 19 columns."""
    method = "grad_cam:layers=[-1,0],n_steps=2"
    columns = ("method", "images", "share", "95 % from", "to")
    table = Table(
        columns, [[method, 9, 0.5, -0.25, 0.75], ["game", 9, 0.5, None, None]], "", ("images",)
    )
    assert table.markdown() == (
        "| method | share [95\N{NO-BREAK SPACE}%] |\n|---|---|\n"
        "| Grad-CAM (layers=[-1, 0], n_steps=2) | 0.500 [−0.250,\N{NO-BREAK SPACE}0.750] |\n"
        "| GAME | 0.500 |\n"
    )
    assert table.csv().splitlines()[0] == "method,images,share,95 % from,to"
    assert table.csv().splitlines()[2] == "game,9,0.5,,"


def test_records_that_are_all_declined_load_no_model(tmp_path, capsys, monkeypatch):
    Scenes(1, seed=77)[0].image.save(tmp_path / "one.png")
    (tmp_path / "one.txt").write_text("a red circle")
    monkeypatch.setattr(
        "captum_interactions.cli.evaluate.load_model", lambda *_: pytest.fail("it was loaded")
    )
    arguments = ["localization", "--dataset", "folder", "--data", tmp_path]
    assert evaluate(*arguments, "--output", tmp_path / "out") == 2
    assert (
        "no record can be measured, the first one because: no phrase of the caption has a box; "
        "localization needs boxes of the phrases of a caption" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()
    assert evaluate(*arguments, "--summarise") == 2


def test_a_dataset_of_the_users_own_on_the_bundled_model_is_noted(tmp_path, capsys):
    Scenes(1, seed=77)[0].image.save(tmp_path / "one.png")
    (tmp_path / "one.txt").write_text("a red circle")
    arguments = ["perturbation", "--dataset", "folder", "--data", tmp_path]
    methods = ["--methods", "grad_eclip", "--set", "n_steps=2"]
    assert evaluate(*arguments, *methods, "--output", tmp_path / "out") == 0
    assert "the bundled model is used" in capsys.readouterr().err


def test_studies_are_listed(capsys):
    assert evaluate("--list") == 0
    printed = capsys.readouterr().out
    for name, study in STUDIES.items():
        assert (
            f"{name}: {study.question}\n    needs beside images and captions: {study.needs}"
            in printed
        )
    assert "--set single_instance=False" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "STUDY must be one of localization, classwise"),
        (["astrology"], "STUDY must be one of localization, classwise"),
        (["localization", "--dataset", "moon"], "--dataset must be one of coco, "),
        (["localization", "--dataset", "coco"], "say where with --data"),
        (["localization", "--methods", "magic"], "--methods: must be one of"),
        (["localization", "--methods", "rise:n=1"], "rise has no option n"),
        (["localization", "--set", "colour=1"], "--set: localization has no option 'colour'"),
        (["localization", "--set", "min_area=little"], "--set min_area: must be of the kind"),
        (["localization", "--set", "sign=both"], "sign must be"),
        (
            ["localization", "--set", "seed=true"],
            "--set seed: must be of the kind of its default 0",
        ),
        (
            ["ablations", "--set", "varied=[default]"],
            "--set varied: must be a JSON list such as [\"default\"], but got '[default]'\n",
        ),
        (
            ["ablations", "--set", f"varied={'x' * 500}"],
            "xxx'\n",
        ),
        (["localization", "--device", "moon"], "--device: the model cannot be put on moon"),
        (["localization", "--limit", "0"], "--limit: must be a whole number of at least 1"),
        (["localization", "--dataset-option", "taste=sweet"], "unknown --dataset-option 'taste'"),
        (["localization", "--summarise"], "run the study first"),
    ],
)
def test_bad_input_is_explained_in_one_line(arguments, message, tmp_path, capsys):
    assert evaluate(*arguments, "--output", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_interrupted_command_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(STUDIES["localization"], "measure", stop)
    assert evaluate("localization", "--limit", 2, "--output", tmp_path, *FAST) == 130
    assert f"rerun the command to resume from {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rise", ("rise", {})),
        ("rise:n_samples=50,p=0.25", ("rise", {"n_samples": 50, "p": 0.25})),
        ("lifted:layers=[0,-1],method=riemann_left",
         ("lifted", {"layers": (0, -1), "method": "riemann_left"})),
    ],
)  # fmt: skip
def test_methods_are_written_with_their_options(text, expected):
    assert parse_method(text) == expected


# Summaries.


def test_a_summary_writes_tables_figures_and_a_page(tmp_path):
    figure, _ = plt.subplots()
    table = Table(
        ("name", "value"),
        [["a|b", 0.12345], ["c", None], ["d", 3], ["e", -1234.56]],
        "What it shows.",
    )
    summary = Summary({"by_name": table}, {"curve": figure}, ["Mind the gap."])
    written = summary.write(tmp_path / "new" / "folder", "A study")
    assert sorted(path.name for path in written) == [
        "by_name.csv", "by_name.md", "curve.png", "summary.md",
    ]  # fmt: skip
    assert all(path.stat().st_size for path in written)
    assert not plt.fignum_exists(figure.number)
    folder = tmp_path / "new" / "folder"
    assert (folder / "by_name.md").read_text() == (
        "| name | value |\n|---|---|\n| a\\|b | 0.123 |\n| c |  |\n| d | 3 |\n| e | −1234.6 |\n"
    )
    assert (folder / "by_name.csv").read_text() == "name,value\na|b,0.12345\nc,\nd,3\ne,-1234.56\n"
    page = (folder / "summary.md").read_text()
    order = ["# A study", "Mind the gap.", "## By name", "What it shows.", "![Curve](curve.png)"]
    assert [page.index(part) for part in order] == sorted(page.index(part) for part in order)


def test_a_table_with_a_row_too_short_is_refused():
    with pytest.raises(ValueError, match=r"2 columns \(a, b\), but a row has 1 cells"):
        Table(("a", "b"), [[1]])


def test_what_json_cannot_hold_becomes_plain():
    values = {"x": np.float32(0.5), "y": torch.tensor([1.0, math.nan]), 3: (math.inf, np.arange(2))}
    assert plain(values) == {"x": 0.5, "y": [1.0, None], "3": [None, [0, 1]]}


# Statistics.


def test_undefined_values_are_left_out():
    values = [1.0, None, 3.0, math.nan, 8.0]
    assert (median(values), mean(values), quantile(values, 1.0)) == (3.0, 4.0, 8.0)
    assert median([None]) is mean([]) is quantile([math.nan], 0.5) is None


def test_bootstrap_interval_of_a_mean_is_that_of_the_normal_law():
    """With 400 values the mean is normal: the interval is mean ± 1.96 standard errors."""
    values = np.random.default_rng(3).normal(2.0, 1.0, 400)
    low, high = bootstrap_interval(
        list(values), statistic=lambda x: float(x.mean()), n_resamples=4000
    )
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_bootstrap_draws_whole_clusters():
    """Ten copies of each value are no more than the value itself."""
    values = list(np.random.default_rng(4).normal(size=30))
    copies = [value for value in values for _ in range(10)]
    clusters = [index for index in range(30) for _ in range(10)]
    one = bootstrap_interval(values, statistic=lambda x: float(x.mean()))
    many = bootstrap_interval(copies, clusters, statistic=lambda x: float(x.mean()))
    assert many == pytest.approx(one)
    careless = bootstrap_interval(copies, statistic=lambda x: float(x.mean()))
    assert careless[1] - careless[0] < 0.5 * (one[1] - one[0])
    assert bootstrap_interval([1.0, None]) == (None, None)
