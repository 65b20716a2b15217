"""Sphinx: ``sphinx-build -W docs docs/_build/html``. Neither this nor the pages need a network."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml

sys.path.insert(0, str(Path(__file__).parents[1]))

import captum_interactions

project = "captum-interactions"
copyright = "2026, the captum-interactions developers"
version = release = captum_interactions.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "tables"]
default_role = "code"
suppress_warnings = ["myst.header"]  # tables that are included bring headings of a lower level

# Names of this package must resolve; those of others have no inventory to resolve to.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!captum_interactions).*")]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say the types
autodoc_preserve_defaults = True
autosummary_generate = False  # pages are by topic, each with a summary of its own
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 88

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"

# Tutorials are run when their text has changed since the last build.
sphinx_gallery_conf = {
    "examples_dirs": "../tutorials",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"/\d_",
    "within_subsection_order": "FileNameSortKey",
    "show_memory": False,
    "min_reported_time": 60,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "matplotlib_animations": False,
    "copyfile_regex": r".*\.rst",
}

html_theme = "furo"
html_title = "captum-interactions"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_math_renderer = "mathml"


def setup(app: Any) -> None:
    """Connect what is defined below."""
    _write_table_of_models()
    _write_pages_of_methods()
    _write_interactive_page()
    _write_picture_of_packages()
    app.connect("autodoc-process-docstring", _clean)
    # Formulas become MathML, which browsers draw by themselves.
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))


def _write_table_of_models() -> None:
    """The tables of supported models, from the lists that the tests go through."""
    from tests.encoders.test_open_clip import KINDS as OPEN_CLIP
    from tests.encoders.test_sentence_encoders import BACKBONES
    from tests.encoders.test_single_models import IMAGES, TEXTS
    from tests.encoders.test_timm import KINDS as TIMM
    from tests.families import FAMILIES, default_layers

    measured = (Path(__file__).parent / "tables" / "families.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in measured]
    at = cells[0].index("passes")
    passes = {row[0]: row[at] for row in cells[2:]}
    dual = [
        "| model | pair | int layers | default layers | passes | note |",
        "|---|---|---|---|---|---|",
    ]
    for f in FAMILIES:
        layers = ", ".join(default_layers(captum_interactions.wrap(f.build())))
        dual.append(
            f"| {f.name} | {f.kind} | {f.blocks} | {layers} | {passes[f.name]} | {f.note} |"
        )
    lists = {
        "`open_clip`, OpenAI's `clip`": OPEN_CLIP,
        "`timm`": TIMM,
        "`sentence-transformers`": BACKBONES,
        "texts, `transformers`": TEXTS,
        "images, `transformers`": IMAGES,
    }
    weights = "random"
    single = ["| kind | weights | tested |", "|---|---|---|"]
    for kind, names in lists.items():
        trained = ", and all-MiniLM-L6-v2" if names is BACKBONES else ""
        single.append(f"| {kind} | {weights}{trained} | {'; '.join(names)} |")
    for name, rows in (("dual_models", dual), ("other_models", single)):
        table = Path(__file__).parent / "tables" / f"{name}.md"
        _write(table, "\n".join(rows) + "\n")


_ATTENTION = "transformer blocks whose attention goes through transformers' attention interface"


def _write_pages_of_methods() -> None:
    """A page for each attribution method that is registered, and a matrix of them all."""
    from captum_interactions.attr import attributions
    from docs.method_facts import FACTS

    folder = Path(__file__).parent / "methods"
    folder.mkdir(exist_ok=True)
    heads = {2: "Interactions (second order)", 1: "One value per part (first order)"}
    columns = ("Method", "Answers", "Needs", "Cost of a pair", "Caveats", "Paper")
    games = "   :members: attribute, game, decompose\n   :inherited-members:"
    members = {
        "second_order_integrated_gradients": "   :members:",
        "banzhaf_interactions": games,
        "shapley_interactions": games,
    }
    matrix = []
    for order, head in heads.items():
        matrix += [f".. list-table:: {head}", "   :class: matrix", "   :header-rows: 1"]
        matrix += ["   :widths: 20 23 15 19 16 11", ""]
        matrix += _list_row(columns)
        for info in attributions():
            if info.order == order:
                facts = FACTS[info.name]
                link = f":doc:`/methods/{info.name}`"
                needs = info.needs.replace(_ATTENTION, "attention blocks")
                matrix += _list_row((link, facts.answers, needs, info.cost, *facts[1:]))
        matrix += [""]
    for info in attributions():
        facts = FACTS[info.name]
        title = f"``{info.name}``"
        lines = [title, "=" * len(title), "", facts.answers, ""]
        lines += [f":Needs: {info.needs}", f":Cost: {info.cost}"]
        lines += [f":Caveats: {facts.caveats}", f":Paper: {facts.paper}", ""]
        if (folder.parent / "_static" / "methods" / f"{info.name}.png").exists():
            lines += [
                f".. figure:: ../_static/methods/{info.name}.png",
                "   :alt: An image of shapes with a heat map, and its caption.",
                "",
                f"   A scene on the bundled model; {_SHOWN[info.order]}.",
                "",
            ]
        name = info.method.__name__
        module = "" if hasattr(captum_interactions, name) else "attr."
        lines += [f".. autoclass:: captum_interactions.{module}{name}"]
        lines += [members.get(info.name, "   :members: attribute"), ""]
        _write(folder / f"{info.name}.rst", "\n".join(lines))
    _write(folder.parent / "tables" / "methods.rst", "\n".join(matrix) + "\n")


def _list_row(cells: Iterable[str]) -> list[str]:
    first, *others = cells
    return [f"   * - {first}", *(f"     - {cell}" for cell in others)]


def _write_picture_of_packages() -> None:
    """The picture of the architecture, from the present imports."""
    from docs import architecture

    _write(architecture.PICTURE, architecture.picture())


_SHOWN = {
    1: "one value for each patch and each word, whatever phrase is selected",
    2: "patches with the framed phrase, words with the whole image",
}
"""What the figure of a method shows, by its order."""


def _write_interactive_page() -> None:
    """A pair to explore, by the page's present script."""
    from transformers.utils import logging

    from captum_interactions import explain, load_demo

    logging.disable_progress_bar()
    wrapper, (scene, *_) = load_demo()
    names = ("second_order_integrated_gradients", "integrated_gradients", "grad_cam")
    imap, *others = (explain(wrapper, scene.image, scene.caption, name) for name in names)
    page = imap.to_html(others, b=scene.objects[0].phrase)
    _write(Path(__file__).parent / "_static" / "report" / "pair.html", page)


def _write(path: Path, text: str) -> None:
    # A newer file would be read again.
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _clean(*args: Any) -> None:
    lines = args[-1]
    # What Python writes for a field of a named tuple says nothing.
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()
    # The star of a shape such as (B, *F) begins no emphasis.
    lines[:] = [re.sub(r"(``.*?``)|(?<=, )\*(?=\w)(?!\w+\*)", _escaped, line) for line in lines]


def _escaped(match: re.Match[str]) -> str:
    return match[1] or r"\*"


def _visit_math(translator: Any, node: Any) -> None:
    translator.body.append(_mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _visit_math_block(translator: Any, node: Any) -> None:
    formula = _mathml(node.astext(), as_block=True)
    translator.body.append(f'<div class="math">{formula}</div>\n')
    raise nodes.SkipNode


def _mathml(formula: str, as_block: bool) -> str:
    # Browsers stretch brackets; the converter does not know how to ask for it.
    formula = re.sub(r"\\[bB]igg?[lr]?(?![a-zA-Z])", "", formula)
    return latex2mathml.tex2mathml(formula, as_block=as_block)
