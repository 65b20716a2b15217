"""Values of games against shapiq's own, and maps as shapiq's values and back."""

import sys
from itertools import combinations

import matplotlib
import numpy as np
import pytest
import torch

from captum_interactions import InteractionMap, wrap
from captum_interactions.attr import BanzhafInteractions, ShapleyInteractions
from captum_interactions.encoders import AudioAxis, TextAxis, TokenAxis
from tests import models
from tests.maps.test_interaction_map import imap  # noqa: F401

shapiq = pytest.importorskip("shapiq")
matplotlib.use("Agg")

N_A, N_B = 3, 4
N = N_A + N_B
EXACT = {"SII", "BII", "k-SII", "STII", "FSII", "FBII", "kADD-SHAP", "Moebius"}
INDICES = {"BII": BanzhafInteractions, "SII": ShapleyInteractions}


@pytest.fixture(scope="module")
def pair():
    """Two recurrent encoders of 3 and 4 tokens, in float64, and a pair for them."""
    encoders = models.Recurrent().double(), models.Recurrent(seed=1).double()
    generator = torch.Generator().manual_seed(3)
    inputs = tuple(torch.randn(1, n, 4, generator=generator).double() for n in (N_A, N_B))
    return encoders, inputs


@pytest.fixture(scope="module")
def game(pair):
    """The score of tokens that are there, as shapiq calls it; nothing of this package runs."""
    encoders, inputs = pair

    def value(coalitions):
        kept = torch.from_numpy(np.atleast_2d(coalitions)).double()
        with torch.no_grad():
            a, b = (
                torch.nn.functional.normalize(encoder(tokens * some.unsqueeze(2)))
                for encoder, tokens, some in zip(
                    encoders, inputs, (kept[:, :N_A], kept[:, N_A:]), strict=True
                )
            )
        return (a * b).sum(1).numpy()

    return shapiq.ExactComputer(value, N)


@pytest.mark.parametrize("index", INDICES)
def test_values_of_a_masked_dual_encoder_are_those_of_shapiq(pair, game, index):
    encoders, inputs = pair
    values = INDICES[index](wrap(encoders)).game(inputs).to_shapiq()[0]
    expected = game(index, 2)
    # It counts pairs of single players too, and all of these differ from zero here.
    assert len(expected.interactions) == 1 + N + N * (N - 1) // 2
    assert set(values.interactions) == set(expected.interactions)
    for players, value in expected.interactions.items():
        assert values[players] == pytest.approx(value, abs=1e-12), players
    assert values.baseline_value == pytest.approx(expected.baseline_value, abs=1e-12)
    assert (values.index, values.max_order, values.min_order) == (index, 2, 0)
    assert not values.estimated
    assert values.estimation_budget == 2**N_A + 2**N_B


@pytest.mark.parametrize("index", INDICES)
def test_shapiq_values_become_the_decomposition(pair, game, index):
    """Main effects without interactions across, as the attribution splits them itself."""
    encoders, inputs = pair
    parts = INDICES[index](wrap(encoders)).decompose(inputs)
    axes = TokenAxis.numbered(N_A), TokenAxis.numbered(N_B)
    values = game(index, 2)
    found = InteractionMap.from_shapiq(values, *axes, score=float(parts.score))
    for name in ("interactions", "main_effects_a", "main_effects_b"):
        expected = getattr(parts, name)[0].float()
        torch.testing.assert_close(getattr(found, name), expected, rtol=0, atol=1e-6)
    # Banzhaf's approximation by shapiq has interactions within the inputs, each of them present in
    # a quarter of all coalitions; that of the attribution has their mean in its constant.
    within = sum(values[pair] for a in (range(N_A), range(N_A, N)) for pair in combinations(a, 2))
    moved = within / 4 if index == "BII" else 0.0
    for name in ("constant", "convergence_delta"):
        expected = float(getattr(parts, name)) + moved
        assert getattr(found, name) == pytest.approx(expected, abs=1e-6)


def exact_game():
    """A game of second order with interactions within and across, and its coefficients."""
    generator = np.random.default_rng(0)
    constant, main = generator.normal(), generator.normal(size=N)
    pairs = np.triu(generator.normal(size=(N, N)), 1)

    def value(coalitions):
        present = np.atleast_2d(coalitions).astype(float)
        return constant + present @ main + np.einsum("ki,ij,kj->k", present, pairs, present)

    return shapiq.ExactComputer(value, N), constant, main, pairs


