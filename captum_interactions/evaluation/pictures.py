"""Images with heat maps and boxes, many on a page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captum_interactions.evaluation.rows import escaped
from captum_interactions.visualization.charts import SMALL, WIDTH, set_heading

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """An image with a heat map and boxes."""

    image: Image.Image
    heat: NDArray[np.float32]
    """(rows, columns)."""
    extent: tuple[float, ...]
    """(left, right, bottom, top) of the heat map in pixels of the image."""
    boxes: Sequence[tuple[Any, ...]] = ()
    title: str = ""
    below: str = ""


def pictures(shown: Sequence[Picture], title: str, *, columns: int = 2) -> Figure:
    """Each image, and beside it in grey under its map; each map has its own scale."""
    from matplotlib import pyplot as plt

    n_columns = min(columns, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        2 * n_columns,
        figsize=(WIDTH / 2 * n_columns, 1.9 * n_rows + 0.5),
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat:
        ax.axis("off")
        ax.set_anchor("N")
    for place, picture in enumerate(shown):
        row, column = divmod(place, n_columns)
        plain, heated = axes[row, 2 * column : 2 * column + 2]
        plain.imshow(picture.image)
        _draw(heated, picture)
        below = textwrap.fill(escaped(picture.below), 19)
        plain.set_title(below, fontsize=SMALL, loc="left", color="0.3")
        heated.set_title(textwrap.fill(picture.title, 19), fontsize=SMALL, loc="left")
    set_heading(figure, f"{title} (red raises the score, blue lowers it; each on its own scale)")
    return figure


def _draw(ax: Any, picture: Picture) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    width, height = picture.image.size
    grey = np.asarray(picture.image.convert("L")) * 0.5 + 127.5
    ax.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    limit = float(np.abs(picture.heat).max()) or 1.0
    colours = ScalarMappable(Normalize(-limit, limit), colormaps["RdBu_r"])
    opacity = 0.9 * np.sqrt(np.abs(picture.heat) / limit)
    ax.imshow(colours.to_rgba(picture.heat, alpha=opacity), extent=picture.extent)
    for x0, y0, x1, y1 in picture.boxes:
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, lw=1.2, ec="black"))
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
