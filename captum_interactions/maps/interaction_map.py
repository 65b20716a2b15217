"""The explanation of one pair: what matched, what clashed, and how all of it makes the score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from captum_interactions.axes import AudioAxis, ImageAxis, TextAxis, TokenAxis
from captum_interactions.axes.fields import axis_from_fields, axis_to_fields

if TYPE_CHECKING:
    import pandas as pd
    import shapiq
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_interactions.maps.first_order_map import FirstOrderMap

_FORMAT = "captum_interactions.InteractionMap/1"
_TENSORS = ("interactions", "main_effects_a", "main_effects_b")
_NUMBERS = ("constant", "score", "convergence_delta")


class Pair(NamedTuple):
    """A part of a, a part of b, and their interaction."""

    a: str
    b: str
    attribution: float


@dataclass(frozen=True, repr=False, eq=False)
class InteractionMap:
    """The parts of the score of one pair, with the meaning of their rows and columns.

    ``score = constant + sum of all main effects + sum of all interactions - convergence_delta``.

    A *selection* of a text is a phrase that occurs once in it, a half-open character span, or token
    indices (slice, range or list). A selection of an image is a box ``(x0, y0, x1, y1)`` in its
    pixels, a boolean mask of its (height, width), or token indices. None selects every token,
    special ones included. Sums over selections are consistent: a map is additive.
    """

    interactions: Tensor
    """Interaction of each token of a with each token of b, shape (Ta, Tb)."""
    main_effects_a: Tensor
    """What each token of a adds by itself, whatever b is, shape (Ta,)."""
    main_effects_b: Tensor
    """What each token of b adds by itself, whatever a is, shape (Tb,)."""
    constant: float
    """The score of the two references."""
    score: float
    """The score that is explained, as the model gives it."""
    convergence_delta: float
    """Sum of all parts minus the score: the error of quadrature."""
    axis_a: TokenAxis
    """What the rows stand for."""
    axis_b: TokenAxis
    """What the columns stand for."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How the map was computed."""

    def __post_init__(self) -> None:
        expected = (len(self.axis_a), len(self.axis_b))
        shapes = tuple(tuple(getattr(self, name).shape) for name in _TENSORS)
        if shapes != (expected, expected[:1], expected[1:]):
            raise ValueError(
                f"the axes have {expected[0]} and {expected[1]} tokens, but interactions and main "
                f"effects have shapes {shapes}"
            )

    # Sums over selections.

    def marginal_a(self, b: Any = None) -> Tensor:
        """Interaction of each token of a with a selection of b, shape (Ta,)."""
        return self.interactions @ torch.from_numpy(self.axis_b.select(b))

    def marginal_b(self, a: Any = None) -> Tensor:
        """Interaction of each token of b with a selection of a, shape (Tb,)."""
        return torch.from_numpy(self.axis_a.select(a)) @ self.interactions

    def between(self, a: Any = None, b: Any = None) -> float:
        """Interaction of a selection of a with a selection of b."""
        return float(torch.from_numpy(self.axis_a.select(a)) @ self.marginal_a(b))

    def heatmap(self, selection: Any = None) -> NDArray[np.float32]:
        """Where the image or sound matched (positive) or clashed with (negative) a selection.

        Args:
            selection: A selection of the other input: of the text, or of b if both are images.
                Default: None, all of it

        Returns:
            ndarray: one value a patch, shape (rows, columns). Special tokens of the image are left
            out. For a sound, one value a cell of its spectrogram, shape (bands, columns).

        Raises:
            TypeError: If neither input is an image or a sound.
        """
        side, axis = self._side(ImageAxis, AudioAxis)
        values = self.marginal_a(selection) if side == "a" else self.marginal_b(selection)
        heat: NDArray[np.float32] = axis.to_grid(values.numpy())
        return heat

    def word_weights(self, selection: Any = None) -> list[tuple[str, float]]:
        """Which words matched (positive) or clashed with (negative) a selection of the image.

        Args:
            selection: A selection of the input that is not the text (of a, if both are texts).
                Default: None, all of it

        Returns:
            list: (word, weight) in reading order.

        Raises:
            TypeError: If neither input is a text.
        """
        side, axis = self._side(TextAxis)
        values = self.marginal_b(selection) if side == "b" else self.marginal_a(selection)
        return [(unit.label, float(values[list(unit.tokens)].sum())) for unit in axis.units]

    def by_unit(self) -> Tensor:
        """Interactions of words, patches or other parts, as ``axis_a.units`` and ``axis_b.units``.

        Words of several tokens are taken as one; special and padding tokens are left out.

        Returns:
            Tensor: shape (units of a, units of b).
        """
        rows = incidence(self.axis_a.units, len(self.axis_a)) @ self.interactions
        return rows @ incidence(self.axis_b.units, len(self.axis_b)).T

    def top_pairs(self, k: int = 10) -> list[Pair]:
        """The k strongest interactions of words and patches, positive or negative.

        Words of several tokens are taken as one; special and padding tokens are left out.
        """
        units_a, units_b, by_unit = self.axis_a.units, self.axis_b.units, self.by_unit()
        order = by_unit.flatten().abs().argsort(descending=True)[:k].tolist()
        pairs = (divmod(index, len(units_b)) for index in order)
        return [Pair(units_a[i].label, units_b[j].label, float(by_unit[i, j])) for i, j in pairs]

    # Views and files.

    def plot(
        self, b: Any = None, a: Any = None, ax: Axes | None = None, **options: Any
    ) -> tuple[Figure, Axes]:
        """Draw an image with its heat map and the caption's words; any other pair as a matrix.

        Other figures are functions of :mod:`captum_interactions.visualization`.

        Args:
            b: A selection of the text: the heat map shows where it matched and clashed.
            a: A selection of the image: the words show what matched and clashed there.
            ax (Axes, optional): Where to draw. Default: a new figure
            options: Options of :func:`~captum_interactions.visualization.plot_interactions`
                (``style``, ``upsampling``), or of
                :func:`~captum_interactions.visualization.plot_matrix` (``by``, ``limit``).

        Returns:
            tuple: figure and axes; nothing is shown.

        Raises:
            TypeError: If there is a selection, but the pair is no image and its caption.
        """
        from captum_interactions.visualization import plot_interactions, plot_matrix

        is_image_text = isinstance(self.axis_a, ImageAxis) and isinstance(self.axis_b, TextAxis)
        if not is_image_text and a is None and b is None:
            return plot_matrix(self, ax=ax, **options)
        return plot_interactions(self, b=b, a=a, ax=ax, **options)

    def to_html(
        self,
        others: Sequence[InteractionMap | FirstOrderMap] = (),
        *,
        title: str | None = None,
        a: Any = None,
        b: Any = None,
    ) -> str:
        """An interactive page as one self-contained HTML file that needs no network.

        Select words, and the image shows where they matched and clashed; drag a box on the image,
        and the words show what it matched. Pairs of other inputs are shown in the same way.

        Args:
            others (sequence): Maps of the same pair by other methods, to switch to and compare.
            title (str, optional): Heading of the page.
            a: A selection of a to open with: a phrase or character span of a text, a box of an
                image.
            b: The same for b.

        Returns:
            str: an HTML document; :meth:`save_html` writes it.

        Raises:
            TypeError: If ``others`` are no maps, or the page cannot select ``a`` or ``b``.
            ValueError: If a map holds values that are not finite.
        """
        from captum_interactions.visualization.report import report_html

        return report_html([[self, *others]], title=title, a=a, b=b)

    def save_html(
        self,
        path: str | Path,
        others: Sequence[InteractionMap | FirstOrderMap] = (),
        *,
        title: str | None = None,
        a: Any = None,
        b: Any = None,
    ) -> None:
        """Write the page of :meth:`to_html` to a file, by the same arguments."""
        page = self.to_html(others, title=title, a=a, b=b)
        Path(path).write_text(page, encoding="utf-8")

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks."""
        from captum_interactions.visualization.report import notebook_html

        return notebook_html(self)

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

        Players are the parts of a, then those of b. A map is the additive model that gives a
        coalition of them the constant, the main effects of its members and their interactions; the
        values are the coefficients of that model (its Möbius transform, in shapiq's words).

        Args:
            units (bool, optional): Words, patches and the like are players, as ``axis_a.units`` and
                ``axis_b.units``; what special tokens and padding contribute goes to the value of
                the empty set and to the players that they interact with. False takes every token.
                Default: True

        Raises:
            ImportError: If shapiq is not installed.
        """
        from captum_interactions.maps.shapiq import interaction_values

        whole = torch.cat([torch.zeros(1), self.main_effects_b])
        matrix = torch.cat([self.main_effects_a.unsqueeze(1), self.interactions], 1)
        matrix = torch.cat([whole.unsqueeze(0), matrix]).double()
        matrix[0, 0] = self.constant
        if units:
            matrix = _with_rest(self.axis_a) @ matrix @ _with_rest(self.axis_b).T
        n_a, n_b = (size - 1 for size in matrix.shape)
        pairs = matrix.new_zeros(n_a + n_b, n_a + n_b)
        pairs[:n_a, n_a:] = matrix[1:, 1:]
        singles = torch.cat([matrix[1:, 0], matrix[0, 1:]])
        return interaction_values("Moebius", float(matrix[0, 0]), singles, pairs)

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

        Half of each interaction within an input goes to the main effects of its two players. Values
        of shapiq's ``SII`` and ``BII`` lose half of the interactions across, which the map shows by
        themselves, as :class:`~captum_interactions.attr.ShapleyInteractions` does it.

        Args:
            values (shapiq.InteractionValues): Of second order at most; players are the parts of a,
                then those of b.
            axis_a, axis_b (TokenAxis): What these are: the axes of a map of the same pair. If there
                are as many players as tokens, players are tokens; if as many as units, units.
            score (float, optional): The score that is explained. Default: None, the sum of all

        Raises:
            ImportError: If shapiq is not installed.
            TypeError: If ``values`` are no InteractionValues.
            ValueError: If there are neither as many players as tokens nor as units, if values have
                a higher order, or if their index is not known to add up.
        """
        from captum_interactions.maps.shapiq import axis_of_units, parts

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
        """Write everything, the image included, to one safetensors file with a JSON header."""
        from safetensors.torch import save_file

        tensors = {name: getattr(self, name).clone().contiguous() for name in _TENSORS}
        header = {name: getattr(self, name) for name in _NUMBERS} | {"settings": self.settings}
        for side, axis in (("a", self.axis_a), ("b", self.axis_b)):
            image = getattr(axis, "image", None)
            if image is not None:
                tensors[f"image_{side}"] = torch.from_numpy(np.array(image))
            header[f"axis_{side}"] = axis_to_fields(axis)
        save_file(tensors, path, metadata={"format": _FORMAT, "json": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path) -> InteractionMap:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is something else.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no interaction map at {str(path)!r}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{str(path)!r} is not a safetensors file: {error}") from error
        if metadata.get("format") != _FORMAT:
            raise ValueError(
                f"{str(path)!r} is not an interaction map: expected the format {_FORMAT!r}, but "
                f"found {metadata.get('format')!r}"
            )
        header = json.loads(metadata["json"])
        axes: dict[str, Any] = {
            f"axis_{side}": axis_from_fields(
                header.pop(f"axis_{side}"), _picture(tensors.pop(f"image_{side}", None))
            )
            for side in "ab"
        }
        return cls(**tensors, **header, **axes)

    def __repr__(self) -> str:
        parts = [
            f"constant {self.constant:+.3f}",
            f"main effects a {float(self.main_effects_a.sum()):+.3f}",
            f"main effects b {float(self.main_effects_b.sum()):+.3f}",
            f"interactions {float(self.interactions.sum()):+.3f}",
        ]
        delta = f"(convergence delta {self.convergence_delta:.1e})"
        lines = [
            f"InteractionMap of {_name(self.axis_a)} and {_name(self.axis_b)}",
            f"  score {self.score:.3f} = {', '.join(parts)} {delta}",
        ]
        pairs = self.top_pairs(len(self.axis_a) * len(self.axis_b))
        for title, chosen in (
            ("matches", [pair for pair in pairs if pair.attribution > 0]),
            ("clashes", [pair for pair in pairs if pair.attribution < 0]),
        ):
            story = ", ".join(f"{b!r} × {a} {value:+.4f}" for a, b, value in chosen[:3])
            lines.append(f"  strongest {title}: {story or 'none'}")
        return "\n".join(lines)

    def _side(self, *kinds: type[Any]) -> tuple[str, Any]:
        """The side that is an image or a sound (a first) or a text (b first)."""
        sides = [("a", self.axis_a), ("b", self.axis_b)]
        for side, axis in reversed(sides) if TextAxis in kinds else sides:
            if isinstance(axis, kinds):
                return side, axis
        what = "a text" if TextAxis in kinds else "an image or a sound"
        raise TypeError(
            f"neither input is {what}: the axes are {type(self.axis_a).__name__} and "
            f"{type(self.axis_b).__name__}; use marginal_a or marginal_b"
        )


def incidence(units: tuple[Any, ...], n_tokens: int) -> Tensor:
    """Which tokens each unit is made of, zeros and ones of shape (units, T)."""
    matrix = torch.zeros(len(units), n_tokens)
    for index, unit in enumerate(units):
        matrix[index, list(unit.tokens)] = 1.0
    return matrix


def _with_rest(axis: TokenAxis) -> Tensor:
    """From 1 and the tokens to 1 and the units, (1 + U, 1 + T): the first takes what is left."""
    belongs = incidence(axis.units, len(axis)).double()
    shared = belongs.sum(0)
    # A token that serves two words is divided among them, so that nothing counts twice.
    matrix: Tensor = torch.block_diag(torch.ones(1, 1).double(), belongs / shared.clamp(min=1))
    matrix[0, 1:] = shared == 0
    return matrix


def _name(axis: TokenAxis) -> str:
    if isinstance(axis, ImageAxis):
        return f"an image of {axis.grid[0]} × {axis.grid[1]} patches"
    if isinstance(axis, AudioAxis):
        return f"a sound of {axis.duration:.2f} seconds"
    if isinstance(axis, TextAxis) and axis.text:
        return repr(axis.text)
    return f"{len(axis)} tokens"


def _picture(pixels: Tensor | None) -> Image.Image | None:
    return None if pixels is None else Image.fromarray(pixels.numpy())
