"""The app as a visitor uses it, in headless Chromium."""

import re
from functools import cache

import numpy as np
import pytest
from PIL import Image

from captum_interactions import InteractionMap, explain
from captum_interactions.zoo import load_demo
from tests.visualization.browser.test_report import assert_heat, box_of, drag, number

SIZES = {"desktop": (1280, 900), "phone": (360, 740)}


@pytest.fixture(scope="module")
def demo():
    return load_demo(6)


@pytest.fixture(scope="module")
def expected(demo):
    """The map of a scene with a caption, its own by default, as this process computes it."""
    wrapper, scenes = demo

    @cache
    def map_of(index=0, caption=None):
        return explain(wrapper, scenes[index].image, caption or scenes[index].caption)

    return map_of


@pytest.fixture
def visit(browser, served):
    """Opens the app in a window of some size, and sees that the page complains of nothing."""
    contexts, complaints = [], []

    def open_page(size="desktop"):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.extend(_elsewhere(request.url, served.url)))
        page.goto(served.url)
        explained(page).locator(".words .word").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _elsewhere(url, own):
    return [] if url.startswith((own, "data:", "blob:", "about:")) else [url]


def explained(page):
    """The explanation that is shown."""
    return page.frame_locator('iframe[title="Explanation"] >> visible=true')


def parts(page, row=0):
    """Numbers of a row of the bar: score, constant, main effects, interactions, delta."""
    cells = page.locator(".parts:visible tbody tr").nth(row).locator("td").all_inner_texts()
    return [number(cell) for cell in cells]


def press(page):
    page.get_by_role("button", name="Explain").locator("visible=true").click()


@pytest.mark.parametrize("size", SIZES)
def test_a_sample_is_explained_at_once(size, visit, expected):
    page = visit(size)
    imap = expected()
    frame = explained(page)
    assert_heat(frame, imap.heatmap())
    score, constant, a, b, interactions, delta = parts(page)
    assert score == pytest.approx(imap.score, abs=6e-4)
    assert interactions == pytest.approx(float(imap.interactions.sum()), abs=6e-4)
    assert score == pytest.approx(constant + a + b + interactions - delta, abs=3.1e-3)
    # Nothing is wider than the window, and the bar is in view wherever the page is.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for place in ("0", "document.body.scrollHeight"):
        page.evaluate(f"window.scrollTo(0, {place})")
        bar = page.locator(".parts:visible").bounding_box()
        assert bar["x"] >= 0
        assert bar["x"] + bar["width"] <= SIZES[size][0]
        assert 0 <= bar["y"] <= SIZES[size][1] - bar["height"] + 1
    # The frame is as high as its page: no scrolling within scrolling.
    heights = frame.locator("html").evaluate("html => [html.scrollHeight, html.clientHeight]")
    assert heights[0] <= heights[1] + 1


def test_words_are_clicked_and_boxes_dragged(visit, expected):
    page = visit()
    imap = expected()
    frame = explained(page)
    frame.locator(".words .word", has_text="triangle").click()
    page.mouse.move(0, 0)
    assert_heat(frame, imap.heatmap("triangle"))
    drag_in_frame(page, frame)
    words = frame.locator(".words .word")
    box = box_of(frame)
    weights = [weight for _, weight in imap.word_weights(box)]
    titles = [number(word.get_attribute("title")) for word in words.all()]
    assert titles == pytest.approx(weights, rel=6e-4, abs=1e-6)


def drag_in_frame(page, frame):
    """As :func:`drag`, with the frame's own scrolling done first."""
    frame.locator(".viewer .panel .stage").scroll_into_view_if_needed()

    class Inside:
        mouse = page.mouse

        @staticmethod
        def locator(at):
            return frame.locator(at)

    drag(Inside, ".viewer .panel .stage", (0.55, 0.2), (0.9, 0.5))


