"""Lines between the parts of both inputs that raise or lower the score most together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from captum_interactions.axes import AudioAxis, ImageAxis, TextAxis, TokenAxis
from captum_interactions.axes.text import shorten
from captum_interactions.maps.orders import is_second_order
from captum_interactions.visualization.lettering import (
    figure_of,
    format_number,
    renderer_of,
    set_legible,
    set_title,
    size_of,
)
from captum_interactions.visualization.palette import limit_of, sign_colour
from captum_interactions.visualization.panels import name_of_selection
from captum_interactions.visualization.picture import Picture, centres, picture_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_interactions.maps.interaction_map import InteractionMap

_LARGEST, _SMALLEST = 10.0, 4.0
_LETTERS = 28


def plot_connections(
    imap: InteractionMap,
    k: int = 8,
    *,
    sign: Literal["all", "positive", "negative"] = "all",
    parts_a: Sequence[Any] | None = None,
    parts_b: Sequence[Any] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw lines between the parts of a and b with the strongest interactions.

    Input a is at the left, b at the right: images as they are, texts as columns of words, sounds as
    cells of seconds (across) and frequency (upwards). Red lines raise the score, blue and dashed
    ones lower it; the stronger, the thicker. Fewer lines than asked for are drawn where fewer pairs
    of that sign are larger than rounding errors. Where a long text has no room, only its words with
    a line are written.

    Args:
        imap (InteractionMap): An explanation of inputs of any kind.
        k (int): How many pairs. Default: 8
        sign (str): Which pairs: ``"all"``, ``"positive"`` or ``"negative"``. Default: ``"all"``
        parts_a (sequence, optional): Selections of a to connect, such as phrases or boxes. Default:
            each word, patch or cell
        parts_b (sequence, optional): Selections of b.
        title (str, optional): Default: the number of lines and what they sum to
        ax (Axes, optional): Where to draw; its coordinates become inches. Default: a new figure

    Returns:
        tuple: figure and axes, whose ``lines`` are the connections, strongest first. Nothing is
        shown.

    Raises:
        TypeError: If the map is of the first order, which has no pairs.
        ValueError: If ``k`` is negative or ``sign`` unknown.
    """
    if not is_second_order(imap):
        raise TypeError(
            f"plot_connections draws pairs of an InteractionMap, but got {type(imap).__name__}"
        )
    if sign not in ("all", "positive", "negative") or k < 0:
        raise ValueError(
            "k must be at least 0 and sign 'all', 'positive' or 'negative', but got "
            f"{k!r} and {sign!r}"
        )
    left = _Side(imap.axis_a, parts_a)
    right = _Side(imap.axis_b, parts_b)
    values = left.weights @ imap.interactions.numpy() @ right.weights.T
    pairs = _strongest(values, k, sign, imap.rounding)
    ax = _new_axes(left, right) if ax is None else ax

    width, height = size_of(ax)
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_axis_off()
    used_a = {i for i, _ in pairs}
    used_b = {j for _, j in pairs}
    share = 0.43 if left.picture or right.picture else 0.4
    points_a, inner_a = left.draw(ax, (0.0, share * width), height, used_a, at_left=True)
    points_b, inner_b = right.draw(ax, (width - share * width, width), height, used_b, False)
    limit = limit_of([values[pair] for pair in pairs])
    for order, (i, j) in enumerate(pairs):
        value = float(values[i, j])
        start, stop = points_a[i], points_b[j]
        if left.picture is None:
            start = (inner_a, start[1])
        if right.picture is None:
            stop = (inner_b, stop[1])
        x, y = _curve(start, stop)
        strength = abs(value) / limit
        ax.plot(
            x, y, color=sign_colour(value), linewidth=0.6 + 2.2 * strength,
            linestyle="solid" if value > 0 else (0, (4, 1.5)), alpha=0.45 + 0.5 * strength,
            zorder=4 - 0.001 * order, solid_capstyle="round",
        )  # fmt: skip
    if title is None:
        total = sum(float(values[pair]) for pair in pairs)
        title = f"{len(pairs)} strongest of {values.size} pairs: {format_number(total, '+.3f')}"
    set_title(ax, title)
    return figure_of(ax), ax


