"""A model that cannot be found is noticed at once, and its name is taken for what it is."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from captum_interactions import from_pretrained, hub
from captum_interactions.hub import locate_model
from captum_interactions.zoo import DEMO


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of downloads with one model, and a hub that does not answer."""
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(hub, "_answers", lambda url: False)
    folder = tmp_path / "models--some--clip"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    for file in DEMO.iterdir():
        (snapshot / file.name).symlink_to(file)
    return tmp_path


def test_folders_and_answering_hubs_need_nothing(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(hub, "_answers", lambda url: True)
    assert locate_model(DEMO) == "folder"
    assert locate_model(str(DEMO), dtype="float32", trust_remote_code=True) == "folder"
    assert locate_model("openai/clip-vit-base-patch32") == "hub"


def test_without_a_network_a_downloaded_model_is_loaded(cache):
    assert locate_model("some/clip", cache_dir=cache) == "cache"
    assert from_pretrained("some/clip", cache_dir=cache).tower_a.n_blocks > 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("some/clap", {}, "cannot be reached"),
        ("some/clip", {"revision": "v2"}, "cannot be reached"),
        ("some/clap", {"local_files_only": True}, "may not be downloaded"),
        ("/no/such/folder", {}, "'/no/such/folder': there is no such folder"),
        ("models/of/mine", {}, "'models/of/mine': there is no such folder"),
        ("./clip", {}, "'./clip': there is no such folder"),
        ("~/clip", {}, "'~/clip': there is no such folder"),
        ("a photo.jpg", {}, "'a photo.jpg': there is no such folder"),
        (__file__, {}, "it is a file, but a model is a folder"),
        (str(Path(__file__).parent), {}, "neither config.json nor modules.json"),
    ],
)
def test_what_is_not_found_is_said_in_one_line(name, options, message, cache):
    with pytest.raises(OSError, match="no model could be loaded from") as found:
        from_pretrained(name, cache_dir=cache, **options)
    text = str(found.value)
    assert message in text
    assert "\n" not in text
    assert "repo" not in text.lower()


def test_a_hub_that_never_answers_is_not_waited_for(tmp_path):
    """The connection is accepted by the system, and nothing else happens on it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}",
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, "-m", "captum_interactions", "explain", "--model", "some/clip"]
        ended = subprocess.run(
            [*command, "--image", __file__, "--caption", "a dog"],
            env={**os.environ, **settings}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert f"{settings['HF_ENDPOINT']}, cannot be reached" in ended.stderr