def test_an_own_image_is_uploaded_and_its_map_downloaded(visit, demo, tmp_path):
    wrapper, _ = demo
    # Of the model's own size: the app's process may resize with another library than this one.
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (96, 96, 3), np.uint8))
    image.save(tmp_path / "own.png")
    page = visit()
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    page.locator('input[type="file"]').first.set_input_files(tmp_path / "own.png")
    page.locator('img[src*="own.png"]').first.wait_for()
    page.get_by_label("Caption", exact=True).fill("a {{red}} ${star} <b>")
    press(page)
    shown = page.locator(".parts:visible tbody th")
    shown.filter(has_text="a {{red}} ${star} <b>").wait_for()
    imap = explain(wrapper, image, "a {{red}} ${star} <b>")
    assert parts(page)[0] == pytest.approx(imap.score, abs=6e-4)
    assert [word for word, _ in imap.word_weights()] == (
        explained(page).locator(".words .word .text").all_inner_texts()
    )
    saved = {}
    for link in page.locator("a[download]:visible").all():
        with page.expect_download() as download:
            link.click()
        name = download.value.suggested_filename
        download.value.save_as(tmp_path / name)
        saved[name.rsplit(".")[-1]] = tmp_path / name
    assert set(saved) == {"html", "png", "safetensors"}
    loaded = InteractionMap.load(saved["safetensors"])
    np.testing.assert_allclose(loaded.to_numpy(), imap.to_numpy(), atol=1e-5)
    assert "Content-Security-Policy" in saved["html"].read_text(encoding="utf-8")
    with Image.open(saved["png"]) as picture:
        assert picture.width > 500


@pytest.mark.parametrize("size", SIZES)
def test_two_captions_and_their_difference(size, visit, expected):
    page = visit(size)
    second = "there is a blue circle"
    page.get_by_label("Second caption").fill(second)
    press(page)
    page.locator(".parts:visible tbody tr").nth(2).wait_for()
    one, two = parts(page, 0), parts(page, 1)
    assert two[0] == pytest.approx(expected(0, second).score, abs=6e-4)
    assert parts(page, 2) == pytest.approx([a - b for a, b in zip(one, two, strict=True)], abs=2e-3)
    pictures = page.locator(".matplotlib img:visible, [data-testid=matplotlib] img:visible")
    pictures.nth(2).wait_for()
    boxes = [picture.bounding_box() for picture in pictures.all()]
    assert len({round(box["width"]) for box in boxes}) == 1
    in_a_row = len({round(box["y"]) for box in boxes}) == 1
    assert in_a_row == (size == "desktop")
    assert explained(page).locator(".cards > li").count() == 2


def test_methods_are_switched(visit, demo):
    wrapper, scenes = demo
    page = visit()
    page.get_by_role("button", name="Method").locator("visible=true").click()
    page.get_by_label("Attribution method").locator("visible=true").click()
    page.get_by_role("option", name="Grad-ECLIP (first order)").click()
    footer = explained(page).locator("footer")
    footer.filter(has_text="Grad-ECLIP").wait_for()
    imap = explain(wrapper, scenes[0].image, scenes[0].caption, "grad_eclip")
    assert_heat(explained(page), imap.heatmap())
    page.get_by_label("Layer").locator("visible=true").click()
    page.get_by_role("option", name="last block").click()
    note = page.locator(".message:visible")
    note.filter(has_text="Grad-ECLIP has no choice of layers").wait_for()
    page.get_by_label("Baseline of the image").click()
    page.get_by_role("option", name="white").click()
    note.filter(has_text="Grad-ECLIP has no choice of baselines").wait_for()


def test_mistakes_have_a_message_in_the_page(visit, tmp_path):
    page = visit()
    message = page.locator(".message:visible")
    page.get_by_label("Caption", exact=True).fill("red " * 200)
    press(page)
    message.filter(has_text="please shorten it").wait_for()
    assert explained(page).locator("body").count() == 0
    (tmp_path / "broken.png").write_bytes(b"not an image")
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    press(page)
    message.filter(has_text="Choose an image first").wait_for()
    page.locator('input[type="file"]').first.set_input_files(tmp_path / "broken.png")
    page.locator('img[src*="broken.png"]').first.wait_for(state="attached")
    page.get_by_label("Caption", exact=True).fill("a dog")
    press(page)
    message.filter(has_text="'broken.png' cannot be read as an image").wait_for()


def test_two_texts(visit):
    page = visit()
    page.get_by_role("tab", name="Two texts").click()
    page.get_by_label("First text").fill("a red circle left of a blue star")
    page.get_by_label("Second text").fill("there is a blue star")
    press(page)
    words = explained(page).locator(".words .word .text")
    words.first.wait_for()
    assert " ".join(words.all_inner_texts()) == (
        "a red circle left of a blue star there is a blue star"
    )
    assert len(parts(page)) == 6
    heading = page.locator(".parts:visible thead").inner_text()
    assert re.search(r"first text\s.*second text", heading, re.DOTALL)


def test_examples_are_explained_when_they_are_picked(visit, demo, expected):
    _, scenes = demo
    page = visit()
    page.get_by_text(scenes[2].caption).click()
    page.locator(".parts:visible tbody th").filter(has_text=scenes[2].caption).wait_for()
    assert parts(page)[0] == pytest.approx(expected(2).score, abs=6e-4)
