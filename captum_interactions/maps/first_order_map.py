"""The explanation of one pair by a first-order method: one value a token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from captum_interactions.axes import AudioAxis, ImageAxis, TextAxis, TokenAxis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class FirstOrderMap:
    """How much each token of either input contributes to the score, whatever the other input holds.

    It has the views of an :class:`~captum_interactions.InteractionMap`, so that methods can be
    compared by changing one name; but a first-order map knows no pairs, so a selection of the other
    input changes nothing.
    """

    attributions_a: Tensor | None
    """One value a token of a, shape (Ta,); None if the method has no map of a."""
    attributions_b: Tensor | None
    """One value a token of b, shape (Tb,); None if the method has no map of b."""
    score: float
    axis_a: TokenAxis
    axis_b: TokenAxis
    settings: dict[str, Any] = field(default_factory=dict)
    """The method and its options."""

    def marginal_a(self, b: Any = None) -> Tensor:
        """Attributions of the tokens of a, shape (Ta,), the same for every selection of b.

        Raises:
            ValueError: If the method has no map of a.
        """
        return self._values("a")

    def marginal_b(self, a: Any = None) -> Tensor:
        """Attributions of the tokens of b, shape (Tb,), the same for every selection of a."""
        return self._values("b")

    def heatmap(self, selection: Any = None) -> NDArray[np.float32]:
        """Attributions of the patches of an image (rows, columns) or the cells of a sound.

        Raises:
            TypeError: If neither input is an image or a sound.
            ValueError: If the method has no map of it.
        """
        for side, axis in (("a", self.axis_a), ("b", self.axis_b)):
            if isinstance(axis, (ImageAxis, AudioAxis)):
                return axis.to_grid(self._values(side).numpy())
        raise TypeError(
            f"neither input is an image or a sound: the axes are {type(self.axis_a).__name__} and "
            f"{type(self.axis_b).__name__}; use marginal_a or marginal_b"
        )

    def word_weights(self, selection: Any = None) -> list[tuple[str, float]]:
        """(word, weight) of a text, in reading order; of b, if both are texts.

        Raises:
            TypeError: If neither input is a text.
            ValueError: If the method has no map of it.
        """
        for side, axis in (("b", self.axis_b), ("a", self.axis_a)):
            if isinstance(axis, TextAxis):
                values = self._values(side)
                return [(unit.label, float(values[list(unit.tokens)].sum())) for unit in axis.units]
        raise TypeError(
            f"neither input is a text: the axes are {type(self.axis_a).__name__} and "
            f"{type(self.axis_b).__name__}; use marginal_a or marginal_b"
        )

    def plot(
        self, b: Any = None, a: Any = None, ax: Axes | None = None, **options: Any
    ) -> tuple[Figure, Axes]:
        """Draw an image with its heat map and the caption's words, as an interaction map is.

        Args:
            b: A phrase to frame in the caption.
            a: A region to outline in the image.
            ax (Axes, optional): Where to draw. Default: a new figure
            options: Options of :func:`~captum_interactions.visualization.plot_interactions`
                (``style``, ``upsampling``).
        """
        from captum_interactions.visualization import plot_interactions

        return plot_interactions(self, b=b, a=a, ax=ax, **options)

    def __repr__(self) -> str:
        sides = []
        for side, axis in (("a", self.axis_a), ("b", self.axis_b)):
            values = self.attributions_a if side == "a" else self.attributions_b
            if values is None:
                sides.append(f"  {side}: none")
                continue
            by_unit = [(float(values[list(u.tokens)].sum()), u.label) for u in axis.units]
            strongest = sorted(by_unit, key=lambda item: -abs(item[0]))[:3]
            story = ", ".join(f"{label} {value:+.4f}" for value, label in strongest)
            sides.append(f"  {side}: sum {float(values.sum()):+.4f}, strongest {story}")
        name = self.settings.get("attribution", "first order")
        return "\n".join([f"FirstOrderMap ({name}), score {self.score:.3f}", *sides])

    def _values(self, side: str) -> Tensor:
        values = self.attributions_a if side == "a" else self.attributions_b
        if values is None:
            name = self.settings.get("attribution", "this method")
            raise ValueError(f"{name} has no map of input {side}")
        return values
