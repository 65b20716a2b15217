"""What all commands have in common: help, messages, interrupts, and odd terminals."""

import io
import json
import os
import subprocess
import sys
import warnings

import pytest

from captum_interactions import __version__
from captum_interactions.cli import main
from captum_interactions.cli.tables import summary_text, table_text
from captum_interactions.evaluation import Summary, Table


@pytest.mark.parametrize("command", [[], ["explain"], ["app"], ["evaluate"], ["index", "build"]])
def test_help_and_version_do_not_import_torch(command):
    program = (
        "import sys\nfrom captum_interactions.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    for option in ("--help", "--version")[: 1 if command else 2]:
        ended = subprocess.run(
            [sys.executable, "-c", program, *command, option],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        expected = f"captum-interactions {__version__}\n"
        assert ended.stdout.startswith("usage: " if option == "--help" else expected)
        assert {"torch", "numpy", "gradio", "transformers"}.isdisjoint(ended.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND (see captum-interactions --help)"),
        (["explian"], "but got 'explian'; did you mean explain?"),
        (["explain", "--modle", "x"], "unknown argument '--modle'; did you mean --model?"),
        (["explain", "--layers=1"], "unknown argument '--layers'; did you mean --layer?"),
        (["explain", "photo.jpg"], "unknown argument 'photo.jpg' (see captum-interactions explain"),
        (["explain", "--dtype", "float61"], "but got 'float61'; did you mean float16?"),
        (["explain", "--method", "grad_clip"], "but got 'grad_clip'; did you mean grad_eclip?"),
        (["explain", "--method", "rise:n=1"], "--method: rise has no option n"),
        (["explain", "--compare", "magic"], "--compare: must be one of"),
        (
            ["explain", "--layer", "one", "2"],
            "--layer: must be a block's number, 'pool' or 'input'",
        ),
        (["explain", "--steps", "3", "--method", "grad_eclip"], "--steps is not an option of grad"),
        (["explain", "--device", "moon"], "--device: the model cannot be put on moon"),
        (["evaluate", "localisation"], "but got 'localisation'; did you mean localization?"),
        (["evaluate", "localization", "--dataset", "cocos"], "did you mean coco?"),
        (["evaluate", "localization", "--set", "min_aera=1"], "did you mean min_area?"),
        (["evaluate", "localization", "--limit", "many"], "--limit: must be a whole number"),
        (["evaluate", "localization", "--model", "./x"], "'./x': there is no such folder"),
        (["index", "build", "--storage", "int8"], "--storage: must be one of float32, float16"),
        (["index", "query", "x", "--model", "./x", "--text", "y"], "there is no such folder"),
    ],
)
def test_messages_speak_of_what_was_typed(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_errors_of_several_lines_become_one(capsys, monkeypatch):
    def fail(*_):
        raise OSError("first\n  second\n\nthird")

    monkeypatch.setattr("captum_interactions.cli.explain.check_output", fail)
    assert main(["explain"]) == 2
    assert capsys.readouterr().err == "captum-interactions: first second third\n"


@pytest.mark.parametrize(
    ("command", "at", "resumes"),
    [
        (["explain"], "captum_interactions.explanation.explain", ""),
        (["evaluate", "--list"], "captum_interactions.cli.evaluate._list_studies", ""),
        (
            ["index", "build", "x", "--model", "{demo}", "--texts", "{text}"],
            "captum_interactions.corpus.build_index",
            ": rerun the command to resume",
        ),
    ],
)
def test_an_interrupt_is_one_line(command, at, resumes, tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    from captum_interactions.zoo import DEMO

    (tmp_path / "text").write_text("red\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(at, stop)
    assert main([word.format(demo=DEMO, text=tmp_path / "text") for word in command]) == 130
    assert capsys.readouterr().err == f"\ncaptum-interactions: interrupted{resumes}\n"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupt_while_libraries_are_imported(tmp_path):
    program = (
        "import os, signal, threading\nfrom captum_interactions.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "raise SystemExit(main(['explain', '--steps', '200']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert ended.returncode == 130
    assert ended.stderr == "\ncaptum-interactions: interrupted\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_has_gone_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "captum_interactions", "--help"],
        stdout=writing, stderr=subprocess.PIPE, check=False,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_terminal_that_knows_ascii_alone(tmp_path, monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding="ascii"))
    arguments = ["--method", "token_similarity", "--output", str(tmp_path / "x.png")]
    assert main(["explain", *arguments]) == 0
    assert b"InteractionMap of an image of 8 ? 8 patches" in printed.getvalue()


def test_warnings_are_lines_too(capsys, monkeypatch):
    def warn(*_):  # as Python prints it; pytest would record it
        print(warnings.formatwarning("mind\nthe gap", UserWarning, "file.py", 7))

    before = warnings.formatwarning
    monkeypatch.setattr("captum_interactions.cli.evaluate._list_studies", warn)
    assert main(["evaluate", "--list"]) == 0
    assert capsys.readouterr().out == "captum-interactions: warning: mind the gap\n\n"
    assert warnings.formatwarning is before


def test_studies_as_json(capsys):
    assert main(["evaluate", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["localization"]["options"]["single_instance"] is False


# Tables.

WIDE = Table(
    ("method", "phrases", "PGE median", "95 % from", "to", "message"),
    [["grad_eclip", 8, 0.76123, 0.5, None, "no phrase of the caption has a box"],
     ["a_method_with_quite_a_long_name", 12, -0.1, None, 1.0, ""]],
    "PGE: what it *is*.",
)  # fmt: skip


def test_a_table_with_room():
    assert (
        table_text(WIDE, 200)
        == """\
method                           phrases     PGE   95 %     to  message
                                          median   from
-------------------------------  -------  ------  -----  -----  ----------------------------------
grad_eclip                             8   0.761  0.500         no phrase of the caption has a box
a_method_with_quite_a_long_name       12  -0.100         1.000"""
    )


@pytest.mark.parametrize("width", [20, 30, 48, 80])
def test_a_table_fits_and_loses_nothing(width):
    text = table_text(WIDE, width)
    assert max(map(len, text.splitlines())) <= width
    letters = "".join(text.split())
    for cell in ("0.761", "-0.100", "1.000", "12"):
        assert cell in letters
    blocks = text.split("\n\n")
    assert all(block.startswith("method") for block in blocks)
    assert len(blocks) > 1 or width == 80


def test_a_summary_fits_its_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    text = summary_text("A study", Summary({"wide": WIDE}, notes=["Mind the gap. " * 8]))
    assert max(map(len, text.splitlines())) <= 50
    assert "PGE: what it is." in text
    assert "|" not in text
    assert "![" not in text
