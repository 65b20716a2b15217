"""The programs that measure: what they count, what they print, and that the one for GPUs runs."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks import bars, comparison, gpu, speed, steps
from benchmarks.measure import Results, fastest, operations
from captum_interactions import SecondOrderIntegratedGradients, wrap
from tests import models
from tests.expected import relative_error


def test_operations_of_a_forward_and_a_backward_pass():
    layer, x = torch.nn.Linear(5, 7), torch.rand(3, 5, requires_grad=True)

    def run():
        y = layer(x)
        torch.autograd.grad(y, x, torch.ones_like(y))

    assert operations(run) == 2 * (2 * 3 * 5 * 7)


def test_turns_are_taken():
    seen = []
    times = fastest(lambda: seen.append("a"), lambda: seen.append("b"), repeats=3)
    assert "".join(seen) == "ab" * 4
    assert len(times) == 2
    seen.clear()
    fastest(lambda: seen.append("a"), repeats=3, limit=0.0)
    assert seen == ["a"]


def test_results_are_kept(tmp_path):
    path = tmp_path / "new" / "results.json"
    assert Results(path).get("x", lambda: {"seconds": 1}) == {"seconds": 1}
    assert Results(path).get("x", lambda: pytest.fail("measured twice")) == {"seconds": 1}
    with pytest.raises(KeyError):
        Results(path).get("y", lambda: {}["missing"])
    assert json.loads(path.read_text()) == {"x": {"seconds": 1}}


def measured(seconds, values=None, **more):
    return {"seconds": seconds, "forward": 2.0, "extra_mb": 7.4, "floor": seconds / 2,
            "values": values, **more}  # fmt: skip


def test_table_of_speed():
    name = "B/32 last block"
    values = {
        f"{name}: map": measured(3.0, [1.0, -2.0]),
        f"{name}: captum": measured(6.0),
        f"{name}: oracle": measured(300.0, [1.0, -2.1], map=2.5),
        "MiniLM last block: oracle": measured(50.0, extrapolated_from=[4, 12], map=1.0),
    }
    table = speed.table(values)
    assert f"| {name} | map | 3.000 | 1.50 | 120.0 | 0.50 | 50% | 7 |" in table
    assert "| MiniLM last block | oracle | ~50.000 | ~25.00 | 1.0 | – | 50% | 7 |" in table
    assert "4.8e-02 (B/32 last block)" in table


def test_every_bar_asks_for_cases_that_exist():
    for bar in bars.BARS:
        for name in set(bar.needs) - bars.OWN.keys():
            case, program = name.rsplit(": ", 1)
            assert program in speed.CASES[case].programs
    assert len({bar.what for bar in bars.BARS}) == len(bars.BARS)


def test_rows_of_bars():
    bar = next(bar for bar in bars.BARS if bar.what.startswith("heat map, B/32"))
    a, b = bar.needs
    assert bars.row(bar, {}).endswith("| ≤ 1.2× | – | not measured |")
    known = {a: measured(3.0), b: measured(4.0)}
    assert bars.row(bar, known).endswith("| ≤ 1.2× | 0.75× | reached |")
    assert bars.row(bar, {a: measured(5.0), b: measured(4.0)}).endswith("| 1.25× | missed |")


def test_gpu_program_on_this_machine(tmp_path, monkeypatch, capsys):
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(gpu, "WORK", [("last block", 1, "map"), ("embeddings", 2, "map")])
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--device", "cpu", "--out", str(out)])
    before = torch.get_float32_matmul_precision()
    gpu.main()
    assert torch.get_float32_matmul_precision() == before
    rows = json.loads(out.read_text())["rows"]
    assert [row["precision"] for row in rows] == ["fp32", "tf32", "bf16"] * 2
    assert all(row["ms"] > 0 and 0 < row["share of the floor"] < 1 for row in rows)
    assert [row["error"] for row in rows if row["precision"] == "fp32"] == [0, 0]
    assert max(row["error"] for row in rows) < 0.1
    assert capsys.readouterr().out.count("| tiny |") == 6


@pytest.mark.parametrize("layers", [(-1, -1), (0, 1)])
@pytest.mark.parametrize("switch", [name for name in steps.SWITCHES if name != "everything on"])
def test_no_step_of_the_hot_path_changes_a_map(clip, switch, layers):
    pixels, (ids, mask) = models.images(2), models.captions(9, 6)
    soig = SecondOrderIntegratedGradients(wrap(clip), layers)
    options = {"additional_forward_args": mask, "n_steps": 5}
    expected = soig.attribute((pixels, ids), **options)
    with steps.SWITCHES[switch]():
        plain = soig.attribute((pixels, ids), **options)
    assert relative_error(plain, expected) < 1e-5


def test_table_of_steps():
    values = {
        f"{case}: {switch}": measured(4.0 if switch == "everything on" else 6.0, error=1e-7)
        for case in steps.CASES
        for switch in steps.SWITCHES
    }
    assert "| B/32 last block | all rows of the last block | 3.00 | 1.50 | 7 | 1e-07 |" in (
        steps.table(values)
    )


def test_one_common_scene_is_no_comparison(tmp_path):
    """It has neither an interval nor a p-value; and neither method has options to list."""
    levels = comparison.chances(2)
    path = tmp_path / "results.jsonl"
    lines = [
        {
            "method": method, "scene": scene, "seconds": 1.0, "image": 2, "text": 3,
            "inside": [0.5] * len(levels[scene]), "pointed": [True] * len(levels[scene]),
        }
        for method, scene in ((comparison.COMPARED, 0), ("grad_eclip", 0), ("grad_eclip", 1))
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = "\n".join(comparison.table(comparison.summaries(path)))
    inputs = "2\N{NO-BREAK SPACE}+\N{NO-BREAK SPACE}3"
    assert f"| Grad-ECLIP | 1 | 0.500 | 0.500 |  |  | 1.000 | 1.000 | {inputs} |" in table
    assert "2 scenes (Second-order Integrated Gradients: 1) with" in table
    assert "number of comparisons: 0" in table
    assert "Options that are not the defaults" not in table


def test_methods_are_compared_on_common_scenes_with_undefined_maps_as_chance(tmp_path):
    levels = comparison.chances(3)
    path = tmp_path / "results.jsonl"
    lines = [
        {
            "method": method, "scene": scene, "seconds": 1.0, "image": 2, "text": 3,
            "inside": [value] * len(levels[scene]), "pointed": [True] * len(levels[scene]),
        }
        for method, scenes, value in (
            (comparison.COMPARED, (0, 1), 0.75), ("grad_eclip", (0, 1, 2), None)
        )
        for scene in scenes
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    best, other = comparison.summaries(path)
    assert (best.name, best.median, best.n_scenes, best.undefined) == (
        comparison.COMPARED, 0.75, 2, 0
    )  # fmt: skip
    assert (other.n_scenes, other.undefined) == (3, 1)
    assert other.inside.tolist() == [*levels[0], *levels[1], *levels[2]]
    common = levels[0] + levels[1]
    assert other.difference.n == len(common)
    assert other.difference.value == pytest.approx(0.75 - sum(common) / len(common))
    table = "\n".join(comparison.table([best, other]))
    assert "number of comparisons: 1" in table
    gap = other.difference
    assert f"| {gap.value:.3f} [{gap.low:.3f},\N{NO-BREAK SPACE}{gap.high:.3f}] |" in table
    assert "Undefined maps (Grad-ECLIP: 100.0%) count as chance" in table
