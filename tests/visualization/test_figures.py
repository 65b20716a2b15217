"""Figures: what is drawn equals the map, scales are shared, axes are used, nothing stays open."""

import re
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.text import Text

from captum_interactions import InteractionMap
from captum_interactions.encoders import AudioAxis, Frame, ImageAxis, TextAxis, TokenAxis
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.visualization import (
    plot_comparison,
    plot_connections,
    plot_heatmap,
    plot_interactions,
    plot_matrix,
    plot_phrase_grid,
    plot_waterfall,
    plot_words,
    visualization_data_record,
    visualize_image_attr,
    visualize_text,
)
from captum_interactions.visualization.views import draw_maps
from tests.visualization.letters import smallest_letters

SCRIPTS = [
    "dog",
    "一只 黑色 的 猫",
    "قطة سوداء",
    "एक काली बिल्ली",
    "costs $5 or $x_1^2$ 👩‍🚀",
    " ".join(f"word{index}" for index in range(77)),
]


@pytest.fixture(autouse=True)
def _close_figures(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *args: pytest.fail("a figure was shown"))
    yield
    plt.close("all")


def text_axis(text="a red star"):
    starts = [0]
    words = text.split()
    for word in words[:-1]:
        starts.append(starts[-1] + len(word) + 1)
    spans = tuple((start, start + len(word)) for start, word in zip(starts, words, strict=True))
    none = (False,) * len(words)
    return TextAxis(tuple(words), none, none, text, spans)


def image_axis(grid=(2, 3), size=(40, 60), frame=None):
    cell = (size[0] // grid[0], size[1] // grid[1]) if frame is None else (10, 10)
    image = Image.new("RGB", size[::-1], "white")
    frame = frame or Frame.identity(size)
    return ImageAxis.of_grid(grid, cell, frame, image=image, before=("[CLS]",))


def audio_axis():
    times = np.array([(column, column + 1.0) for _ in range(2) for column in range(4)])
    return AudioAxis.of_cells(times, np.repeat([0, 1], 4), 3.0, 1)


def make(axis_a, axis_b, change=None):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(len(axis_a), len(axis_b), generator=generator)
    values = values if change is None else change(values)
    effects = torch.full((len(axis_a),), 0.1), torch.full((len(axis_b),), -0.2)
    parts = 0.5 + sum(float(part.sum()) for part in (*effects, values))
    return InteractionMap(values, *effects, 0.5, parts - 0.01, 0.01, axis_a, axis_b)


def first_order(imap):
    return FirstOrderMap(
        imap.interactions.sum(1), None, imap.score, imap.axis_a, imap.axis_b,
        {"attribution": "grad_cam"},
    )  # fmt: skip


def heat_drawn(ax):
    return np.asarray(ax.images[-1].get_array())


def test_heat_map_of_a_phrase_holds_the_values_of_the_map():
    imap = make(image_axis(), text_axis())
    _, ax = plot_heatmap(imap, "red")
    assert np.array_equal(heat_drawn(ax), imap.heatmap("red"))
    largest = abs(imap.heatmap("red")).max()
    assert ax.images[-1].get_clim() == pytest.approx((-largest, largest))


def test_smooth_values_stay_within_those_of_the_map_and_keep_its_mean():
    heat = np.array([[1.0, -2.0], [0.5, 0.0]], np.float32)
    _, ax = plot_heatmap(heat, upsampling="smooth")
    drawn = heat_drawn(ax)
    assert drawn.shape == (256, 256)
    assert drawn.min() >= -2.0
    assert drawn.max() <= 1.0
    assert drawn[0, 0] == pytest.approx(1.0)
    assert drawn.mean() == pytest.approx(heat.mean(), abs=0.01)


@pytest.mark.parametrize("style", ["overlay", "side_by_side", "contour"])
def test_axes_have_the_pixels_of_the_image_in_every_style(style):
    figure, given = plt.subplots()
    returned = plot_heatmap(make(image_axis(), text_axis()), style=style, ax=given)
    assert returned == (figure, given)
    assert given.get_ylim() == (40.0, 0.0)
    assert given.get_xlim()[1] == 60.0
    assert (given.get_xlim()[0] < 0) == (style == "side_by_side")
    assert len(plt.get_fignums()) == 1


def test_contours_lie_where_the_values_pass_the_levels():
    heat = np.zeros((3, 3), np.float32)
    heat[0, 0], heat[2, 2] = 1.0, -0.3
    _, ax = plot_heatmap(heat, style="contour")
    points = [p for c in ax.collections for path in c.get_paths() for p in path.vertices]
    x, y = np.array(points).T
    assert ((x < 1.5) & (y < 1.5)).any()  # 0.25, 0.5 and 0.75
    assert ((x > 1.5) & (y > 1.5)).any()  # -0.25
    assert not ((x < 1.0) & (y > 2.0)).any()


def test_what_the_model_does_not_see_is_hatched():
    frame = Frame((40, 80), (40, 40), (1.0, 1.0), (20.0, 0.0))
    _, ax = plot_heatmap(make(image_axis((4, 4), (40, 80), frame), text_axis()))
    hatched = [p.get_bbox().bounds for p in ax.patches if p.get_hatch()]
    assert sorted(hatched) == [(0.0, 0.0, 20.0, 40.0), (60.0, 0.0, 20.0, 40.0)]


def test_silence_after_a_sound_is_hatched_and_low_frequencies_are_below():
    imap = make(audio_axis(), text_axis())
    _, ax = plot_heatmap(imap)
    assert [p.get_bbox().bounds for p in ax.patches if p.get_hatch()] == [(3.0, 0.0, 1.0, 2.0)]
    assert ax.images[-1].origin == "lower"
    assert np.array_equal(heat_drawn(ax), imap.heatmap())


def test_masked_cells_have_no_colour_and_no_part_in_the_scale():
    heat = np.array([[9.0, 1.0], [0.5, -1.0]])
    mask = heat == 9.0
    _, ax = plot_heatmap(heat, mask=mask)
    assert ax.images[-1].get_clim() == (-1.0, 1.0)
    assert ax.images[-1].get_alpha()[0, 0] == 0.0
    (hatched,) = [p.get_bbox().bounds for p in ax.patches if p.get_hatch()]
    assert hatched == (0.0, 0.0, 1.0, 1.0)


def test_either_image_of_two_can_be_drawn():
    imap = make(image_axis(), image_axis((3, 3), (30, 30)))
    _, ax = plot_heatmap(imap, side="b")
    assert np.array_equal(heat_drawn(ax), imap.axis_b.to_grid(imap.marginal_b().numpy()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "glow"}, "style must be one of overlay"),
        ({"upsampling": "cubic"}, "upsampling must be one of nearest"),
        ({"limit": 0.0}, "limit of a scale must be a positive number"),
        ({"mask": np.zeros((5, 5), bool)}, "mask must have the shape"),
        ({"mask": np.full((2, 3), 0.5)}, "a mask holds booleans"),
        ({"region": np.full((3, 4), 0.5)}, "a mask holds booleans"),
        ({"region": [0, 0, 2, 2]}, "may be a box or four tokens"),
        ({"region": (2, 0, 1, 2)}, "a box is four finite numbers"),
        ({"side": "c"}, "side must be 'a' or 'b'"),
    ],
)
def test_bad_options_are_errors_that_leave_no_figure(options, message):
    with pytest.raises(ValueError, match=message):
        plot_heatmap(make(image_axis(), text_axis()), **options)
    assert plt.get_fignums() == []


def test_panels_of_phrases_share_one_scale():
    imap = make(image_axis(), text_axis())
    _, axes = plot_phrase_grid(imap)
    assert len(axes) == 3
    limits = {ax.images[-1].get_clim() for ax in axes}
    largest = max(abs(imap.heatmap(word)).max() for word in ("a", "red", "star"))
    assert limits == {(-largest, largest)}
    assert np.array_equal(heat_drawn(axes[2]), imap.heatmap("star"))


def test_given_axes_are_filled_in_order_and_the_rest_hidden():
    figure, given = plt.subplots(2, 2)
    returned, axes = plot_phrase_grid(make(image_axis(), text_axis()), axes=given)
    assert returned is figure
    assert list(axes) == list(given.flat)[:3]
    assert not given[1, 1].axison
    with pytest.raises(ValueError, match="3 panels to draw, but only 1 axes"):
        plot_phrase_grid(make(image_axis(), text_axis()), axes=[plt.figure().gca()])


def test_words_have_the_colours_of_their_weights():
    _, ax = plot_words([("up", 2.0), ("none", 0.0), ("down", -2.0)])
    faces = [text.get_bbox_patch().get_facecolor() for text in ax.texts]
    assert [text.get_text() for text in ax.texts] == ["up", "none", "down"]
    palette = matplotlib.colormaps["RdBu_r"]
    for face, share in zip(faces, (1.0, 0.5, 0.0), strict=True):
        assert face[:3] == pytest.approx(palette(share)[:3])


def test_words_break_anew_when_their_axes_shrink():
    figure, ax = plt.subplots(figsize=(8, 2))
    plot_words([(f"word{index}", 0.0) for index in range(12)], ax=ax)
    figure.canvas.draw()
    before = len({text.get_position()[1] for text in ax.texts})
    figure.set_size_inches(3, 2)
    figure.canvas.draw()
    assert len({text.get_position()[1] for text in ax.texts}) > before
    box = ax.get_window_extent()
    for text in ax.texts:
        assert box.x0 <= text.get_window_extent().x0
        assert text.get_window_extent().x1 <= box.x1


def test_arabic_words_begin_at_the_right():
    _, ax = plot_words([("قطة", 1.0), ("سوداء", 0.0)])
    first, second = (text.get_position()[0] for text in ax.texts)
    assert first > second


@pytest.mark.parametrize("k", [0, 1, 4, 100])
def test_as_many_lines_are_drawn_as_were_asked_for(k):
    imap = make(image_axis(), text_axis())
    figure, given = plt.subplots()
    assert plot_connections(imap, k, ax=given) == (figure, given)
    assert len(given.lines) == min(k, imap.by_unit().numel())


def test_lines_join_the_strongest_pairs_in_the_colour_of_their_sign():
    imap = make(text_axis("one two"), text_axis("three four five"))
    imap.interactions[:] = torch.tensor([[0.0, 3.0, 0.0], [-2.0, 0.0, 1.0]])
    _, ax = plot_connections(imap, 2)
    strong, weak = ax.lines
    assert (strong.get_color(), weak.get_color()) == ("#b2182b", "#2166ac")
    assert strong.get_linewidth() > weak.get_linewidth()
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
    ends = strong.get_ydata()[[0, -1]].tolist(), weak.get_ydata()[[0, -1]].tolist()
    assert ends[0] == pytest.approx([heights["one"], heights["four"]])
    assert ends[1] == pytest.approx([heights["two"], heights["three"]])
    assert len(plot_connections(imap, 9, sign="negative")[1].lines) == 1
    assert len(plot_connections(imap, 9, sign="positive")[1].lines) == 2


def test_phrases_and_boxes_can_be_connected():
    imap = make(image_axis(), text_axis())
    boxes = [(0, 0, 20, 20), (20, 0, 60, 40)]
    _, ax = plot_connections(imap, 1, parts_a=boxes, parts_b=["red star"])
    values = [imap.between(box, "red star") for box in boxes]
    chosen = values[int(np.argmax(np.abs(values)))]
    assert ax.get_title() == f"1 strongest of 2 pairs: {chosen:+.3f}"


@pytest.mark.parametrize("delta", [0.25, -0.25])
def test_bars_of_the_waterfall_add_up_to_the_score_and_the_delta(delta):
    imap = replace(make(image_axis(), text_axis()), convergence_delta=delta)
    parts = float(imap.interactions.sum() + imap.main_effects_a.sum() + imap.main_effects_b.sum())
    imap = replace(imap, score=imap.constant + parts - delta)
    _, ax = plot_waterfall(imap)
    bars = [bar for bar in ax.patches if bar.get_height() == pytest.approx(0.62)]
    *parts, score, last = bars
    total = sum(bar.get_width() for bar in parts)
    assert total - score.get_width() == pytest.approx(delta, abs=1e-5)
    assert (last.get_x(), last.get_width()) == pytest.approx((imap.score, delta))
    ends = [bar.get_x() + bar.get_width() for bar in parts]
    assert [bar.get_x() for bar in parts[1:]] == pytest.approx(ends[:-1])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    written = dict(zip(labels, (text.get_text() for text in ax.texts), strict=True))
    assert written["convergence delta"] == f"{delta:+.3f}".replace("-", "−")


def test_parts_of_two_texts_are_told_apart():
    _, ax = plot_waterfall(make(text_axis("one two"), text_axis()))
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[1:3] == ["main effects, first text", "main effects, second text"]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("name", ["score", "constant", "convergence_delta", "interactions"])
def test_a_waterfall_of_values_that_are_not_finite_names_the_part(name, value):
    imap = make(image_axis(), text_axis())
    given = imap.interactions * value if name == "interactions" else value
    with pytest.raises(ValueError, match=f"the map's {name.replace('_', ' ')} is (-?inf|nan)"):
        plot_waterfall(replace(imap, **{name: given}))
    assert plt.get_fignums() == []


def test_a_first_order_map_is_the_same_beside_every_phrase():
    imap = make(image_axis(), text_axis())
    maps = {"first": first_order(imap), "second": imap}
    _, axes = plot_comparison(maps, ["red", "star"])
    assert axes.shape == (2, 2)
    assert np.array_equal(heat_drawn(axes[0, 0]), heat_drawn(axes[0, 1]))
    assert np.array_equal(heat_drawn(axes[1, 0]), imap.heatmap("red"))
    assert axes[1, 0].images[-1].get_clim() == axes[1, 1].images[-1].get_clim()
    assert axes[0, 0].images[-1].get_clim() != axes[1, 0].images[-1].get_clim()


def test_methods_are_named_and_one_without_a_map_says_so():
    imap = make(text_axis("one two"), text_axis())
    _, axes = plot_comparison({"A": imap, "B": first_order(imap)})
    assert [ax.get_title() for ax in axes] == ["A ±3.6", "B"]
    assert [text.get_text() for text in axes[0].texts] == ["a", "red", "star"]
    assert [text.get_text() for text in axes[1].texts] == ["no map\nof this input"]


def test_a_single_map_that_has_no_figure_is_drawn_as_several_are():
    imap = make(text_axis("one two"), text_axis())
    first = replace(first_order(imap), attributions_b=imap.interactions.sum(0))
    figure = draw_maps({"B": first}, heading="costs $5 or $6")
    (ax,) = figure.axes
    assert ax.get_title().startswith("B ±")
    assert [text.get_text() for text in ax.texts] == ["a", "red", "star"]
    assert figure.get_suptitle() == "costs $5 or $6"
    assert draw_maps({"B": imap}, heading="of several").get_suptitle() == ""
    pair = make(image_axis(), text_axis())
    drawn = draw_maps({"B": first_order(pair)})
    assert "image" in [ax.get_title() for ax in drawn.axes]  # beside the heat map, as in plot()
    assert len(draw_maps({"A": pair, "B": first_order(pair)}, b="red").axes) == 2


@pytest.mark.parametrize("plot", [lambda m, **o: plot_comparison({"A": m}, **o), plot_phrase_grid])
def test_a_sound_has_no_picture_to_stand_beside_it(plot):
    imap = make(audio_axis(), text_axis())
    sizes = [plot(imap, style=style)[0].get_size_inches() for style in ("overlay", "side_by_side")]
    assert sizes[0] == pytest.approx(sizes[1])


def test_matrix_of_an_array_has_its_names():
    _, ax = plot_matrix([[1.0, 2.0]], labels_a=["row"], labels_b=["x", "y"])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["row"]
    with pytest.raises(ValueError, match="labels_b must be 2 names, but got 1"):
        plot_matrix([[1.0, 2.0]], labels_b=["x"])


def test_matrix_of_tokens_holds_the_special_ones():
    imap = make(image_axis(), text_axis())
    _, ax = plot_matrix(imap, by="token")
    assert np.array_equal(heat_drawn(ax), imap.to_numpy())
    assert ax.get_yticklabels()[0].get_text() == "[CLS]"


def test_patches_are_labelled_by_the_rows_of_their_grid():
    _, ax = plot_matrix(make(image_axis((14, 14), (140, 140)), text_axis(SCRIPTS[-1])))
    assert [label.get_text() for label in ax.get_yticklabels()] == list(map(str, range(14)))
    assert ax.get_ylabel() == "patches, by their row"
    assert ax.get_yticks()[1] == 14 + 6.5
    assert len(ax.get_xticklabels()) == 77


def test_first_order_maps_have_no_pairs_to_draw():
    first = first_order(make(image_axis(), text_axis()))
    for plot in (plot_matrix, plot_connections, plot_waterfall):
        with pytest.raises(TypeError):
            plot(first)
    with pytest.raises(ValueError, match="no map of input b"):
        plot_words(first)
    assert plt.get_fignums() == []


def test_captum_draws_the_same_pixels():
    imap = make(image_axis(), text_axis())
    figure, ax = visualize_image_attr(imap, "red", method="heat_map", outlier_perc=0)
    heat = imap.heatmap("red")
    drawn = heat_drawn(ax)
    assert drawn.shape == (40, 60)
    assert np.allclose(drawn, imap.axis_a.to_image(heat) / abs(heat).max(), atol=1e-6)
    assert plt.get_fignums() == [figure.number]


def test_captums_text_view_is_escaped():
    imap = make(image_axis(), text_axis("<b>dog</b> </w>"))
    record = visualization_data_record(imap, (0, 0, 20, 20))
    assert abs(record.word_attributions).max() == 1.0
    assert record.attr_score == pytest.approx(sum(w for _, w in imap.word_weights((0, 0, 20, 20))))
    page = visualize_text([record])
    assert "<b>dog" not in page
    assert "&lt;" in page
    assert page.count("<mark") == len(imap.axis_b.units)


def every_figure(imap):
    yield plot_matrix(imap)
    yield plot_connections(imap)
    yield plot_waterfall(imap)
    yield plot_comparison({"one": imap, "two": imap})
    if not isinstance(imap.axis_a, TokenAxis) or isinstance(imap.axis_a, (ImageAxis, AudioAxis)):
        yield plot_heatmap(imap, style="side_by_side", upsampling="smooth")
        yield plot_heatmap(imap, style="contour")
        yield plot_phrase_grid(imap, [[0], None])
    if isinstance(imap.axis_b, TextAxis):
        yield plot_words(imap)
    if isinstance(imap.axis_a, ImageAxis) and isinstance(imap.axis_b, TextAxis):
        yield plot_interactions(imap)
        yield visualize_image_attr(imap)
        yield visualize_image_attr(imap, sign="positive")


def inside(figure):
    """Whether all that a figure shows lies within its paper, up to a pixel or two."""
    figure.canvas.draw()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    return (
        box.x0 >= -0.03 and box.y0 >= -0.03 and box.x1 <= width + 0.03 and box.y1 <= height + 0.03
    )


@pytest.mark.parametrize("change", [torch.zeros_like, lambda v: -v.abs(), lambda v: v * 1e-12])
def test_zero_negative_and_tiny_maps(change):
    for figure, _ in every_figure(make(image_axis(), text_axis("dog"), change)):
        assert inside(figure)


