"""The command ``captum-interactions app``."""

from __future__ import annotations

import argparse
from threading import Event
from typing import Any

from captum_interactions.cli.model import check_model
from captum_interactions.cli.output import print_json
from captum_interactions.cli.parser import add_json, positive


def add_app(commands: Any) -> None:
    """Add ``app`` to the program's commands."""
    app = commands.add_parser(
        "app",
        help="try models on your own images and texts in the browser",
        description="Serve a page, to this machine alone, in which images and texts are explained "
        "(needs the extra captum-interactions[app]). Ctrl-C ends it.",
    )
    app.set_defaults(run=_app)
    app.add_argument(
        "--model", nargs="+", default=[], metavar="NAME_OR_DIR",
        help="models to choose from (default: the bundled one)",
    )  # fmt: skip
    app.add_argument(
        "--port", type=positive, metavar="N", help="port (default: the first free one from 7860)"
    )
    app.add_argument(
        "--share", action="store_true", help="also make a public address, through Gradio's servers"
    )
    add_json(app)


def _app(options: argparse.Namespace) -> None:
    for name in options.model:
        check_model(name)

    from transformers.utils import logging

    from captum_interactions.app import launch_app

    logging.disable_progress_bar()
    app = launch_app(options.model, port=options.port, share=options.share)
    if options.json:
        print_json({"url": app.local_url, "share_url": app.share_url})
    else:
        print(f"running on {app.share_url or app.local_url}, until Ctrl-C", flush=True)
    try:
        Event().wait()
    finally:
        app.close(verbose=False)