@pytest.mark.filterwarnings("ignore")  # shapiq's own
def test_every_index_gives_an_exact_game_or_is_refused():
    game, constant, main, pairs = exact_game()
    axes = TokenAxis.numbered(N_A), TokenAxis.numbered(N_B)
    within = pairs + pairs.T
    within[:N_A, N_A:] = within[N_A:, :N_A] = 0.0
    main = torch.from_numpy(main + within.sum(1) / 2).float()
    across = torch.from_numpy(pairs[:N_A, N_A:]).float()
    score = constant + float(main.sum() + across.sum())
    assert set(shapiq.game_theory.indices.ALL_AVAILABLE_CONCEPTS) > EXACT
    for index in shapiq.game_theory.indices.ALL_AVAILABLE_CONCEPTS:
        values = game(index, 2)
        if index not in EXACT:
            with pytest.raises(ValueError, match=f"the values are of '{index}'"):
                InteractionMap.from_shapiq(values, *axes)
            continue
        found = InteractionMap.from_shapiq(values, *axes, score=score)
        # Coefficients are of order 1; shapiq's regressions are exact to 1e-9 or better.
        close = {"rtol": 0, "atol": 1e-6}
        torch.testing.assert_close(found.interactions, across, **close)
        torch.testing.assert_close(found.main_effects_a, main[:N_A], **close)
        torch.testing.assert_close(found.main_effects_b, main[N_A:], **close)
        assert found.constant == pytest.approx(constant, abs=1e-6)
        assert found.convergence_delta == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("index", ["k-SII", "STII", "FSII"])
def test_efficient_values_of_shapiq_make_the_score(pair, game, index):
    """Half of each interaction within an input goes to either player."""
    encoders, inputs = pair
    values = game(index, 2)
    found = InteractionMap.from_shapiq(values, TokenAxis.numbered(N_A), TokenAxis.numbered(N_B))
    assert found.score == pytest.approx(float(wrap(encoders)(*inputs).detach()), abs=1e-6)
    within = sum(values[(0, j)] for j in (1, 2))
    assert float(found.main_effects_a[0]) == pytest.approx(values[(0,)] + within / 2, abs=1e-6)
    assert float(found.interactions[0, 3]) == pytest.approx(values[(0, 6)], abs=1e-6)


def test_faithful_banzhaf_values_are_taken_as_they_are(game):
    values = game("FBII", 2)
    found = InteractionMap.from_shapiq(values, TokenAxis.numbered(N_A), TokenAxis.numbered(N_B))
    assert found.constant == pytest.approx(values[()], abs=1e-6)
    assert found.score == pytest.approx(sum(values.interactions.values()), abs=1e-6)


def test_a_weighted_index_says_so_and_is_sampled(pair):
    encoders, inputs = pair
    weighted = BanzhafInteractions(wrap(encoders), p=0.3).game(inputs, intra=False)
    values = weighted.to_shapiq()[0]
    assert values.index == "weighted BII"
    assert values[(0, 1)] == 0  # not asked for
    assert values[(0, N_A)] == pytest.approx(float(weighted.interactions[0, 0, 0]))
    with pytest.raises(ValueError, match="index must be one of .* but the values are of 'weighted"):
        InteractionMap.from_shapiq(values, TokenAxis.numbered(N_A), TokenAxis.numbered(N_B))
    sampled = torch.randn(1, 12, 4, dtype=torch.float64)
    several = BanzhafInteractions(wrap(encoders)).game(
        (sampled.expand(2, -1, -1), inputs[1].expand(2, -1, -1)), n_samples=200
    )
    first, second = several.to_shapiq()
    assert first.estimated
    assert first == second


def test_round_trip_of_tokens(imap):  # noqa: F811
    values = imap.to_shapiq(units=False)
    assert values.n_players == 14
    assert sum(values.interactions.values()) == pytest.approx(imap.score + imap.convergence_delta)
    found = InteractionMap.from_shapiq(values, imap.axis_a, imap.axis_b, score=imap.score)
    assert found.axis_a is imap.axis_a
    for name in ("interactions", "main_effects_a", "main_effects_b"):
        torch.testing.assert_close(getattr(found, name), getattr(imap, name))
    for name in ("constant", "score", "convergence_delta"):
        assert getattr(found, name) == pytest.approx(getattr(imap, name), abs=1e-6)


