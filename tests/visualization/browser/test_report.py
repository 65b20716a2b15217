"""The interactive page as a reader uses it: what is shown are the numbers of the map."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.visualization.report import report_html
from captum_interactions.visualization.report.pictures import CLASH, GAMMA, MATCH, OPACITY
from tests.pages import WHITE, image_axis, make, picture_and_text, sound, two_texts

WICKED = "see </w> and <script>alert(1)</script> & <img src=x onerror=alert(2)>"


def number(text):
    """A number as the page writes it."""
    return float(text.replace("−", "-").replace("+", ""))


def shown_heat(page, at=".viewer .panel .heat"):
    """Colours and opacity of the cells, shape (rows, columns, 4)."""
    pixels, rows, columns = page.locator(at).evaluate(
        """canvas => [[...canvas.getContext("2d")
            .getImageData(0, 0, canvas.width, canvas.height).data], canvas.height, canvas.width]"""
    )
    return np.array(pixels).reshape(rows, columns, 4)


def assert_heat(page, heat, at=".viewer .panel .heat"):
    """The canvas holds these values, in the colours of their signs."""
    pixels = shown_heat(page, at)
    limit = np.abs(heat).max()
    expected = 255 * OPACITY * (np.abs(heat) / limit) ** GAMMA
    assert pixels.shape[:2] == heat.shape
    np.testing.assert_allclose(pixels[..., 3], expected, atol=1)
    seen = expected > 40  # colours of faint cells are rounded away
    for sign, colour in ((heat > 0, MATCH), (heat < 0, CLASH)):
        np.testing.assert_allclose(
            pixels[sign & seen][:, :3], np.broadcast_to(colour, (int((sign & seen).sum()), 3)),
            atol=4,
        )  # fmt: skip
    legend = page.locator(".viewer .scale .high").inner_text() if at.startswith(".viewer") else ""
    if legend:
        assert number(legend) == pytest.approx(limit, rel=0.05)


def assert_words(page, weights, side=".viewer .panel .words"):
    """Words, their numbers to four digits, and their colours."""
    words = page.locator(f"{side} .word")
    assert words.locator(".text").all_inner_texts() == [word for word, _ in weights]
    titles = [word.get_attribute("title") for word in words.all()]
    values = [value for _, value in weights]
    assert [number(title) for title in titles] == pytest.approx(values, rel=6e-4, abs=1e-6)
    kinds = [set(word.get_attribute("class").split()) for word in words.all()]
    assert ["match" in kind for kind in kinds] == [value > 0 for value in values]
    assert ["clash" in kind for kind in kinds] == [value < 0 for value in values]


def value(page):
    return number(page.locator(".reading .value").inner_text())


def box_of(page):
    """The box that is selected, in pixels of the image, as the page names it."""
    found = re.search(r"box \(([^)]*)\)", page.locator(".reading .names").inner_text())
    return tuple(float(x) for x in found[1].split(", "))


def drag(page, stage, start, stop):
    """Press at one share (x, y) of an element, move and release at another."""
    box = page.locator(stage).bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, stop)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=5)
    page.mouse.up()


STAGE = ".viewer .panel .stage"


@pytest.fixture
def imap():
    return picture_and_text("a red circle below it", grid=(5, 6))


def test_at_first_everything_is_selected(imap, show):
    page = show(imap.to_html())
    assert_heat(page, imap.heatmap())
    assert_words(page, imap.word_weights())
    assert value(page) == pytest.approx(imap.between(), rel=6e-4)
    assert page.locator(".viewer .parts").is_visible()
    assert f"{imap.score:.3f}" in page.locator(".viewer .parts .sum").inner_text()


def test_a_page_says_what_to_do_and_what_it_is_of(imap, show):
    page = show(replace(imap, settings={"attribution": "grad_eclip", "model": "x/y"}).to_html())
    lead = page.locator(".lead")
    assert lead.inner_text().startswith(
        "Click a word: red regions raise the score together with it"
    )
    assert lead.bounding_box()["y"] < page.locator(STAGE).bounding_box()["y"]
    assert page.title() == "“a red circle below it”"
    assert page.locator(".about").inner_text() == "Model: x/y. Method: Grad-ECLIP."


def test_hovering_and_clicking_a_word_shows_where_it_matched(imap, show):
    page = show(imap.to_html())
    word = page.locator(".words .word", has_text="circle")
    word.hover()
    assert_heat(page, imap.heatmap("circle"))
    page.mouse.move(0, 0)
    assert_heat(page, imap.heatmap())
    word.click()
    page.mouse.move(0, 0)
    assert_heat(page, imap.heatmap("circle"))
    assert word.get_attribute("aria-selected") == "true"
    assert value(page) == pytest.approx(imap.between(b="circle"), rel=6e-4)
    word.click()
    page.mouse.move(0, 0)
    assert_heat(page, imap.heatmap())


def test_a_phrase_is_selected_by_dragging_and_by_shift(imap, show):
    page = show(imap.to_html())
    words = page.locator(".words .word")
    words.nth(1).hover()
    page.mouse.down()
    words.nth(2).hover()
    page.mouse.up()
    assert_heat(page, imap.heatmap("red circle"))
    assert "“red circle”" in page.locator(".reading .names").inner_text()
    words.nth(3).click(modifiers=["Shift"])
    page.mouse.move(0, 0)
    assert_heat(page, imap.heatmap("red circle below"))
    assert_words(page, imap.word_weights())  # words keep what the whole image says


def test_a_box_lights_up_its_words(imap, show):
    page = show(imap.to_html())
    drag(page, STAGE, (0.12, 0.21), (0.52, 0.77))
    box = box_of(page)
    assert box == pytest.approx((7, 8, 32, 31), abs=1.01)
    assert_words(page, imap.word_weights(box))
    assert value(page) == pytest.approx(imap.between(a=box), rel=6e-4)
    page.locator(".words .word", has_text="red").click()
    page.mouse.move(0, 0)
    assert_words(page, imap.word_weights(box))
    assert_heat(page, imap.heatmap("red"))
    assert value(page) == pytest.approx(imap.between(box, "red"), rel=6e-4)
    more = re.findall(r": ([+−][\d.]+)\.", page.locator(".reading .more").inner_text())
    expected = [imap.between(b="red"), imap.between(a=box)]
    assert [number(text) for text in more] == pytest.approx(expected, rel=6e-3)
    page.locator(".clear").click()
    assert_words(page, imap.word_weights())


def test_boxes_of_images_that_the_model_crops(show):
    axis = image_axis(Image.effect_noise((200, 100), 30), (4, 4))
    from dataclasses import replace

    # The model sees the middle 80 × 80 pixels of an image scaled to 160 × 80.
    frame = replace(axis.frame, scale=(0.8, 0.8), offset=(40.0, 0.0))
    imap = make(replace(axis, frame=frame), picture_and_text("a red dog").axis_b)
    page = show(imap.to_html())
    drag(page, STAGE, (0.1, 0.13), (0.45, 0.72))
    box = box_of(page)
    assert box[0] == pytest.approx(20, abs=1.01)
    assert_words(page, imap.word_weights(box))
    stage, heat = (page.locator(at).bounding_box() for at in (STAGE, f"{STAGE} .heat"))
    assert heat["width"] / stage["width"] == pytest.approx(0.5, abs=0.01)
    assert (heat["x"] - stage["x"]) / stage["width"] == pytest.approx(0.25, abs=0.01)


def test_patches_under_the_pointer_are_read_to_four_digits(imap, show):
    page = show(imap.to_html(b="red"))
    stage = page.locator(STAGE).bounding_box()
    for row, column in ((0, 0), (2, 5), (4, 3)):
        page.mouse.move(
            stage["x"] + (column + 0.5) / 6 * stage["width"],
            stage["y"] + (row + 0.5) / 5 * stage["height"],
        )
        assert f"patch {row},{column}" in page.locator(".reading .names").inner_text()
        assert value(page) == pytest.approx(imap.heatmap("red")[row, column], rel=6e-4)


def test_a_finger_draws_a_box(imap, show):
    page = show(imap.to_html(), width=360, height=740, has_touch=True, is_mobile=True)
    page.locator(STAGE).scroll_into_view_if_needed()
    box = page.locator(STAGE).bounding_box()
    client = page.context.new_cdp_session(page)
    for kind, x, y in (("touchStart", 0.2, 0.2), ("touchMove", 0.5, 0.4), ("touchMove", 0.7, 0.9)):
        point = {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert_words(page, imap.word_weights(box_of(page)))
    page.locator(".words .word", has_text="red").tap()
    assert_heat(page, imap.heatmap("red"))


def test_the_keyboard_reaches_everything(imap, show):
    page = show(imap.to_html())
    page.locator(STAGE).focus()
    page.keyboard.press("ArrowRight")  # begins in the middle
    assert "patch 2,3" in page.locator(".reading .names").inner_text()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    chosen = (30, 8, 50, 24)  # rows 1 and 2, columns 3 and 4 of 10 × 8 pixels
    assert box_of(page) == pytest.approx(chosen)
    assert_words(page, imap.word_weights(chosen))
    page.keyboard.press("Escape")
    assert_words(page, imap.word_weights())

    while not page.evaluate("document.activeElement.classList.contains('word')"):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert_heat(page, imap.heatmap("red"))
    focused = page.locator(".word:focus-visible")
    assert focused.evaluate("word => getComputedStyle(word).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+ArrowRight")
    assert_heat(page, imap.heatmap("red circle"))
    page.wait_for_timeout(300)
    spoken = page.locator(".live").inner_text()
    assert "“red circle” × the image" in spoken
    assert "strongest at patch" in spoken
    page.keyboard.press("Escape")
    assert_heat(page, imap.heatmap())


def test_signs_opacity_and_smoothness(imap, show):
    page = show(imap.to_html())
    heat = imap.heatmap()
    for sign, kept in (("Red", heat > 0), ("Blue", heat < 0), ("Both", heat != 0)):
        page.locator(".segments label", has_text=sign).click()
        assert ((shown_heat(page)[..., 3] > 0) == kept).all()
    page.locator("[name=opacity]").fill("0")
    assert not shown_heat(page)[..., 3].any()
    page.locator("[name=smooth]").check()
    rendering = page.locator(f"{STAGE} .heat").evaluate("c => getComputedStyle(c).imageRendering")
    assert rendering == "auto"


def test_methods_are_switched_and_keep_the_selection(imap, show):
    other = picture_and_text("a red circle below it", grid=(5, 6), seed=1)
    first = FirstOrderMap(
        imap.marginal_a("it"), None, imap.score, imap.axis_a, imap.axis_b,
        {"attribution": "grad_cam"},
    )  # fmt: skip
    page = show(report_html([{"one": imap, "two": other, "grad cam": first}], b="red"))
    assert_heat(page, imap.heatmap("red"))
    assert_heat(page, other.heatmap("red"), ".tile:nth-child(2) .heat")
    page.locator(".tile", has_text="two").click()
    assert_heat(page, other.heatmap("red"))
    assert "two" in page.locator(".viewer .parts caption").inner_text()
    page.locator(".tile input").nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert_heat(page, first.heatmap())
    assert "no map of the text" in page.locator(".viewer .panel .rest").last.inner_text()
    assert "first-order method" in page.locator(".reading .more").inner_text()
    assert "first-order method" in page.locator(".lead").inner_text()
    assert "first order" in page.locator(".tile").nth(2).inner_text()
    assert "first order" not in page.locator(".tile").nth(1).inner_text()


def test_pins_are_kept_compared_and_shown_again(imap, show):
    page = show(imap.to_html(b="red circle"))
    page.locator(".pin").click()
    page.locator(".words .word", has_text="below").click()
    page.locator(".pin").click()
    page.locator(".clear").click()
    pins = page.locator(".pins li")
    assert pins.count() == 2
    heats = [imap.heatmap("red circle"), imap.heatmap("below")]
    limit = max(np.abs(heat).max() for heat in heats)  # one scale for both
    for index, heat in enumerate(heats, 1):
        alpha = shown_heat(page, f".pins li:nth-child({index}) .heat")[..., 3]
        expected = 255 * OPACITY * (np.abs(heat) / limit) ** GAMMA
        np.testing.assert_allclose(alpha, expected, atol=1)
    pins.first.locator(".show").click()
    assert_heat(page, heats[0])
    pins.first.locator(".remove").click()
    assert pins.count() == 1
    assert "below" in pins.inner_text()


def test_a_strong_pair_is_selected_from_the_table(imap, show):
    page = show(imap.to_html())
    (strongest,) = imap.top_pairs(1)
    row = page.locator(".viewer .strongest tr").first
    assert number(row.locator(".number").inner_text()) == pytest.approx(
        strongest.attribution, rel=6e-4
    )
    row.get_by_role("button").click()
    names = page.locator(".reading .names").inner_text()
    assert names == f"“{strongest.b}” × {strongest.a}"
    assert value(page) == pytest.approx(strongest.attribution, rel=6e-4)


def test_wicked_captions_stay_text_and_nothing_runs(show):
    imap = picture_and_text(WICKED)
    page = show(report_html([imap, imap], title=WICKED, labels=[WICKED, WICKED]))
    assert page.locator("h1").inner_text() == WICKED
    page.locator(".open").first.click()
    words = page.locator(".viewer .words .text").all_inner_texts()
    assert words == [word.text for word in imap.axis_b.words]
    page.locator(".words .word", has_text="script").first.click()
    page.locator(".pin").click()
    assert page.locator("main img[src=x], main script").count() == 2  # the page's own scripts


def test_injected_scripts_do_not_run(show, complaints):
    """Were the escaping to fail, the page's policy would still hold."""
    html = picture_and_text("red").to_html()
    broken = html.replace("<footer>", "<script>document.title = 'mine'</script><footer>", 1)
    page = show(broken)
    assert page.title() == "“red”"
    assert page.locator(".viewer").is_visible()
    assert ["Content Security Policy" in complaint for complaint in complaints] == [True]
    complaints.clear()


