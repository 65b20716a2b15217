"""Figures: what is drawn where, and that nothing is shown."""

from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from captum_interactions import InteractionMap
from captum_interactions.encoders import Frame, ImageAxis, TextAxis, TokenAxis
from captum_interactions.maps.first_order_map import FirstOrderMap


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def make_map(values, text="red circle", size=(40, 60), grid=(2, 3)) -> InteractionMap:
    """A map whose first word's heat is ``values`` and whose other words have none."""
    words = text.split()
    starts = [text.index(word) for word in words]
    spans = tuple((start, start + len(word)) for start, word in zip(starts, words, strict=True))
    none = (False,) * len(words)
    axis_a = ImageAxis.of_grid(
        grid, (size[0] // grid[0], size[1] // grid[1]), Frame.identity(size),
        image=Image.new("RGB", size[::-1], "white"),
    )  # fmt: skip
    axis_b = TextAxis(tuple(words), none, none, text, spans)
    interactions = torch.zeros(len(axis_a), len(axis_b))
    interactions[:, 0] = torch.as_tensor(values, dtype=torch.float32).flatten()
    zeros = torch.zeros(len(axis_a)), torch.zeros(len(axis_b))
    return InteractionMap(interactions, *zeros, 0.0, 1.0, 0.0, axis_a, axis_b)


def pixel(figure, ax, x, y):
    """Colour (r, g, b) in [0, 255] that is drawn at a point of the axes' data."""
    figure.canvas.draw()
    column, row = ax.transData.transform((x, y))
    buffer = np.asarray(figure.canvas.buffer_rgba())
    return buffer[int(len(buffer) - row), int(column), :3].astype(int)


def test_matches_are_red_and_clashes_blue_where_the_patches_are():
    figure, ax = make_map([[1.0, 0, 0], [0, 0, -1.0]]).plot("red")
    red, _, blue = pixel(figure, ax, 10, 10)
    assert red > blue + 60
    red, _, blue = pixel(figure, ax, 50, 30)
    assert blue > red + 60
    red, green, blue = pixel(figure, ax, 30, 10)
    assert red == green == blue


def test_scale_is_symmetric_and_the_selected_words_are_framed():
    figure, ax = make_map([[3.0, 0, 0], [0, 0, -1.0]]).plot("red")
    bar = ax.child_axes[0]
    assert bar.get_ylim() == (-3.0, 3.0)
    framed = {
        text.get_text(): text.get_bbox_patch().get_edgecolor()[3]
        for axes in figure.axes
        for text in axes.texts
    }
    assert framed == {"red": 1.0, "circle": 0.0}


def test_given_axes_are_used_and_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("a figure was shown"))
    figure, axes = plt.subplots(1, 2)
    returned = make_map(np.ones((2, 3))).plot("red", ax=axes[1])
    assert returned == (figure, axes[1])
    assert not axes[0].images
    assert axes[1].images


@pytest.mark.parametrize("values", [np.zeros((2, 3)), -np.ones((2, 3))])
def test_zero_and_negative_maps_are_drawn(values):
    figure, _ = make_map(values).plot()
    figure.canvas.draw()


@pytest.mark.parametrize("region", [(5, 5, 30, 20), np.eye(40, 60, dtype=bool)])
def test_a_region_is_outlined(region):
    _, ax = make_map(np.ones((2, 3))).plot(a=region)
    assert len(ax.patches) + len(ax.collections) == 1


def test_long_captions_stay_inside_the_figure():
    text = " ".join(f"word{index}" for index in range(60))
    figure, _ = make_map(np.ones((2, 3)), text=text).plot()
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    boxes = [t.get_window_extent() for axes in figure.axes for t in axes.texts]
    assert len(boxes) == 60
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= width
    assert min(box.y0 for box in boxes) >= 0
    assert max(box.y1 for box in boxes) <= height


def texts(words_a, words_b) -> InteractionMap:
    """A map of two texts whose token (i, j) is worth i - j, first and last tokens special."""
    axes = []
    for words in (words_a, words_b):
        n_tokens = len(words) + 2
        text = " ".join(words)
        spans = [(text.index(word), text.index(word) + len(word)) for word in words]
        special = (True, *(False,) * len(words), True)
        labels = ("[", *words, "]")
        axes.append(TextAxis(labels, special, (False,) * n_tokens, text, (None, *spans, None)))
    sizes = [len(axis) for axis in axes]
    values = torch.arange(sizes[0])[:, None] - torch.arange(sizes[1]).float()
    zeros = [torch.zeros(size) for size in sizes]
    return InteractionMap(values, *zeros, 0.0, 1.0, 0.0, *axes)


def test_two_texts_are_a_matrix_of_words():
    figure, ax = texts(["one", "dog"], ["a", "black", "cat"]).plot()
    figure.canvas.draw()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "dog"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "black", "cat"]
    (image,) = ax.images
    assert image.get_array().tolist() == [[0.0, -1.0, -2.0], [1.0, 0.0, -1.0]]
    assert image.get_clim() == (-2.0, 2.0)


@pytest.mark.parametrize("n_words", [1, 20, 100])
def test_matrices_of_any_size_stay_inside_the_figure(n_words):
    words = [f"word{index:03}" for index in range(n_words)]
    figure, ax = texts(words, words[: n_words // 2 + 1]).plot()
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    assert width < 6_000
    assert height < 6_000
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        box = label.get_window_extent()
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(above.y0 >= below.y1 - 2 for above, below in pairwise(boxes))


def test_a_first_order_map_without_words_is_drawn():
    imap = make_map([[1.0, 0, 0], [0, 0, -1.0]])
    first = FirstOrderMap(imap.interactions[:, 0], None, 0.5, imap.axis_a, imap.axis_b)
    figure, ax = first.plot("red")
    red, _, blue = pixel(figure, ax, 10, 10)
    assert red > blue + 60
    assert (first.heatmap("red") == first.heatmap()).all()
    with pytest.raises(ValueError, match="has no map of input b"):
        first.word_weights()


def test_selections_need_an_image_and_its_caption():
    axis = TokenAxis.numbered(2)
    imap = InteractionMap(torch.eye(2), torch.zeros(2), torch.zeros(2), 0.0, 2.0, 0.0, axis, axis)
    with pytest.raises(TypeError, match="TokenAxis and TokenAxis"):
        imap.plot([0])
