"""Paths of the text: where they lead, and what their maps are."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from captum_interactions import explain, wrap
from captum_interactions.attr import SecondOrderIntegratedGradients
from captum_interactions.attr._utils.inputs import paths_of_pairs
from captum_interactions.datasets.scene_records import SceneRecords
from captum_interactions.datasets.scenes import CAPTION_WORDS
from captum_interactions.evaluation import Row
from captum_interactions.evaluation.studies import text_paths
from captum_interactions.evaluation.studies.ablations import Ablations
from captum_interactions.evaluation.studies.text_paths import (
    PATHS,
    _ends,
    _moving,
    compared,
    explain_along,
)
from tests import models
from tests.evaluation.test_perturbation import record

# Random weights bend paths so much that few nodes miss the score, which warns.
pytestmark = pytest.mark.filterwarnings("ignore:attributions sum to")
LAYERS = (0, 0)


@pytest.fixture(scope="module")
def wrapper():
    return wrap(*models.clip_with_processor()).double()


@pytest.fixture(scope="module")
def path(wrapper):
    pair = wrapper.prepare(record().image, record().caption)
    return paths_of_pairs(
        wrapper, LAYERS, pair.inputs, None, pair.additional_forward_args, normalization="cosine"
    )[1]


def along(wrapper, name, n_steps=8, **options):
    return explain_along(wrapper, record(), name, layers=LAYERS, n_steps=n_steps, **options)


@pytest.mark.parametrize("name", PATHS)
def test_paths_lead_from_the_baseline_to_the_text(path, name):
    start, end = _ends(path)
    lines = PATHS[name](path)
    assert lines.dim() == 4
    for line in lines:
        torch.testing.assert_close(line[0], start)
        assert torch.equal(line[-1], end)
        assert torch.equal(line[:, 0], start[:1].expand(len(line), -1))  # a special token rests


def test_one_word_goes_at_a_time(path):
    n_words = len(_moving(path))
    for name, order in (("left_to_right", _moving(path)), ("right_to_left", _moving(path)[::-1])):
        (line,) = PATHS[name](path)
        moves = [(a != b).any(-1).nonzero().flatten().tolist() for a, b in itertools.pairwise(line)]
        assert moves == [[token] for token in order]
    orders = PATHS["random_orders"](path)
    assert orders.shape[:2] == (8, n_words + 1)
    assert len({tuple(order.flatten().tolist()) for order in orders}) > 1


def test_words_of_the_vocabulary_are_other_words(path):
    start, end = _ends(path)
    ids = text_paths._nearest_words(path)
    tokenizer = path.tower.tokenizer
    for token in _moving(path):
        words = {tokenizer.decode([i]).strip() for i in ids[:, token].tolist()}
        assert words <= set(CAPTION_WORDS)
        assert tokenizer.decode(path.inputs[0, token]).strip() not in words
    (line,) = PATHS["vocabulary"](path)
    states = path.tower.features(0, ids, *(extra.expand(3, -1) for extra in path.extras))[0]
    assert torch.equal(line, torch.stack([start, *states, end]))
    (monotone,) = PATHS["monotone_vocabulary"](path)
    assert (monotone.diff(dim=0) * (end - start) >= 0).all()
    assert not (line.diff(dim=0) * (end - start) >= 0).all()


@torch.no_grad()
def test_the_word_in_the_middle_by_hand(path):
    start, end = (one[_moving(path)[-1]] for one in _ends(path))
    own = int(path.inputs[0, _moving(path)[-1]])
    distances = {}
    for word in text_paths._words(path.tower).tolist():
        text = path.inputs.clone()
        text[0, _moving(path)[-1]] = word
        state = path.tower.features(0, text, *path.extras)[0][0, _moving(path)[-1]]
        distances[word] = float((state - (start + end) / 2).norm())
    distances.pop(own, None)
    nearest = int(text_paths._nearest_words(path)[1, _moving(path)[-1]])
    assert nearest == min(distances, key=distances.get)


def test_curves(path):
    start, end = _ends(path)
    half = (end - start).norm(dim=-1) / 2
    (arc,) = PATHS["arc"](path)
    distances = (arc - (start + end) / 2).norm(dim=-1)
    torch.testing.assert_close(distances, half.expand_as(distances))
    (line,) = PATHS["speeds"](path)
    shares = [(line[4] - start)[t].norm() / (end - start)[t].norm() for t in _moving(path)]
    assert shares == sorted(shares, reverse=True)
    torch.testing.assert_close(shares[0], torch.tensor(0.5 ** (1 / 3)).double())
    torch.testing.assert_close(shares[-1], torch.tensor(0.5**3).double())


def test_the_straight_path_is_the_method(wrapper):
    imap = explain(wrapper, record().image, record().caption, layers=LAYERS, n_steps=8)
    for other in along(wrapper, "straight"):
        torch.testing.assert_close(
            torch.tensor(other.heatmap("red circle")), torch.tensor(imap.heatmap("red circle"))
        )
        assert other.convergence_delta == pytest.approx(imap.convergence_delta, abs=1e-12)
        assert other.score == pytest.approx(imap.score, abs=1e-12)


@pytest.mark.parametrize("name", PATHS)
def test_every_path_is_complete(wrapper, name):
    """Errors vanish with nodes, which converge geometrically in double precision."""
    few, many = (abs(along(wrapper, name, n)[0].convergence_delta) for n in (16, 256))
    assert many < max(1e-3 * few, 1e-12)


def test_two_halves_of_the_straight_path(wrapper, monkeypatch):
    """They differ by the errors of both, which the same paths at half of the nodes bound."""

    def halves(path):
        start, end = _ends(path)
        return torch.stack([start, (start + end) / 2, end]).unsqueeze(0)

    monkeypatch.setattr(text_paths, "PATHS", {**PATHS, "halves": halves})
    by_nodes = [[one.interactions for one in along(wrapper, "halves", n)] for n in (32, 64)]
    errors = sum((few - many).abs().max() for few, many in zip(*by_nodes, strict=True))
    rounding = torch.finfo(torch.float32).eps * by_nodes[1][1].abs().max()  # of maps
    assert (by_nodes[1][0] - by_nodes[1][1]).abs().max() <= errors + rounding


def test_words_one_at_a_time_by_hand(wrapper):
    """A word's factor is the difference of the embeddings with and without it."""
    pair = wrapper.prepare(record().image, record().caption)
    ids, extras = pair.inputs[1], pair.additional_forward_args[-1:]
    baseline = wrapper.tower_b.baseline(ids, *extras)
    moving = (ids != baseline)[0].nonzero().flatten().tolist()
    texts = [baseline]
    for token in moving:
        texts.append(texts[-1].clone())
        texts[-1][0, token] = ids[0, token]
    with torch.no_grad():
        embeddings = torch.cat([wrapper.encode_b(one, *extras) for one in texts])
    steps = torch.nn.functional.normalize(embeddings, dim=-1).diff(dim=0)
    soig = SecondOrderIntegratedGradients(wrapper, LAYERS)
    phi = soig.factors_a(pair.inputs[0], n_steps=8).values[0]
    (_, *phrase) = moving  # all but "a"
    own = steps[[moving.index(token) for token in phrase]].sum(0)
    found = along(wrapper, "left_to_right")[0].marginal_a("red circle")
    torch.testing.assert_close(found, (phi @ own).float())


