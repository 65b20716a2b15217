"""The command ``captum-interactions explain``."""

from __future__ import annotations

import argparse
import mimetypes
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_interactions.cli.maps import PICTURES, map_as_json, selection_lines, write_maps
from captum_interactions.cli.model import (
    add_device,
    check_model,
    load_model,
    note_bundled_model,
    parse_method,
)
from captum_interactions.cli.output import check_output, print_json, writing
from captum_interactions.cli.parser import add_json, positive, speaking_of

if TYPE_CHECKING:
    from captum_interactions.encoders import DualEncoderWrapper


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
        "--method", metavar="METHOD", default="second_order_integrated_gradients",
        help="attribution method, as NAME or NAME:OPTION=VALUE,... (%(default)s)",
    )  # fmt: skip
    explain.add_argument(
        "--compare", nargs="+", default=[], metavar="METHOD", help="more methods to show beside it"
    )
    explain.add_argument(
        "--layer", nargs=2, type=_layer, metavar=("A", "B"),
        help="layer of each encoder: a block's number, -1 for the last one, 'pool' for "
        "what it pools, or 'input' (default: the model's)",
    )  # fmt: skip
    explain.add_argument(
        "--steps", type=_steps, metavar="N",
        help="quadrature steps, or 'auto': until the convergence tolerance is met "
        "(default: the model's)",
    )  # fmt: skip
    explain.add_argument("--truncate", action="store_true", help="cut a caption that is too long")
    add_device(explain)
    explain.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"),
        help="type of the model's weights (default: that of its files)",
    )  # fmt: skip
    explain.add_argument(
        "--output", type=Path, default=Path("interactions.png"), metavar="FILE",
        help="where to write the picture (%(default)s); with the ending .html, an interactive "
        "page; with .safetensors, the map",
    )  # fmt: skip
    add_json(explain)


def is_image_file(text: str) -> bool:
    """Whether a text is the path of an image file, judged by its ending."""
    kind, _ = mimetypes.guess_type(text)
    with suppress(OSError, ValueError):  # what no file can be called
        return kind is not None and kind.startswith("image/") and Path(text).is_file()
    return False


def _steps(value: str) -> int | str:
    if value == "auto":
        return value
    try:
        return positive(value)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or 'auto'") from error


def _layer(value: str) -> int | str:
    with suppress(ValueError):
        return value if value in ("input", "pool") else int(value)
    raise argparse.ArgumentTypeError(
        f"must be a block's number, 'pool' or 'input', but got {value!r}"
    )


def _explain(options: argparse.Namespace) -> None:
    output: Path = options.output
    check_output(output, (*PICTURES, ".html", ".safetensors"))
    _check_together(options)
    check_model(options.model)

    from captum_interactions.encoders.inputs.loading import load_image
    from captum_interactions.explanation import explain

    methods = _methods(options)
    first = options.text
    if options.image is not None:
        with speaking_of("--image"):
            first = load_image(options.image)
    wrapper = load_model(options.model, options.device, options.dtype)
    caption, phrase = options.caption, options.phrase
    box = None if options.box is None else tuple(options.box)
    if caption is None:
        first, caption, named = _sample()
        phrase = phrase or (None if box else named)
    _check_inputs(options, wrapper, first, caption, phrase)
    if options.model is None and options.image is not None:
        note_bundled_model()
    maps = {
        text: explain(wrapper, first, caption, name, truncation=options.truncate, **choice)
        for text, (name, choice) in methods.items()
    }
    with writing(output):
        write_maps(output, maps, phrase, box)
    if options.json:
        found = {text: map_as_json(imap, phrase, box) for text, imap in maps.items()}
        print_json({"output": str(output), "maps": found})
        return
    for text, imap in maps.items():
        print(*([f"{text}:"] if len(maps) > 1 else []), imap, sep="\n")
        for line in selection_lines(imap, phrase, box):
            print(f"  {line}")
    print(f"written to {output}")


