"""What the rows and columns of an interaction map stand for: words of a text, patches of an image.

An axis turns what a person selects (a phrase, a character span, a box, a mask) into weights over
tokens. Axes are plain data: they keep no model and can be saved.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Weights = NDArray[np.float32]


class Unit(NamedTuple):
    """A part of an input that a person would name, and the tokens it is made of."""

    label: str
    tokens: tuple[int, ...]
    """Indices on the token axis."""


class Word(NamedTuple):
    """A word of a text and the tokens it is made of."""

    text: str
    span: tuple[int, int]
    """Half-open range of characters."""
    tokens: tuple[int, ...]
    """Indices on the token axis."""


@dataclass(frozen=True)
class TokenAxis:
    """Tokens without further meaning: labels, and which of them are special or padding."""

    labels: tuple[str, ...]
    special: tuple[bool, ...]
    padding: tuple[bool, ...]

    @classmethod
    def numbered(cls, n_tokens: int) -> TokenAxis:
        """An axis whose labels are ``"0"`` to ``str(n_tokens - 1)``."""
        none = (False,) * n_tokens
        return cls(tuple(str(index) for index in range(n_tokens)), none, none)

    def __len__(self) -> int:
        return len(self.labels)

    def at_input(self) -> TokenAxis:
        """The axis of the raw input: tokens that the model adds by itself are gone."""
        return self

    @property
    def units(self) -> tuple[Unit, ...]:
        """Tokens that are neither special nor padding, which is what a person would name."""
        return tuple(
            Unit(label, (index,))
            for index, label in enumerate(self.labels)
            if not (self.special[index] or self.padding[index])
        )

    def select(self, selection: Any = None) -> Weights:
        """Turn a selection into one weight a token.

        Args:
            selection: None for every token, or a slice, range, set or list of token indices.

        Returns:
            ndarray: float32 weights in [0, 1], shape (T,).

        Raises:
            TypeError: If the kind of selection is not one that this axis understands.
            ValueError: If nothing is selected.
        """
        weights = np.zeros(len(self), np.float32)
        if selection is None:
            weights[:] = 1.0
            return weights
        if isinstance(selection, slice):
            selection = range(*selection.indices(len(self)))
        if not isinstance(selection, (list, range, set, frozenset, np.ndarray)):
            raise TypeError(f"{self._expects()}, but got {selection!r}")
        indices = np.asarray(
            sorted(selection) if isinstance(selection, (set, frozenset)) else selection
        )
        if indices.ndim != 1 or not len(indices) or indices.dtype.kind not in "iu":
            raise ValueError(f"{self._expects()}, but got {selection!r}")
        outside = indices[(indices < -len(self)) | (indices >= len(self))]
        if len(outside):
            raise ValueError(f"token {outside[0]} does not exist: there are {len(self)} tokens")
        weights[indices] = 1.0
        return weights

    def _expects(self) -> str:
        return "select tokens by a slice, a range, a set or a list of indices"


@dataclass(frozen=True)
class TextAxis(TokenAxis):
    """The tokens of a text with the characters they cover.

    ``spans`` holds one half-open character range a token, and None for tokens without characters.
    """

    text: str
    spans: tuple[tuple[int, int] | None, ...]

    @property
    def words(self) -> tuple[Word, ...]:
        """Words and punctuation marks, each with its tokens. A token may serve two words."""
        found = []
        for match in re.finditer(r"\w+(?:['’\-]\w+)*|[^\w\s]", self.text):
            tokens = self._tokens_of(match.span())
            if tokens:
                found.append(Word(match.group(), match.span(), tokens))
        return tuple(found)

    @property
    def units(self) -> tuple[Unit, ...]:
        """Words, or tokens if the text is not known."""
        words = tuple(Unit(word.text, word.tokens) for word in self.words)
        return words or super().units

    def find(self, phrase: str) -> tuple[int, int]:
        """Character span of a phrase that occurs exactly once, ignoring case."""
        # Neither end may cut a word, and as all of it looks ahead, occurrences may overlap.
        pattern = rf"(?!\B\w)(?=({re.escape(phrase.strip())})(?!\B\w))"
        spans = [match.span(1) for match in re.finditer(pattern, self.text, re.IGNORECASE)]
        if not phrase.strip() or not spans:
            raise ValueError(f"the phrase {phrase!r} does not occur in {self.text!r}")
        if len(spans) > 1:
            raise ValueError(
                f"the phrase {phrase!r} occurs {len(spans)} times in {self.text!r}: "
                f"select one of the character spans {spans} instead"
            )
        return spans[0]

    def select(self, selection: Any = None) -> Weights:
        """Turn a selection into one weight a token.

        Args:
            selection: None for every token; a phrase (str) that occurs once in the text; a
                half-open character span (tuple of two ints); or a slice, range, set or list of
                token indices.

        Returns:
            ndarray: float32 weights, 1 for the selected tokens, shape (T,).

        Raises:
            TypeError: If the kind of selection is unknown.
            ValueError: If the phrase is missing or ambiguous, or nothing is selected.
        """
        if isinstance(selection, str):
            selection = self.find(selection)
        if isinstance(selection, (list, np.ndarray)) and len(selection) == 2:
            raise TypeError(
                f"{selection!r} may be two tokens or a character span: pass a set for tokens, a "
                "tuple for a span"
            )
        if isinstance(selection, tuple) and len(selection) == 2:
            start, stop = selection
            if not 0 <= start < stop <= len(self.text):
                raise ValueError(
                    f"({start}, {stop}) is not a character span of a text of {len(self.text)} "
                    f"characters"
                )
            selection = list(self._tokens_of((start, stop)))
            if not selection:
                raise ValueError(f"no token covers {self.text[start:stop]!r} at ({start}, {stop})")
        return super().select(selection)

    def _tokens_of(self, span: tuple[int, int]) -> tuple[int, ...]:
        return tuple(
            index
            for index, covered in enumerate(self.spans)
            if covered is not None and covered[0] < span[1] and span[0] < covered[1]
        )

    def _expects(self) -> str:
        return (
            "select tokens by a phrase, a (start, stop) character span, a slice, a range or a list "
            "of token indices"
        )


@dataclass(frozen=True)
class Frame:
    """Where the pixels that a model sees lie in the original image.

    A point (x, y) of the original image is at ``scale * (x, y) - offset`` in model pixels.
    """

    original: tuple[int, int]
    """(height, width) of the original image, in pixels."""
    size: tuple[int, int]
    """(height, width) of the model's input, in pixels."""
    scale: tuple[float, float]
    """Model pixels per original pixel, (x, y)."""
    offset: tuple[float, float]
    """Model pixels cut off at the left and the top (negative: added)."""

    @classmethod
    def identity(cls, size: tuple[int, int]) -> Frame:
        """The frame of an image that the model takes as it is."""
        return cls(size, size, (1.0, 1.0), (0.0, 0.0))


