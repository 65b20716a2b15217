"""The page of the app: what is asked, and what is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from captum_interactions.app import explaining, results
from captum_interactions.zoo import DEMO, load_demo

try:
    import gradio as gr
except ImportError as error:
    raise ImportError("the app needs gradio: pip install 'captum-interactions[app]'") from error

_INTRODUCTION = """# Which part of an image goes with which words?
Give an image and a caption, and click a word, or drag a box over the image: **red** regions raise
the score together with it, **blue** ones lower it."""

_BUNDLED = """The bundled model knows generated scenes of coloured shapes only: its maps of other
images are meaningless."""

_EXAMPLES = 6
_MOST_LETTERS = 1000
_EVENT: dict[str, Any] = {"concurrency_id": "explain", "api_visibility": "private"}
"""One explanation at a time, of all events."""

_CSS = """
.gradio-container { padding-bottom: 9rem !important; }
.message { padding: 0.6rem 0.9rem; border-left: 4px solid #b2182b; }
.parts { position: fixed; inset: auto 0 0 0; z-index: 1000; padding: 0.3rem 1rem;
  background: var(--body-background-fill); border-top: 1px solid var(--border-color-primary); }
.parts table { margin: 0 auto; font-size: 0.8rem; }
.parts table, .parts tr, .parts th, .parts td { border: 0 !important; }
.parts th, .parts td { padding: 0.1rem 0.6rem !important; text-align: right !important;
  font-weight: normal; vertical-align: bottom; font-variant-numeric: tabular-nums; }
.parts th[scope=row] { max-width: 14rem; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; text-align: left !important; }
.parts td:first-of-type { font-weight: 600; }
@media (max-width: 40rem) {
  .parts { padding: 0.2rem; }
  .parts table { width: 100%; table-layout: fixed; font-size: 0.58rem; line-height: 1.2; }
  .parts th, .parts td { padding: 0.1rem !important; }
}
"""


def build_app(models: Sequence[str] = ()) -> gr.Blocks:
    """The page, not yet served: a Gradio app that can be part of another one.

    Args:
        models (sequence of str, optional): Names or folders of models to choose from. Nothing else
            can be loaded from the page. Default: the bundled one

    Returns:
        Blocks: the app; :func:`launch_app` serves it.
    """
    choices = [(Path(name).name if Path(name).is_dir() else name, name) for name in models]
    pairs = [] if choices else _scenes()
    choices = choices or [("bundled model", str(DEMO))]
    image_value, caption_value = pairs[0] if pairs else (None, "")

    with gr.Blocks(
        title="captum-interactions", analytics_enabled=False, delete_cache=(3600, 86400)
    ) as app:
        gr.HTML(f"<style>{_CSS}</style>", visible="hidden")
        gr.Markdown(_INTRODUCTION if models else f"{_INTRODUCTION}\n\n{_BUNDLED}")
        with gr.Tab("Image and text"), gr.Row():
            with gr.Column(scale=2, min_width=280):
                image = _image(image_value)
                caption = _text("Caption", caption_value)
                second = _text("Second caption, to compare with (optional)")
                button = gr.Button("Explain", variant="primary")
                chosen = _choices(choices, explaining.BASELINES)
                examples = (
                    gr.Examples(pairs, [image, caption], label="Scenes", examples_per_page=3)
                    if pairs
                    else None
                )
            outputs = _results()
        inputs = [image, caption, second, *chosen]
        start = [button.click, caption.submit, second.submit, *(one.input for one in chosen)]
        if examples is None:
            _run(start, _image_and_texts, inputs, outputs)
        else:
            _run([*start, app.load], _image_and_texts, inputs, outputs)
            examples.load_input_event.then(_image_and_texts, inputs, outputs, **_EVENT)

        with gr.Tab("Two texts"), gr.Row():
            with gr.Column(scale=2, min_width=280):
                texts = [_text("First text"), _text("Second text")]
                button = gr.Button("Explain", variant="primary")
                chosen = _choices(choices)
            outputs = _results()
        start = [button.click, *(one.submit for one in texts), *(one.input for one in chosen)]
        _run(start, _two_texts, [*texts, *chosen], outputs)
    return app


def launch_app(
    models: Sequence[str] = (), *, port: int | None = None, share: bool = False
) -> gr.Blocks:
    """Serve the app, to this machine alone unless told otherwise; returns when it is up.

    Args:
        models (sequence of str, optional): See :func:`build_app`.
        port (int, optional): Default: the first free one from 7860 on
        share (bool): Also make a public address through Gradio's servers, for a week. To serve a
            local network, set Gradio's environment variable ``GRADIO_SERVER_NAME``. Default: False

    Returns:
        Blocks: the app, with its ``local_url`` and ``share_url``; its ``close()`` ends it.

    Raises:
        OSError: If the port is taken.
    """
    app = build_app(models)
    app.queue(max_size=16, default_concurrency_limit=1, api_open=False)
    app.launch(
        server_port=port,
        share=share,
        max_file_size="10mb",
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        footer_links=["gradio"],
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )
    return app


def _scenes() -> list[list[str]]:
    """Files of sample scenes, and their captions."""
    _, scenes = load_demo(_EXAMPLES)
    paths = [results.folder() / f"scene_{index}.png" for index in range(_EXAMPLES)]
    for index, path in enumerate(paths):
        scenes[index].image.save(path)
    return [[str(path), scenes[index].caption] for index, path in enumerate(paths)]


def _image(value: str | None) -> gr.Image:
    image = gr.Image(
        value, label="Image", type="filepath", sources=["upload", "clipboard"], buttons=[],
        height=260,
    )  # fmt: skip
    # Gradio would open the file to see what it is, and of a broken one say nothing but "Error".
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def _text(label: str, value: str = "") -> gr.Textbox:
    return gr.Textbox(value, label=label, max_length=_MOST_LETTERS, max_lines=4)


def _choices(
    models: list[tuple[str, str]], baselines: Sequence[str] | None = None
) -> list[gr.Dropdown]:
    """Model, method, layer, and baseline of the image."""
    methods = list(explaining.METHODS.items())
    with gr.Accordion("Method", open=False):
        return [
            gr.Dropdown(models, label="Model", visible=len(models) > 1),
            gr.Dropdown(methods, label="Attribution method"),
            gr.Dropdown(list(explaining.LAYERS), label="Layer"),
            *([gr.Dropdown(list(baselines), label="Baseline of the image")] if baselines else []),
        ]


def _results() -> list[Any]:
    """Where explanations are shown, in the order of what :func:`_show` returns."""
    with gr.Column(scale=3, min_width=320):
        message = gr.HTML(visible=False)
        with gr.Row(visible=False) as comparison:
            plots = [gr.Plot(show_label=False, min_width=160) for _ in range(3)]
        frame = gr.HTML(elem_classes="frame")
        files = gr.File(label="Download: page, picture, map", visible=False, interactive=False)
        parts = gr.HTML()
    return [message, parts, frame, comparison, *plots, files]


def _run(
    start: list[Any], function: Callable[..., Any], inputs: list[Any], outputs: list[Any]
) -> None:
    gr.on(start, function, inputs, outputs, trigger_mode="always_last", **_EVENT)


def _image_and_texts(
    path: str | None, caption: str, second: str, model: str, method: str, layer: str, baseline: str
) -> list[Any]:
    def explained() -> dict[str, explaining.Explained]:
        if path is None:
            raise ValueError("Choose an image first.")
        if not caption.strip():
            raise ValueError("Type a caption first.")
        return {
            text: explaining.explain_image(model, path, text, method, layer, baseline)
            for text in (caption, second)
            if text.strip()
        }

    return _show(explained)


def _two_texts(first: str, second: str, model: str, method: str, layer: str) -> list[Any]:
    def explained() -> dict[str, explaining.Explained]:
        if not (first.strip() and second.strip()):
            raise ValueError("Type two texts first.")
        return {first: explaining.explain_texts(model, first, second, method, layer)}

    return _show(explained)


def _show(compute: Callable[[], dict[str, explaining.Explained]]) -> list[Any]:
    """Values of the outputs; if something is wrong, a message and nothing else."""
    try:
        explained = compute()
        page = results.page_html(explained)
        figures = results.difference_figures(explained) if len(explained) == 2 else [None] * 3
    except explaining.BAD_INPUT as error:
        message = results.message_html([explaining.message_of(error)])
        return [
            gr.HTML(message, visible=True),
            "",
            "",
            gr.Row(visible=False),
            *[None] * 3,
            gr.File(visible=False),
        ]
    notes = list(dict.fromkeys(note for one in explained.values() for note in one.notes))
    return [
        gr.HTML(results.message_html(notes), visible=bool(notes)),
        results.parts_html(explained),
        results.frame_html(page),
        gr.Row(visible=len(explained) == 2),
        *figures,
        gr.File(results.write_files(explained, page), visible=True, interactive=False),
    ]
