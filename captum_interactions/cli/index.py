"""The commands of collections: ``captum-interactions index build`` and ``index query``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from captum_interactions.cli.explain import is_image_file
from captum_interactions.cli.model import check_model, load_model
from captum_interactions.cli.output import print_json
from captum_interactions.cli.parser import add_json, positive, speaking_of


def add_index_commands(commands: Any) -> None:
    """Add ``index`` to the program's commands."""
    index = commands.add_parser(
        "index",
        help="explain a whole collection",
        description="Compute the factors of a collection once, then search it.",
    )
    actions = index.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser(
        "build",
        help="write the factors of images or texts to a folder",
        description="Write the factors of images or texts to a folder, or resume an interrupted "
        "build. Under torchrun, each worker takes its share.",
    )
    build.set_defaults(run=_build)
    build.add_argument("folder", type=Path, metavar="FOLDER", help="where the index is written")
    build.add_argument("--model", required=True, metavar="NAME_OR_DIR", help="the model")
    source = build.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--images", type=Path, nargs="+", metavar="PATH", help="image files, or folders of them"
    )
    source.add_argument(
        "--texts", type=Path, metavar="FILE", help="a file with a text in each line"
    )
    build.add_argument(
        "--side", choices=("a", "b"), help="which encoder (default: a for images, b for texts)"
    )
    build.add_argument("--steps", type=positive, metavar="N", help="quadrature steps")
    build.add_argument(
        "--storage", default="float16", choices=("float32", "float16", "bfloat16"),
        help="type that factors are stored in (float16)",
    )  # fmt: skip
    build.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="items at once (16)"
    )
    add_json(build)
    query = actions.add_parser(
        "query",
        help="the best items and regions for a text or an image",
        description="Print the items with the best scores for an input of the other side (a text "
        "for an index of images, an image for one of captions), and the regions of the collection "
        "with the largest interaction with it, or with a phrase of the text.",
    )
    query.set_defaults(run=_query)
    query.add_argument("folder", type=Path, metavar="FOLDER", help="the index")
    query.add_argument("--model", required=True, metavar="NAME_OR_DIR", help="the same model")
    wanted = query.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--text", metavar="TEXT", help="what to look for")
    wanted.add_argument(
        "--image", metavar="PATH", help="an image to look for, in an index of texts"
    )
    query.add_argument("--phrase", metavar="TEXT", help="words of --text (default: the whole text)")
    query.add_argument(
        "--top", type=positive, default=10, metavar="K", help="how many to print (10)"
    )
    add_json(query)


def _build(options: argparse.Namespace) -> None:
    items: dict[str, Any]
    if options.texts is None:
        items = {str(path): path for path in _image_files(options.images)}
    else:
        with speaking_of("--texts"):
            lines = enumerate(options.texts.read_text(encoding="utf-8").splitlines(), 1)
        items = {f"line {number}": line for number, line in lines if line.strip()}
    if not items:
        raise ValueError("there is nothing to index: no image, and no line of text")
    check_model(options.model)

    from captum_interactions.corpus import build_index

    try:
        index = build_index(
            options.folder,
            load_model(options.model),
            items,
            side=options.side or ("b" if options.images is None else "a"),
            n_steps=options.steps,
            storage=options.storage,
            batch_size=options.batch_size,
            show_progress=True,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("rerun the command to resume") from None
    error = index.storage_error.relative
    if options.json:
        print_json({
            "folder": str(options.folder), "items": len(index), "side": index.settings.side,
            "storage": options.storage, "largest_relative_error": error,
        })  # fmt: skip
        return
    print(index)
    print(f"largest error by storage: {error:.1e} of the largest factor")


def _query(options: argparse.Namespace) -> None:
    if options.text is not None and is_image_file(options.text):
        raise ValueError(f"--text: {options.text!r} is an image file; did you mean --image?")
    if options.image is not None and options.phrase is not None:
        raise ValueError("--phrase: chooses words of --text, but the query is --image")
    check_model(options.model)

    from captum_interactions.corpus import FactorEncoder, FactorIndex, top_regions
    from captum_interactions.encoders import ImageTower
    from captum_interactions.encoders.inputs.loading import load_image

    typed = "--image" if options.text is None else "--text"
    with speaking_of(typed):
        raw = load_image(options.image) if options.text is None else options.text
    index = FactorIndex(options.folder)
    if not len(index):
        raise ValueError(f"the index at {str(options.folder)!r} holds no item yet")
    wrapper = load_model(options.model)
    encoder = FactorEncoder.matching(wrapper, index.settings)
    side = index.settings.side
    other = wrapper.tower_a if side == "b" else wrapper.tower_b
    if isinstance(other, ImageTower) != (options.text is None):
        taken = "images: --image" if isinstance(other, ImageTower) else "texts: --text"
        raise ValueError(
            f"{typed}: the index at {str(options.folder)!r} holds side {side} of the model, whose "
            f"other side takes {taken}"
        )
    with speaking_of(typed):
        query = encoder(raw)
    with speaking_of("--phrase"):
        factors = query.factors(options.phrase)
    found = (index.embeddings @ query.embedding).topk(min(options.top, len(index)))
    scores = [
        (score, index.keys[row])
        for score, row in zip(found.values.tolist(), found.indices.tolist(), strict=True)
    ]
    regions = top_regions(index, factors, options.top)[0]
    if options.json:
        print_json({
            "scores": [
                {"key": key, "source": index.source(key), "score": score} for score, key in scores
            ],
            "regions": [
                {"key": one.key, "source": index.source(one.key), "attribution": one.attribution,
                 "label": one.label, "place": one.place}
                for one in regions
            ],
        })  # fmt: skip
        return
    sought = options.text or options.image
    print(f"best scores for {sought!r}:")
    for score, key in scores:
        print(f"  {score:+.4f} {_name(index, key)}")
    print(f"best regions for {options.phrase or sought!r}:")
    for region in regions:
        place = "" if region.place is None else f" at {tuple(round(x, 1) for x in region.place)}"
        print(f"  {region.attribution:+.4f} {_name(index, region.key)}: {region.label}{place}")


def _image_files(paths: list[Path]) -> list[Path]:
    """The files, and those in folders that a picture's ending shows to be one."""
    from PIL import Image

    endings = Image.registered_extensions()
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.suffix.lower() in endings)
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"--images: there is no file and no folder at {str(path)!r}")
    return files


def _name(index: Any, key: str) -> str:
    source = index.source(key)
    return key if source in (None, key) else f"{key} ({source})"
