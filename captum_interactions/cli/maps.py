"""What ``explain`` says of its maps: a file, lines of text, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_interactions.maps.orders import Map

PICTURES = (".png", ".pdf", ".svg", ".jpg")
"""Endings of files that become a picture."""


def write_maps(
    path: Path, maps: Mapping[str, Map], phrase: str | None, box: tuple[float, ...] | None
) -> None:
    """Write maps of one pair as what the file's ending asks for: a picture, a page, or the map.

    Raises:
        OSError: If the file cannot be written.
    """
    first = next(iter(maps.values()))
    if path.suffix.lower() == ".safetensors":
        first.save(path)  # type: ignore[union-attr]  # explain refuses it for first-order methods
        return
    from captum_interactions.visualization.charts import method_label

    titles = {text: method_label(text) for text in maps}
    if path.suffix.lower() == ".html":
        from captum_interactions.visualization.report import save_report

        save_report(path, [{titles[text]: imap for text, imap in maps.items()}], a=box, b=phrase)
        return

    import matplotlib

    matplotlib.use("Agg")
    from captum_interactions.maps.orders import is_second_order
    from captum_interactions.visualization.views import draw_maps

    named = {
        titles[text] if is_second_order(imap) else f"{titles[text]} (first order)": imap
        for text, imap in maps.items()
    }
    of_phrase = "" if phrase is None else f"“{phrase}”, "
    heading = f"{of_phrase}score {first.score:.3f}; each method has its own scale"
    figure = draw_maps(named, b=phrase, a=box, heading=heading)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def selection_lines(imap: Map, phrase: str | None, box: tuple[float, ...] | None) -> Iterator[str]:
    """How a phrase or a box interacts with the other input."""
    from captum_interactions.maps.orders import is_second_order

    if phrase is None and box is None:
        return
    if not is_second_order(imap):
        yield "a first-order map: it is the same for every phrase and every box"
    elif phrase is not None:
        yield f"{phrase!r} in all patches: {imap.heatmap(phrase).sum():+.4f}"
    else:
        yield f"words in the box {box}:"
        for word, weight in imap.word_weights(box):
            yield f"  {weight:+.4f} {word}"


def map_as_json(imap: Map, phrase: str | None, box: tuple[float, ...] | None) -> dict[str, Any]:
    """A map's numbers by name: the parts of the score, patches, words and strongest pairs."""
    from captum_interactions.axes import ImageAxis, TextAxis
    from captum_interactions.maps.orders import has_map, is_second_order

    found: dict[str, Any] = {"score": imap.score, "settings": imap.settings}
    if is_second_order(imap):
        found |= {
            "constant": imap.constant,
            "main_effects_a": float(imap.main_effects_a.sum()),
            "main_effects_b": float(imap.main_effects_b.sum()),
            "interactions": float(imap.interactions.sum()),
            "convergence_delta": imap.convergence_delta,
            "strongest_pairs": [pair._asdict() for pair in imap.top_pairs(10)],
            "phrase": phrase,
            "box": box,
        }
    if isinstance(imap.axis_a, ImageAxis) and has_map(imap, "a"):
        found["heatmap"] = imap.heatmap(phrase).tolist()
    if isinstance(imap.axis_b, TextAxis) and has_map(imap, "b"):
        found["words"] = [
            {"word": word, "attribution": weight} for word, weight in imap.word_weights(box)
        ]
    return found
