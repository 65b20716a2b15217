"""The page of an interaction map: what is in the file, without a browser."""

import base64
import io
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from captum_interactions import InteractionMap
from captum_interactions.encoders import Frame, ImageAxis, TextAxis, TokenAxis
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.visualization.report import report_html, save_report
from tests.pages import page_data, picture_and_text, sound, stored_values, text_axis

WICKED = "a <script>alert(1)</script> & </w> <!-- ]]> \u2028 \"red\" 'square'"


class Parser(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "action", "poster", "srcset", "data"):
                self.addresses.append(value)
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data):
        self.text += data


def test_values_of_the_page_are_those_of_the_map():
    imap = picture_and_text("a red circle")
    (pair,) = page_data(imap.to_html())["pairs"]
    (map_,) = pair["maps"]
    assert map_["tokens"] == [len(imap.axis_a), len(imap.axis_b)]
    stored = stored_values(map_["values"]).reshape(map_["tokens"])
    assert (stored == imap.to_numpy()).all()
    assert [word["tokens"] for word in map_["b"]["words"]] == [[1], [2], [3]]
    assert map_["a"]["cells"] == list(range(1, 7))
    assert map_["a"]["grid"] == [2, 3]


def test_a_first_order_map_is_a_method_among_others():
    imap = picture_and_text("a red circle")
    first = FirstOrderMap(
        imap.marginal_a(), None, imap.score, imap.axis_a, imap.axis_b, {"attribution": "grad_cam"}
    )
    (pair,) = page_data(imap.to_html([first, first]))["pairs"]
    assert [m["name"] for m in pair["maps"]] == ["attribution", "Grad-CAM (1)", "Grad-CAM (2)"]
    assert stored_values(pair["maps"][1]["values_a"]).tolist() == imap.marginal_a().tolist()
    assert pair["maps"][1]["values_b"] is None
    page = report_html([first])
    assert "no map" not in page.split("<script")[0]
    assert "Strongest parts" in page


def test_padding_without_values_is_left_out_and_other_padding_is_kept():
    text = TextAxis(
        ("[", "dog", "]", "-", "-"), (True, False, True, False, False),
        (False, False, False, True, True), "dog", (None, (0, 3), None, None, None),
    )  # fmt: skip
    values = torch.tensor([[1.0, 2.0, 3.0, 0.0, 5.0]])
    zeros = torch.zeros(1), torch.zeros(5)
    imap = InteractionMap(values, *zeros, 0.0, 11.0, 0.0, TokenAxis.numbered(1), text)
    (map_,) = page_data(imap.to_html())["pairs"][0]["maps"]
    assert stored_values(map_["values"]).tolist() == [1.0, 2.0, 3.0, 5.0]
    assert map_["b"]["words"] == [{"text": "dog", "tokens": [1], "glued": False}]


@pytest.mark.parametrize("make", [picture_and_text, lambda text: picture_and_text(text, None)])
def test_wicked_captions_labels_and_titles_stay_text(make):
    imap = make(WICKED)
    page = report_html([imap, imap], title=WICKED, labels=[WICKED, "b"])
    parsed = Parser(page)
    assert parsed.tags.count("script") == 2  # the data and the script of the page
    assert parsed.tags.count("w") == 0
    assert parsed.handlers == []
    assert WICKED in parsed.text
    data = page_data(page)
    assert data["pairs"][0]["label"] == WICKED
    words = [word["text"] for word in data["pairs"][0]["maps"][0]["b"]["words"]]
    assert words == [word.text for word in imap.axis_b.words]
    raw = re.search(r'class="data">(.*?)</script>', page, re.DOTALL)[1]
    assert not set("<>&\u2028\u2029") & set(raw)


def test_wicked_names_of_methods_stay_text():
    imap = picture_and_text("red")
    parsed = Parser(report_html([{"</script><b onclick=alert(1)>": imap}]))
    assert "b" not in parsed.tags
    assert parsed.handlers == []


def test_nothing_is_loaded_from_elsewhere():
    page = picture_and_text("a red circle").to_html()
    assert all(address.startswith("data:image/") for address in Parser(page).addresses)
    assert all(start == '"data:image/' for start in re.findall(r"url\((.{12})", page))
    assert "@import" not in page
    assert re.findall(r"https?://", page) == []
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert "default-src 'none'" in policy


def test_the_policy_names_the_script_of_the_page():
    import hashlib

    page = picture_and_text("red").to_html()
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_without_scripts_the_parts_and_the_strongest_pairs_are_there():
    imap = picture_and_text("a red circle")
    text = Parser(imap.to_html()).text
    for number in (imap.constant, float(imap.interactions.sum())):
        assert f"{number:+#.3g}".replace("-", "−") in text
    assert f"{imap.score:.3f}" in text
    for a, b, value in imap.top_pairs(3):
        assert f"{b} × {a}{value:+#.4g}".replace("-", "−") in text


