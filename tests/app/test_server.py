"""The server of the app gives its own results, and no other file of the machine."""

from __future__ import annotations

import http.client
import json
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import captum_interactions

SECRET = "this file is nobody's business"


def ask(served, method, path, body=None, **headers):
    """Status and body; the path goes out as it stands, dots and all."""
    address = urlsplit(served.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def run(served, name, session, **changed):
    """What the server answers when a function of the page is called with changed inputs."""
    config = json.loads(ask(served, "GET", "/config")[1])
    values = {one["id"]: one["props"] for one in config["components"]}
    (event, *_) = [one for one in config["dependencies"] if one["api_name"] == name]
    data = []
    for component in event["inputs"]:
        props = values[component]
        data.append(changed.get(props["label"], props.get("value")))
    body = json.dumps({"data": data, "fn_index": event["id"], "session_hash": session})
    headers = {"Content-Type": "application/json"}
    status, answer = ask(served, "POST", "/gradio_api/queue/join", body, **headers)
    if status == 200:
        _, answer = ask(served, "GET", f"/gradio_api/queue/data?session_hash={session}")
    return answer


def test_the_page_says_what_the_bundled_model_knows(served):
    assert "generated scenes of coloured shapes only" in ask(served, "GET", "/config")[1]


@pytest.fixture(scope="module")
def secret(served):
    """A file in the server's working directory, which is below the folder of temporary files."""
    path = served.folder / "secret.txt"
    path.write_text(SECRET)
    assert path.is_relative_to(tempfile.gettempdir())
    return path


def test_it_listens_to_this_machine_alone(served):
    assert urlsplit(served.url).hostname == "127.0.0.1"
    port = f":{urlsplit(served.url).port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    assert [place for place in listening if place.endswith(port)] == [f"0100007F{port}"]


@pytest.mark.parametrize(
    "route",
    [
        "/file={}",
        "/gradio_api/file={}",
        "/gradio_api/file=//{}",
        "/gradio_api/file/{}",
        "/gradio_api/stream/x/y/z/{}",
        "/gradio_api/proxy=file://{}",
        "/gradio_api/custom_component/x/y/z/{}",
        "/custom_component/x/y/z/{}",
        "/static/{}",
        "/static/..{}",
        "/static/../../../../../../../../../../..{}",
        "/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{}",
        "/assets/../../../../../../../../../..{}",
        "/svelte/../../../../../../../..{}",
        "{}",
        "/..{}",
    ],
)
def test_no_route_reads_a_file(route, served, secret):
    package = Path(captum_interactions.__file__)
    detour = f"{tempfile.gettempdir()}/gradio/../{secret.relative_to(tempfile.gettempdir())}"
    for path in (secret, package, "/etc/passwd", detour):
        text = str(path)
        for written in (text, text.replace("/", "%2f"), text.replace("..", "%2e%2e")):
            _, body = ask(served, "GET", route.format(written))
            assert SECRET not in body
            assert "import_module" not in body
            assert "root:" not in body


def test_results_are_read_by_the_route_that_reads_nothing_else(served):
    """Or the test above would say nothing of the route."""
    config = json.loads(ask(served, "GET", "/config")[1])
    images = [one["props"].get("value") for one in config["components"] if one["type"] == "image"]
    path = next(value["path"] for value in images if value)
    assert ask(served, "GET", f"/gradio_api/file={path}")[0] == 200


@pytest.mark.parametrize("path", ["{secret}", "/etc/passwd", "file:///etc/passwd", "{package}"])
def test_an_image_is_an_upload_and_no_path_of_the_server(path, served, secret):
    package = Path(captum_interactions.__file__)
    path = path.format(secret=secret, package=package)
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    session = f"image{abs(hash(path))}"
    answer = run(served, "_image_and_texts", session, Image=image, Caption="a dog")
    assert "cannot be read as an image" not in answer  # nobody tried
    assert '"success":false' in answer.replace(" ", "") or "not allowed" in answer.lower()
    assert SECRET not in answer


def test_models_are_those_of_the_command_line(served):
    answer = run(
        served, "_two_texts", "model", Model="/tmp/model", **{"First text": "a", "Second text": "b"}
    )
    assert '"success":false' in answer.replace(" ", "")
    assert "no such folder" not in answer


def test_large_uploads_are_refused(served):
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n'
    body = head + b"0" * (11 * 2**20) + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert ask(served, "POST", "/gradio_api/upload", body, **kind)[0] == 413


def test_names_of_uploads_lead_nowhere(served, tmp_path):
    name = f"../../../../../../../..{tmp_path}/planted.png"
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    ask(served, "POST", "/gradio_api/upload", f"{head}0\r\n--x--\r\n", **kind)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_offered_to_other_programs(served):
    status, body = ask(served, "GET", "/gradio_api/info")
    assert status == 200
    assert json.loads(body) == {"named_endpoints": {}, "unnamed_endpoints": {}}
