"""Sounds: a burst is on the tokens whose seconds and bands say so, through CLAP's own features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor

from captum_interactions import InteractionMap, explain, wrap
from captum_interactions.encoders import AudioAxis, TokenAxis
from tests import models, tokenizers
from tests.families import roberta_config

RATE, BINS = 2550, 16
FFT = 64 / RATE
"""Seconds that one frame hears."""
CAPTION = "a red circle"


def extractor(frames=256, **options):
    """A feature extractor whose window of one second has this number of frames."""
    options = {"truncation": "rand_trunc", "padding": "pad"} | options
    return ClapFeatureExtractor(
        feature_size=BINS,
        sampling_rate=RATE,
        hop_length=RATE // (frames - 1),
        max_length_s=1,
        fft_window_size=64,
        frequency_min=20,
        frequency_max=1200,
        **options,
    )


def clap(extractor_options=None, *, local=False, fused=False):
    """A CLAP of two stages: 16 × 16 cells of 4 stretches × 4 bands, then 8 × 8."""
    tokenizer = tokenizers.roberta()
    audio = {
        "spec_size": 64,
        "num_mel_bins": BINS,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 8,
        "depths": [1, 2],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "window_size": 4,
        "enable_fusion": fused,
    }
    text = roberta_config() | {"vocab_size": len(tokenizer), "max_position_embeddings": 30}
    model = models.randomise(
        ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=24))
    )
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.ones_(module.weight)
    # Decibels come to a range where no part of the model is saturated.
    model.audio_model.audio_encoder.batch_norm.running_mean.fill_(-40)
    model.audio_model.audio_encoder.batch_norm.running_var.fill_(400)
    if local:  # blocks pass their states on, so that cells hear themselves alone
        for stage in model.audio_model.audio_encoder.layers:
            for block in stage.blocks:
                for last in (block.attention.output.dense, block.output.dense):
                    nn.init.zeros_(last.weight)
                    nn.init.zeros_(last.bias)
    sound_features = extractor(**(extractor_options or {}))
    return wrap(model, ClapProcessor(sound_features, tokenizer))


def sound(seconds=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return 0.01 * rng.standard_normal(int(seconds * RATE)).astype(np.float32)


def with_tone(samples, start, stop, frequency):
    time = np.arange(len(samples)) / RATE
    during = (time >= start) & (time < stop)
    tone = np.sin(2 * np.pi * frequency * time) * during
    return (samples + 0.3 * tone).astype(np.float32)


def states_of(tower, layer, sounds):
    inputs, extras, axes = tower.prepare(sounds)
    with torch.no_grad():
        states = tower.prefix(layer, inputs, *extras)[0]
    return states, tower.axis_at(layer, axes[0], states.shape[1])


def change(tower, layer, before, after):
    """How much each token changes from one sound to another, and the tokens' axis."""
    states, axis = states_of(tower, layer, [before, after])
    return (states[1] - states[0]).abs().amax(-1).numpy(), axis


@pytest.fixture(scope="module")
def wrapper():
    return clap()


@pytest.fixture(scope="module")
def fused():
    return clap({"truncation": "fusion"}, fused=True)


def assert_changes_at(axis, changed, spans):
    """Tokens change if they are within these seconds, and not if they are far from them."""
    within, near = np.zeros(len(axis), bool), np.zeros(len(axis), bool)
    # A frame hears half of its window to both sides, and interpolation reads two frames more.
    reach = FFT / 2 + 2.5 / 250
    times = np.array(axis.times)
    for start, stop in spans:
        within |= (times[:, 0] >= start) & (times[:, 1] <= stop)
        near |= (times[:, 1] > start - reach) & (times[:, 0] < stop + reach)
    assert within.any()
    assert changed[within].all()
    assert not changed[~near].any()


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("frames", [256, 251])
@pytest.mark.parametrize("span", [(0.1, 0.2), (0.23, 0.3), (0.48, 0.83), (0.9, 1.0)], ids=str)
class TestBursts:
    """256 frames fill the model's square; of 251 it makes 256."""

    def test_a_burst_changes_the_tokens_of_its_seconds(self, span, frames, layer):
        tower = clap({"frames": frames}, local=True).tower_a
        quiet = sound()
        amount, axis = change(tower, layer, quiet, with_tone(quiet, *span, 500))
        assert (len(axis), max(axis.bands) + 1) == ((256, 4), (64, 2))[layer]
        assert_changes_at(axis, amount > 1e-6, [span])

    def test_a_selection_has_most_of_the_change(self, span, frames, layer):
        tower = clap({"frames": frames}, local=True).tower_a
        quiet = sound()
        amount, axis = change(tower, layer, quiet, with_tone(quiet, *span, 500))
        weights = axis.select(span)
        assert weights.dtype == np.float32
        # Each of the bands that hear a moment is as long.
        assert weights.sum() * (axis.times[0][1] - axis.times[0][0]) == pytest.approx(
            (span[1] - span[0]) * (max(axis.bands) + 1), rel=1e-3
        )
        assert amount @ (weights > 0) > 0.75 * amount.sum()