@pytest.mark.parametrize("kind", ["texts", "sound", "images", "first order", "image"])
def test_pages_fit_a_phone(kind, show, imap):
    kinds = {
        "texts": two_texts("a man plays the guitar", "someone makes music " + "very " * 30),
        "sound": sound(),
        "images": make(image_axis(WHITE), image_axis(WHITE, (3, 3))),
        "image": picture_and_text("pneumonoultramicroscopicsilicovolcanoconiosis " * 3),
    }
    first = FirstOrderMap(imap.marginal_a(), None, 0.1, imap.axis_a, imap.axis_b)
    entry = [first, imap] if kind == "first order" else kinds[kind]
    for entries in ([entry], [entry, entry]):
        page = show(report_html(entries), width=360, height=740)
        if len(entries) == 2:
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            page.locator(".open").first.click()
        page.locator(".pin").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_dark_and_light(imap, show):
    colour = "main => getComputedStyle(main).backgroundColor"
    page = show(imap.to_html(), color_scheme="dark")
    assert page.locator("main").evaluate(colour) == "rgb(22, 23, 25)"
    page.locator(".theme").click()
    assert page.locator("main").evaluate(colour) == "rgb(253, 252, 250)"
    page = show(imap.to_html(), color_scheme="light")
    assert page.locator("main").evaluate(colour) == "rgb(253, 252, 250)"
    page.locator(".theme").click()
    assert page.locator("main").evaluate(colour) == "rgb(22, 23, 25)"


