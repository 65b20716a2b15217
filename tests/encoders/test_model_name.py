"""What results call the model they are of."""

from types import SimpleNamespace

import pytest
from torch import nn

from captum_interactions import CallableTower, load_demo
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.encoders.wrapper import _model_name


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32 (Model)"),
        ("/home/me/secret/clip", "clip (Model)"),
        ("C:\\Users\\me\\clip\\", "clip (Model)"),
        ("./models/clip", "clip (Model)"),
        ("clip", "clip (Model)"),
        ("", "Model"),
        (None, "Model"),
    ],
)
def test_a_name_of_the_hub_is_kept_and_a_path_is_not(source, expected):
    model = type("Model", (), {"config": SimpleNamespace(_name_or_path=source)})()
    assert _model_name(SimpleNamespace(model=model)) == expected


def test_a_folder_that_looks_like_a_name_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "mine" / "clip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    model = type("Model", (), {"config": SimpleNamespace(_name_or_path="mine/clip")})()
    assert _model_name(SimpleNamespace(model=model)) == "clip (Model)"


def test_wrappers_name_their_models():
    assert load_demo(1)[0].model_name == "demo (CLIPModel)"
    towers = CallableTower(nn.Linear(2, 3)), CallableTower(nn.Linear(4, 3))
    assert DualEncoderWrapper(*towers).model_name == "CallableTower"