@pytest.mark.parametrize("layer", [0, 1])
def test_low_tones_are_in_low_bands(layer):
    tower = clap(local=True).tower_a
    quiet, loudest = sound(), []
    for frequency in (60, 260, 520, 1000):
        amount, axis = change(tower, layer, quiet, with_tone(quiet, 0.1, 0.9, frequency))
        grid = axis.to_grid(amount)
        assert grid.shape == ((4, 64), (2, 32))[layer]
        loudest.append(int(grid.sum(1).argmax()))
    assert loudest == sorted(loudest)
    assert {0, max(axis.bands)} <= set(loudest)


def test_a_grid_has_time_from_left_to_right(wrapper):
    _, axis = states_of(wrapper.tower_a, 0, [sound()])
    starts = axis.to_grid(np.array([start for start, _ in axis.times]))
    np.testing.assert_allclose(starts, np.tile(np.arange(64) / 64, (4, 1)))
    bands = axis.to_grid(np.array(axis.bands)[None])
    np.testing.assert_array_equal(bands[0], np.arange(4)[:, None].repeat(64, 1))
    assert axis.labels[0] == "0.00–0.02 s, band 0"
    assert len(axis.units) == len(axis)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(
    ("padding", "copies"), [("pad", 1), ("repeat", 4), ("repeatpad", 3)], ids=str
)
class TestShortSounds:
    """Three copies of 0.3 seconds fit into the window of one second."""

    def test_a_burst_is_heard_in_each_copy(self, padding, copies, layer):
        tower = clap({"padding": padding}, local=True).tower_a
        quiet = sound(0.3)
        amount, axis = change(tower, layer, quiet, with_tone(quiet, 0.02, 0.1, 500))
        assert (axis.duration, axis.copies) == (0.3, copies)
        spans = [(0.02 + 0.3 * copy, min(0.1 + 0.3 * copy, 1)) for copy in range(copies)]
        assert_changes_at(axis, amount > 1e-6, spans)
        weights = axis.select((0.02, 0.1))
        assert amount @ (weights > 0) > 0.75 * amount.sum()

    def test_the_whole_sound(self, padding, copies, layer):
        tower = clap({"padding": padding}, local=True).tower_a
        _, axis = states_of(tower, layer, [sound(0.3)])
        heard = axis.to_grid(axis.select((0, 0.3)))[0].mean()
        assert heard == pytest.approx(min(0.3 * copies, 1), abs=1e-5)


@pytest.mark.parametrize("padding", ["pad", "repeat", "repeatpad"])
def test_a_sound_that_fills_the_window(padding):
    tower = clap({"padding": padding}).tower_a
    _, axis = states_of(tower, 0, [sound()])
    assert (axis.duration, axis.copies) == (1.0, 1)
    np.testing.assert_allclose(axis.select((0, 1)), 1, atol=1e-6)


def test_at_the_input_tokens_are_frames(wrapper):
    quiet = sound()
    prepared = wrapper.tower_a.prepare([quiet, with_tone(quiet, 0.5, 0.6, 500)])
    axis = wrapper.tower_a.axis_at("input", prepared.axes[0], 256)
    changed = wrapper.tower_a.fold("input", prepared.inputs.diff(dim=0).abs())[0] > 1e-3
    assert_changes_at(axis, changed.numpy(), [(0.5, 0.6)])
    assert axis.to_grid(np.arange(256.0)).shape == (1, 256)


