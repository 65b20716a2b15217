"""One self-contained HTML file: pairs, their maps, and a script to explore them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from captum_interactions.axes import TextAxis
from captum_interactions.axes.text import shorten
from captum_interactions.maps.orders import Map
from captum_interactions.maps.sides import side_names
from captum_interactions.visualization.report.data import (
    about,
    as_maps,
    check_finite,
    map_data,
    start_data,
)
from captum_interactions.visualization.report.pictures import (
    CLASH,
    GAMMA,
    MATCH,
    OPACITY,
    Pictures,
)
from captum_interactions.visualization.report.static import card, scales_line, shared_scales
from captum_interactions.writing import write_atomically

_LEAD = "Red raises the score, blue lowers it."
_SCRIPTS = (
    "numbers.js", "panels.js", "tiles.js", "lines.js", "export.js", "address.js", "report.js",
)  # fmt: skip


def report_html(
    maps: Sequence[Map | Sequence[Map] | Mapping[str, Map]],
    *,
    title: str | None = None,
    labels: Sequence[str] | None = None,
    a: Any = None,
    b: Any = None,
    compact: bool = False,
) -> str:
    """A page about one or several pairs, as the text of one self-contained HTML file.

    The file holds its script, style, images and values; it opens without a network. Values are kept
    as float32, so the page shows the numbers of the map. Images are scaled down to 720 pixels; one
    that several pairs share is embedded once. Without scripts the page shows pictures, captions,
    the parts of the scores and the strongest pairs.

    Args:
        maps (sequence): One entry a pair: its map, or several maps of the same pair by different
            methods, as a list or as a mapping from names. One image against many captions, one
            caption against many images, the hits of a retrieval list, or the worst cases of a study
            make a contact sheet that can be sorted by score.
        title (str, optional): Heading of the page. Default: the texts of the pair, or the number
            of pairs
        labels (sequence of str, optional): A name a pair, such as a rank or a key. Default: the
            pair's number
        a: A selection of the first input of every pair to open with: a phrase or a character span
            of a text, or a box of an image.
        b: The same for the second input.
        compact (bool): Leave out what needs room (pins, other methods, the heading), so that a pair
            is at most 500 pixels high, as notebooks show it. Default: False

    Returns:
        str: an HTML document.

    Raises:
        TypeError: If an entry is no map, or the page cannot select ``a`` or ``b``.
        ValueError: If there is no map, a map holds values that are not finite, or the numbers of
            pairs and labels differ.
    """
    pairs = [as_maps(entry) for entry in maps]
    if not pairs:
        raise ValueError("a report needs at least one pair, but got none")
    if labels is not None and len(labels) != len(pairs):
        raise ValueError(f"there are {len(pairs)} pairs, but {len(labels)} labels")
    for imap in (imap for pair in pairs for imap in pair.values()):
        check_finite(imap)
    if labels is None:
        labels = [_text_of(pair) if len(pairs) == 1 else str(n) for n, pair in enumerate(pairs, 1)]
    starts = []
    for pair in pairs:
        first = next(iter(pair.values()))
        starts.append({"a": start_data(first.axis_a, a), "b": start_data(first.axis_b, b)})

    pictures = Pictures()
    is_single = len(pairs) == 1
    scales = shared_scales([next(iter(pair.values())) for pair in pairs])
    cards = [
        card(pair, "" if is_single else str(label), pictures, scales, is_open=is_single)
        for pair, label in zip(pairs, labels, strict=True)
    ]
    data = {
        "colours": {"match": MATCH, "clash": CLASH, "opacity": OPACITY, "gamma": GAMMA},
        "pairs": [
            {
                "label": str(label),
                "start": start,
                "maps": [map_data(imap, name, pictures) for name, imap in pair.items()],
            }
            for pair, label, start in zip(pairs, labels, starts, strict=True)
        ],
    }
    script = _script()
    return Template(_file("report.html")).substitute(
        policy=_policy(script),
        title=escape(title or _title(pairs)),
        about=escape(_about(pairs)),
        lead=_LEAD,
        style=_file("report.css") + pictures.style(),
        kind=(" single" if is_single else "") + (" compact" if compact else ""),
        colours="--light-match:rgb({},{},{});--light-clash:rgb({},{},{})".format(*MATCH, *CLASH),
        sheet="Pair" if is_single else "Pairs",
        scales="" if is_single else scales_line(scales),
        cards="\n".join(cards),
        footer=_footer(pairs),
        data=_script_json(data),
        script=script,
    )


def save_report(
    path: str | Path,
    maps: Sequence[Map | Sequence[Map] | Mapping[str, Map]],
    *,
    title: str | None = None,
    labels: Sequence[str] | None = None,
    a: Any = None,
    b: Any = None,
) -> None:
    """Write the page of :func:`report_html` to a file; one that is there stays if this fails.

    Args:
        path: Where to write, usually with the ending ``.html``.
        maps, title, labels, a, b: See :func:`report_html`.

    Raises:
        TypeError, ValueError: As :func:`report_html`.
        OSError: If the file cannot be written.
    """
    page = report_html(maps, title=title, labels=labels, a=a, b=b)
    write_atomically(Path(path), page.encode())


def notebook_html(imap: Map) -> str:
    """A compact page inside of a frame: several in one notebook do not disturb each other."""
    page = escape(report_html([imap], compact=True))
    return (
        f'<iframe title="Explanation" srcdoc="{page}" '
        'style="width:100%;height:480px;border:0" loading="lazy"></iframe>'
    )


def _script() -> str:
    """All of the script in a scope of its own."""
    parts = "\n".join(_file(name) for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def _policy(script: str) -> str:
    """What the page may do: run its own script and show its own pictures, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _script_json(data: Any) -> str:
    """JSON that no HTML parser can mistake for markup."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _footer(pairs: Sequence[Mapping[str, Map]]) -> str:
    """How each map was computed, once a method."""
    lines: dict[str, None] = {}
    for name, imap in (item for pair in pairs for item in pair.items()):
        # Matches of tokens are those of a single pair.
        hidden = ("attribution", "matches", "model")
        options = {k: v for k, v in imap.settings.items() if k not in hidden}
        described = ", ".join(f"{key} {_plain(value)}" for key, value in options.items())
        lines[f"{name}: {described}" if described else name] = None
    return "<br>".join(map(escape, lines)) + "<br>Made with captum-interactions."


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _title(pairs: Sequence[Mapping[str, Map]]) -> str:
    """What a page is about: the texts of one pair, or how many pairs there are."""
    if len(pairs) > 1:
        return f"{len(pairs)} pairs explained"
    first = next(iter(pairs[0].values()))
    axes = (first.axis_a, first.axis_b)
    read = [axis.text.strip() for axis in axes if isinstance(axis, TextAxis)]
    texts = [f"“{shorten(text, 120)}”" for text in read if text]
    if not texts:
        return "{} and {}".format(*side_names(first)).capitalize()
    return " and ".join(texts)


def _about(pairs: Sequence[Mapping[str, Map]]) -> str:
    """Models and methods of the maps that a page opens with."""
    lines = (about(imap, name) for pair in pairs for name, imap in list(pair.items())[:1])
    return " ".join(dict.fromkeys(lines))


def _text_of(pair: Mapping[str, Map]) -> str:
    first = next(iter(pair.values()))
    texts = [axis.text for axis in (first.axis_a, first.axis_b) if isinstance(axis, TextAxis)]
    return " / ".join(texts)


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
