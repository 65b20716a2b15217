"""Pages in headless Chromium: Debian's, driven by Playwright. Nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests of a process; without one they are skipped, or fail in CI."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = "playwright (pip install playwright)"
    else:
        missing = "" if program else "chromium (apt-get install chromium)"
    if missing:
        message = f"tests in a browser need {missing}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def complaints() -> list[str]:
    """What pages wrote to the console or asked for; a test that wants some clears it."""
    return []


@pytest.fixture
def show(browser, tmp_path, complaints) -> Iterator[Callable[..., Any]]:
    """Opens HTML as a file, without a network, and sees that the page complains of nothing."""
    contexts: list[Any] = []

    def open_page(html: str, *, width: int = 1200, height: int = 900, **options: Any) -> Any:
        path = tmp_path / f"page{len(contexts)}.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": height}, offline=True, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: _unless_ours(message.text, complaints))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: _local(request.url, complaints))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _unless_ours(text: str, complaints: list[str]) -> None:
    if not text.startswith("Canvas2D: Multiple readback"):  # it is the tests that read canvases
        complaints.append(text)


def _local(url: str, complaints: list[str]) -> None:
    if not url.startswith(("file:", "data:", "about:")):
        complaints.append(f"request of {url}")