def test_a_sound_alone_and_among_others(wrapper):
    short, long = sound(0.3), sound(0.9, seed=1)
    together, alone = (wrapper.tower_a.prepare(sounds) for sounds in ([long, short], short))
    torch.testing.assert_close(together.inputs[1:], alone.inputs)
    assert together.axes[1] == alone.axes[0] != together.axes[0]
    as_tensor = wrapper.tower_a.prepare(torch.from_numpy(short).double())
    torch.testing.assert_close(as_tensor.inputs, alone.inputs)


def test_sounds_longer_than_the_window(wrapper):
    long = sound(1.4)
    with pytest.raises(ValueError, match=r"sound 1 has 1.40 seconds .* holds 1.00; cut it or pass"):
        wrapper.tower_a.prepare([sound(), long])
    cut = wrapper.tower_a.prepare(long, truncation=True)
    torch.testing.assert_close(cut.inputs, wrapper.tower_a.prepare(long[:RATE]).inputs)
    assert cut.axes[0].duration == 1.0


@pytest.mark.parametrize(
    ("raw", "error", "message"),
    [
        ([], ValueError, "at least one sound, but got an empty list"),
        ((), ValueError, "at least one sound, but got an empty list"),
        (np.zeros(0, np.float32), ValueError, "must have at least one sample"),
        (
            np.zeros(9, np.int16),
            TypeError,
            r"dtype='float32'\), but got int16 of shape",
        ),
        (np.zeros((2, 9), np.float32), TypeError, r"but got float32 of shape \(2, 9\)"),
        ("dog.wav", TypeError, r"dtype='float32'\), but got str"),
        ([0.1, 0.2], TypeError, r"dtype='float32'\), but got float"),
        (torch.zeros(2, 9), ValueError, r"shape \(B, 1, frames, 16\), but got \(2, 9\)"),
        (torch.zeros(1, 1, 256, 64), ValueError, r"but got \(1, 1, 256, 64\)"),
        (
            (torch.zeros(2, 1, 256, 16), torch.zeros(1, 1)),
            ValueError,
            r"need is_longer of shape \(2, 1\), but got \(1, 1\)",
        ),
    ],
)
def test_bad_sounds(wrapper, raw, error, message):
    with pytest.raises(error, match=message):
        wrapper.tower_a.prepare(raw)


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        ((0.2, 0.4), ValueError, r"\(0.2, 0.4\) is not a part of a sound of 0.30 seconds"),
        ((0.2, 0.1), ValueError, "is not a part of a sound"),
        ((-0.1, 0.1), ValueError, "is not a part of a sound"),
        ((0.1, float("nan")), ValueError, "is not a part of a sound"),
        ("bark", TypeError, r"select parts of a sound by a tuple \(start, stop\).*got 'bark'"),
        ((0.1, 0.2, 0.3), TypeError, "select parts of a sound"),
        ([256], ValueError, "token 256 does not exist"),
    ],
)
def test_bad_selections(wrapper, selection, error, message):
    _, axis = states_of(wrapper.tower_a, 0, [sound(0.3)])
    with pytest.raises(error, match=message):
        axis.select(selection)


def test_other_selections(wrapper):
    _, axis = states_of(wrapper.tower_a, 0, [sound(0.3)])
    assert axis.select().sum() == 256
    assert axis.select([0, 3]).nonzero()[0].tolist() == [0, 3]
    assert axis.select(slice(2)).nonzero()[0].tolist() == [0, 1]


def test_features_without_an_extractor():
    tower = wrap(clap().tower_a.model).tower_a
    features = torch.randn(2, 1, 256, BINS, generator=torch.Generator().manual_seed(0))
    plain = tower.prepare(features)
    given = tower.prepare((features, torch.zeros(2, 1, dtype=torch.bool)))
    for inputs in (plain, given):
        assert torch.equal(inputs.inputs, features)
        assert inputs.axes[0].times[-1] == (255.0, 256.0)  # of unknown length: in frames
    with pytest.raises(ValueError, match="raw sounds .ndarray. need a feature extractor"):
        tower.prepare(sound())


def test_features_with_an_extractor_are_in_seconds(wrapper):
    ready = wrapper.tower_a.prepare(wrapper.tower_a.prepare(sound()).inputs)
    assert ready.axes == wrapper.tower_a.prepare(sound()).axes


