"""The units of a map sum to its tokens that are not special, and so does whatever shows them.

Values are whole numbers, so that every sum is exact in float32, in any order.
"""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pytest
import torch

from captum_interactions import InteractionMap
from captum_interactions.encoders import Frame, ImageAxis
from captum_interactions.encoders.inputs.texts import tokenize
from captum_interactions.evaluation.units import by_unit
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.visualization import (
    plot_connections,
    plot_matrix,
    plot_words,
    visualization_data_record,
)
from captum_interactions.visualization.words import weights_of
from tests import tokenizers
from tests.axes.test_words import SHARED, SPACED, UNSPACED, typed
from tests.pages import page_data, stored_values

TEXTS = [*SHARED, *SPACED, *UNSPACED]
IMAGE = ImageAxis.of_grid((2, 2), (4, 4), Frame.identity((8, 8)), before=("[class]",))
BOX = (0, 0, 8, 4)
"""The upper row of patches."""


def map_of(axis, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def whole(*shape):
        return torch.randint(-9, 10, shape, generator=generator).float()

    parts = whole(len(IMAGE), len(axis)), whole(len(IMAGE)), whole(len(axis))
    total = 3.0 + sum(float(part.sum()) for part in parts)
    return InteractionMap(*parts, 3.0, total, 0.0, IMAGE, axis, {"attribution": "test"})


@pytest.fixture(scope="module", params=tokenizers.FAST)
def maps(request):
    tokenizer = tokenizers.FAST[request.param]()
    axes = tokenize(tokenizer, [*TEXTS, *typed(tokenizer)])[2]
    return [map_of(axis, seed) for seed, axis in enumerate(axes)]


def own(axis):
    """Tokens that are neither special nor padding."""
    return [t for t, skip in enumerate(map(max, axis.special, axis.padding)) if not skip]


def expected(imap):
    """Values of the words of the caption with the patches of the box, and with all of the image."""
    columns = imap.interactions[:, own(imap.axis_b)]
    return float(columns[1:3].sum()), float(columns.sum())


def test_words_of_a_map(maps):
    for imap in maps:
        with_box, with_all = expected(imap)
        assert sum(weight for _, weight in imap.word_weights(BOX)) == with_box
        assert sum(weight for _, weight in imap.word_weights()) == with_all
        first = FirstOrderMap(None, imap.marginal_b(BOX), 1.0, IMAGE, imap.axis_b)
        assert sum(weight for _, weight in first.word_weights()) == with_box


def test_units_of_a_map(maps):
    for imap in maps:
        total = float(imap.interactions[1:][:, own(imap.axis_b)].sum())
        assert float(imap.by_unit().sum()) == total
        assert sum(pair.attribution for pair in imap.top_pairs(10**6)) == total
        parts = by_unit(imap)
        assert float(parts.interactions.sum()) == float(imap.interactions.sum())
        assert float(parts.interactions[:, :-1, :-1].sum()) == total
        assert float(parts.main_effects_b.sum()) == float(imap.main_effects_b.sum())


def test_exports(maps):
    shapiq = pytest.importorskip("shapiq")
    for imap in maps:
        values = imap.to_shapiq()
        assert isinstance(values, shapiq.InteractionValues)
        assert sum(values.interactions.values()) == imap.score
        pairs = [value for players, value in values.interactions.items() if len(players) == 2]
        assert sum(pairs) == float(imap.by_unit().sum())
        frame = imap.to_dataframe().to_numpy()
        assert frame[1:, own(imap.axis_b)].sum() == float(imap.by_unit().sum())


def test_pages(maps):
    for imap in maps:
        (map_,) = page_data(imap.to_html())["pairs"][0]["maps"]
        values = stored_values(map_["values"]).reshape(map_["tokens"])[1:3].sum(0)
        words = [[values[token] for token in word["tokens"]] for word in map_["b"]["words"]]
        assert sum(map(sum, words)) == expected(imap)[0]
        assert list(map(sum, words)) == [weight for _, weight in imap.word_weights(BOX)]


def test_values_of_figures(maps):
    for imap in maps:
        with_box = expected(imap)[0]
        weights = weights_of(imap.axis_b, imap.marginal_b(BOX).numpy())
        assert float(weights.sum()) == with_box
        assert visualization_data_record(imap, BOX).attr_score == with_box


@pytest.mark.parametrize("kind", ["BERT", "XLM-R"])
def test_titles_of_figures(kind):
    (axis,) = tokenize(tokenizers.FAST[kind](), SHARED[0])[2]
    imap = map_of(axis)
    total = float(imap.by_unit().sum())
    for plot, value in (
        (plot_matrix, total),
        (lambda source: plot_connections(source, 10**6), total),
        (lambda source: plot_words(source, BOX), expected(imap)[0]),
    ):
        figure, ax = plot(imap)
        shown = float(re.findall(r"[+-][\d.e+-]+", ax.get_title().replace("\n", " "))[-1])
        assert shown == pytest.approx(value, rel=5e-3, abs=5e-4)  # three digits are written
        matplotlib.pyplot.close(figure)


def test_padding_is_no_unit():
    axes = tokenize(tokenizers.FAST["BERT"](), ["a red circle on the table", "a hat"])[2]
    imap = map_of(axes[1])
    assert sum(axes[1].padding) > 0
    assert np.isclose(sum(weight for _, weight in imap.word_weights(BOX)), expected(imap)[0])
