"""Pictures of pages about scenes of the bundled model, for the documents.

    python -m benchmarks.report_figures docs/_static/report

Needs playwright and a chromium on the path; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from captum_interactions import explain, load_demo
from captum_interactions.visualization.report import save_report

OTHERS = ("integrated_gradients", "occlusion", "grad_cam")


def main() -> None:
    """Write the pages, open them, and take their pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as pages:
        _write_pages(Path(pages))
        _take_pictures(Path(pages), folder)


def _write_pages(folder: Path) -> None:
    wrapper, scenes = load_demo()
    scene, captions = scenes[0], [scene.caption for scene in scenes[:8]]
    imap = explain(wrapper, scene.image, scene.caption)
    others = [explain(wrapper, scene.image, scene.caption, name) for name in OTHERS]
    imap.save_html(folder / "pair.html", others, b=scene.objects[0].phrase)
    maps = [explain(wrapper, scene.image, caption) for caption in captions]
    save_report(folder / "sheet.html", maps, title="One image, eight captions")


def _take_pictures(pages: Path, folder: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        views: list[tuple[str, str, dict[str, Any], Callable[[Page], None]]] = [
            ("pair", "desktop", {"width": 1120, "height": 1190}, _explore),
            ("pair", "phone", {"width": 360, "height": 740}, lambda _: None),
            ("sheet", "sheet", {"width": 1120, "height": 760}, _sort),
        ]
        for page_name, name, size, act in views:
            page = browser.new_page(viewport=size)
            page.goto((pages / f"{page_name}.html").as_uri())
            act(page)
            path = folder / f"{name}.png"
            page.screenshot(path=path)
            with Image.open(path) as picture:
                picture.convert("RGB").quantize(256, kmeans=3).save(path, optimize=True)
            print(path, path.stat().st_size)
        browser.close()


def _explore(page: Page) -> None:
    """Pin two phrases, then draw a box around an object."""
    page.locator(".pin").click()
    page.locator(".words .word", has_text="purple").click()
    page.locator(".words .word", has_text="diamond").click(modifiers=["Shift"])
    page.locator(".pin").click()
    stage = page.locator(".viewer .panel .stage").bounding_box()
    assert stage is not None
    x, y, width, height = (stage[key] for key in ("x", "y", "width", "height"))
    page.mouse.move(x + 0.05 * width, y + 0.44 * height)
    page.mouse.down()
    page.mouse.move(x + 0.37 * width, y + 0.85 * height, steps=5)
    page.mouse.up()
    page.mouse.move(0, 0)


def _sort(page: Page) -> None:
    page.locator("[name=order]").select_option("high")


if __name__ == "__main__":
    main()
