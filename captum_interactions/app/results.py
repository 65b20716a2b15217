"""What the app shows of maps, and the files that it gives."""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from captum_interactions.app.explaining import Explained, difference
from captum_interactions.maps.orders import Map, is_second_order
from captum_interactions.maps.sides import side_names
from captum_interactions.visualization import plot_heatmap
from captum_interactions.visualization.lettering import format_number
from captum_interactions.visualization.palette import limit_of
from captum_interactions.visualization.report import report_html
from captum_interactions.visualization.views import draw_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WRITTEN: deque[Path] = deque()
_KEPT = 16
"""Results whose files stay on disk: Gradio has copies of them."""


@cache
def folder() -> Path:
    """Where files are written that Gradio copies to its cache, from which it serves them.

    It is made when it is first asked for, and removed when Python ends.
    """
    made = tempfile.TemporaryDirectory(prefix="captum_interactions_")
    atexit.register(made.cleanup)
    return Path(made.name)


def parts_html(explained: Mapping[str, Explained]) -> str:
    """A table of the score and its parts, a row for each label, and for the difference of two."""
    maps = [one.map for one in explained.values()]
    rows = [_parts(one) for one in maps]
    labels = list(explained)
    if len(rows) == 2:
        labels.append("difference")
        rows.append({name: value - rows[1][name] for name, value in rows[0].items()})
    names = "".join(f"<th scope=col>{escape(name)}</th>" for name in rows[0])
    lines = [
        f"<tr><th scope=row>{escape(label)}</th>"
        + "".join(f"<td>{_number(value)}</td>" for value in row.values())
        + "</tr>"
        for label, row in zip(labels, rows, strict=True)
    ]
    head = f"<thead><tr><th></th>{names}</tr></thead>"
    return f'<div class="parts"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def message_html(messages: Sequence[str]) -> str:
    """What went wrong, or what to mind; nothing for no messages."""
    lines = "<br>".join(map(escape, messages))
    return f'<div class="message" role="alert">{lines}</div>' if lines else ""


def page_html(explained: Mapping[str, Explained]) -> str:
    """The interactive page of the maps, one pair a label."""
    labels = list(explained) if len(explained) > 1 else None
    return report_html([one.map for one in explained.values()], labels=labels)


def frame_html(page: str) -> str:
    """A page in a frame as high as its content."""
    fit = (
        "const page=this.contentDocument.documentElement,"
        "fit=()=>{this.style.height=page.scrollHeight+'px'};"
        "fit();new ResizeObserver(fit).observe(page)"
    )
    return (
        f'<iframe title="Explanation" srcdoc="{escape(page)}" onload="{escape(fit)}" '
        'style="width:100%;height:480px;border:0"></iframe>'
    )


def difference_figures(explained: Mapping[str, Explained]) -> list[Figure]:
    """Heat maps of two captions and of their difference, on one scale."""
    from matplotlib import pyplot as plt

    (first, second) = explained.values()
    drawn = [first.map, second.map, difference(first, second)]
    grids = [one.heatmap() for one in drawn]
    limit = limit_of(*grids)
    titles = [*map(_quoted, explained), "the first less the second"]
    figures = []
    for one, grid, title in zip(drawn, grids, titles, strict=True):
        figure, ax = plt.subplots(figsize=(3.2, 3.0), dpi=150, layout="constrained")
        plot_heatmap(one, limit=limit, title=f"{title}: {format_number(grid.sum(), '+.3f')}", ax=ax)
        plt.close(figure)  # pyplot forgets it, or it would keep all
        figures.append(figure)
    return figures


def write_files(explained: Mapping[str, Explained], page: str) -> list[str]:
    """Write the page, a picture, and each map of the second order; returns the paths."""
    from matplotlib import pyplot as plt

    own = Path(tempfile.mkdtemp(dir=folder()))
    _WRITTEN.append(own)
    if len(_WRITTEN) > _KEPT:
        shutil.rmtree(_WRITTEN.popleft(), ignore_errors=True)
    paths = [own / "explanation.html", own / "explanation.png"]
    paths[0].write_text(page, encoding="utf-8")
    maps = {label: one.map for label, one in explained.items()}
    figure = draw_maps(maps)
    figure.savefig(paths[1], dpi=150, bbox_inches="tight")
    plt.close(figure)
    for number, one in enumerate(maps.values(), 1):
        if is_second_order(one):
            paths.append(
                own / (f"map_{number}.safetensors" if len(maps) > 1 else "map.safetensors")
            )
            one.save(paths[-1])
    return list(map(str, paths))


def _parts(one: Map) -> dict[str, float]:
    """The score and what makes it, by the names of columns; NaN for what the map does not have."""
    names = side_names(one)
    parts = [math.nan] * 5
    if is_second_order(one):
        main_effects = (one.main_effects_a, one.main_effects_b)
        sums = [float(values.sum()) for values in (*main_effects, one.interactions)]
        parts = [one.constant, *sums, one.convergence_delta]
    columns = (
        "= constant", f"+ main effects, {names[0]}", f"+ main effects, {names[1]}",
        "+ interactions", "− delta",
    )  # fmt: skip
    return {"score": one.score, **dict(zip(columns, parts, strict=True))}


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return format_number(value, ".0e" if 0 < abs(value) < 5e-4 else ".3f")


def _quoted(caption: str) -> str:
    return f"“{caption}”" if len(caption) <= 40 else f"“{caption[:38]}…”"
