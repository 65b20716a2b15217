"""The result object: sums over selections, its story, and its round trips."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from captum_interactions import InteractionMap
from captum_interactions.encoders import Frame, ImageAxis, TextAxis, TokenAxis

TEXT = "a red circle"


@pytest.fixture
def imap() -> InteractionMap:
    """A 2 × 3 grid of 4-pixel patches and seven caption tokens, with values to add by eye."""
    image = Image.fromarray(np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3))
    axis_a = ImageAxis.of_grid((2, 3), (4, 4), Frame.identity((8, 12)), image, before=("[class]",))
    axis_b = TextAxis(
        labels=("<s>", "a", "red", "cir", "cle", "<e>", "<pad>"),
        special=(True, False, False, False, False, True, False),
        padding=(False,) * 6 + (True,),
        text=TEXT,
        spans=(None, (0, 1), (2, 5), (6, 9), (9, 12), None, None),
    )
    interactions = torch.zeros(7, 7)
    interactions[1, 2] = 1.0  # upper left patch, "red"
    interactions[1, 3] = 0.5  # upper left patch, "cir"
    interactions[1, 4] = 0.25  # upper left patch, "cle"
    interactions[6, 2] = -2.0  # lower right patch, "red"
    interactions[0, 5] = 4.0  # class token, end token
    return InteractionMap(
        interactions=interactions,
        main_effects_a=torch.full((7,), 0.125),
        main_effects_b=torch.full((7,), -0.25),
        constant=0.5,
        score=0.5 + 7 * 0.125 - 7 * 0.25 + 3.75 - 0.01,
        convergence_delta=0.01,
        axis_a=axis_a,
        axis_b=axis_b,
        settings={"n_steps": 20, "layers": [0, 0]},
    )


@pytest.mark.parametrize(
    ("selection", "upper_left", "lower_right"),
    [
        ("red", 1.0, -2.0),
        ("Circle", 0.75, 0.0),
        ("red circle", 1.75, -2.0),
        ((6, 12), 0.75, 0.0),
        (slice(3, 5), 0.75, 0.0),
        ([2], 1.0, -2.0),
        (None, 1.75, -2.0),
    ],
)
def test_heatmap_sums_selected_tokens(imap, selection, upper_left, lower_right):
    heat = imap.heatmap(selection)
    assert heat.shape == (2, 3)
    assert heat[0, 0] == upper_left
    assert heat[1, 2] == lower_right
    assert heat.sum() == upper_left + lower_right


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ((0, 0, 4, 4), [("a", 0.0), ("red", 1.0), ("circle", 0.75)]),
        ((0, 0, 2, 4), [("a", 0.0), ("red", 0.5), ("circle", 0.375)]),
        ((0, 0, 12, 8), [("a", 0.0), ("red", -1.0), ("circle", 0.75)]),
        ([6], [("a", 0.0), ("red", -2.0), ("circle", 0.0)]),
    ],
)
def test_word_weights_of_a_region(imap, region, expected):
    assert imap.word_weights(region) == expected


def test_a_mask_selects_what_its_box_selects(imap):
    mask = np.zeros((8, 12), bool)
    mask[3:8, 6:12] = True
    assert imap.word_weights(mask) == imap.word_weights((6, 3, 12, 8))


def test_between_is_consistent_with_both_marginals(imap):
    box = (0, 0, 4, 4)
    assert imap.between(box, "circle") == 0.75
    assert imap.between(box) == pytest.approx(float(imap.marginal_b(box).sum()))
    assert imap.between(b="red") == pytest.approx(float(imap.marginal_a("red").sum()))
    assert imap.between() == pytest.approx(float(imap.interactions.sum()))


def test_top_pairs_merge_words_and_leave_special_tokens_out(imap):
    assert imap.top_pairs(3) == [
        ("patch 1,2", "red", -2.0),
        ("patch 0,0", "red", 1.0),
        ("patch 0,0", "circle", 0.75),
    ]
    assert len(imap.top_pairs(10_000)) == 6 * 3


def test_repr_tells_the_four_parts_and_the_strongest_pairs(imap):
    story = repr(imap)
    for fact in (
        repr(TEXT), "2 × 3 patches", "constant +0.500", "main effects a +0.875",
        "main effects b -1.750", "interactions +3.750", "1.0e-02",
        "'red' × patch 0,0 +1.0000", "'red' × patch 1,2 -2.0000",
    ):  # fmt: skip
        assert fact in story
    assert max(map(len, story.splitlines())) <= 88


def test_repr_folds_a_long_caption(imap):
    text = "a red circle " * 20
    lines = repr(replace(imap, axis_b=replace(imap.axis_b, text=text))).splitlines()
    assert max(map(len, lines)) <= 88
    assert " ".join(map(str.strip, lines)).startswith(
        f"InteractionMap of an image of 2 × 3 patches and {text.strip()!r}"[:-1]
    )


def test_exports(imap):
    array = imap.to_numpy()
    array[:] = 0  # a copy: the map keeps its values
    frame = imap.to_dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert frame.loc["patch 1,2", "red"] == -2.0
    assert frame.shape == (7, 7)


def test_save_and_load_give_the_same_map(imap, tmp_path):
    path = tmp_path / "map.safetensors"
    imap.save(path)
    loaded = InteractionMap.load(path)
    assert repr(loaded) == repr(imap)
    assert loaded.settings == imap.settings
    assert loaded.axis_b == imap.axis_b
    assert loaded.axis_a.frame == imap.axis_a.frame
    assert loaded.axis_a.image.tobytes() == imap.axis_a.image.tobytes()
    for name in ("interactions", "main_effects_a", "main_effects_b"):
        assert torch.equal(getattr(loaded, name), getattr(imap, name))


def test_save_and_load_of_plain_axes(tmp_path):
    axis = TokenAxis.numbered(2)
    zeros = torch.zeros(2)
    imap = InteractionMap(torch.eye(2), zeros, zeros, 0.0, 2.0, 0.0, axis, axis)
    imap.save(tmp_path / "map")
    assert InteractionMap.load(tmp_path / "map").axis_a == axis
    with pytest.raises(
        TypeError, match="neither input is an image or a sound.*TokenAxis and TokenAxis"
    ):
        imap.heatmap()


def test_load_refuses_what_is_not_a_map(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        InteractionMap.load(tmp_path / "nowhere.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        InteractionMap.load(tmp_path / "text")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="is not an interaction map"):
        InteractionMap.load(tmp_path / "other")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda m: m.heatmap("blue"), "'blue' does not occur in 'a red circle'"),
        (lambda m: m.heatmap(""), "does not occur"),
        (lambda m: m.heatmap((5, 5)), r"\(5, 5\) is not a character span"),
        (lambda m: m.heatmap((5, 6)), "no token covers ' '"),
        (lambda m: m.heatmap([99]), "token 99 does not exist: there are 7"),
        (lambda m: m.word_weights((4, 4, 4, 8)), "x0 < x1 and y0 < y1"),
        (lambda m: m.word_weights((20, 0, 30, 8)), "sees nothing of the selected region"),
        (lambda m: m.word_weights(np.ones((3, 3))), r"\(8, 12\), but got shape \(3, 3\)"),
    ],
)
def test_bad_selections_say_what_came(imap, use, message):
    with pytest.raises(ValueError, match=message):
        use(imap)


def test_shapes_must_fit_the_axes(imap):
    with pytest.raises(ValueError, match=r"7 and 7 tokens.*\(6, 7\)"):
        InteractionMap(
            imap.interactions[1:], imap.main_effects_a, imap.main_effects_b, 0.0, 0.0, 0.0,
            imap.axis_a, imap.axis_b,
        )  # fmt: skip


def test_equal_words_are_told_apart_in_the_summary(imap):
    axis = replace(imap.axis_b, text="a red a", spans=(None, (0, 1), (2, 5), (6, 7), *(None,) * 3))
    values = torch.zeros(7, 7)
    values[1, 1], values[2, 3], values[3, 2] = 3.0, 2.0, 1.0
    story = repr(replace(imap, axis_b=axis, interactions=values))
    assert "'a' (1 of 2) × patch 0,0 +3.0000, 'a' (2 of 2) × patch 0,1 +2.0000,\n    'red'" in story