def test_round_trip_of_words_and_patches(imap):  # noqa: F811
    """Special tokens and padding move into the constant and to those that they meet."""
    imap.interactions[0, 3] = 8.0  # class token, "cir"
    values = imap.to_shapiq()
    assert values.n_players == 6 + 3
    # 0.5; the class token, two tokens around the caption and padding by themselves; their pair.
    assert values[()] == pytest.approx(0.5 + 0.125 - 3 * 0.25 + 4.0)
    # Upper left patch and "circle", which are two tokens.
    assert values[(0, 8)] == pytest.approx(0.75)
    assert values[(8,)] == pytest.approx(2 * -0.25 + 8.0)
    total = float(imap.score + imap.convergence_delta) + 8.0
    assert sum(values.interactions.values()) == pytest.approx(total)
    found = InteractionMap.from_shapiq(values, imap.axis_a, imap.axis_b)
    assert found.score == pytest.approx(total, abs=1e-6)
    torch.testing.assert_close(found.interactions, imap.by_unit())
    assert found.heatmap("circle")[0, 0] == pytest.approx(0.75)
    assert [word for word, _ in found.word_weights()] == ["a", "red", "circle"]
    again = found.to_shapiq()
    assert again.interactions == pytest.approx(values.interactions, abs=1e-6)


def test_words_that_share_a_token_are_one_player():
    axis = TextAxis(("ab", "c"), (False,) * 2, (False,) * 2, "a b-c", ((0, 3), (4, 5)))
    one = TokenAxis.numbered(1)
    values = InteractionMap(
        torch.tensor([[1.0, 4.0]]), torch.zeros(1), torch.zeros(2), 0.0, 5.0, 0.0, one, axis
    ).to_shapiq()
    assert values.n_players == 2
    assert values[(0, 1)] == pytest.approx(5.0)


def test_units_of_a_sound():
    spans = np.array([[0.0, 1.0], [1.0, 2.0]])
    sound = AudioAxis.of_cells(spans, np.array([0, 0]), 2.0, 1)
    axis = TokenAxis(("[class]", "x"), (True, False), (False, False))
    mixed = InteractionMap(
        torch.ones(2, 2), torch.zeros(2), torch.zeros(2), 0.0, 4.0, 0.0, sound, axis
    )
    found = InteractionMap.from_shapiq(mixed.to_shapiq(), sound, axis)
    assert found.axis_a == sound
    assert found.axis_b.labels == ("x",)
    torch.testing.assert_close(found.marginal_b((0.0, 1.0)), torch.tensor([1.0]))


@pytest.mark.parametrize(
    "plot", ["plot_network", "plot_si_graph", "plot_stacked_bar", "plot_force", "plot_upset"]
)
@pytest.mark.filterwarnings("ignore")  # shapiq's own
def test_plots_open(imap, plot):  # noqa: F811
    drawn = getattr(imap.to_shapiq(), plot)(show=False)
    figure = drawn[0] if isinstance(drawn, tuple) else drawn
    assert figure.axes
    matplotlib.pyplot.close("all")


def test_what_is_refused(imap, game):  # noqa: F811
    axes = TokenAxis.numbered(N_A), TokenAxis.numbered(N_B)
    with pytest.raises(TypeError, match="expected shapiq.InteractionValues, but got dict"):
        InteractionMap.from_shapiq({}, *axes)
    with pytest.raises(ValueError, match=r"6 \+ 3 parts, but the values are of 7 players"):
        InteractionMap.from_shapiq(game("SII", 2), imap.axis_a, imap.axis_b)
    with pytest.raises(ValueError, match="two parts, but the values have order 3"):
        InteractionMap.from_shapiq(game("k-SII", 3), *axes)
    with pytest.raises(
        ValueError, match="index must be one of .* but the values are of 'Co-Moebius'"
    ):
        InteractionMap.from_shapiq(game("Co-Moebius", 2), *axes)


def test_without_shapiq(imap, pair, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "shapiq", None)
    encoders, inputs = pair
    calls = [
        imap.to_shapiq,
        lambda: InteractionMap.from_shapiq({}, imap.axis_a, imap.axis_b),
        BanzhafInteractions(wrap(encoders)).game(inputs).to_shapiq,
    ]
    for call in calls:
        with pytest.raises(ImportError, match=r"pip install 'captum-interactions\[shapiq\]'"):
            call()
