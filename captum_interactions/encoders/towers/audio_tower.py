"""Audio towers, from spectrograms to embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_interactions.axes import AudioAxis, TokenAxis
from captum_interactions.encoders.towers.base import Layer, TowerInputs, unpacked
from captum_interactions.encoders.towers.block_tower import BlockTower, Run


class AudioTower(BlockTower):
    """An encoder of spectrograms, as in CLAP. Inputs have the shape (B, C, frames, mel bins).

    CLAP folds a spectrogram into a square: it divides time into stretches and stacks them. Hidden
    states are cells of that square, larger ones at later blocks. At the input, tokens are frames.
    The baseline is the mean of the model's training data, one level per mel bin, which the model
    normalises to zero. (Features are in decibels, so zero would be loud.)

    Args:
        model, run, blocks, skipped, answer: See :class:`~.block_tower.BlockTower`.
        n_stretches (int): Number of stacked stretches.
        mean_level (str): Name of the model's tensor of mean levels, one per mel bin.
        channels (int): Number of channels: 1, or 4 for models that fuse crops of longer sounds.
            Default: 1
        feature_extractor (optional): A feature extractor of ``transformers``, for raw sounds.
            Default: None
    """

    extra_names: tuple[str, ...] = ("is_longer",)

    def __init__(
        self,
        model: nn.Module,
        run: Run,
        blocks: Sequence[str],
        skipped: Sequence[str] = (),
        *,
        n_stretches: int,
        mean_level: str,
        channels: int = 1,
        feature_extractor: Any = None,
        answer: Callable[[Tensor], Any] | None = None,
    ) -> None:
        super().__init__(model, run, blocks, skipped, answer)
        self.n_stretches = n_stretches
        self.channels = channels
        self._mean_level = mean_level
        self.n_mel_bins = len(model.get_buffer(mean_level))
        self.feature_extractor = feature_extractor

    def check(self, inputs: Tensor, *extras: Any) -> None:
        shape = tuple(inputs.shape)
        if inputs.dim() != 4 or (shape[1], shape[3]) != (self.channels, self.n_mel_bins):
            raise ValueError(
                f"audio features must have shape (B, {self.channels}, frames, {self.n_mel_bins}), "
                f"but got {shape} (does the feature extractor's truncation, 'fusion' or "
                "'rand_trunc', fit the model?)"
            )
        is_longer = extras[0] if extras else None
        if is_longer is not None and is_longer.shape != (len(inputs), 1):
            raise ValueError(
                f"audio features of shape {tuple(inputs.shape)} need is_longer of shape "
                f"({len(inputs)}, 1), but got {tuple(is_longer.shape)}"
            )

    def baseline(self, inputs: Tensor, *extras: Any) -> Tensor:
        return self.model.get_buffer(self._mean_level).to(inputs).expand_as(inputs)

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        """Convert sounds to :class:`TowerInputs`.

        Args:
            raw: A sound or a list of sounds: float samples of shape (n,) at the sampling rate of
                the feature extractor. A ready tensor of features (B, C, frames, mel bins), or a
                tuple of it and ``is_longer``, is taken as one that fills the model's window. Where
                a model fuses crops of a longer sound (``is_longer`` and several channels), tokens
                stand for no one time: they are numbered.
            truncation (bool): Keep the start of sounds that are longer than the model's window
                instead of raising an error. Default: False
        """
        raw = unpacked(raw, "input_features", self.extra_names)
        ready = raw if isinstance(raw, tuple) else (raw,)
        if ready and isinstance(ready[0], Tensor) and ready[0].dim() > 1:
            features, *rest = ready
            self.check(features, *rest)
            is_longer = rest[0] if rest else torch.zeros(len(features), 1, dtype=torch.bool)
            n_frames = features.shape[2]
            extractor = self.feature_extractor
            window = extractor.nb_max_samples / extractor.sampling_rate if extractor else n_frames
            fused = is_longer.flatten().bool() & (features.shape[1] > 1)
            axes: tuple[TokenAxis, ...] = tuple(
                TokenAxis.numbered(n_frames) if several else self._axis(n_frames, window, 1)
                for several in fused.tolist()
            )
        else:
            features, is_longer, axes = self._extract(raw, truncation)
            self.check(features)
        features = features.to(self.device, self.dtype)
        return TowerInputs(features, (is_longer.to(self.device),), axes)

    def sample(self) -> Any:
        generator = torch.Generator().manual_seed(0)
        if self.feature_extractor is not None:
            length = self.feature_extractor.nb_max_samples
            sound = torch.randn(length, generator=generator)
            return [sound[: length // 3], sound]
        n_frames = self.n_stretches**2 * self.n_mel_bins
        shape = (2, self.channels, n_frames, self.n_mel_bins)
        return torch.randn(shape, generator=generator).to(self.dtype)

    def axis_at(self, layer: Layer, axis: TokenAxis, n_tokens: int) -> TokenAxis:
        side = math.isqrt(n_tokens)
        n_bands = side // self.n_stretches
        is_square = side * side == n_tokens and n_bands * self.n_stretches == side
        if layer == "input" or not (isinstance(axis, AudioAxis) and is_square):
            return super().axis_at(layer, axis, n_tokens)
        row, column = np.divmod(np.arange(n_tokens), side)
        stretch, band = np.divmod(row, n_bands)
        start = (stretch + column / side) / self.n_stretches
        window = axis.times[-1][1]
        times = window * np.stack([start, start + 1 / (side * self.n_stretches)], axis=1)
        return AudioAxis.of_cells(times, band, axis.duration, axis.copies)

    def context(self, inputs: Tensor, *extras: Any) -> tuple[Any, ...]:
        return (tuple(inputs.shape[1:]), *extras)

    def recall(
        self, states: Tensor, shape: tuple[int, ...], *extras: Any
    ) -> tuple[Tensor, Tensor, Sequence[Any], tuple[Tensor, Tensor | None] | None]:
        # The model uses only the shape of the features.
        return states, states.new_zeros(()).expand(len(states), *shape), extras, None

    def fold(self, layer: Layer, attribution: Tensor) -> Tensor:
        if layer != "input":
            return super().fold(layer, attribution)
        return attribution.sum((1, 3))

    def spread(self, layer: Layer, weights: Tensor, shape: Any) -> Tensor:
        if layer != "input":
            return super().spread(layer, weights, shape)
        return weights[..., None, :, None]

    def _extract(self, raw: Any, truncation: bool) -> tuple[Tensor, Tensor, tuple[AudioAxis, ...]]:
        extractor = self.feature_extractor
        if extractor is None:
            raise ValueError(
                f"raw sounds ({type(raw).__name__}) need a feature extractor, which wrap() was not "
                "given: pass it the model's processor, or a tuple of one for each input, or pass "
                "audio features as a tensor"
            )
        sounds = [_samples(sound) for sound in (raw if isinstance(raw, (list, tuple)) else [raw])]
        if not sounds:
            raise ValueError("expected at least one sound, but got an empty list")
        rate, longest = extractor.sampling_rate, extractor.nb_max_samples
        for index, sound in enumerate(sounds):
            if len(sound) > longest and not truncation:
                raise ValueError(
                    f"sound {index} has {len(sound) / rate:.2f} seconds at {rate} Hz, but the "
                    f"model's window holds {longest / rate:.2f}; cut it or pass truncation=True"
                )
        # The extractor would crop longer sounds at random.
        sounds = [sound[:longest] for sound in sounds]
        encoding = extractor(sounds, sampling_rate=rate, return_tensors="pt")
        features = encoding["input_features"]
        # For models that fuse crops, the extractor marks one sound at random as longer than the
        # window, but none is.
        is_longer = torch.zeros(len(sounds), 1, dtype=torch.bool)
        repeats = {"repeat": math.ceil, "repeatpad": math.floor}.get(extractor.padding)
        axes = tuple(
            self._axis(
                features.shape[2],
                longest / rate,
                repeats(longest / len(sound)) if repeats else 1,
                len(sound) / rate,
            )
            for sound in sounds
        )
        return features, is_longer, axes

    def _axis(
        self, n_frames: int, window: float, copies: int, duration: float | None = None
    ) -> AudioAxis:
        edges = np.linspace(0, window, n_frames + 1)
        times = np.stack([edges[:-1], edges[1:]], axis=1)
        bands = np.zeros(n_frames, np.int64)
        return AudioAxis.of_cells(times, bands, duration or window, copies)


def _samples(sound: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    if isinstance(sound, Tensor):
        sound = sound.detach().cpu().numpy()
    if not isinstance(sound, np.ndarray) or sound.ndim != 1 or sound.dtype.kind != "f":
        came = type(sound).__name__
        if isinstance(sound, np.ndarray):
            came = f"{sound.dtype} of shape {sound.shape}"
        raise TypeError(
            "a sound is an array of float samples of shape (n,), one channel at the model's "
            f"sampling rate (read a file with soundfile and dtype='float32'), but got {came}"
        )
    if not len(sound):
        raise ValueError("a sound must have at least one sample, but got none")
    return sound.astype(np.float32)