def test_several_reports_in_one_document_do_not_disturb_each_other(imap, show):
    other = picture_and_text("one more caption")
    style = "<style>.word { display: none } body { font-size: 50px }</style>"
    page = show(f"<!doctype html>{style}{imap._repr_html_()}{other._repr_html_()}")
    first, second = (page.frame_locator("iframe").nth(index) for index in (0, 1))
    second.locator(".words .word", has_text="more").click()
    assert "“more”" in second.locator(".reading .names").inner_text()
    assert first.locator(".reading .names").inner_text() == "the text × the image"
    assert first.locator(".words .word").first.is_visible()
    page.wait_for_timeout(200)
    for frame, iframe in zip((first, second), page.locator("iframe").all(), strict=True):
        height = frame.locator("main").bounding_box()["height"]
        assert iframe.bounding_box()["height"] == pytest.approx(height, abs=6)


def test_a_notebook_shows_a_pair_in_500_pixels(imap, show):
    first = FirstOrderMap(
        imap.marginal_a(), None, 0.1, imap.axis_a, imap.axis_b, {"attribution": "grad_cam"}
    )
    long = picture_and_text("word " * 60, Image.new("RGB", (100, 300)), grid=(9, 3))
    texts = two_texts("a man plays " * 20, "someone makes music " * 20)
    images = make(image_axis(WHITE), image_axis(WHITE, (3, 3)))
    frames = "".join(one._repr_html_() for one in (imap, first, long, texts, images))
    page = show(f"<!doctype html><body style='width: 800px'>{frames}")
    for frame in page.locator("iframe").all():
        frame.scroll_into_view_if_needed()  # frames load when they come into view
        frame.content_frame.locator(".viewer .parts").wait_for()
    page.wait_for_timeout(200)
    heights = [frame.bounding_box()["height"] for frame in page.locator("iframe").all()]
    assert max(heights) <= 500
    for index in range(5):
        frame = page.frame_locator("iframe").nth(index)
        inside = frame.locator("html").evaluate("html => html.scrollHeight - html.clientHeight")
        assert inside <= 0  # all of it is in view
        assert frame.locator(".lead").is_visible()
        assert frame.locator(".viewer .parts").is_visible()
    assert (
        "Grad-CAM (first order)"
        in page.frame_locator("iframe").nth(1).locator(".about").inner_text()
    )


