"""The command ``captum-interactions explain``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

PICTURES = (".png", ".pdf", ".svg", ".jpg")
"""Endings of files that ``explain --output`` writes a picture to."""


def add_explain(commands: Any) -> None:
    """Add ``explain`` to the program's commands."""
    explain = commands.add_parser(
        "explain",
        help="explain a pair",
        description="Explain an image and its caption, or two texts, and draw it. Without "
        "arguments, a sample scene is explained on the bundled model.",
    )
    explain.set_defaults(run=_explain)
    first = explain.add_mutually_exclusive_group()
    first.add_argument("--image", metavar="FILE", help="the image (default: a sample scene)")
    first.add_argument("--text", metavar="TEXT", help="the first text, for a model of texts")
    explain.add_argument("--caption", metavar="TEXT", help="the caption, or the second text")
    explain.add_argument(
        "--model", metavar="NAME_OR_DIR",
        help="a model for transformers or sentence-transformers (default: the bundled one)",
    )  # fmt: skip
    selection = explain.add_mutually_exclusive_group()
    selection.add_argument("--phrase", metavar="TEXT", help="words of the caption to look for")
    selection.add_argument(
        "--box", nargs=4, type=float, metavar=("X0", "Y0", "X1", "Y1"),
        help="a region of the image, in its pixels, to look from",
    )  # fmt: skip
    explain.add_argument(
        "--layer", nargs=2, type=_layer, metavar=("A", "B"),
        help="layer of each encoder: a block's number, -1 for the last one, 'pool' for "
        "what it pools, or 'input' (default: the model's)",
    )  # fmt: skip
    explain.add_argument(
        "--steps", type=_steps, metavar="N",
        help="quadrature nodes, or 'auto' for as many as completeness takes (default: the model's)",
    )  # fmt: skip
    explain.add_argument("--truncate", action="store_true", help="cut a caption that is too long")
    explain.add_argument(
        "--output", type=Path, default=Path("interactions.png"), metavar="FILE",
        help="where to write the picture (interactions.png); with the ending .html, an interactive "
        "page; with .safetensors, the map",
    )  # fmt: skip


def _steps(value: str) -> int | str:
    if value == "auto" or value.isdecimal():
        return value if value == "auto" else int(value)
    raise argparse.ArgumentTypeError(f"must be 'auto' or a number of nodes, but got {value!r}")


def _layer(value: str) -> int | str:
    return value if value in ("input", "pool") else int(value)


def _explain(options: argparse.Namespace) -> None:
    output: Path = options.output
    if output.suffix.lower() not in (*PICTURES, ".html", ".safetensors"):
        raise ValueError(
            f"--output must end in {', '.join(PICTURES)}, .html or .safetensors, but got "
            f"{str(output)!r}"
        )
    if not output.absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder of --output does not exist: {str(output.parent)!r}")
    is_given = options.image is not None or options.text is not None
    if is_given != (options.caption is not None) or (options.model is not None and not is_given):
        raise ValueError(
            "--image (or --text) and --caption go together, and --model needs them: the sample "
            "scene is for the bundled model"
        )
    if options.text is not None and (options.model is None or options.phrase or options.box):
        raise ValueError(
            "--text needs --model, a model of texts, and goes without --phrase and --box: the "
            "picture is a matrix of words"
        )

    from captum_interactions.encoders import TextAxis
    from captum_interactions.encoders.inputs.loading import load_image
    from captum_interactions.explanation import explain

    first = options.text if options.image is None else load_image(options.image)
    wrapper, first, caption, phrase = _pair(options, first)
    box = None if options.box is None else tuple(options.box)
    phrase = None if box else options.phrase or phrase
    if phrase is not None:
        TextAxis((), (), (), caption, ()).find(phrase)  # raises before anything is computed
    choice: dict[str, Any] = {"layers": tuple(options.layer)} if options.layer else {}
    if options.steps is not None:
        choice["n_steps"] = options.steps
    imap = explain(wrapper, first, caption, truncation=options.truncate, **choice)
    if output.suffix.lower() == ".safetensors":
        imap.save(output)
    elif output.suffix.lower() == ".html":
        imap.save_html(output, a=box, b=phrase)
    else:
        import matplotlib

        matplotlib.use("Agg")
        figure, _ = imap.plot(phrase, box)
        figure.savefig(output, dpi=150)
    print(imap)
    if phrase is not None:
        print(f"  {phrase!r} in all patches: {imap.heatmap(phrase).sum():+.4f}")
    if box is not None:
        print(f"  words in the box {box}:")
        for word, weight in imap.word_weights(box):
            print(f"    {weight:+.4f} {word}")
    print(f"written to {output}")


def _pair(options: argparse.Namespace, first: Any) -> tuple[Any, Any, str, str | None]:
    """The wrapper and the pair to explain, and a phrase to show by default."""
    from transformers.utils import logging

    from captum_interactions.encoders import from_pretrained
    from captum_interactions.zoo import load_demo

    logging.disable_progress_bar()  # files are read in a moment; downloads still show theirs
    if options.model is not None:
        return from_pretrained(options.model), first, options.caption, None
    wrapper, scenes = load_demo()
    if first is not None:
        return wrapper, first, options.caption, None
    scene = scenes[0]
    named = next((thing for thing in scene.objects if thing.phrase), None)
    return wrapper, scene.image, scene.caption, named.phrase if named else None
