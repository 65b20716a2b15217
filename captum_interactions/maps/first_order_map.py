"""The explanation of one pair by a first-order method: one value per token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from captum_interactions.axes import TokenAxis
from captum_interactions.maps.base import AttributionMap, fold
from captum_interactions.maps.sides import Side


@dataclass(frozen=True, repr=False, eq=False)
class FirstOrderMap(AttributionMap):
    """Contributions of the tokens of each input to the score.

    It has the views of an :class:`~captum_interactions.InteractionMap`, so that methods can be
    compared by changing one name. A first-order map has no interactions, so a selection of the
    other input has no effect.
    """

    attributions_a: Tensor | None
    """One value per token of a, shape (Ta,); None if the method has no map of a."""
    attributions_b: Tensor | None
    """One value per token of b, shape (Tb,); None if the method has no map of b."""
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
        return self._values("a", self.attributions_a)

    def marginal_b(self, a: Any = None) -> Tensor:
        """Attributions of the tokens of b, shape (Tb,), the same for every selection of a.

        Raises:
            ValueError: If the method has no map of b.
        """
        return self._values("b", self.attributions_b)

    @property
    def _values_of_units(self) -> dict[str, NDArray[np.float32]]:
        sides = (
            ("input a", self.axis_a, self.attributions_a),
            ("input b", self.axis_b, self.attributions_b),
        )
        return {
            name: axis.sum_units(values.numpy())
            for name, axis, values in sides
            if values is not None
        }

    def __repr__(self) -> str:
        sides = []
        for side, axis, values in (
            ("a", self.axis_a, self.attributions_a),
            ("b", self.axis_b, self.attributions_b),
        ):
            if values is None:
                sides.append(f"  {side}: none")
                continue
            by_unit = zip(axis.units, axis.sum_units(values.numpy()).tolist(), strict=True)
            strongest = sorted(by_unit, key=lambda item: -abs(item[1]))[:3]
            story = [f"{unit.label} {value:+.4f}" for unit, value in strongest]
            sides.append(fold(f"  {side}: sum {float(values.sum()):+.4f}, strongest", story))
        name = self.settings.get("attribution", "first order")
        heading = f"FirstOrderMap ({name}), score {self.score:.3f}"
        return "\n".join([heading, *sides, *self._notes()])

    def _values(self, side: Side, values: Tensor | None) -> Tensor:
        if values is None:
            name = self.settings.get("attribution", "this method")
            raise ValueError(f"{name} has no map of input {side}")
        return values