@pytest.mark.parametrize("delta", [0.25, -0.25])
def test_the_delta_is_the_sum_of_the_parts_minus_the_score(delta):
    imap = picture_and_text("red", delta=delta)
    rows = re.findall(r'<th scope="row">([^<]+)</th>.*?number">([^<]+)</td>', imap.to_html())
    numbers = {name: float(text.replace("−", "-")) for name, text in rows[:6]}
    *parts, score, shown = numbers.values()
    assert list(numbers) == [
        "constant", "main effects, image", "main effects, text", "interactions", "score",
        "convergence delta",
    ]  # fmt: skip
    assert shown == delta
    assert sum(parts) - score == pytest.approx(delta, abs=0.005)  # three digits of each
    assert f"(convergence delta {delta:+.1e})" in repr(imap)


def test_a_delta_that_matters_is_called_so():
    assert "more than a tenth" not in picture_and_text("red").to_html()
    page = picture_and_text("red", delta=-5.0).to_html()
    assert "more than a tenth of the score: the parts of this method need not add up" in page
    by_steps = replace(picture_and_text("red", delta=-5.0), settings={"n_steps": 2})
    assert "more than a tenth of the score: too few steps." in by_steps.to_html()


def test_what_the_model_does_not_see_is_marked():
    """Of 8 × 4 pixels, the middle 4 × 4 are seen: a quarter is cut off at either side."""
    shape = "polygon(evenodd, 0.00% 0.00%, 100.00% 0.00%, 100.00% 100.00%, 0.00% 100.00%, "
    shape += "0.00% 0.00%, 25.00% 0.00%, 75.00% 0.00%, 75.00% 100.00%, 25.00% 100.00%, "
    shape += "25.00% 0.00%)"
    frame = Frame((4, 8), (4, 4), (1.0, 1.0), (2.0, 0.0))
    imap = picture_and_text("red", None, grid=(2, 2))
    imap = replace(imap, axis_a=ImageAxis.of_grid((2, 2), (2, 2), frame, before=("[class]",)))
    page = imap.to_html()
    assert page_data(page)["pairs"][0]["maps"][0]["a"]["cropped"] == shape
    assert f'<div class="cropped" style="clip-path:{shape}">' in page
    assert "input a was cropped: of 8 × 4 pixels, the model sees x 2–6 and y 0–4" in repr(imap)
    whole = picture_and_text("red")
    assert "cropped" not in page_data(whole.to_html())["pairs"][0]["maps"][0]["a"]
    assert "cropped" not in repr(whole)


def test_the_largest_usual_map_of_a_noisy_photograph_stays_below_one_megabyte():
    generator = np.random.default_rng(0)
    photograph = Image.fromarray(generator.integers(0, 256, (1500, 2000, 3), np.uint8))
    axis_a = ImageAxis.of_grid(
        (24, 24), (14, 14), Frame((1500, 2000), (336, 336), (0.168, 0.224), (0.0, 0.0)),
        image=photograph, before=("[class]",),
    )  # fmt: skip
    axis_b = text_axis(" ".join(f"word{index:02}" for index in range(32)))
    values = torch.from_numpy(generator.normal(size=(577, 34)).astype(np.float32))
    zeros = torch.zeros(577), torch.zeros(34)
    imap = InteractionMap(values, *zeros, 0.0, 1.0, 0.0, axis_a, axis_b)
    assert len(imap.to_html().encode()) < 600_000
    first = FirstOrderMap(values[:, 0], values[0], 1.0, axis_a, axis_b, {"attribution": "x"})
    assert len(imap.to_html([imap, imap, first]).encode()) < 1_000_000


def test_an_image_of_many_pairs_is_embedded_once():
    shared = Image.effect_noise((200, 200), 60)
    captions = ["a red circle", "a dog", "one more caption"]
    maps = [picture_and_text(caption, shared) for caption in captions]
    page = report_html(maps)
    assert len(re.findall(r"\.picture-\d+ \{ background-image", page)) == 1
    other = picture_and_text("a dog", Image.effect_noise((200, 200), 60))
    page = report_html([*maps, other])
    assert len(re.findall(r"\.picture-\d+ \{ background-image", page)) == 2
    indices = [pair["maps"][0]["a"]["picture"] for pair in page_data(page)["pairs"]]
    assert indices == [0, 0, 0, 1]


def test_embedded_images_are_small_and_keep_their_shape():
    page = picture_and_text("red", Image.effect_noise((3000, 1500), 80)).to_html()
    source = re.search(r'url\("data:image/\w+;base64,([^"]+)"', page)[1]
    content = base64.b64decode(source)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.width == 2 * picture.height
        assert picture.width <= 720
    assert len(content) < 250_000