@pytest.mark.filterwarnings("ignore:attributions sum to")
class TestMaps:
    def test_a_map_has_the_burst_where_it_was(self):
        wrapper = clap({"padding": "repeatpad"}, local=True)
        quiet = sound(0.4)
        loud = quiet + 20 * sound(0.4, seed=1) * (with_tone(quiet, 0.1, 0.2, 300) != quiet)
        baseline = wrapper.tower_a.prepare(quiet).inputs
        imap = explain(wrapper, loud, CAPTION, layers=(0, -1), baselines=(baseline, None))
        heat, axis = imap.heatmap(CAPTION), imap.axis_a
        assert heat.shape == (4, 64)
        changed = imap.interactions.abs().amax(1).numpy() > 0
        assert_changes_at(axis, changed, [(0.1, 0.2), (0.5, 0.6)])
        everything, burst = imap.between(None, "red"), imap.between(np.flatnonzero(changed), "red")
        assert burst == pytest.approx(everything, abs=1e-6)
        assert sum(weight for _, weight in imap.word_weights((0.1, 0.2))) != 0

    @pytest.mark.parametrize("layers", [(0, 0), (-1, -1), ("input", -1)])
    def test_a_map_of_any_layer(self, wrapper, layers, tmp_path):
        samples = with_tone(sound(0.3), 0.1, 0.2, 300)
        imap = explain(wrapper, samples, CAPTION, layers=layers, n_steps=5)
        bands, columns = {0: (4, 64), -1: (2, 32), "input": (1, 256)}[layers[0]]
        assert imap.heatmap().shape == (bands, columns)
        with torch.no_grad():
            batch = wrapper.prepare(samples, CAPTION)
            score = wrapper(*batch.inputs, *batch.additional_forward_args)
        assert imap.score == pytest.approx(float(score), abs=1e-5)
        assert "a sound of 0.30 seconds" in repr(imap)

        path = tmp_path / "map.safetensors"
        imap.save(path)
        loaded = InteractionMap.load(path)
        assert loaded.axis_a == imap.axis_a
        assert torch.equal(loaded.interactions, imap.interactions)
        assert loaded.between((0.1, 0.2), "red") == imap.between((0.1, 0.2), "red")


class TestFusion:
    """Models that fuse three crops of a longer sound with a view of all of it."""

    def test_raw_sounds_are_never_longer(self, fused):
        """The extractor says so of a sound at random, and the model would fuse its copies."""
        for _ in range(5):
            inputs, (is_longer,), axes = fused.tower_a.prepare([sound(0.3), sound()])
            assert inputs.shape == (2, 4, 256, BINS)
            assert not is_longer.any()
        assert isinstance(fused.tower_a.axis_at(0, axes[0], 256), AudioAxis)

    @pytest.mark.parametrize("longer", [False, True])
    @pytest.mark.parametrize("layer", [0, 1, "input"])
    def test_every_layer_makes_the_score(self, fused, layer, longer):
        features = torch.randn(1, 4, 256, BINS, generator=torch.Generator().manual_seed(0)) - 1
        raw = 20 * features, torch.tensor([[longer]])
        imap = explain(fused, raw, CAPTION, layers=(layer, -1), n_steps=60)
        with torch.no_grad():
            expected = fused.tower_a.model(
                input_features=raw[0],
                is_longer=raw[1],
                **fused.tower_b.tokenizer(CAPTION, return_tensors="pt"),
            )
            expected = expected.logits_per_audio / fused.tower_a.model.logit_scale_a.exp()
        assert imap.score == pytest.approx(float(expected), abs=1e-5)
        # A token of fused crops hears several times.
        assert type(imap.axis_a) is (TokenAxis if longer else AudioAxis)


def test_the_baseline_is_what_the_model_normalises_to_zero():
    wrapper = wrap(clap())
    tower = wrapper.tower_a
    features = tower.prepare(tower.sample()).inputs
    baseline = tower.baseline(features)
    normalise = tower.model.audio_model.audio_encoder.batch_norm
    with torch.no_grad():
        centred = normalise(baseline.transpose(1, 3)) - normalise.bias[None, :, None, None]
    assert baseline.shape == features.shape
    assert centred.abs().max() < 1e-5
