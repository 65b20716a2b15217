"""The commands of collections as a user meets them."""

import pytest

from captum_interactions.cli import main
from captum_interactions.corpus import FactorIndex, build_index
from captum_interactions.encoders import from_pretrained
from tests import corpora, models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, images and a file of texts."""
    folder = tmp_path_factory.mktemp("command")
    model, processor = models.clip_with_processor()
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "images" / "more").mkdir(parents=True)
    for name in ("one.png", "two.png", "more/three.png"):
        corpora.picture(len(name)).save(folder / "images" / name)
    (folder / "images" / "notes.txt").write_text("no image")
    (folder / "texts.txt").write_text("a red circle\n\nred\n")
    return folder


def test_build_and_query(folder, capsys):
    model, index = ["--model", str(folder / "model")], str(folder / "index")
    build = ["index", "build", index, *model, "--images", str(folder / "images"), "--steps", "3"]
    assert main(build) == 0
    built = capsys.readouterr().out
    assert "3 items of side a," in built
    assert "30 tokens in float16" in built
    assert FactorIndex(index).keys == tuple(
        str(folder / "images" / name) for name in ("more/three.png", "one.png", "two.png")
    )
    query = ["index", "query", index, *model, "--text", "a red dot", "--phrase", "red"]
    assert main([*query, "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "best scores for 'a red dot':"
    assert lines[3] == "best regions for 'red':"
    assert len(lines) == 6
    assert "patch" in lines[4]
    assert main([*query[:-4], "--image", str(folder / "images" / "one.png")]) == 2
    assert "whose other side takes texts: --text" in capsys.readouterr().err
    assert main([*query[:-1], "blue"]) == 2
    assert "'blue' does not occur" in capsys.readouterr().err


def test_texts_line_by_line(folder, capsys):
    index = str(folder / "texts")
    build = ["index", "build", index, "--model", str(folder / "model"), "--steps", "3"]
    assert main([*build, "--texts", str(folder / "texts.txt"), "--storage", "float32"]) == 0
    assert "largest error by storage: 0.0e+00" in capsys.readouterr().out
    built = FactorIndex(index)
    assert (built.keys, built.settings.side) == (("line 1", "line 3"), "b")
    assert built.source("line 3") == "red"
    query = ["index", "query", index, "--model", str(folder / "model"), "--text", "red"]
    assert main(query) == 2
    assert "holds side b of the model, whose other side takes images: --image" in (
        capsys.readouterr().err
    )
    query[-2:] = ["--image", str(folder / "images" / "one.png")]
    assert main([*query, "--top", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[2].replace("regions", "scores") == f"best scores for {query[-1]!r}:"
    assert "line " in lines[1]
    assert main([*query, "--phrase", "red"]) == 2
    assert "--phrase: chooses words of --text, but the query is --image" in capsys.readouterr().err
    assert main([*query[:-1], "nowhere.png"]) == 2
    assert "--image: " in capsys.readouterr().err


def test_wrong_inputs(folder, capsys):
    build = ["index", "build", str(folder / "none"), "--model", str(folder / "model")]
    assert main([*build, "--images", str(folder / "nowhere")]) == 2
    assert "--images: there is no file and no folder at" in capsys.readouterr().err
    assert main([*build, "--images", str(folder / "model")]) == 2
    assert "nothing to index" in capsys.readouterr().err
    assert not (folder / "none").exists()


def test_a_query_of_nothing(folder, tmp_path, capsys):
    query = ["index", "query", str(tmp_path), "--model", str(folder / "model"), "--text", "red"]
    build_index(tmp_path, from_pretrained(str(folder / "model")), {}, side="a")
    assert main(query) == 2
    assert "holds no item yet" in capsys.readouterr().err
    assert main([*query, "--top", "0"]) == 2
    assert "--top: must be a whole number of at least 1, but got '0'" in capsys.readouterr().err