def _check_together(options: argparse.Namespace) -> None:
    """See that the options go together.

    Raises:
        ValueError: If they do not.
    """
    image, text, caption = options.image, options.text, options.caption
    if image and caption and is_image_file(caption) and not Path(image).exists():
        raise ValueError(f"--image and --caption are swapped: {caption!r} is an image file")
    if text and is_image_file(text):
        raise ValueError(f"--text: {text!r} is an image file; did you mean --image?")
    is_given = image is not None or text is not None
    if is_given != (caption is not None) or (options.model is not None and not is_given):
        raise ValueError(
            "--image (or --text) and --caption go together, and --model needs them: the sample "
            "scene is for the bundled model"
        )
    if text is not None and (options.model is None or options.phrase or options.box):
        raise ValueError(
            "--text needs --model, a model of texts, and goes without --phrase and --box: the "
            "picture is a matrix of words"
        )
    if options.compare and options.output.suffix.lower() == ".safetensors":
        raise ValueError("--compare makes several maps, but --output .safetensors holds one")
    if options.compare and options.box and options.output.suffix.lower() != ".html":
        raise ValueError(
            "--compare draws images only, and --box asks for words: take --output page.html"
        )


def _methods(options: argparse.Namespace) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name and options of each method, by what was typed.

    Raises:
        ValueError: If there is no such method, or none of them has an option that was given.
    """
    from captum_interactions.attr import ATTRIBUTIONS
    from captum_interactions.explanation import check_options

    methods = {options.method: parse_method("--method", options.method)}
    methods |= {text: parse_method("--compare", text) for text in options.compare}
    is_map = options.output.suffix.lower() == ".safetensors"
    if is_map and ATTRIBUTIONS[methods[options.method][0]].order == 1:
        raise ValueError(f"{options.method} is a first-order method, which has no .safetensors map")
    layers = None if options.layer is None else tuple(options.layer)
    given = {"--layer": ("layers", layers), "--steps": ("n_steps", options.steps)}
    for typed, (argument, value) in given.items():
        if value is None:
            continue
        takers = 0
        for name, choice in methods.values():
            with suppress(TypeError):  # a method that has no such option goes without
                check_options(name, {argument: value})
                choice.setdefault(argument, value)
                takers += 1
        if not takers:
            raise ValueError(f"{typed} is not an option of {', '.join(methods)}")
    return methods


def _sample() -> tuple[Any, str, str | None]:
    """Image and caption of a sample scene, and a phrase to show."""
    from captum_interactions.zoo import load_demo

    scene = load_demo()[1][0]
    named = next((thing for thing in scene.objects if thing.phrase), None)
    return scene.image, scene.caption, named.phrase if named else None


def _check_inputs(
    options: argparse.Namespace,
    wrapper: DualEncoderWrapper,
    first: Any,
    caption: str,
    phrase: str | None,
) -> None:
    """See that the model takes what was given, before anything is computed.

    Raises:
        ValueError: If it does not.
    """
    from captum_interactions.encoders import ImageTower, TextTower

    kinds = {"--text": ImageTower, "--image": TextTower}
    typed, instead = ("--text", "--image") if isinstance(first, str) else ("--image", "--text")
    if isinstance(wrapper.tower_a, kinds[typed]):
        raise ValueError(f"{typed}: the model's first input is another kind; take {instead}")
    if isinstance(wrapper.tower_b, TextTower) and is_image_file(caption):
        raise ValueError(f"--caption: {caption!r} is an image file, but a caption is text")
    words = {"truncation=True": "--truncate", "text 0": "the text"}
    with speaking_of(typed, words):
        (axis_a,) = wrapper.tower_a.prepare(first, truncation=options.truncate).axes
    with speaking_of("--caption", words):
        (axis_b,) = wrapper.tower_b.prepare(caption, truncation=options.truncate).axes
    with speaking_of("--phrase"):
        axis_b.select(phrase)
    with speaking_of("--box"):
        axis_a.select(None if options.box is None else tuple(options.box))
    with speaking_of("--layer"):
        for tower, layer in zip(
            (wrapper.tower_a, wrapper.tower_b), options.layer or (), strict=False
        ):
            tower.resolve_layer(layer)
