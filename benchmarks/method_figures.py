"""One figure a method: the first phrase of a scene of the bundled model, for the documents.

python -m benchmarks.method_figures docs/_static/methods
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.comparison import OPTIONS, crowded
from captum_interactions import explain, load_demo
from captum_interactions.attr import attributions


def main() -> None:
    """Draw what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    wrapper, _ = load_demo()
    scene = crowded(1)[0]
    for info in attributions():
        path = folder / f"{info.name}.png"
        if path.exists():
            continue
        options = OPTIONS.get(info.name, {})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                imap = explain(wrapper, scene.image, scene.caption, info.name, **options)
            figure, _ = imap.plot(scene.named[0].phrase)
        except ValueError as error:  # not for this model, or without a map of texts
            print(f"{info.name}: {error}")
            continue
        figure.savefig(path, dpi=90)
        plt.close(figure)
        print(path)


if __name__ == "__main__":
    main()
