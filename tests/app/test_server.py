"""The server of the app gives its own results, and no other file of the machine."""

from __future__ import annotations

import http.client
import json
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import captum_interactions
from captum_interactions.app import results

SECRET = "this file is nobody's business"


def ask(app, method, path, body=None, **headers):
    """Status and body; the path goes out as it stands, dots and all."""
    address = urlsplit(app.local_url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode("utf-8", "replace")


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """A file in the server's working directory, which is also below its folder of temporary files."""
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    monkeypatch.chdir(tmp_path)
    assert tmp_path.is_relative_to(tempfile.gettempdir())
    return path


def test_it_listens_to_this_machine_alone(app):
    assert urlsplit(app.local_url).hostname == "127.0.0.1"
    (listening,) = {sock.getsockname()[0] for one in app.server.servers for sock in one.sockets}
    assert listening == "127.0.0.1"
    assert app.share_url is None


ROUTES = [
    "/file={}", "/gradio_api/file={}", "/gradio_api/file=//{}", "/gradio_api/file/{}",
    "/gradio_api/stream/x/y/z/{}", "/gradio_api/proxy=file://{}", "/gradio_api/custom_component/x/y/z/{}",
    "/static/{}", "/static/..{}", "/static/../../../../../../../../../../..{}",
    "/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{}", "/assets/../../../../../../../../../..{}",
    "/theme.css/..{}", "/svelte/../../../../../../../..{}", "/custom_component/x/y/z/{}", "{}", "/..{}",
]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_no_route_reads_a_file(route, app, secret):
    inside = Path(captum_interactions.__file__)
    inner = f"{results.FOLDER.name}/scene_0.png/../../{secret.relative_to(tempfile.gettempdir())}"
    for path in (secret, inside, "/etc/passwd", inner):
        for written in (
            str(path),
            str(path).replace("/", "%2f"),
            str(path).replace("..", "%2e%2e"),
        ):
            status, body = ask(app, "GET", route.format(written))
            assert SECRET not in body
            assert "PEP 562" not in body
            assert "import_module" not in body
            assert "root:" not in body
            assert status >= 400 or "gradio" in body.lower()


@pytest.mark.parametrize("path", ["{secret}", "/etc/passwd", "file:///etc/passwd", "{package}"])
def test_an_image_is_an_upload_and_no_path_of_the_server(path, app, secret):
    package = Path(captum_interactions.__file__)
    given = {
        "path": path.format(secret=secret, package=package),
        "meta": {"_type": "gradio.FileData"},
    }
    choices = [choice for block in app.blocks.values() if (choice := getattr(block, "value", None))]
    assert choices
    (index, *_) = [i for i, fn in app.fns.items() if fn.name == "_image_and_texts"]
    texts = ["a dog", "", *(c.value for c in app.fns[index].inputs[3:])]
    data = {"data": [given, *texts], "fn_index": index, "session_hash": "tests"}
    status, body = ask(
        app,
        "POST",
        "/gradio_api/queue/join",
        json.dumps(data),
        **{"Content-Type": "application/json"},
    )
    if status == 200:
        _, body = ask(app, "GET", "/gradio_api/queue/data?session_hash=tests")
        assert '"success":false' in body.replace(" ", "")
    assert "cannot be read as an image" not in body  # nobody tried
    assert SECRET not in body


def test_models_are_those_of_the_command_line(app):
    (index, *_) = [i for i, fn in app.fns.items() if fn.name == "_two_texts"]
    model, *others = app.fns[index].inputs[2:]
    data = ["a", "b", "/tmp/another/model", *(one.value for one in others)]
    body = json.dumps({"data": data, "fn_index": index, "session_hash": "models"})
    headers = {"Content-Type": "application/json"}
    status, body = ask(app, "POST", "/gradio_api/queue/join", body, **headers)
    assert status == 200
    _, body = ask(app, "GET", "/gradio_api/queue/data?session_hash=models")
    assert '"success":false' in body.replace(" ", "")
    assert "is not in the list of choices" in body or "Error" in body
    assert "no such folder" not in body


def test_large_uploads_are_refused(app):
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n'
    body = head + b"0" * (11 * 2**20) + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    status, _ = ask(app, "POST", "/gradio_api/upload", body, **kind)
    assert status == 413


def test_names_of_uploads_lead_nowhere(app, tmp_path):
    name = f"../../../../../../../..{tmp_path}/planted.png"
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    status, body = ask(app, "POST", "/gradio_api/upload", f"{head}0\r\n--x--\r\n", **kind)
    assert not (tmp_path / "planted.png").exists()
    if status == 200:
        (path,) = json.loads(body)
        assert Path(path).is_relative_to(tempfile.gettempdir())


def test_nothing_is_offered_to_other_programs(app):
    status, body = ask(app, "GET", "/gradio_api/info")
    assert status == 200
    assert json.loads(body) == {"named_endpoints": {}, "unnamed_endpoints": {}}