def test_comparison_of_maps(wrapper):
    straight = along(wrapper, "straight")[1]
    (same,) = compared(straight, straight, record())
    assert same == {"correlation": pytest.approx(1), "moved": False, "flipped": False}
    mirrored = type(straight)(**{**vars(straight), "interactions": -straight.interactions})
    (opposite,) = compared(mirrored, straight, record())
    assert opposite == {"correlation": pytest.approx(-1), "moved": True, "flipped": True}


def test_settings_and_their_table(wrapper):
    name = "text_path=left_to_right"
    study = Ablations(varied=("default", f"{name},n_steps=4,layers=[0,0]"))
    (values,) = study.measure(wrapper, f"{name},n_steps=4,layers=[0,0]", [record()])
    imap, straight = along(wrapper, "left_to_right", 4)
    assert values["delta"] == pytest.approx(imap.convergence_delta)
    assert values["changes"] == compared(imap, straight, record())
    (default,) = study.measure(wrapper, "default", [record()])
    other = {**values, "changes": [{"correlation": 0.5, "moved": True, "flipped": False}]}
    rows = [
        Row("r0", "default", 0, "measured", default, seconds=1.0),
        Row("r0", name, 0, "measured", values, seconds=1.0),
        Row("r1", name, 1, "measured", other, seconds=1.0),
    ]
    table = study.summarise(rows, []).tables["text_paths"]
    plain, changed = (dict(zip(table.columns, cells, strict=True)) for cells in table.rows)
    assert plain["setting"] == "default"
    assert plain["correlation"] is None
    (own,) = values["changes"]
    assert changed["correlation"] == pytest.approx((own["correlation"] + 0.5) / 2)
    assert changed["other strongest patch"] == (own["moved"] + 1) / 2
    assert changed["phrases"] == 2


def test_errors(wrapper):
    for text, message in (
        ("text_path=zigzag", "text_path must be one of straight, .*, but got 'zigzag'"),
        ("text_path=arc,n_steps=auto", "n_steps must be an int, but got 'auto'"),
        ("text_path=arc,tolerance=0.1", "can be combined with .*, but got tolerance"),
    ):
        with pytest.raises(ValueError, match=message):
            Ablations(varied=(text,))


def test_every_path_at_later_layers(wrapper):
    for name in PATHS:
        imap = explain_along(wrapper, record(), name, layers=(-1, -1), n_steps=64)[0]
        assert abs(imap.convergence_delta) < 1e-3 * abs(imap.score - imap.constant)


def test_no_word_of_the_vocabulary(wrapper, monkeypatch):
    monkeypatch.setattr(text_paths, "CAPTION_WORDS", ("qzxqzxw", "xwqqzz"))
    with pytest.raises(ValueError, match="none of the words qzxqzxw, xwqqzz, ... is a single"):
        along(wrapper, "vocabulary")


def test_words_of_captions():
    words = {word for one in SceneRecords(300, seed=5) for word in re.findall(r"\w+", one.caption)}
    assert words <= set(CAPTION_WORDS)