def test_two_texts_colour_each_other(show):
    imap = two_texts("a man plays the guitar", "someone makes music")
    page = show(imap.to_html())
    a, b = ".slot.first .words", ".slot.second .words"
    page.locator(f"{b} .word", has_text="music").click()
    page.mouse.move(0, 0)
    expected = imap.marginal_a("music")[1:-1].tolist()
    assert_words(page, list(zip(["a", "man", "plays", "the", "guitar"], expected, strict=True)), a)
    page.locator(f"{a} .word", has_text="guitar").click()
    page.mouse.move(0, 0)
    assert_words(page, imap.word_weights("guitar"), b)
    assert value(page) == pytest.approx(imap.between("guitar", "music"), rel=6e-4)


def test_a_sound_is_a_spectrogram_with_low_bands_below(show):
    imap = sound()
    page = show(imap.to_html(b="dog"))
    assert_heat(page, imap.heatmap("dog")[::-1])
    drag(page, STAGE, (0.05, 0.05), (0.6, 0.95))
    names = page.locator(".reading .names").inner_text()
    assert "0.00–2.00 s, bands 0–1" in names
    assert_words(page, imap.word_weights((0.0, 2.0)))


def test_enter_keeps_a_phrase_and_ctrl_adds_words(imap, show):
    page = show(imap.to_html())
    words = page.locator(".words .word")
    words.first.focus()
    for key in ("ArrowRight", "Enter", "Shift+ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert page.locator(".reading .names").inner_text() == "“red circle” × the image"
    assert_heat(page, imap.heatmap("red circle"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Control+Enter")
    three = imap.heatmap("red circle") + imap.heatmap("it")
    assert_heat(page, three)
    assert "“red circle” + “it”" in page.locator(".reading .names").inner_text()
    page.keyboard.press("Enter")
    assert_heat(page, three)
    words.nth(1).click(modifiers=["Control"])
    page.mouse.move(0, 0)
    assert_heat(page, imap.heatmap("circle") + imap.heatmap("it"))
    assert value(page) == pytest.approx(imap.between(b="circle") + imap.between(b="it"), rel=6e-4)
    words.nth(0).click()  # without Ctrl it is a selection of its own
    assert page.locator(".words .chosen").count() == 1


def test_words_stay_where_they_are(imap, show):
    """Numbers under words change with what is under the pointer, but not the widths of words."""
    imap = replace(
        imap, interactions=imap.interactions * torch.logspace(-5, 2, len(imap.axis_a))[:, None]
    )
    page = show(imap.to_html())
    places = """() => [...document.querySelectorAll('.words .word')]
        .map((word) => word.getBoundingClientRect()).map((box) => [box.x, box.y, box.width])"""
    before = page.evaluate(places)
    stage = page.locator(STAGE).bounding_box()
    for row in range(5):
        for column in range(6):
            page.mouse.move(
                stage["x"] + (column + 0.5) / 6 * stage["width"],
                stage["y"] + (row + 0.5) / 5 * stage["height"],
            )
            assert page.evaluate(places) == before


def test_the_address_keeps_what_is_selected(imap, show):
    other = FirstOrderMap(imap.marginal_a(), None, 0.1, imap.axis_a, imap.axis_b)
    page = show(report_html([[imap, other], [imap]], b="circle"))
    assert "#" not in page.url
    page.locator(".open").last.click()
    assert page.url.endswith("#pair=2&b=2")
    page.locator(".words .word", has_text="red").click(modifiers=["Control"])
    drag(page, STAGE, (0.12, 0.21), (0.52, 0.77))
    chosen = box_of(page)
    page.mouse.move(0, 0)
    numbers = page.locator(".reading .value").inner_text()
    page.reload()
    assert box_of(page) == chosen
    assert "“red circle”" in page.locator(".reading .names").inner_text()
    assert page.locator(".reading .value").inner_text() == numbers
    page.evaluate("window.location.hash = 'pair=1&method=2'")
    page.locator(".about", has_text="first order").wait_for()
    page.locator(".back").click()
    assert "#" not in page.url


@pytest.mark.parametrize("address", ["#b=99", "#a=5,5,1,1&b=x", "#pair=7", "#%", "#b=1.5,NaN"])
def test_a_wrong_address_selects_nothing(imap, show, address):
    page = show(imap.to_html())
    page.evaluate("address => { window.location.hash = address; }", address)
    page.reload()
    assert_heat(page, imap.heatmap())
    assert page.locator(".words .chosen").count() == 0


def test_the_original_is_one_click_away(imap, show):
    page = show(imap.to_html())
    page.locator("[name=original]").check()
    style = "e => [getComputedStyle(e).visibility, getComputedStyle(e).filter]"
    assert page.locator(f"{STAGE} .heat").evaluate(style)[0] == "hidden"
    assert page.locator(f"{STAGE} .picture").evaluate(style)[1] == "none"
    page.locator("[name=original]").uncheck()
    assert page.locator(f"{STAGE} .heat").evaluate(style)[0] == "visible"


def test_lines_lead_to_the_strongest_pairs(imap, show):
    page = show(imap.to_html())
    lines = page.locator("svg.lines path:not(.halo)")
    assert lines.count() == 0
    page.locator("[name=lines]").check()
    strongest = imap.top_pairs(8)
    signs = ["match" if pair.attribution > 0 else "clash" for pair in strongest]
    assert [line.get_attribute("class") for line in lines.all()] == signs
    # The first one ends in its patch and at its word.
    path = [float(x) for x in re.findall(r"-?[\d.]+", lines.first.get_attribute("d"))]
    svg = page.locator("svg.lines").bounding_box()
    row, column = map(int, re.findall(r"\d+", strongest[0].a))
    stage = page.locator(STAGE).bounding_box()
    assert svg["x"] + path[0] == pytest.approx(
        stage["x"] + (column + 0.5) / 6 * stage["width"], abs=1
    )
    assert svg["y"] + path[1] == pytest.approx(
        stage["y"] + (row + 0.5) / 5 * stage["height"], abs=1
    )
    word = page.locator(".words .word", has_text=strongest[0].b).first.bounding_box()
    assert word["x"] - 1 <= svg["x"] + path[-2] <= word["x"] + word["width"] + 1
    page.locator(".words .word", has_text="red").click()
    page.mouse.move(0, 0)
    column = imap.by_unit()[:, 1]
    best = column[column.abs().argsort(descending=True)[:8]]
    signs = ["match" if value > 0 else "clash" for value in best]
    assert [line.get_attribute("class") for line in lines.all()] == signs


def test_a_picture_of_the_pair_is_saved(imap, show, tmp_path):
    page = show(imap.to_html(b="red"), color_scheme="dark")
    page.locator("[name=lines]").check()
    with page.expect_download() as download:
        page.locator(".save").click()
    assert download.value.suggested_filename == "explanation.png"
    download.value.save_as(tmp_path / "explanation.png")
    with Image.open(tmp_path / "explanation.png") as picture:
        assert picture.width == 1520
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (pixels[0, 0] == 255).all()  # white in either theme
    rows, columns, *_ = np.nonzero(np.abs(pixels - MATCH).max(-1) < 60)
    assert len(rows) > 1000  # patches and lines that raise the score
    assert np.ptp(rows) > 100
    assert np.ptp(columns) > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_themes(imap, show, scheme):
    """Contrast of at least 4.5 to 1, which WCAG 2.2 asks for, also on the strongest words."""
    page = show(imap.to_html(), color_scheme=scheme)
    paper, ink, soft, *tints = page.locator("main").evaluate(
        """main => {
          const probe = document.createElement("i");
          const names = ["paper", "ink", "soft", "match", "clash"];
          main.append(probe);
          const colours = names.map((name) => {
            probe.style.color = `var(--${name})`;
            return getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number);
          });
          return [...colours, Number(getComputedStyle(main).getPropertyValue("--tint"))];
        }"""
    )
    *signs, tint = tints

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one, two):
        low, high = sorted(luminance([c / 255 for c in colour]) for colour in (one, two))
        return (high + 0.05) / (low + 0.05)

    assert contrast(ink, paper) > 7
    assert contrast(soft, paper) > 4.5
    for sign in signs:
        words = [tint * c + (1 - tint) * p for c, p in zip(sign, paper, strict=True)]
        assert contrast(ink, words) > 4.5
        assert contrast(sign, paper) > 3  # bars and lines


def test_two_images_colour_each_other(show):
    imap = make(image_axis(WHITE), image_axis(WHITE, (3, 3)))
    page = show(imap.to_html())
    drag(page, ".slot.second .stage", (0.1, 0.1), (0.6, 0.6))
    box = box_of(page)
    assert_heat(page, imap.axis_a.to_grid(imap.marginal_a(box).numpy()), ".slot.first .heat")


def test_a_contact_sheet_is_sorted_opened_and_left(show):
    scores = (0.2, -0.1, 0.7)
    maps = [picture_and_text(f"caption {score}", score=score) for score in scores]
    page = show(report_html(maps, labels=["x", "y", "z"]))
    labels = page.locator(".card h2 span:first-child")
    assert labels.all_inner_texts() == ["x", "y", "z"]
    page.locator("[name=order]").select_option("low")
    assert labels.all_inner_texts() == ["y", "x", "z"]
    page.locator("[name=order]").select_option("high")
    assert labels.all_inner_texts() == ["z", "x", "y"]
    page.get_by_role("button", name="Open x").click()
    assert_heat(page, maps[0].heatmap())
    page.locator(".next").click()
    assert page.locator(".label").inner_text() == "y"
    assert_heat(page, maps[1].heatmap())
    page.locator(".pin").click()
    page.locator(".back").click()
    assert page.locator(".card").first.is_visible()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Open y")


def test_without_scripts_everything_is_still_told(imap, show):
    page = show(imap.to_html(), java_script_enabled=False)
    assert page.locator(".card .heat").is_visible()
    assert page.locator(".card .line").inner_text() == "a red circle below it"
    assert page.locator(".card .parts").is_visible()
    assert page.locator(".card .strongest tr").count() == 12
    assert page.locator(".viewer").is_hidden()


def test_rounding_errors_have_no_colour(show):
    imap = picture_and_text("a red circle", grid=(2, 3))
    noise = replace(
        imap, interactions=imap.interactions * 1e-8, settings={"attribution": "x", "layers": [2, 2]}
    )
    page = show(noise.to_html())
    pixels = page.evaluate(
        "() => [...document.querySelector('.viewer canvas.heat').getContext('2d')"
        ".getImageData(0, 0, 3, 2).data].filter((_, i) => i % 4 === 3)"
    )
    assert max(pixels) <= 1
    shares = page.locator(".viewer .words .word").evaluate_all(
        "words => words.map((word) => Number(word.style.getPropertyValue('--w')))"
    )
    assert max(shares) < 1e-5
    assert "no larger than rounding errors" in page.locator(".viewer .slot.facts").inner_text()
