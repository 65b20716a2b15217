"""Every command of the page that reproduces the paper runs as it stands.

Data and models are where its commands expect them: real images and captions of COCO, made-up files
of the other datasets, and a small CLIP with random weights. Commands are run on few records.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import matplotlib
import pytest
import torch
from matplotlib import pyplot as plt
from torch.distributed.run import get_args_parser

from captum_interactions.cli import main
from tests import models
from tests.datasets import test_flickr30k, test_hnc
from tests.on_disk import write
from tests.shared_data import shared_data

matplotlib.use("Agg")
# Random weights bend paths so much that few nodes miss the score, which warns; medians are of few.
pytestmark = pytest.mark.filterwarnings("ignore")

PAGE = Path(__file__).parents[1] / "docs" / "reproduce.rst"
MODELS = ("openai/clip-vit-base-patch16", "openai/clip-vit-base-patch32")
LIMITS = {"recognition": "16", "ablations": "1", "perturbation": "1", "faithfulness": "1"}
"""Captions that a study takes; others take 4."""


def commands() -> list[list[str]]:
    """The words of each command of the page, without those of pip."""
    text = re.sub(r"\\\n\s+", "", PAGE.read_text())
    found = [shlex.split(line) for line in re.findall(r"^   \$ (.+)$", text, re.M)]
    return [words for words in found if words[0] != "pip"]


def arguments(words: list[str]) -> list[str]:
    """What the command line is called with, by itself or by torchrun."""
    if words[0] == "torchrun":
        options = get_args_parser().parse_args(words[1:])
        assert (options.module, options.training_script) == (True, "captum_interactions")
        return list(options.training_script_args)
    assert words[0] == "captum-interactions"
    return words[1:]


def smaller(words: list[str]) -> list[str]:
    """The same with few records and few steps of training."""
    if words[0] != "evaluate":
        return words
    words = [*words, "--limit", LIMITS.get(words[1], "4")]
    if words[1] == "fine_tuning":
        words += ["--set", "steps=2", "--set", "train_batch=2"]
    return words


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with all that the page asks for."""
    mini = shared_data("coco_mini")
    root = tmp_path_factory.mktemp("paper")
    coco = root / "data" / "coco"
    (coco / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        for kind in ("captions", "instances"):
            source = mini / "annotations" / f"{kind}_train2017.json"
            (coco / "annotations" / f"{kind}_{split}.json").symlink_to(source.resolve())
        (coco / split).mkdir()
        for image in (mini / "train2017").iterdir():
            (coco / split / image.name).symlink_to(image.resolve())
    first = min((mini / "train2017").iterdir())
    (coco / "val2017" / "000000000139.jpg").symlink_to(first.resolve())
    write(root / "data" / "flickr30k", test_flickr30k.files())
    hnc = test_hnc.files()
    hnc["hnc_clean_strict_train.json"] = hnc["hnc_clean_strict_val.json"]
    write(root / "data" / "hnc", hnc)
    processor = models.clip_processor(size={"shortest_edge": 16}, crop_size=16)
    tokenizer = processor.tokenizer
    clip = models.clip(
        image_size=16, layers=2, context=77, vocabulary=len(tokenizer), eos=tokenizer.eos_token_id
    )
    for name in MODELS:
        clip.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return root


@pytest.mark.parametrize("index", range(len(commands())))
def test_command(index, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    torch.manual_seed(0)
    words = arguments(commands()[index])
    assert main(smaller(words)) == 0, capsys.readouterr().err
    plt.close("all")
    output = Path(words[words.index("--output") + 1])
    if words[0] == "explain":
        assert output.is_file()
        return
    lines = (output / words[1] / "records.csv").read_text().splitlines()
    columns = lines[0].split(",")
    counts = [
        dict(zip(columns, line.rsplit(",", len(columns) - 1), strict=True)) for line in lines[1:]
    ]
    assert counts
    for row in counts:
        assert int(row["measured"]) > 0, row
        assert (row["failed"], row["refused"]) == ("0", "0"), row


def test_the_page_has_the_experiments():
    studies = {words[1] for words in map(arguments, commands()) if words[0] == "evaluate"}
    assert studies == {
        "localization", "classwise", "mismatches", "perturbation", "fine_tuning", "ablations",
        "failures", "recognition", "faithfulness",
    }  # fmt: skip
