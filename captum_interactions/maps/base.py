"""The base class of maps of both orders: two axes, sums over selections, and views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from captum_interactions.axes import ImageAxis, TokenAxis
from captum_interactions.maps.sides import Side, axis_of, picture_side, text_side
from captum_interactions.maps.titles import method_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUMMARY_WIDTH = 88
"""Letters of a line of a map's summary: what a page of documentation has room for."""
ROUNDING = 2.0**-18
"""Size of rounding errors, relative to a score: a value of a map is a sum of about a thousand
products in float32, whose relative errors of 2**-23 add up to about 2**5 of one."""


class AttributionMap(ABC):
    """The explanation of the score of one pair, with the meaning of its tokens.

    :class:`~captum_interactions.InteractionMap` says what a selection of an input is.
    """

    score: float
    """The explained score, as computed by the model."""
    axis_a: TokenAxis
    """The axis of the tokens of a."""
    axis_b: TokenAxis
    """The axis of the tokens of b."""
    settings: dict[str, Any]
    """How the map was computed: the method, its options and the name of the model."""

    @abstractmethod
    def marginal_a(self, b: Any = None) -> Tensor:
        """One value per token of a for a selection of b, shape (Ta,)."""

    @abstractmethod
    def marginal_b(self, a: Any = None) -> Tensor:
        """One value per token of b for a selection of a, shape (Tb,)."""

    @property
    def method(self) -> str:
        """Readable name of the method, ``"attribution"`` if it is unknown."""
        return method_title(str(self.settings.get("attribution", "attribution")))

    @property
    @abstractmethod
    def _values_of_units(self) -> dict[str, NDArray[np.float32]]:
        """The values of words, patches and other parts, by their names in messages."""

    @property
    def scale(self) -> float:
        """Magnitude of the numbers that the values add up to: 1 for cosines."""
        is_cosine = "layers" in self.settings and self.settings.get("normalization") != "none"
        return 1.0 if is_cosine else abs(self.score)

    @property
    def rounding(self) -> float:
        """Values up to this magnitude are indistinguishable from rounding errors."""
        return ROUNDING * self.scale

    @property
    def at_rounding(self) -> tuple[str, ...]:
        """Names of values that are all within rounding errors, but not zero; usually none.

        ``"interactions"`` of words and patches, or for a first-order map the values of
        ``"input a"`` or ``"input b"``. Such values carry no information.
        """
        sizes = {name: np.abs(v).max(initial=0.0) for name, v in self._values_of_units.items()}
        return tuple(name for name, size in sizes.items() if 0 < size <= self.rounding)

    def marginal(self, side: Side, selection: Any = None) -> Tensor:
        """:meth:`marginal_a` or :meth:`marginal_b`, for a selection of the other input."""
        return self.marginal_a(selection) if side == "a" else self.marginal_b(selection)

    def heatmap(self, selection: Any = None) -> NDArray[np.float32]:
        """One value per patch of the image or cell of the sound, for a selection of the other.

        Positive values increase the score together with the selection, negative ones decrease it.

        Args:
            selection (optional): A selection of the other input: of the text, or of b if both are
                images. Default: None, all of it

        Returns:
            ndarray: shape (rows, columns). Special tokens of the image are left out. For a sound,
            one value per cell of its spectrogram, shape (bands, columns).

        Raises:
            TypeError: If neither input is an image or a sound.
            ValueError: If the method has no map of it.
        """
        side = picture_side(self)
        axis: Any = axis_of(self, side)
        heat: NDArray[np.float32] = axis.to_grid(self.marginal(side, selection).numpy())
        return heat

    def word_weights(self, selection: Any = None) -> list[tuple[str, float]]:
        """One value per word, for a selection of the other input.

        Positive values increase the score together with the selection, negative ones decrease it.

        Args:
            selection (optional): A selection of the input that is not the text (of a, if both are
                texts). Default: None, all of it

        Returns:
            list: (word, weight) in reading order.

        Raises:
            TypeError: If neither input is a text.
            ValueError: If the method has no map of it.
        """
        side = text_side(self)
        axis = axis_of(self, side)
        weights = axis.sum_units(self.marginal(side, selection).numpy()).tolist()
        return [(unit.label, weight) for unit, weight in zip(axis.units, weights, strict=True)]

    def plot(
        self, b: Any = None, a: Any = None, ax: Axes | None = None, **options: Any
    ) -> tuple[Figure, Axes]:
        """Draw an image with its heat map and the words of the caption; other pairs as a matrix.

        Other figures are functions of :mod:`captum_interactions.visualization`.

        Args:
            b (optional): A selection of the text, whose heat map is drawn. For a first-order map, a
                phrase to frame.
            a (optional): A selection of the image, whose words are coloured. For a first-order map,
                a region to outline.
            ax (Axes, optional): Axes to draw on. Default: a new figure
            options: Options of :func:`~captum_interactions.visualization.plot_interactions`
                (``style``, ``upsampling``), or of
                :func:`~captum_interactions.visualization.plot_matrix` (``by``, ``limit``).

        Returns:
            tuple: figure and axes; nothing is shown.

        Raises:
            TypeError: If the pair is not an image and a caption, and there is a selection or the
                map is of first order.
        """
        drawn: tuple[Figure, Axes] = _views().draw(self, b=b, a=a, ax=ax, **options)
        return drawn

    def to_html(
        self,
        others: Sequence[AttributionMap] = (),
        *,
        title: str | None = None,
        a: Any = None,
        b: Any = None,
    ) -> str:
        """An interactive page as one self-contained HTML file that needs no network.

        Select words to colour the image by their values; drag a box on the image to colour the
        words. Pairs of other inputs are shown in the same way.

        Args:
            others (sequence): Maps of the same pair by other methods, to compare.
            title (str, optional): Heading of the page.
            a (optional): The initial selection of a: a phrase or character span of a text, a box
                of an image.
            b (optional): The same for b.

        Returns:
            str: an HTML document; :meth:`save_html` writes it.

        Raises:
            TypeError: If ``others`` are not maps, or the page cannot select ``a`` or ``b``.
            ValueError: If a map holds values that are not finite.
        """
        page: str = _views().report_html([[self, *others]], title=title, a=a, b=b)
        return page

    def save_html(
        self,
        path: str | Path,
        others: Sequence[AttributionMap] = (),
        *,
        title: str | None = None,
        a: Any = None,
        b: Any = None,
    ) -> None:
        """Write the page of :meth:`to_html` to a file, with the same arguments."""
        _views().save_report(path, [[self, *others]], title=title, a=a, b=b)

    def _notes(self) -> list[str]:
        """Remarks on the map, one per line."""
        notes = []
        for name, axis in (("a", self.axis_a), ("b", self.axis_b)):
            if isinstance(axis, ImageAxis) and axis.is_cropped:
                height, width = axis.frame.original
                x0, y0, x1, y1 = axis.visible
                notes.append(
                    f"  input {name} was cropped: of {width} × {height} pixels, the model sees x "
                    f"{x0:.0f}–{x1:.0f} and y {y0:.0f}–{y1:.0f}"
                )
        if self.at_rounding:
            names = " and ".join(self.at_rounding)
            notes.append(f"  no larger than rounding errors: {names} (up to {self.rounding:.0e})")
        return notes

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks."""
        page: str = _views().notebook_html(self)
        return page


def fold(start: str, items: Sequence[str]) -> str:
    """A line of a summary that lists items; it is folded between items where it is too long.

    Examples:
        >>> fold("  strongest:", ["'red' +0.4710", "'triangle' +0.1695"])
        "  strongest: 'red' +0.4710, 'triangle' +0.1695"
    """
    lines = [start]
    for number, item in enumerate(items, 1):
        piece = f" {item}" + ("," if number < len(items) else "")
        if len(lines[-1]) + len(piece) > SUMMARY_WIDTH:
            lines.append("   ")
        lines[-1] += piece
    return "\n".join(lines)


def _views() -> Any:
    """The module of figures and pages. It imports maps, so it is imported on first use."""
    from captum_interactions.visualization import views

    return views
