"""Draw the packages and their imports: ``python docs/architecture.py`` writes the picture.

Rows are the layers of the import contract in ``pyproject.toml``; arrows are imports found by grimp.
An arrow that follows from others is left out (the transitive reduction).
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

import grimp

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = "captum_interactions"
ROOT = Path(__file__).parents[1]
PICTURE = Path(__file__).parent / "_static" / "architecture.svg"
COLUMNS = {
    "cli": 2.0, "app": 3.0, "zoo": 0.6, "evaluation": 0.0,
    "corpus": 1.0, "check": 2.0, "datasets": 3.0, "metrics": 4.0, "visualization": 5.0,
    "explanation": 0.0, "attr": 0.5, "maps": 3.2, "encoders": 1.5, "axes": 2.6, "functional": 0.4,
}  # fmt: skip
"""Where a package stands in its row. A new one stands at the right end until it is listed."""
ABOUT = {
    "cli": "the command line", "app": "the live app", "zoo": "the bundled model",
    "evaluation": "studies", "corpus": "factors on disk", "check": "checks of wrappers",
    "datasets": "records", "metrics": "pure functions", "visualization": "figures, pages",
    "explanation": "explain()", "attr": "methods", "maps": "results", "encoders": "towers",
    "axes": "meaning of tokens", "functional": "tensor mathematics",
}  # fmt: skip
WIDTH, HEIGHT, PITCH, STEP = 128, 44, 164, 84

Edge = tuple[str, str]


def layers() -> tuple[list[list[str]], list[Edge]]:
    """The packages from top to bottom, and the imports that may run upwards."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(c for c in settings["contracts"] if c["type"] == "layers")
    rows = [row.replace("|", " ").replace(":", " ").split() for row in contract["layers"]]
    upwards = [line.split(" -> ") for line in contract["ignore_imports"]]
    # Everything imports the tools of the last row, and __main__ is a line.
    return rows[1:-1], [(_package(a), _package(b)) for a, b in upwards]


def imports() -> set[Edge]:
    """The imports between packages."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    found = {
        (_package(module), _package(imported))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
    }
    return {(a, b) for a, b in found if a and b and a != b}


def reduced(edges: set[Edge]) -> set[Edge]:
    """The edges of an acyclic graph that do not follow from others."""
    after: dict[str, set[str]] = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)

    def reachable(start: str) -> set[str]:
        return set().union(*({b} | reachable(b) for b in after.get(start, ())))

    return {(a, b) for a, b in edges if not any(b in reachable(c) for c in after[a] - {b})}


def picture() -> str:
    """The picture as SVG, readable on light and dark backgrounds."""
    rows, upwards = layers()
    places = {
        name: (WIDTH / 2 + 8 + PITCH * COLUMNS.get(name, 6.0), 8 + HEIGHT / 2 + STEP * row)
        for row, names in enumerate(rows)
        for name in names
    }
    edges = {edge for edge in imports() if set(edge) <= places.keys()}
    width = max(x for x, _ in places.values()) + WIDTH / 2 + 8
    height = 16 + HEIGHT + STEP * (len(rows) - 1)
    parts = [_line(places[a], places[b]) for a, b in sorted(reduced(edges - set(upwards)))]
    parts += [_line(places[a], places[b], lazy=True) for a, b in upwards]
    parts += [_box(name, *place) for name, place in places.items()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        'font-family="system-ui, sans-serif" text-anchor="middle" role="img">\n'
        "<title>Packages of captum_interactions and their imports</title>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#7d8590"/></marker></defs>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _package(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def _line(start: tuple[float, float], end: tuple[float, float], *, lazy: bool = False) -> str:
    side, dash = (1, ' stroke-dasharray="5 4"') if lazy else (0, "")
    down = 1 if end[1] > start[1] else -1
    x, y = start[0] + side * WIDTH / 3, start[1] + down * HEIGHT / 2
    u, v = end[0] + side * WIDTH / 3, end[1] - down * HEIGHT / 2
    return (
        f'<path d="M{x:.1f} {y:.1f} {u:.1f} {v:.1f}" fill="none" stroke="#7d8590" '
        f'stroke-width="1.3" marker-end="url(#tip)"{dash}/>'
    )


def _box(name: str, x: float, y: float) -> str:
    return (
        f'<rect x="{x - WIDTH / 2:.1f}" y="{y - HEIGHT / 2:.1f}" width="{WIDTH}" '
        f'height="{HEIGHT}" rx="6" fill="#e8eef7" stroke="#5b7db1"/>'
        f'<text x="{x:.1f}" y="{y - 2:.1f}" font-size="14" font-weight="600" '
        f'fill="#1c2733">{name}</text>'
        f'<text x="{x:.1f}" y="{y + 14:.1f}" font-size="11" fill="#3d4b5c">'
        f"{escape(ABOUT.get(name, ''))}</text>"
    )


if __name__ == "__main__":
    PICTURE.write_text(picture())
