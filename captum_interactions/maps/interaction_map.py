"""The explanation of one pair: constant, main effects and interactions that sum to the score."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_interactions.axes import AudioAxis, ImageAxis, TextAxis, TokenAxis
from captum_interactions.maps.base import SUMMARY_WIDTH, AttributionMap, fold
from captum_interactions.maps.files import read_map, write_map
from captum_interactions.maps.shapiq import Parts, axis_of_units, map_values, parts

if TYPE_CHECKING:
    import pandas as pd
    import shapiq

_TENSORS = ("interactions", "main_effects_a", "main_effects_b")
_NUMBERS = ("constant", "score", "convergence_delta")


class Pair(NamedTuple):
    """A part of a, a part of b, and their interaction."""

    a: str
    b: str
    attribution: float


@dataclass(frozen=True, repr=False, eq=False)
class InteractionMap(AttributionMap):
    """The parts of the score of one pair, with axes that describe rows and columns.

    ``score = constant + sum of all main effects + sum of all interactions - convergence_delta``.

    A *selection* of a text is a phrase that occurs once in it, a half-open character span, or token
    indices (slice, range, set or list). A selection of an image is a box ``(x0, y0, x1, y1)`` in
    its pixels, a mask of its (height, width), or token indices. None selects every token, special
    ones included. Sums over selections are consistent: a map is additive.
    """

    interactions: Tensor
    """Interaction of each token of a with each token of b, shape (Ta, Tb)."""
    main_effects_a: Tensor
    """Main effect of each token of a, independent of b, shape (Ta,)."""
    main_effects_b: Tensor
    """Main effect of each token of b, independent of a, shape (Tb,)."""
    constant: float
    """The score of the two baselines."""
    score: float
    """The explained score, as computed by the model."""
    convergence_delta: float
    """Sum of all parts minus the score; zero if the method is complete."""
    axis_a: TokenAxis
    """The axis of the rows."""
    axis_b: TokenAxis
    """The axis of the columns."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The method and its options."""

    def __post_init__(self) -> None:
        expected = (len(self.axis_a), len(self.axis_b))
        shapes = tuple(tuple(getattr(self, name).shape) for name in _TENSORS)
        if shapes != (expected, expected[:1], expected[1:]):
            raise ValueError(
                f"the axes have {expected[0]} and {expected[1]} tokens, but interactions and main "
                f"effects have shapes {shapes}"
            )

    def marginal_a(self, b: Any = None) -> Tensor:
        """Interaction of each token of a with a selection of b, shape (Ta,)."""
        return self.interactions @ torch.from_numpy(self.axis_b.select(b))

    def marginal_b(self, a: Any = None) -> Tensor:
        """Interaction of each token of b with a selection of a, shape (Tb,)."""
        return torch.from_numpy(self.axis_a.select(a)) @ self.interactions

    def between(self, a: Any = None, b: Any = None) -> float:
        """Interaction of a selection of a with a selection of b."""
        return float(torch.from_numpy(self.axis_a.select(a)) @ self.marginal_a(b))

    @property
    def scale(self) -> float:
        main = (float(self.main_effects_a.sum()), float(self.main_effects_b.sum()))
        return max(super().scale, *map(abs, (self.constant, *main)))

    @property
    def _values_of_units(self) -> dict[str, NDArray[np.float32]]:
        return {"interactions": self.by_unit().numpy()}

    def by_unit(self) -> Tensor:
        """Interactions of words, patches or other parts, as ``axis_a.units`` and ``axis_b.units``.

        The tokens of a word are summed; special and padding tokens are left out.

        Returns:
            Tensor: shape (units of a, units of b).
        """
        rows = self.axis_a.sum_units(self.interactions.numpy().T).T
        return torch.from_numpy(self.axis_b.sum_units(rows))

    def top_pairs(self, k: int = 10) -> list[Pair]:
        """The k strongest interactions of words and patches, positive or negative.

        The tokens of a word are summed; special and padding tokens are left out.
        """
        return self._strongest(
            [unit.label for unit in self.axis_a.units], [unit.label for unit in self.axis_b.units]
        )[:k]

    def _strongest(self, names_a: Sequence[str], names_b: Sequence[str]) -> list[Pair]:
        """All pairs of units with these names, the strongest first."""
        by_unit = self.by_unit()
        order = by_unit.flatten().abs().argsort(descending=True).tolist()
        pairs = (divmod(index, len(names_b)) for index in order)
        return [Pair(names_a[i], names_b[j], float(by_unit[i, j])) for i, j in pairs]

    def to_numpy(self) -> NDArray[np.float32]:
        """The interactions as an array, shape (Ta, Tb)."""
        values: NDArray[np.float32] = self.interactions.numpy().copy()
        return values

    def to_dataframe(self) -> pd.DataFrame:
        """The interactions as a table, rows and columns named by their tokens (needs pandas)."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "to_dataframe() needs pandas: pip install 'captum-interactions[pandas]'"
            ) from error
        return pd.DataFrame(
            self.to_numpy(), index=list(self.axis_a.labels), columns=list(self.axis_b.labels)
        )

    def to_shapiq(self, *, units: bool = True) -> shapiq.InteractionValues:
        """The map as ``shapiq.InteractionValues``, which shapiq can plot (needs shapiq).

        Players are the parts of a, then those of b. A map is an additive model: the value of a
        coalition is the constant plus the main effects and the interactions of its members. The
        values are the coefficients of that model, its Möbius transform.

        Args:
            units (bool, optional): Players are words, patches and other ``axis_a.units`` and
                ``axis_b.units``; contributions of special tokens and padding are added to the
                value of the empty set and to the players that they interact with. If False,
                players are tokens. Default: True

        Raises:
            ImportError: If shapiq is not installed.
        """
        own = Parts(self.constant, self.main_effects_a, self.main_effects_b, self.interactions)
        return map_values(own, self.axis_a, self.axis_b, units=units)

    @classmethod
    def from_shapiq(
        cls,
        values: shapiq.InteractionValues,
        axis_a: TokenAxis,
        axis_b: TokenAxis,
        *,
        score: float | None = None,
    ) -> InteractionMap:
        """A map from ``shapiq.InteractionValues``, this package's or its own (needs shapiq).

        For a game of second order, the map is exact for every index: half of each interaction
        within an input is added to the main effects of its two players. For other games, it is the
        second-order approximation that the index defines.

        Args:
            values (shapiq.InteractionValues): Of second order at most, of the index ``SII``,
                ``BII``, ``k-SII``, ``STII``, ``FSII``, ``FBII``, ``kADD-SHAP`` or ``Moebius``;
                players are the parts of a, then those of b.
            axis_a, axis_b (TokenAxis): The axes of a map of the same pair. Players are tokens or
                units, according to their number.
            score (float, optional): The explained score. Default: None, the sum of all parts

        Raises:
            ImportError: If shapiq is not installed.
            TypeError: If ``values`` are not InteractionValues.
            ValueError: If the number of players is neither that of tokens nor that of units, values
                have a higher order, or the index is not supported.
        """
        if getattr(values, "n_players", None) != len(axis_a) + len(axis_b):
            axis_a, axis_b = axis_of_units(axis_a), axis_of_units(axis_b)
        found = parts(values, len(axis_a), len(axis_b))
        total = found.constant + float(sum(part.double().sum() for part in found[1:]))
        score = total if score is None else score
        return cls(
            interactions=found.interactions,
            main_effects_a=found.main_effects_a,
            main_effects_b=found.main_effects_b,
            constant=found.constant,
            score=score,
            convergence_delta=total - score,
            axis_a=axis_a,
            axis_b=axis_b,
            settings={"attribution": f"shapiq {values.index}"},
        )

    def save(self, path: str | Path) -> None:
        """Write the map, with its image, to a safetensors file with a JSON header.

        The file is replaced as a whole: one that is there stays if this fails.

        Raises:
            OSError: If the file cannot be written.
            ValueError: If the file has the suffix of a picture, a page or a table.
        """
        header = {name: getattr(self, name) for name in (*_NUMBERS, "settings")}
        tensors = {name: getattr(self, name) for name in _TENSORS}
        write_map(path, tensors, header, {"axis_a": self.axis_a, "axis_b": self.axis_b})

    @classmethod
    def load(cls, path: str | Path) -> InteractionMap:
        """Read a file of :meth:`save`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a map, or a field is invalid; the message names it.
        """
        return cls(**read_map(path, _TENSORS, _NUMBERS))

    def __repr__(self) -> str:
        total = float(self.interactions.sum())
        parts = [
            f"constant {self.constant:+.3f}",
            f"main effects a {float(self.main_effects_a.sum()):+.3f}",
            f"main effects b {float(self.main_effects_b.sum()):+.3f}",
            f"interactions {total:+.3f} (convergence delta {self.convergence_delta:+.1e})",
        ]
        names = f"InteractionMap of {_name(self.axis_a)} and {_name(self.axis_b)}"
        heading = textwrap.fill(
            names, SUMMARY_WIDTH, subsequent_indent="    ", break_on_hyphens=False
        )
        lines = [heading, fold(f"  score {self.score:.3f} =", parts)]
        pairs = self._strongest(*map(_unit_names, (self.axis_a, self.axis_b)))
        for title, chosen in (
            ("matches", [pair for pair in pairs if pair.attribution > 0]),
            ("clashes", [pair for pair in pairs if pair.attribution < 0]),
        ):
            story = [f"{b} × {a} {value:+.4f}" for a, b, value in chosen[:3]] or ["none"]
            lines.append(fold(f"  strongest {title}:", story))
        return "\n".join([*lines, *self._notes()])


def _unit_names(axis: TokenAxis) -> list[str]:
    """Names of the units; words in quotes, and those that occur several times with their number."""
    labels = [unit.label for unit in axis.units]
    if not isinstance(axis, TextAxis):
        return labels
    counts, seen = Counter(labels), Counter[str]()
    names = []
    for label in labels:
        seen[label] += 1
        number = f" ({seen[label]} of {counts[label]})" if counts[label] > 1 else ""
        names.append(f"{label!r}{number}")
    return names


def _name(axis: TokenAxis) -> str:
    if isinstance(axis, ImageAxis):
        return f"an image of {axis.grid[0]} × {axis.grid[1]} patches"
    if isinstance(axis, AudioAxis):
        return f"a sound of {axis.duration:.2f} seconds"
    if isinstance(axis, TextAxis) and axis.text:
        return repr(axis.text)
    return f"{len(axis)} tokens"
