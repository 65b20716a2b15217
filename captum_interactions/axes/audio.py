"""The axis of a sound: time and frequency of its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captum_interactions.axes.token import TokenAxis, Weights


@dataclass(frozen=True)
class AudioAxis(TokenAxis):
    """The tokens of a sound: cells of a spectrogram, or whole stretches of time."""

    times: tuple[tuple[float, float], ...]
    """Start and stop of each token in seconds, from the start of the model's window."""
    bands: tuple[int, ...]
    """Frequency band of each token; 0 is the lowest."""
    duration: float
    """Seconds of the original sound."""
    copies: int
    """Number of repetitions of the sound in the window; silence follows."""

    @classmethod
    def of_cells(
        cls,
        times: NDArray[np.float64],
        bands: NDArray[np.int64],
        duration: float,
        copies: int,
    ) -> AudioAxis:
        """An axis whose tokens are named after their seconds and bands."""
        spans = tuple((float(start), float(stop)) for start, stop in times)
        names = [f"{start:.2f}–{stop:.2f} s" for start, stop in spans]
        if bands.any():
            names = [f"{name}, band {band}" for name, band in zip(names, bands, strict=True)]
        none = (False,) * len(names)
        return cls(tuple(names), none, none, spans, tuple(bands.tolist()), duration, copies)

    def select(self, selection: Any = None) -> Weights:
        """Convert a selection to one weight per token: the share of its time that is covered.

        Args:
            selection: None for every token; a tuple (start, stop) in seconds of the original sound,
                which selects its repetitions too; or a slice, range, set or list of token
                indices.

        Returns:
            ndarray: float32 weights in [0, 1], shape (T,).

        Raises:
            TypeError: If the kind of selection is unknown.
            ValueError: If the seconds are not a part of the sound, or nothing is selected.
        """
        if not (isinstance(selection, tuple) and len(selection) == 2):
            return super().select(selection)
        start, stop = selection
        if not 0 <= start < stop <= self.duration:
            raise ValueError(
                f"({start}, {stop}) is not a part of a sound of {self.duration:.2f} seconds"
            )
        first, last = np.array(self.times).T
        covered = np.zeros(len(self))
        for shift in self.duration * np.arange(self.copies):
            covered += (np.minimum(last, stop + shift) - np.maximum(first, start + shift)).clip(0)
        if not covered.any():
            raise ValueError(
                f"the model hears nothing of ({start}, {stop}): its window ends before"
            )
        weights: Weights = (covered / (last - first)).astype(np.float32)
        return weights

    def to_grid(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of all tokens (..., T) as (..., bands, columns of time), low frequencies first."""
        order = sorted(range(len(self)), key=lambda token: (self.bands[token], self.times[token]))
        return values[..., order].reshape(*values.shape[:-1], max(self.bands) + 1, -1)

    def _expects(self) -> str:
        return (
            "select parts of a sound by a tuple (start, stop) of seconds, or by a slice, a range, "
            "a set or a list of token indices"
        )