@dataclass(frozen=True)
class ImageAxis(TokenAxis):
    """The tokens of an image: special tokens first, then the cells of a patch grid, row by row."""

    grid: tuple[int, int]
    """(rows, columns) of patches."""
    cell: tuple[int, int]
    """(height, width) of a patch in model pixels."""
    frame: Frame
    image: Image.Image | None = None
    """The original image, if it is known."""

    @classmethod
    def of_grid(
        cls,
        grid: tuple[int, int],
        cell: tuple[int, int],
        frame: Frame,
        special: Sequence[str] = (),
        image: Image.Image | None = None,
    ) -> ImageAxis:
        """An axis of ``special`` leading tokens followed by the patches of a grid."""
        rows, columns = grid
        patches = [f"patch {row},{column}" for row in range(rows) for column in range(columns)]
        return cls(
            labels=(*special, *patches),
            special=(True,) * len(special) + (False,) * len(patches),
            padding=(False,) * (len(special) + len(patches)),
            grid=grid,
            cell=cell,
            frame=frame,
            image=image,
        )

    @property
    def n_special(self) -> int:
        """Number of tokens before the first patch."""
        return sum(self.special)

    def at_input(self) -> ImageAxis:
        n_special = self.n_special
        return replace(
            self,
            labels=self.labels[n_special:],
            special=self.special[n_special:],
            padding=self.padding[n_special:],
        )

    def select(self, selection: Any = None) -> Weights:
        """Turn a selection into one weight a token: the share of each patch that is covered.

        Args:
            selection: None for every token, special ones included; a box (x0, y0, x1, y1) in pixels
                of the original image; a boolean mask of the original image's (height, width); or a
                slice, range, set or list of token indices.

        Returns:
            ndarray: float32 weights in [0, 1], shape (T,).

        Raises:
            TypeError: If the kind of selection is unknown.
            ValueError: If a box is empty, a mask has another size, or the model sees none of it.
        """
        if isinstance(selection, np.ndarray) and selection.ndim == 2:
            coverage = self._mask_coverage(selection)
        elif isinstance(selection, tuple) and len(selection) == 4:
            coverage = self._box_coverage(selection)
        elif isinstance(selection, (list, np.ndarray)) and len(selection) == 4:
            raise TypeError(
                f"{selection!r} may be four tokens or a box: pass a set for tokens, a tuple "
                "(x0, y0, x1, y1) for a box"
            )
        else:
            return super().select(selection)
        if not coverage.any():
            raise ValueError(
                "the model sees nothing of the selected region: it lies outside of the crop of the "
                f"image ({self.frame})"
            )
        return np.concatenate([np.zeros(self.n_special), coverage.ravel()]).astype(np.float32)

    def _expects(self) -> str:
        return (
            "select patches by a box (x0, y0, x1, y1), a boolean mask of the image's (height, "
            "width), a slice, a range, a set or a list of token indices"
        )

    def to_grid(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of all tokens (..., T) as a grid (..., rows, columns), special tokens left out."""
        return values[..., self.n_special :].reshape(*values.shape[:-1], *self.grid)

    def to_image(self, grid: NDArray[Any], fill: float = 0.0) -> NDArray[Any]:
        """Spread a grid of values over the original image.

        Args:
            grid (ndarray): shape (rows, columns).
            fill (float): Value of pixels that the model does not see. Default: 0.0

        Returns:
            ndarray: shape (height, width) of the original image; each pixel has its patch's value.
        """
        index_x, inside_x = self._cells_of_pixels(axis=0)
        index_y, inside_y = self._cells_of_pixels(axis=1)
        values = grid[index_y[:, None], index_x[None, :]]
        return np.where(inside_y[:, None] & inside_x[None, :], values, fill)

    def extent(self) -> tuple[float, float, float, float]:
        """(left, right, bottom, top) of the patch grid in original pixels, as matplotlib has it."""
        x, y = self._edges(0), self._edges(1)
        return float(x[0]), float(x[-1]), float(y[-1]), float(y[0])

    def _edges(self, axis: int) -> NDArray[np.float64]:
        """Borders of the patches along x (axis 0) or y (axis 1), in original pixels."""
        count, length = self.grid[1 - axis], self.cell[1 - axis]
        model = np.arange(count + 1) * float(length)
        return np.asarray((model + self.frame.offset[axis]) / self.frame.scale[axis])

    def _cells_of_pixels(self, axis: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        centres = np.arange(self.frame.original[1 - axis]) + 0.5
        index = np.searchsorted(self._edges(axis), centres, side="right") - 1
        count = self.grid[1 - axis]
        return index.clip(0, count - 1), (index >= 0) & (index < count)

    def _box_coverage(self, box: tuple[float, float, float, float]) -> NDArray[np.float64]:
        x0, y0, x1, y1 = (float(value) for value in box)
        if not (x0 < x1 and y0 < y1):
            raise ValueError(f"a box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1, but got {box}")
        shares = []
        for low, high, axis in ((y0, y1, 1), (x0, x1, 0)):
            edges = self._edges(axis)
            overlap = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
            shares.append(overlap.clip(0) / np.diff(edges))
        return np.outer(*shares)

    def _mask_coverage(self, mask: NDArray[Any]) -> NDArray[np.float64]:
        if mask.shape != self.frame.original:
            raise ValueError(
                f"a mask must have the original image's (height, width) = {self.frame.original}, "
                f"but got shape {mask.shape}"
            )
        # Integrals over fractional rectangles: the running sum is linear between pixel borders.
        area = mask.astype(bool).astype(np.float64)
        for axis in (1, 0):
            edges = self._edges(axis)
            running = np.insert(np.cumsum(area, axis=0), 0, 0.0, axis=0)
            positions = np.arange(len(running))
            at_edges = np.stack(
                [np.interp(edges, positions, running[:, i]) for i in range(running.shape[1])], 1
            )
            area = (np.diff(at_edges, axis=0) / np.diff(edges)[:, None]).T
        return area
