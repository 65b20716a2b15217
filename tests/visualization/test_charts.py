"""Charts of methods: letters that a phone can show, colours and marks that everybody can tell."""

from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks import comparison_figure, growth
from benchmarks.comparison import Summary
from captum_interactions.attr import ATTRIBUTIONS
from captum_interactions.evaluation import figures
from captum_interactions.evaluation.lines import Line, panels
from captum_interactions.evaluation.pictures import Picture, pictures
from captum_interactions.evaluation.statistics import Difference
from captum_interactions.evaluation.studies import agreement, faithfulness, recognition
from captum_interactions.maps.titles import method_title
from captum_interactions.visualization.charts import LINE_COLOURS, MARKS, line_style, method_label
from tests.visualization.letters import smallest_letters

METHODS = [*ATTRIBUTIONS][:12]
LABELS = list(map(method_label, METHODS))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def _values(*shape):
    return np.random.default_rng(0).random(shape)


def _curves():
    grid = np.linspace(0, 1, 21)
    lines = [Line(method_label(name), grid, grid**n, name) for n, name in enumerate(METHODS[:6])]
    shown = dict.fromkeys(("patches inserted", "patches deleted", "words inserted"), lines)
    return panels(shown, ("share of the patches or words", "mean score"), title="Curves")


def _recognition():
    values = {(str(n), 0): (n / 8, str(n)) for n in range(8)}
    read = (recognition.READOUTS[0], recognition.PHRASES)
    readings = {(name, *read): {1: values, 2: values} for name in METHODS}
    return recognition._figure(readings, (1, 2), dict.fromkeys(METHODS, 0.25))


def _pictures():
    image = Image.new("RGB", (60, 40), "white")
    heat = _values(2, 3).astype(np.float32) - 0.5
    one = Picture(image, heat, (0, 60, 40, 0), [(1, 1, 9, 9)], "red circle 0.12", "a red circle")
    return pictures([one] * 3, "Object coverage: Grad-CAM")


def _faithfulness():
    cells = [[name, *_values(14), 10 ** (n / 4)] for n, name in enumerate(METHODS)]
    return faithfulness._figure(cells, 0.1)


FIGURES = {
    "boxplots": lambda: figures.boxplots(
        dict(zip(LABELS, _values(12, 30), strict=True)), "share", title="Shares", reference=0.1
    ),
    "bars": lambda: figures.bars(
        LABELS, _values(12), "share", intervals=[(0.1, 0.2)] * 12, references=[0.1] * 12
    ),
    "grouped": lambda: figures.grouped_bars(
        LABELS, {"own": _values(12), "other": [None] * 12}, "x"
    ),
    "scatter": lambda: figures.scatter(
        [3, 50, 300], [0, 1, 2], list("abc"), ("x", "y"), log_x=True
    ),
    "agreement": lambda: agreement._figure(METHODS, _values(12, 12).tolist()),
    "curves": _curves,
    "recognition": _recognition,
    "faithfulness": _faithfulness,
    "pictures": _pictures,
}


@pytest.mark.parametrize("name", FIGURES)
def test_letters_can_be_read_on_a_phone(name):
    """At least seven pixels high; browsers show no text below six unless they are asked to."""
    assert smallest_letters(FIGURES[name]()) >= 7


def drawn(monkeypatch, draw, *arguments):
    kept = []
    monkeypatch.setattr(plt.Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
    draw(*arguments, Path("unused.png"))
    return kept[0]


def test_letters_of_the_benchmarks_can_be_read_on_a_phone(monkeypatch):
    points = {
        f"{layers}, {number} {axis}": {"seconds": number, "forward": 1.0, "extra_mb": number}
        for layers in growth.LAYERS
        for axis in growth.AXES
        for number in growth.numbers_of(layers, axis)
    }
    assert smallest_letters(drawn(monkeypatch, growth.draw, points)) >= 7


def test_methods_on_fewer_scenes_are_ranked_apart(monkeypatch):
    same = Difference(0, None, None, None, None)
    found = [
        Summary(
            name,
            ATTRIBUTIONS[name].order,
            scenes,
            _values(9),
            0.0,
            0.5,
            0.1,
            1.0,
            1.0,
            same,
        )
        for name, scenes in zip(METHODS[:4], (25, 500, 25, 500), strict=True)
    ]
    figure = drawn(monkeypatch, comparison_figure.draw, found, 0.06)
    assert smallest_letters(figure) >= 7
    heights = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    in_order = sorted(heights, key=lambda text: -heights[text])
    assert in_order == [
        method_title(METHODS[1]),
        method_title(METHODS[3]),
        "On fewer scenes, ranked apart:",
        f"{method_title(METHODS[0])}, 25 scenes",
        f"{method_title(METHODS[2])}, 25 scenes",
    ]


def test_each_pair_of_methods_is_drawn_once():
    figure = agreement._figure(METHODS[:3], [[1.0, 0.5, -0.25], [0.5, 1.0, None], [-0.25, None, 1]])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == [".50", "−.25"]


def test_lines_differ_in_colour_or_mark():
    styles = [line_style(place) for place in range(len(LINE_COLOURS) * len(MARKS))]
    assert len({(style.colour, style.mark) for style in styles}) == 56


def test_a_colour_is_filled_once_in_a_figure():
    """Token similarity and Banzhaf interactions, places 7 and 0, were both filled blue marks."""
    ax = _faithfulness().axes[0]
    filled = [
        line.get_color()
        for line in ax.lines
        if line.get_marker() in MARKS and line.get_fillstyle() == "full"
    ]
    assert len(filled) == len(set(filled)) == len(LINE_COLOURS)


@pytest.mark.parametrize("name", ["normal", "deuteranopia", "protanopia"])
def test_colours_differ_for_readers_with_a_colour_vision_deficiency(name):
    """By 15 units of CIE Lab, the first four by 30; about 2 can be seen."""
    # Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color
    # Vision Deficiency", IEEE TVCG 2009: severity 1, linear red, green and blue.
    seen_by = {
        "normal": np.eye(3),
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
    }[name]
    colours = np.array([matplotlib.colors.to_rgb(colour) for colour in LINE_COLOURS])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    lab = _lab(np.clip(linear @ np.array(seen_by).T, 0, 1))
    for one, other in combinations(lab[:4], 2):
        assert np.linalg.norm(one - other) > 30
    for one, other in combinations(lab, 2):
        assert np.linalg.norm(one - other) > 15


def _lab(linear):
    """CIE Lab of linear sRGB under D65."""
    xyz = (
        linear
        @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    )
    f = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(f > (6 / 29) ** 3, np.cbrt(f), f / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )
