"""Values that are no larger than rounding errors say so, and have no colour anywhere."""

from __future__ import annotations

import re
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch

from captum_interactions import InteractionMap, explain, wrap
from captum_interactions.maps.base import ROUNDING
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.visualization import (
    plot_comparison,
    plot_connections,
    plot_heatmap,
    plot_interactions,
    plot_matrix,
    plot_phrase_grid,
    plot_words,
    visualization_data_record,
    visualize_image_attr,
)
from captum_interactions.visualization.report import report_html
from tests.pages import page_data, picture_and_text

matplotlib.use("Agg")
NOTE = "(no larger than rounding)"


@pytest.fixture
def noise() -> InteractionMap:
    """A map of a cosine whose interactions are noise; constant and main effects are not."""
    imap = picture_and_text("a red circle")
    return replace(
        imap,
        interactions=imap.interactions * 1e-8,
        main_effects_a=imap.main_effects_a * 0.01,
        main_effects_b=imap.main_effects_b * 0.01,
        constant=0.2,
        settings={"attribution": "lifted", "layers": [2, 2]},
    )


@pytest.fixture
def first(noise) -> FirstOrderMap:
    return FirstOrderMap(
        noise.marginal_a(), noise.marginal_b(), 0.3, noise.axis_a, noise.axis_b,
        {"attribution": "input_x_gradient", "layers": [2, 2]},
    )  # fmt: skip


def test_the_size_of_rounding_errors():
    """Of a score: products of a thousand numbers in float32, added up, err by about that much."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 500, 1024, generator=generator)
    errors = (a * b).sum(1) - (a.double() * b.double()).sum(1)
    sizes = a.double().norm(dim=1) * b.double().norm(dim=1)  # of the cosines' denominators
    assert (errors.abs() / sizes).max() < ROUNDING


def test_which_values_are_at_rounding(noise, first):
    assert noise.at_rounding == ("interactions",)
    assert first.at_rounding == ("input a", "input b")
    sums = noise.axis_b.sum_units(noise.marginal_b().numpy())
    assert 0 < np.abs(sums).max() < noise.rounding
    one_side = replace(first, attributions_b=first.attributions_b * 1e8)
    assert one_side.at_rounding == ("input a",)
    assert replace(first, attributions_b=None).at_rounding == ("input a",)
    assert picture_and_text("a red circle").at_rounding == ()
    zero = replace(noise, interactions=torch.zeros_like(noise.interactions))
    assert zero.at_rounding == ()  # nothing to take for something


def test_the_scale_of_a_map_is_that_of_its_score(noise):
    assert noise.scale == 1.0
    products = replace(noise, settings={"layers": [2, 2], "normalization": "none"})
    sizes = (products.score, products.constant, *(float(m.sum()) for m in (
        products.main_effects_a, products.main_effects_b)))  # fmt: skip
    assert products.scale == max(map(abs, sizes))
    tiny = replace(
        products, score=1e-9, constant=1e-9, main_effects_a=noise.main_effects_a * 0,
        main_effects_b=noise.main_effects_b * 0,
    )  # fmt: skip
    assert tiny.at_rounding == ()  # interactions of 1e-8 are larger than such a score


def test_repr_says_so(noise, first):
    assert "no larger than rounding errors: interactions (up to 4e-06)" in repr(noise)
    assert "no larger than rounding errors: input a and input b" in repr(first)
    assert "rounding" not in repr(picture_and_text("a red circle"))


FIGURES = {
    "heatmap": lambda imap: plot_heatmap(imap)[1],
    "pair": lambda imap: plot_interactions(imap)[1],
    "words": lambda imap: plot_words(imap)[1],
    "phrases": lambda imap: plot_phrase_grid(imap, ["red"])[1][0],
    "comparison": lambda imap: plot_comparison({"method": imap})[1][0],
}


@pytest.mark.parametrize("plot", FIGURES.values(), ids=FIGURES)
def test_figures_of_both_orders(noise, first, plot):
    for imap in (noise, first):
        ax = plot(imap)
        assert NOTE in ax.get_title().replace("\n", " ")
        for image in ax.images:
            drawn = np.asarray(image.get_array())
            if drawn.ndim == 2 and image.get_clim()[0] < 0:
                assert image.get_clim() == (-1.0, 1.0)
        colours = [t.get_bbox_patch().get_facecolor() for t in ax.texts if t.get_bbox_patch()]
        assert all(min(colour[:3]) > 0.95 for colour in colours)
    assert NOTE not in plot(picture_and_text("a red circle")).get_title().replace("\n", " ")


def test_figures_of_pairs(noise):
    _, ax = plot_matrix(noise)
    assert NOTE in ax.get_title().replace("\n", " ")
    assert ax.images[0].get_clim() == (-1.0, 1.0)
    _, ax = plot_connections(noise)
    assert ax.get_title().startswith("0 strongest of 18 pairs")
    assert not ax.lines


def test_captums_views(noise):
    _, ax = visualize_image_attr(noise, method="heat_map")
    assert all(np.abs(np.asarray(image.get_array())).max() <= 255 for image in ax.images)
    assert not any(image.get_clim()[0] < 0 for image in ax.images)  # the picture alone
    record = visualization_data_record(noise)
    assert np.abs(record.word_attributions).max() < 1e-5


def test_pages(noise, first):
    for imap, said in (
        (noise, "The interactions are no larger than rounding errors (up to 4e-06)"),
        (first, "The values of the image and values of the text are no larger than rounding"),
    ):
        page = report_html([imap])
        assert said in page
        (map_,) = page_data(page)["pairs"][0]["maps"]
        assert (map_["rounding"], map_["scale"]) == (imap.rounding, 1.0)
        shares = [
            float(share) for share in re.findall(r'class="word[^"]*" style="--w:([\d.]+)', page)
        ]
        assert shares == [0.0] * 3
    assert "larger than rounding errors (up" not in picture_and_text("a red circle").to_html()


def test_explain_warns_of_a_model_that_ignores_its_input():
    torch.manual_seed(0)
    a, b = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    point = torch.tensor([1.0, -2.0, 0.5])
    wrapper = wrap((lambda x: point + 1e-8 * a(x), b))
    pair = torch.rand(1, 4), torch.rand(1, 4)
    with pytest.warns(UserWarning, match=r"interactions no larger than rounding errors \(up to 4e"):
        imap = explain(wrapper, *pair, n_steps=2)
    assert imap.at_rounding == ("interactions",)
    with pytest.warns(UserWarning, match="integrated_gradients: input a no larger than rounding"):
        explain(wrapper, *pair, "integrated_gradients")
