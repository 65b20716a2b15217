"""Banzhaf and Shapley interactions of encoders against the game of all tokens, played in full."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_interactions import CallableTower, explain, wrap
from captum_interactions.attr import ATTRIBUTIONS, BanzhafInteractions, ShapleyInteractions
from tests import corpora, game_oracle, models
from tests.attr.test_model_untouched import FuseError, state

TERMS = ("main_effects_a", "main_effects_b", "interactions", "intra_a", "intra_b")
INDICES = {
    "banzhaf 0.5": (lambda *a, **k: BanzhafInteractions(*a, **k), game_oracle.banzhaf(0.5)),
    "banzhaf 0.2": (lambda *a, **k: BanzhafInteractions(*a, p=0.2, **k), game_oracle.banzhaf(0.2)),
    "shapley": (ShapleyInteractions, game_oracle.shapley),
}
# Three groups of patches (tokens count the class token, cells do not), and four words.
PATCHES = [[1, 2, 3, 4], [5, 6], [7, 8, 9]]
CELLS = [[token - 1 for token in group] for group in PATCHES]
PIXELS, IDS = models.images().double(), models.caption(6)


@pytest.fixture(scope="module")
def clip_double():
    return models.clip().double()


@pytest.fixture(scope="module")
def sequences():
    """Two recurrent encoders of 3 and 4 tokens, in float64, and a pair for them."""
    encoders = models.Recurrent().double(), models.Recurrent(seed=1).double()
    generator = torch.Generator().manual_seed(3)
    pair = tuple(torch.randn(1, n, 4, generator=generator, dtype=torch.float64) for n in (3, 4))
    return encoders, pair


@pytest.fixture(params=INDICES)
def index(request):
    return INDICES[request.param]


def normalised(embeddings, whole, normalization):
    if normalization == "cosine":
        return embeddings / embeddings.norm(dim=-1, keepdim=True)
    return embeddings / whole.norm() if normalization == "frozen" else embeddings


def joint(encode_a, encode_b, n_a, n_b, normalization):
    """The score of a pair of which only some players are there; encoders take these."""
    whole = encode_a(range(n_a)), encode_b(range(n_b))

    def value(coalition):
        a = encode_a([player for player in coalition if player < n_a])
        b = encode_b([player - n_a for player in coalition if player >= n_a])
        ends = (normalised(x, w, normalization) for x, w in zip((a, b), whole, strict=True))
        return float((next(ends) * next(ends)).sum())

    return value


def image_without(model, groups):
    """Embedding of the image with pixels of absent groups at zero."""

    def encode(present):
        pixels = PIXELS.clone()
        for player, cells in enumerate(groups):
            for cell in cells if player not in present else ():
                row, column = divmod(cell, 3)
                pixels[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
        with torch.no_grad():
            return model.get_image_features(pixel_values=pixels).pooler_output[0]

    return encode


def caption_without(model, by):
    """Embedding of the caption with absent words replaced by padding, or not attended to."""

    def encode(present):
        ids, mask = IDS.clone(), torch.ones_like(IDS)
        for word in range(1, IDS.shape[1] - 1):
            if word - 1 not in present:
                if by == "baseline":
                    ids[0, word] = models.PAD
                else:
                    mask[0, word] = 0
        with torch.no_grad():
            return model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output[0]

    return encode


def sequence_without(encoder, tokens):
    def encode(present):
        kept = torch.tensor([float(i in present) for i in range(tokens.shape[1])])
        with torch.no_grad():
            return encoder(tokens * kept[:, None])[0]

    return encode


def check(game, expected, columns=slice(None)):
    for name in TERMS:
        actual = getattr(game, name)[0]
        for axis, side in enumerate(name[-1:] * 2 if "intra" in name else "ab"):
            if side == "b" and actual.dim() > axis:
                actual = actual.transpose(0, axis)[columns].transpose(0, axis)
        torch.testing.assert_close(actual, expected[name], rtol=0, atol=1e-6)
        assert getattr(game.standard_errors, name).count_nonzero() == 0


@pytest.mark.parametrize("normalization", ["cosine", "frozen", "none"])
def test_clip_against_brute_force(clip_double, index, normalization):
    make, weight = index
    value = joint(
        image_without(clip_double, CELLS), caption_without(clip_double, "baseline"), 3, 4,
        normalization,
    )  # fmt: skip
    expected = game_oracle.terms(value, 3, 4, weight)
    for layers, groups in ((None, PATCHES), (("input", 0), CELLS)):
        explainer = make(wrap(clip_double), layers, normalization=normalization)
        game = explainer.game((PIXELS, IDS), groups_a=groups, groups_b=[[1], [2], [3], [4]])
        check(game, expected)
        assert float(game.score) == pytest.approx(value(tuple(range(7))), abs=1e-6)
        assert float(game.baseline) == pytest.approx(value(()), abs=1e-6)
        assert game.n_encoded == (2**3, 2**4)


def test_removal_through_the_attention_mask(clip_double, index):
    make, weight = index
    encoders = image_without(clip_double, CELLS), caption_without(clip_double, "attention")
    for normalization in ("cosine", "frozen"):
        expected = game_oracle.terms(joint(*encoders, 3, 4, normalization), 3, 4, weight)
        explainer = make(wrap(clip_double), normalization=normalization)
        options = {"groups_a": PATCHES, "groups_b": [[1], [2], [3], [4]]}
        for mask in (None, torch.ones_like(IDS)):
            game = explainer.game(
                (PIXELS, IDS), None, mask, masking=("baseline", "attention"), **options
            )
            check(game, expected)


def test_recurrent_encoders_against_brute_force(sequences, index):
    encoders, pair = sequences
    make, weight = index
    sides = (sequence_without(e, x) for e, x in zip(encoders, pair, strict=True))
    expected = game_oracle.terms(joint(*sides, 3, 4, "cosine"), 3, 4, weight)
    game = make(wrap(encoders)).game(pair)
    check(game, expected)
    assert torch.equal(make(wrap(encoders)).attribute(pair), game.interactions)
    assert game.intra_a is not None
    assert make(wrap(encoders)).game(pair, intra=False).intra_a is None


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_the_grid_of_joint_scores_gives_the_same_map(clip_double, p, monkeypatch):
    """m_a × m_b scores of the model itself on the coalitions that were drawn."""
    from captum_interactions.attr._utils import coalition_games

    drawn = []

    def draw(*args):
        drawn.append(original(*args))
        return drawn[-1]

    original = coalition_games.draw_coalitions
    monkeypatch.setattr(coalition_games, "draw_coalitions", draw)
    wrapper = wrap(clip_double)
    banzhaf = BanzhafInteractions(wrapper, ("input", 0), p=p)
    ids = models.caption(8)
    actual = banzhaf.attribute((PIXELS, ids), n_samples=(36, 28))[0, :, 1:-1]
    members_a, members_b = drawn
    assert (members_a.shape, members_b.shape) == ((36, 9), (28, 6))

    cells = members_a.double().reshape(-1, 1, 3, 3)
    pixels = PIXELS * F.interpolate(cells, scale_factor=4, mode="nearest")
    kept = F.pad(members_b, (1, 1), value=True)
    captions = torch.where(kept, ids, models.PAD)
    with torch.no_grad():
        scores = torch.stack([wrapper(one.expand(28, -1, -1, -1), captions) for one in pixels])
    grid = torch.ones(36, 28, dtype=torch.float64)
    expected = game_oracle.grid_fit(scores, members_a.double() - p, members_b.double() - p, grid)
    torch.testing.assert_close(actual, expected[1:, 1:], rtol=0, atol=1e-9)
    as_published = game_oracle.grid_fit(scores, members_a.double(), members_b.double(), grid)
    torch.testing.assert_close(actual, as_published[1:, 1:], rtol=0, atol=1e-9)


def test_sampling_is_as_good_as_it_says(clip_double, index):
    make, _ = index
    explainer = make(wrap(clip_double))
    pair = PIXELS, models.caption(9)
    exact = explainer.game(pair, n_samples=2048)
    assert exact.n_encoded == (2**9, 2**7)
    n_inside, n_entries, ratios = 0, 0, []
    for seed in range(8):
        game = explainer.game(pair, n_samples=(300, 100), seed=seed)
        assert game.n_encoded[0] <= 302
        for name in TERMS:
            error, truth = getattr(game.standard_errors, name), getattr(exact, name)
            is_player = error > 0
            deviation = (getattr(game, name) - truth)[is_player].abs()
            n_inside += int((deviation < 2 * error[is_player]).sum())
            n_entries += int(is_player.sum())
            if name == "interactions":
                ratios.append(float(deviation.square().mean() / error[is_player].square().mean()))
        torch.testing.assert_close(game.intra_a, game.intra_a.transpose(1, 2))
    assert 0.92 < n_inside / n_entries < 0.995
    assert 0.4 < sum(ratios) / 8 < 1.2


def test_one_side_may_be_enumerated(clip_double):
    banzhaf = BanzhafInteractions(wrap(clip_double))
    pair = PIXELS, models.caption(8)
    game = banzhaf.game(pair, n_samples=(100, None))
    assert game.n_encoded[0] <= 102
    assert game.n_encoded[1] == 2**6
    assert game.standard_errors.interactions[0, 1:, 1:-1].min() > 0
    both = banzhaf.game(pair, n_samples=(100, 40))
    assert (both.standard_errors.interactions >= 0).all()
    assert both.standard_errors.interactions.sum() > game.standard_errors.interactions.sum()


def test_every_coalition_is_encoded_once(clip_double):
    shapley = ShapleyInteractions(wrap(clip_double))
    game = shapley.game((PIXELS, models.caption(8)), n_samples=(400, 60))
    assert game.n_encoded[0] < 330  # small and large coalitions recur
    assert game.n_encoded[1] < 50


# What holds for any game.


def test_symmetry(sequences, index):
    """Swapping the encoders transposes the map."""
    (encoder_a, encoder_b), (a, b) = sequences
    make, _ = index
    game = make(wrap((encoder_a, encoder_b))).game((a, b))
    swapped = make(wrap((encoder_b, encoder_a))).game((b, a))
    torch.testing.assert_close(swapped.interactions.transpose(1, 2), game.interactions)
    torch.testing.assert_close(swapped.main_effects_a, game.main_effects_b)
    torch.testing.assert_close(swapped.intra_b, game.intra_a)


def test_tokens_of_equal_role_get_equal_values(index):
    """An encoder that sums its tokens, two of which are the same."""
    encoder = models.mlp(4).double()
    tower = CallableTower(lambda x: encoder(x.sum(1)))
    tokens = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    tokens[0, 3] = tokens[0, 1]
    make, _ = index
    other = models.Recurrent(dimension=5).double()
    game = make(wrap((tower, other))).game((tokens, torch.ones(1, 3, 4).double()))
    torch.testing.assert_close(game.interactions[:, 1], game.interactions[:, 3])
    torch.testing.assert_close(game.intra_a[0, 0, 1], game.intra_a[0, 0, 3])


@pytest.mark.parametrize("n_samples", [None, 40])
def test_a_token_that_does_not_matter(index, n_samples):
    encoder = models.Recurrent().double()
    tower = CallableTower(lambda x: encoder(torch.cat([x[:, :2], x[:, 3:]], 1)))
    tokens = torch.randn(1, 7, 4, generator=torch.Generator().manual_seed(0)).double()
    make, _ = index
    game = make(wrap((tower, encoder))).game((tokens, tokens[:, 3:]), n_samples=n_samples)
    # It is a player, because it is not the baseline's; drawn coalitions say so up to their error.
    error = game.standard_errors.interactions[0, 2]
    assert (game.interactions[0, 2].abs() <= 4 * error + 1e-12).all()
    assert (game.intra_a[0, 2].abs() <= 4 * game.standard_errors.intra_a[0, 2] + 1e-12).all()
    assert game.interactions[0, 3].abs().min() > 1e-3 or n_samples


def test_tokens_of_the_baseline_are_no_players(clip_double, index):
    make, _ = index
    ids = IDS.clone()
    ids[0, 2] = models.PAD
    pixels = PIXELS.clone()
    pixels[..., :4, :8] = 0
    game = make(wrap(clip_double)).game((pixels, ids))
    assert game.n_encoded == (2**7, 2**3)
    present = game.interactions[0] != 0
    assert present.any(1).tolist() == [False] * 3 + [True] * 7
    assert present.any(0).tolist() == [False, True, False, True, True, False]
    assert game.main_effects_b[0, [0, 2, 5]].count_nonzero() == 0
    everywhere = make(wrap(clip_double)).game((0 * PIXELS, IDS))
    assert everywhere.n_encoded == (1, 2**4)
    assert everywhere.interactions.count_nonzero() == 0


@pytest.mark.parametrize("layer", [1, -1])
def test_deeper_layers(clip_double, layer):
    """The class token and the end of the text play there, because blocks have mixed them."""
    banzhaf = BanzhafInteractions(wrap(clip_double), (layer, layer))
    game = banzhaf.game((PIXELS, IDS))
    assert (game.interactions[0, :, 1:] != 0).all()
    assert game.interactions[0, :, 0].count_nonzero() == 0  # the first token sees itself alone


def test_efficiency_of_shapley(sequences, clip_double):
    encoders, pair = sequences
    for wrapper, inputs in ((wrap(encoders), pair), (wrap(clip_double), (PIXELS, IDS))):
        game = ShapleyInteractions(wrapper).game(inputs)
        total = game.main_effects_a.sum(1) + game.main_effects_b.sum(1)
        torch.testing.assert_close(total, game.score - game.baseline, rtol=0, atol=1e-10)
        parts = ShapleyInteractions(wrapper).decompose(inputs)
        assert parts.convergence_delta.abs().max() < 1e-10
        torch.testing.assert_close(parts.score, wrapper(*inputs))
        torch.testing.assert_close(parts.interactions, game.interactions)
        # A Shapley value is a main effect and half of the interactions.
        value = parts.main_effects_a + parts.interactions.sum(2) / 2
        torch.testing.assert_close(value, game.main_effects_a)


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_the_decomposition_of_banzhaf_is_the_least_squares_fit(sequences, p):
    encoders, pair = sequences
    parts = BanzhafInteractions(wrap(encoders), p=p).decompose(pair)
    sides = [sequence_without(e, x) for e, x in zip(encoders, pair, strict=True)]
    value = joint(*sides, 3, 4, "cosine")
    subsets_a, subsets_b = (list(game_oracle.subsets(range(n))) for n in (3, 4))
    members_a, members_b = (
        torch.tensor([[float(i in s) for i in range(n)] for s in subsets]).double()
        for subsets, n in ((subsets_a, 3), (subsets_b, 4))
    )
    scores = [[value((*s, *(3 + j for j in t))) for t in subsets_b] for s in subsets_a]
    weights = [
        torch.tensor([p**k * (1 - p) ** (n - k) for k in members.sum(1).tolist()]).double()
        for members, n in ((members_a, 3), (members_b, 4))
    ]
    fit = game_oracle.grid_fit(
        torch.tensor(scores).double(), members_a, members_b, torch.outer(*weights)
    )
    actual = parts.constant, parts.main_effects_a, parts.main_effects_b, parts.interactions
    expected = fit[0, 0], fit[1:, 0], fit[0, 1:], fit[1:, 1:]
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one[0], other, rtol=0, atol=1e-7)
    delta = fit.sum() - value(tuple(range(7)))
    torch.testing.assert_close(parts.convergence_delta[0], delta, rtol=0, atol=1e-6)
    assert delta.abs() > 0.01


def test_the_score_of_linear_encoders_is_fitted_without_rest(index):
    encoders = nn.Linear(4, 3).double(), nn.Linear(5, 3).double()
    pair = torch.rand(2, 4).double(), torch.rand(2, 5).double()
    make, _ = index
    parts = make(wrap(encoders), normalization="none").decompose(pair)
    assert parts.convergence_delta.abs().max() < 1e-12
    phi = pair[0].unsqueeze(1) * encoders[0].weight
    psi = pair[1].unsqueeze(1) * encoders[1].weight
    torch.testing.assert_close(parts.interactions, phi.transpose(1, 2) @ psi)


# Batches.


@pytest.mark.parametrize("n_samples", [None, (60, 80)])
@pytest.mark.parametrize("masking", ["baseline", ("baseline", "attention")])
def test_pairs_of_a_batch_are_played_as_if_alone(clip_double, index, n_samples, masking):
    lengths = (5, 9, 7)
    ids, mask = models.captions(*lengths)
    pixels = models.images(3).double()
    pixels[1, :, :4, :4] = 0
    make, _ = index
    explainer = make(wrap(clip_double))
    options = {"n_samples": n_samples, "masking": masking, "seed": 3}
    together = explainer.game((pixels, ids), None, mask, **options)
    n_encoded = [0, 0]
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        alone = explainer.game((pixels[one], ids[one, :length]), **options)
        for name in ("interactions", "main_effects_b", "intra_b"):
            for actual, expected in (
                (getattr(together, name), getattr(alone, name)),
                (getattr(together.standard_errors, name), getattr(alone.standard_errors, name)),
            ):
                cut = actual[row, ..., :length]
                cut = cut[:length] if name == "intra_b" else cut
                torch.testing.assert_close(cut, expected[0], rtol=0, atol=1e-10)
                assert actual[row, ..., length:].count_nonzero() == 0
        torch.testing.assert_close(together.intra_a[row], alone.intra_a[0], rtol=0, atol=1e-10)
        torch.testing.assert_close(together.score[row], alone.score[0])
        n_encoded = [n + m for n, m in zip(n_encoded, alone.n_encoded, strict=True)]
    assert together.n_encoded == tuple(n_encoded)


@pytest.mark.parametrize("perturbations_per_eval", [1, 7, 1000])
def test_chunks_change_nothing(clip_double, perturbations_per_eval):
    banzhaf = BanzhafInteractions(wrap(clip_double))
    expected = banzhaf.attribute((PIXELS, IDS))
    actual = banzhaf.attribute((PIXELS, IDS), perturbations_per_eval=perturbations_per_eval)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_seeds(clip_double):
    banzhaf = BanzhafInteractions(wrap(clip_double))
    first, again, other = (
        banzhaf.attribute((PIXELS, IDS), n_samples=(60, 16), seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_both_sides_draw_their_own_coalitions(sequences):
    """The estimate of <x, x> from the same coalitions twice would be too large."""
    (encoder, _), _ = sequences
    tokens = torch.randn(1, 7, 4, generator=torch.Generator().manual_seed(0)).double()
    banzhaf = BanzhafInteractions(wrap((encoder, encoder)))
    game = banzhaf.game((tokens, tokens), n_samples=40)
    assert not torch.allclose(game.interactions[0], game.interactions[0].T, atol=1e-4)


@pytest.mark.parametrize("kind", ["(G, T)", "(B, G, T)", "an array", "lists from the end"])
def test_kinds_of_groups(clip_double, kind):
    banzhaf = BanzhafInteractions(wrap(clip_double))
    weights = torch.zeros(3, 10)
    for row, group in enumerate(PATCHES):
        weights[row, group] = 1
    groups = {
        "(G, T)": weights,
        "(B, G, T)": weights.unsqueeze(0),
        "an array": weights.numpy().astype(bool),
        "lists from the end": [[token - 10 for token in group] for group in PATCHES],
    }[kind]
    expected = banzhaf.attribute((PIXELS, IDS), groups_a=PATCHES)
    assert expected.shape == (1, 3, 6)
    torch.testing.assert_close(banzhaf.attribute((PIXELS, IDS), groups_a=groups), expected)


def test_tokens_in_no_group_stay(sequences):
    encoders, pair = sequences
    banzhaf = BanzhafInteractions(wrap(encoders))
    game = banzhaf.game(pair, groups_a=[[1]])
    without = pair[0].clone()
    without[0, 1] = 0
    assert game.n_encoded == (2, 2**4)
    alone = wrap(encoders)(without, 0 * pair[1])
    torch.testing.assert_close(game.baseline, alone)


@pytest.mark.parametrize("baseline", [0.5, torch.full((1, 3, 4), 0.5, dtype=torch.float64)])
def test_baselines(sequences, baseline):
    encoders, pair = sequences
    shifted = wrap((lambda x: encoders[0](x + 0.5), encoders[1]))
    actual = BanzhafInteractions(wrap(encoders)).attribute(pair, (baseline, None))
    expected = BanzhafInteractions(shifted).attribute((pair[0] - 0.5, pair[1]))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types(clip, clip_double, dtype):
    model = models.clip().to(dtype)
    game = BanzhafInteractions(wrap(model)).game((PIXELS.to(dtype), IDS), n_samples=(64, 16))
    expected = BanzhafInteractions(wrap(clip_double)).game((PIXELS, IDS), n_samples=(64, 16))
    assert game.interactions.dtype == game.standard_errors.interactions.dtype == torch.float32
    size = expected.interactions.abs().max()
    tolerance = 1e-4 if dtype == torch.float32 else 0.3
    error = (game.interactions - expected.interactions).abs().max()
    assert error < tolerance * size
    assert game.n_encoded == expected.n_encoded


def test_without_gradients(clip, index):
    make, _ = index
    options = {"n_samples": 80}
    expected = make(wrap(clip)).attribute((PIXELS.float(), IDS), **options)
    assert not expected.requires_grad
    with torch.no_grad():
        assert torch.equal(make(wrap(clip)).attribute((PIXELS.float(), IDS), **options), expected)
    with torch.inference_mode():
        assert torch.equal(make(wrap(clip)).attribute((PIXELS.float(), IDS), **options), expected)
        pixels = PIXELS.float().clone()
        actual = make(wrap(clip)).attribute(
            (pixels, IDS.clone()), masking=("baseline", "attention"), **options
        )
    assert actual.isfinite().all()


# What the user sees of it.


@pytest.mark.parametrize("name", ["banzhaf_interactions", "shapley_interactions"])
def test_explain(name):
    wrapper, image = corpora.small_wrapper(), corpora.picture(1)
    options = {"p": 0.3} if name == "banzhaf_interactions" else {"n_nodes": 2}
    imap = explain(
        wrapper, image, "a red circle", attribution=name, n_samples=200, **options,
        masking="baseline", seed=1,
    )  # fmt: skip
    expected = {
        "attribution": name,
        "model": "CLIPModel",
        "n_samples": 200,
        "masking": "baseline",
        "seed": 1,
    }
    assert imap.settings == expected | options | {"layers": [0, 0]}
    parts = imap.constant + imap.main_effects_a.sum() + imap.main_effects_b.sum()
    total = float(parts + imap.interactions.sum()) - imap.convergence_delta
    assert total == pytest.approx(imap.score, abs=1e-4)
    assert imap.heatmap("circle").shape == imap.axis_a.grid
    with pytest.raises(TypeError, match=f"{name} has no option n_steps"):
        explain(wrapper, image, "a red circle", attribution=name, n_steps=3)


def test_names():
    assert ATTRIBUTIONS["banzhaf_interactions"] is BanzhafInteractions
    assert ATTRIBUTIONS["shapley_interactions"] is ShapleyInteractions


def test_a_game_shows_itself_briefly(clip):
    game = BanzhafInteractions(wrap(clip)).game((PIXELS.float(), IDS))
    assert re.fullmatch(
        r"Game\(interactions of shape \(1, 10, 6\) up to \d\.\de-\d\d,\n     standard errors up to "
        r"0\.0e\+00,\n     from 512 \+ 16 masked inputs\)",
        repr(game),
    )


def test_progress(clip, capsys):
    banzhaf = BanzhafInteractions(wrap(clip))
    banzhaf.attribute((PIXELS.float(), IDS))
    assert capsys.readouterr().err == ""
    banzhaf.attribute((PIXELS.float(), IDS), show_progress=True)
    assert re.findall(r"(\d+)/(\d+)", capsys.readouterr().err)[-1] == ("528", "528")


# The model is left alone.


def play(model):
    explainer = ShapleyInteractions(wrap(model))
    inputs = PIXELS.float(), IDS
    explainer.game(inputs, n_samples=(200, 16))
    explainer.decompose(inputs, n_samples=(200, 16), masking=("baseline", "attention"))


@pytest.fixture
def training():
    model = models.clip(dropout=0.5).train()
    model.vision_model.encoder.layers[0].eval()
    return model


def test_the_model_after_success(training):
    before = state(training)
    play(training)
    assert state(training) == before


@pytest.mark.parametrize("call", [1, 3])
def test_the_model_after_an_error(training, call):
    fuse = {"calls": 0}

    def burn(*_):
        fuse["calls"] += 1
        if fuse["calls"] == call:
            raise FuseError

    training.text_model.encoder.layers[1].mlp.register_forward_hook(burn)
    before = state(training)
    with pytest.raises(FuseError):
        play(training)
    assert state(training) == before


# Bad input.


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_samples": 1}, ValueError, "n_samples must be an int of at least 2, but got 1"),
        ({"n_samples": 10.0}, ValueError, r"n_samples must be an int .* got 10\.0"),
        ({"n_samples": (9, 9, 9)}, ValueError, r"n_samples must be one for both inputs or a pair"),
        (
            {"n_samples": 12},
            ValueError,
            "12 coalitions .* too few .* of 9 players apart",
        ),
        (
            {"perturbations_per_eval": 0},
            ValueError,
            "perturbations_per_eval must be an int of at least 1, but got 0",
        ),
        ({"masking": "zero"}, ValueError, "masking must be 'baseline' or 'attention', .* 'zero'"),
        ({"target": 0}, ValueError, "target must be None"),
        ({"groups_a": [[1, 2], [2]]}, ValueError, "groups_a are players: each token .* one group"),
        ({"groups_b": 0.5 * torch.eye(6)}, ValueError, "groups_b are players: .* with weight 1"),
        ({"groups_b": []}, ValueError, "groups_b holds no group"),
        ({"baselines": ([0.0, 1.0], None)}, TypeError, "one baseline a, but got a list"),
        ({"baselines": torch.ones(2, 2)}, ValueError, "baseline a must have the input's shape"),
        ({"inputs": (PIXELS, IDS.repeat(2, 1))}, ValueError, "as many rows in a as in b"),
        ({"inputs": [PIXELS, IDS]}, TypeError, "a tuple of two tensors .* but got list"),
    ],
)
def test_bad_input_is_refused_before_any_coalition_is_encoded(
    clip_double, monkeypatch, options, error, message
):
    from captum_interactions.attr._utils.players import Players

    monkeypatch.setattr(Players, "embed", lambda *_: pytest.fail("a coalition was encoded"))
    banzhaf = BanzhafInteractions(wrap(clip_double))
    with pytest.raises(error, match=message):
        banzhaf.attribute(**{"inputs": (PIXELS, IDS), **options})


@pytest.mark.parametrize("p", [0, 1, -0.1, 1.5, "half", True, float("nan")])
def test_bad_probabilities(clip, p):
    with pytest.raises(ValueError, match="p must be a probability between 0 and 1, but got"):
        BanzhafInteractions(wrap(clip), p=p)


def test_bad_constructors(clip):
    with pytest.raises(TypeError, match="BanzhafInteractions needs both encoders"):
        BanzhafInteractions(clip)
    with pytest.raises(ValueError, match="n_nodes must be an int of at least 1, but got 0"):
        ShapleyInteractions(wrap(clip), n_nodes=0)
    with pytest.raises(ValueError, match="normalization must be 'cosine', 'frozen' or 'none'"):
        ShapleyInteractions(wrap(clip), normalization="l2")
    with pytest.raises(ValueError, match="layer must be an int from -3 to 2"):
        ShapleyInteractions(wrap(clip), (3, 0))


def test_embeddings_that_vanish():
    """Only where the third feature alone is missing is the embedding zero."""
    wrapper = wrap((lambda x: x[:, :2] - 1 + x[:, 2:], models.mlp(3, 2)))
    pair = torch.ones(1, 3), torch.ones(1, 3)
    with pytest.raises(ValueError, match="input a without some of its players has .* zero"):
        BanzhafInteractions(wrapper).attribute(pair)
    dot_product = BanzhafInteractions(wrapper, normalization="none")
    assert dot_product.attribute(pair).isfinite().all()
