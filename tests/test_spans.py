"""Maps of some spans alone: the same values as whole maps have there, for fewer products."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_interactions import explain_batch, wrap
from captum_interactions.axes import TextAxis
from captum_interactions.evaluation.studies.passes import counted_passes
from tests import models

# Random weights bend paths so much that few nodes miss the score, which warns.
pytestmark = pytest.mark.filterwarnings("ignore:attributions sum to")

CAPTIONS = ["a red circle and a dred circle", "a red circle", "red circle a"]
SPANS = [[(2, 12), (19, 30), (6, 12)], [(2, 12)], [(0, 3), (4, 10)]]


def axis(text, spans):
    none = (False,) * len(spans)
    special = (True, *none[2:], True)
    return TextAxis(tuple(map(str, range(len(spans)))), special, none, text, spans)


def test_merged_tokens_by_hand():
    text = "big old cat sat on mats"
    whole = axis(
        text, (None, (0, 3), (4, 7), (8, 11), (12, 15), (16, 18), (19, 22), (22, 23), None)
    )
    weights, merged = whole.merged([(0, 11), (4, 7), (19, 23)])
    assert merged.labels == ("big", "old", "cat", "mats", "[others]")
    assert merged.spans == ((0, 3), (4, 7), (8, 11), (19, 23), None)
    assert merged.special == (False,) * 4 + (True,)
    assert [np.flatnonzero(row).tolist() for row in weights] == [
        [1], [2], [3], [6, 7], [0, 4, 5, 8]
    ]  # fmt: skip
    for span in ((0, 11), (4, 7), (19, 23)):
        assert (merged.select(span) @ weights == whole.select(span)).all()
    nothing, rest = whole.merged([])
    assert (len(rest), nothing.sum()) == (1, 9)


@pytest.mark.parametrize("name", ["second_order_integrated_gradients", "banzhaf_interactions"])
def test_the_same_values_as_of_whole_maps(name):
    wrapper = wrap(*models.clip_with_processor())
    images = list(models.images(3).unsqueeze(1))
    options = {"layers": (0, 0)} if name.startswith("second") else {"n_samples": 64}
    whole = explain_batch(wrapper, images, CAPTIONS, name, **options)
    some = explain_batch(wrapper, images, CAPTIONS, name, spans=SPANS, **options)
    for one, other, spans in zip(some, whole, SPANS, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-6)
        assert one.convergence_delta == pytest.approx(other.convergence_delta, abs=1e-5)
        # Sums of a few dozen terms of the map's size, in float32.
        close = {"rtol": 0, "atol": 1e-5 * float(other.interactions.abs().max())}
        for span in spans:
            torch.testing.assert_close(
                torch.from_numpy(one.heatmap(span)), torch.from_numpy(other.heatmap(span)), **close
            )
        torch.testing.assert_close(one.main_effects_a, other.main_effects_a, rtol=0, atol=1e-5)
        is_merged = name.startswith("second")
        assert (len(one.axis_b) < len(other.axis_b)) == is_merged


def test_few_spans_take_few_products():
    wrapper = wrap(*models.clip_with_processor())
    image = models.images(1)
    with counted_passes(wrapper) as (pixels, _):
        explain_batch(wrapper, [image], CAPTIONS[:1], spans=[[(2, 12)]], layers=(0, 0), n_steps=4)
    # At each node, a gradient for the phrase, for all others, and for the main effects.
    assert pixels.backward == pytest.approx(4 * 3)


def test_spans_of_other_pairs_are_refused():
    wrapper = wrap(*models.clip_with_processor())
    with pytest.raises(ValueError, match="one sequence of ranges per pair, .* for 2 pairs"):
        explain_batch(wrapper, ["a", "b"], CAPTIONS[:2], spans=[[(2, 12)]])
    with pytest.raises(TypeError, match="has no option groups_b"):
        explain_batch(wrapper, [models.images(1)], CAPTIONS[:1], groups_b=[[0]])