@pytest.mark.parametrize("text", SCRIPTS)
def test_any_script_and_length_without_a_warning(text):
    imap = make(image_axis((1, 1), (20, 20)), text_axis(text))
    for plot in (plot_interactions, plot_words, plot_matrix, plot_connections):
        assert inside(plot(imap)[0])


@pytest.mark.parametrize(
    "axis",
    [
        image_axis((37, 37), (370, 370)),
        image_axis((2, 14), (40, 280)),
        image_axis((14, 2), (280, 40)),
        audio_axis(),
    ],
    ids=["fine", "wide", "tall", "sound"],
)
def test_any_shape(axis):
    for figure, _ in every_figure(make(axis, text_axis())):
        assert inside(figure)
        plt.close(figure)


def test_two_images_and_tokens_without_meaning():
    for axis in (image_axis(), TokenAxis.numbered(3)):
        imap = make(image_axis(), axis)
        assert inside(plot_connections(imap, 3)[0])
        assert inside(plot_matrix(imap)[0])


VIEWS = {
    "pair": lambda imap: plot_interactions(imap, "red"),
    "first order": lambda imap: plot_interactions(first_order(imap)),
    "heatmap": lambda imap: plot_heatmap(imap, "red"),
    "words": lambda imap: plot_words(imap),
    "phrases": lambda imap: plot_phrase_grid(imap),
    "methods": lambda imap: plot_comparison({"Second order": imap, "First": first_order(imap)}),
    "selections": lambda imap: plot_comparison({"Second order": imap}, ["red", "star"]),
    "matrix": lambda imap: plot_matrix(imap),
    "connections": lambda imap: plot_connections(imap),
    "waterfall": lambda imap: plot_waterfall(imap),
}


@pytest.mark.parametrize("name", VIEWS)
def test_letters_can_be_read_on_a_phone(name):
    """At least seven pixels high where a figure is 360 pixels wide, with twelve rows of patches."""
    axis = image_axis((12, 12), (120, 120))
    imap = make(axis, text_axis("a red star to the left of one more very blue circle"))
    figure, _ = VIEWS[name](imap)
    assert smallest_letters(figure) >= 7


@pytest.mark.parametrize("name", VIEWS)
def test_negative_numbers_have_the_minus_sign_of_axes(name):
    imap = make(image_axis(), text_axis(), lambda values: -values.abs())
    figure, _ = VIEWS[name](replace(imap, score=-0.5))
    figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert not [text for text in texts if re.search(r"-\.?\d", text)]
    assert any("−" in text or "±" in text for text in texts)


@pytest.mark.parametrize("share", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_the_scale_has_the_colours_of_the_map(share):
    """Also at zero, where both show the grey of the image and not white."""
    image = Image.new("RGB", (40, 40), (127, 127, 127))
    figure, ax = plot_heatmap(np.full((2, 2), share), image=image, limit=1.0)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3].astype(int)
    x, y = ax.transAxes.transform((0.25, 0.25)).astype(int)
    bar = figure.axes[-1] if len(figure.axes) > 1 else ax.child_axes[0]
    beside = bar.transAxes.transform((0.5, 0.5 + 0.49 * share)).astype(int)
    assert np.abs(pixels[y, x] - pixels[beside[1], beside[0]]).max() <= 12


def test_words_and_patches_name_their_scales():
    imap = make(image_axis(), text_axis())
    figure, ax = plot_interactions(imap, "red")
    largest = max(abs(weight) for _, weight in imap.word_weights())
    texts = [axes.get_title("left") for axes in figure.axes]
    assert f"Words: the strongest colour is ±{largest:.2g}" in texts
    assert any(one.get_ylabel() == "per patch" for one in ax.child_axes)


def test_a_first_order_map_frames_no_phrase():
    _, ax = plot_interactions(first_order(make(image_axis(), text_axis())), "red")
    assert ax.get_title().replace("\n", " ").startswith("Grad-CAM (first order), score")
    assert all(
        box is None or box.get_edgecolor()[3] == 0
        for axes in ax.get_figure().axes
        for box in (text.get_bbox_patch() for text in axes.texts)
    )
