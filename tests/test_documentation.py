"""What the pages list by hand is what there is."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from captum_interactions.attr import attributions
from docs.method_facts import FACTS

DOCS = Path(__file__).parents[1] / "docs"
API = sorted((DOCS / "api").glob("*.rst"))
RUN = re.compile(r"-m ((?:captum_interactions|benchmarks)[\w.]*)")


def summarised(page: str) -> list[str]:
    return re.findall(r"^   ~(\S+)$", page, re.MULTILINE)


def test_every_method_has_a_row_in_the_matrix_with_all_its_facts():
    assert list(FACTS) == [info.name for info in attributions()]
    for info in attributions():
        facts = FACTS[info.name]
        assert all([facts.answers, info.needs, info.cost, facts.caveats, facts.paper]), info.name


def test_the_page_of_methods_lists_them_all():
    page = next(path for path in API if path.stem == "attr").read_text()
    listed = [name.rpartition(".")[2] for name in summarised(page)]
    ordered = sorted(attributions(), key=lambda info: -info.order)
    assert listed == [info.method.__name__ for info in ordered]


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_a_page_begins_with_a_summary_of_what_it_documents(path):
    page = path.read_text()
    documented = re.findall(r"^\.\. auto(?:function|class|data|exception):: (\S+)", page, re.M)
    if path.stem != "attr" and len(documented) > 1:
        assert summarised(page) == documented


GENERATED = {DOCS / "tutorials", DOCS / "_build"}
PAGES = sorted(path for path in DOCS.rglob("*.rst") if not GENERATED & {*path.parents})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_code_fits_the_page(path):
    """Blocks had lines of 112 letters, which scroll; what cannot be broken may be longer."""
    wide, in_block = [], False
    for line in path.read_text().splitlines():
        if re.match(r"\s*\.\. (code-block|testcode)::", line):
            in_block = True
        elif line and not line.startswith(" "):
            in_block = False
        code = line[3:] if in_block else line if line.startswith((">>> ", "... ")) else ""
        if len(code) > 88 and " " in code.strip().removesuffix(" \\"):
            wide.append(code)
    assert not wide


def test_every_module_that_a_page_runs_is_a_program():
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.rst")]
    modules = {name for page in pages for name in RUN.findall(page.read_text())}
    assert len(modules) > 5
    for name in modules:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = find_spec(f"{name}.__main__")
        assert spec is not None, name
        assert 'if __name__ == "__main__"' in Path(str(spec.origin)).read_text(), name