def test_labels_and_scores_of_a_contact_sheet():
    maps = [picture_and_text("a dog", score=score) for score in (0.25, -0.5)]
    page = report_html(maps, labels=["first hit", "second hit"])
    assert [pair["label"] for pair in page_data(page)["pairs"]] == ["first hit", "second hit"]
    assert re.findall(r'data-score="([^"]+)"', page) == ["0.25", "-0.5"]
    assert "score −0.500" in page


def test_cards_of_a_contact_sheet_share_one_scale():
    strong = picture_and_text("a dog", None)
    weak = replace(strong, interactions=strong.interactions / 200)
    noise = replace(strong, interactions=strong.interactions * 1e-9, score=1.0)
    page = report_html([strong, weak, noise])
    shown = [
        max(float(share) for share in re.findall(r"--w:([\d.]+)", card))
        for card in page.split('<li class="card"')[1:]
    ]
    assert shown == [1.0, 0.005, 0.0]
    words = max(abs(weight) for _, weight in strong.word_weights())
    patches = np.abs(strong.heatmap()).max()
    assert f"One scale for all pairs: patches ±{patches:#.2g}, words ±{words:#.2g}" in page
    assert "--w:1.000" in report_html([noise, weak])  # the rounding errors set no scale


def test_a_sheet_names_its_methods_and_models():
    imap = replace(picture_and_text("a dog"), settings={"attribution": "rise", "model": "m"})
    first = FirstOrderMap(
        imap.marginal_a(), None, 0.1, imap.axis_a, imap.axis_b, {"attribution": "grad_cam"}
    )
    text = Parser(report_html([imap, imap, first])).text
    assert "3 pairs explained" in text
    assert "Model: m. Method: RISE. Method: Grad-CAM (first order)." in text


def test_sounds_have_their_high_bands_at_the_top():
    (map_,) = page_data(sound().to_html())["pairs"][0]["maps"]
    axis = map_["a"]
    assert axis["grid"] == [2, 3]
    assert axis["cells"] == [3, 4, 5, 0, 1, 2]
    assert axis["labels"][0].endswith("band 1")


def test_a_page_is_saved_and_opens_with_selections(tmp_path):
    imap = picture_and_text("a red circle")
    imap.save_html(tmp_path / "page.html", a=(0, 0, 20, 20), b="red circle")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page_data(page)["pairs"][0]["start"] == {"a": [0, 0, 20, 20], "b": [1, 2]}
    save_report(tmp_path / "sheet.html", [imap], b=(2, 5))
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert page_data(page)["pairs"][0]["start"] == {"a": None, "b": [1]}


def test_notebooks_get_a_frame_that_holds_the_page():
    imap = picture_and_text(WICKED)
    html = imap._repr_html_()
    assert Parser(html).tags == ["iframe"]
    inner = unescape(re.search(r'srcdoc="([^"]*)"', html)[1])
    assert inner == report_html([imap], compact=True)


@pytest.mark.parametrize(
    ("maps", "options", "error", "message"),
    [
        ([], {}, ValueError, "at least one pair"),
        ([[]], {}, ValueError, "at least one map"),
        (["red"], {}, TypeError, "but got str"),
        ([None], {}, TypeError, "but got NoneType"),
        (["map"], {"labels": ["a", "b"]}, ValueError, "1 pairs, but 2 labels"),
        (["map"], {"b": "blue"}, ValueError, "does not occur"),
        (["map"], {"b": [1]}, TypeError, "opens with a phrase"),
        (["map"], {"a": (3, 3, 1, 1)}, ValueError, "x0 < x1"),
        (["nan"], {}, ValueError, "not finite"),
    ],
)
def test_bad_input_is_refused(maps, options, error, message):
    imap = picture_and_text("a red circle")
    known = {"map": imap, "nan": picture_and_text("red", score=float("nan"))}
    with pytest.raises(error, match=message):
        report_html([known.get(m, m) if isinstance(m, str) else m for m in maps], **options)


def test_the_data_is_strict_json():
    page = picture_and_text("red").to_html()
    raw = re.search(r'class="data">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(raw, parse_constant=pytest.fail)["pairs"]


def test_a_page_that_cannot_be_written_leaves_the_one_that_is_there(tmp_path, monkeypatch):
    imap, path = picture_and_text("a red circle"), tmp_path / "page.html"
    save_report(path, [imap])
    page = path.read_bytes()
    assert page.decode() == report_html([imap])
    with pytest.raises(ValueError, match="surrogates not allowed"):
        save_report(path, [imap], title="\ud800")

    def full(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_report(path, [imap], title="Another")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [page]