class _Side:
    """One input: its parts, where they are, and how they are drawn."""

    def __init__(self, axis: TokenAxis, parts: Sequence[Any] | None) -> None:
        self.axis, self.parts = axis, parts
        self.picture: Picture | None = None
        if isinstance(axis, (ImageAxis, AudioAxis)):
            self.picture = picture_of(axis)
        if parts is None:
            units = axis.units
            self.labels = [unit.label for unit in units]
            self.weights = axis.sum_units(np.eye(len(axis), dtype=np.float32)).T
        else:
            text = axis.text if isinstance(axis, TextAxis) else ""
            self.labels = [name_of_selection(part, text) for part in parts]
            chosen = [axis.select(part) for part in parts]
            self.weights = np.stack(chosen) if chosen else np.zeros((0, len(axis)), np.float32)

    def draw(
        self, ax: Axes, columns: tuple[float, float], height: float, used: set[int], at_left: bool
    ) -> tuple[list[tuple[float, float]], float]:
        """Draw the input between two x; returns where its parts are, and its inner border."""
        if self.picture is None:
            return self._draw_words(ax, columns, height, used, at_left)
        return self._draw_picture(ax, columns, height, used, at_left)

    def _draw_words(
        self, ax: Axes, columns: tuple[float, float], height: float, used: set[int], at_left: bool
    ) -> tuple[list[tuple[float, float]], float]:
        shown = list(range(len(self.labels)))
        if len(shown) * _SMALLEST * 1.25 > height * 72:  # no room for words without a line
            shown = sorted(used)
        n = max(len(shown), 1)
        pitch = min(height / n, 0.3)
        fontsize = min(max(pitch * 72 / 1.25, _SMALLEST), _LARGEST)
        top = height / 2 + pitch * n / 2
        renderer, dpi = renderer_of(ax), figure_of(ax).dpi
        texts = []
        widest = 0.0
        room = columns[1] - columns[0] - 0.1
        for row, index in enumerate(shown):
            text = ax.text(
                0, top - (row + 0.5) * pitch, "", va="center", ha="right" if at_left else "left",
                fontsize=fontsize, color="black" if index in used else "#8a8a8a", zorder=5,
            )  # fmt: skip
            set_legible(text, shorten(self.labels[index], _LETTERS))
            if text.get_text():
                widest = max(widest, text.get_window_extent(renderer).width / dpi)
            texts.append(text)
        if widest > room:
            fontsize = max(fontsize * room / widest, 3.0)
            widest = room
        x = columns[0] + widest if at_left else columns[1] - widest
        points = [(x, height / 2)] * len(self.labels)
        for index, text in zip(shown, texts, strict=True):
            text.set(x=x, fontsize=fontsize)
            points[index] = (x, float(text.get_position()[1]))
        return points, x + 0.05 if at_left else x - 0.05

    def _draw_picture(
        self, ax: Axes, columns: tuple[float, float], height: float, used: set[int], at_left: bool
    ) -> tuple[list[tuple[float, float]], float]:
        picture = self.picture
        assert picture is not None
        width = columns[1] - columns[0]
        size = (width, width * picture.aspect)
        if size[1] > height:
            size = (height / picture.aspect, height)
        x0 = columns[0] if at_left else columns[1] - size[0]
        y0 = (height - size[1]) / 2
        box = (x0, x0 + size[0], y0, y0 + size[1])
        left, right, bottom, top = picture.frame

        def place(x: float, y: float) -> tuple[float, float]:
            return (
                x0 + (x - left) / (right - left) * size[0],
                y0 + (y - bottom) / (top - bottom) * size[1],
            )

        if picture.image is not None:
            pale = np.asarray(picture.image, np.float32) * 0.75 + 64.0
            ax.imshow(pale.astype(np.uint8), extent=box, aspect="auto", zorder=1)
            ax.set_xlim(0, size_of(ax)[0])
            ax.set_ylim(0, height)
        self._frame(ax, box, "#808080", 0.6)
        points = []
        for index, corners in enumerate(self._boxes()):
            (xa, ya), (xb, yb) = (place(*corner) for corner in corners)
            points.append(((xa + xb) / 2, (ya + yb) / 2))
            if index in used or self.parts is not None:
                self._frame(ax, (xa, xb, ya, yb), "black", 0.9)
        return points, box[1] if at_left else box[0]

    def _boxes(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        """The corners of each part, in the coordinates of the picture."""
        axis, picture = self.axis, self.picture
        assert isinstance(axis, (ImageAxis, AudioAxis))
        assert picture is not None
        grid = axis.to_grid(self.weights)
        x, y = centres(picture, grid.shape[1:])
        left, right, bottom, top = picture.extent
        half = (abs(right - left) / len(x) / 2, abs(bottom - top) / len(y) / 2)
        frame = picture.frame
        found = []
        for index, cells in enumerate(grid):
            part = None if self.parts is None else self.parts[index]
            if isinstance(part, tuple) and len(part) == 4:
                found.append(((part[0], part[1]), (part[2], part[3])))
                continue
            rows, columns = np.nonzero(cells)
            if not len(rows):  # special tokens: all of the picture
                rows, columns = (np.arange(n) for n in cells.shape)
            xs = np.clip([x[columns].min() - half[0], x[columns].max() + half[0]], *frame[:2])
            ys = [y[rows].min() - half[1], y[rows].max() + half[1]]
            ys = list(np.clip(ys, min(frame[2:]), max(frame[2:])))
            found.append(((float(xs[0]), float(ys[0])), (float(xs[1]), float(ys[1]))))
        return found

    @staticmethod
    def _frame(ax: Axes, box: Any, colour: str, width: float) -> None:
        from matplotlib.patches import Rectangle

        x0, x1, y0, y1 = box
        ax.add_patch(
            Rectangle(
                (x0, min(y0, y1)), x1 - x0, abs(y1 - y0), fill=False, ec=colour, lw=width, zorder=3
            )
        )


def _strongest(values: NDArray[Any], k: int, sign: str, rounding: float) -> list[tuple[int, int]]:
    ranked = {"positive": values.clip(min=0), "negative": (-values).clip(min=0)}.get(
        sign, np.abs(values)
    )
    order = np.argsort(-ranked, axis=None, kind="stable")[:k]
    pairs = [divmod(int(index), values.shape[1]) for index in order]
    return [pair for pair in pairs if ranked[pair] > rounding]


def _curve(
    start: tuple[float, float], stop: tuple[float, float]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A smooth line that leaves and arrives level."""
    t = np.linspace(0.0, 1.0, 40)
    eased = t * t * (3.0 - 2.0 * t)
    return start[0] + (stop[0] - start[0]) * t, start[1] + (stop[1] - start[1]) * eased


def _new_axes(left: _Side, right: _Side) -> Axes:
    """A figure 5 inches wide in which the words of both texts have room."""
    from matplotlib import pyplot as plt

    needed = [
        2.4 * min(side.picture.aspect, 1.5) if side.picture else 0.2 * len(side.labels)
        for side in (left, right)
    ]
    height = min(max(*needed, 0.6), 9.0)
    figure = plt.figure(figsize=(5.0, height + 0.5))
    return figure.add_axes((0.02, 0.08 / (height + 0.5), 0.96, height / (height + 0.5)))
