"""The explorer over HTTP: pages, uploads, refusals, many clicks at once; the command."""

import http.client
import io
import json
import random
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest
from PIL import Image

from ccnet.commands import explore
from ccnet.explorer.server import ExplorerServer


@pytest.fixture(scope="module")
def server(explorer, serving):
    with serving(explorer) as server:
        yield server


@pytest.fixture
def ask(server):
    """Sends a request, and returns the status and the content that is answered."""

    def send(path, method="GET", body=None, headers=None, **query):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        address = f"{path}?{urlencode(query)}" if query else path
        connection.request(method, address, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, answer.headers

    return send


@pytest.mark.parametrize(
    ("path", "kind", "part"),
    [
        ("/", "text/html", b"<title>Attention explorer</title>"),
        ("/explorer.css", "text/css", b"#controls"),
        ("/explorer.js", "text/javascript", b"drawing.js"),
        ("/drawing.js", "text/javascript", b"export class Marks"),
    ],
)
def test_page_is_served_and_asks_nobody_else(ask, path, kind, part):
    status, content, headers = ask(path)
    assert status == 200
    assert headers["Content-Type"].startswith(kind)
    assert part in content
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    outside = re.findall(rb"https?://(?!www\.w3\.org/2000/svg)[^\s\"']+", content)
    assert not outside


def test_answers_are_those_of_the_explorer(ask, explorer, weights):
    given = {"weights": weights, "picture": "file-0", "loops": 2}
    for path, expected in {
        "/options": explorer.options(),
        "/view": explorer.view("file-0", weights, 2),
    }.items():
        status, content, _ = ask(path, **given)
        assert (status, json.loads(content)) == (200, expected)
    status, content, headers = ask("/labels", **given)
    assert (status, headers["Content-Type"]) == (200, "image/png")
    with Image.open(io.BytesIO(content)) as labels:
        assert labels.tobytes() == explorer.labels("file-0", weights, 2).tobytes()
    status, content, _ = ask("/picture", picture="file-1")
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (40, 48)
    status, content, _ = ask("/attention", **given, row=3, column=4)
    assert json.loads(content)["pixel"] == [3, 4]


def test_uploads_are_kept_or_refused_in_words(ask):
    content = io.BytesIO()
    Image.new("RGB", (30, 20), "green").save(content, "JPEG")
    status, answer, _ = ask("/pictures", "POST", content.getvalue())
    assert status == 200
    status, shown, _ = ask("/picture", picture=json.loads(answer)["picture"])
    with Image.open(io.BytesIO(shown)) as picture:
        assert picture.size == (30, 20)
    status, answer, _ = ask("/pictures", "POST", b"This is a letter.")
    assert status == 400
    assert "cannot be read as a picture" in json.loads(answer)["error"]
    status, answer, _ = ask("/pictures", "POST", b"\0" * (33 * 2**20))
    assert status == 413
    assert json.loads(answer)["error"] == "the file has 33 MiB, but may have 32"
    status, answer, _ = ask("/pictures", "POST", headers={"Content-Length": "many"})
    assert status == 411


@pytest.mark.parametrize(
    ("path", "query", "status", "reason"),
    [
        ("/nothing", {}, 404, "there is no such page"),
        ("/../answers.py", {}, 404, "there is no such page"),
        ("/%2e%2e/server.py", {}, 404, "there is no such page"),
        ("/picture", {}, 400, "the request does not say picture"),
        ("/picture", {"picture": "upload-1"}, 404, "no longer kept"),
        ("/picture", {"picture": "../../secret.png"}, 404, "no longer kept"),
        ("/attention", {"row": "1.5", "column": 0}, 400, "row must be a whole number, not '1.5'"),
        ("/attention", {"row": 1, "column": "9" * 99}, 400, "column must be a whole number"),
        ("/attention", {"row": 99, "column": 0}, 400, "row 99, column 0 is outside"),
        ("/view", {"loops": "many"}, 400, "loops must be a whole number, not 'many'"),
    ],
)
def test_requests_are_refused_in_words(ask, weights, path, query, status, reason):
    given = {} if path == "/picture" else {"picture": "file-0", "weights": weights}
    found, content, _ = ask(path, **{**given, **query})
    assert found == status
    assert reason in json.loads(content)["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "pictures.example.org"},
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_sites_learn_and_do_nothing(ask, headers):
    for method, path in (("GET", "/options"), ("POST", "/pictures")):
        status, content, _ = ask(path, method, b"x" if method == "POST" else None, headers)
        assert status == 403
        assert "weights" not in json.loads(content)
    own = {"Origin": None, "Sec-Fetch-Site": "same-origin"}
    assert ask("/options", headers={k: v for k, v in own.items() if v})[0] == 200


def test_faults_are_answered_and_the_server_goes_on(ask, explorer, monkeypatch):
    monkeypatch.setattr(explorer, "view", lambda *_: 1 / 0)
    status, content, _ = ask("/view", picture="file-0", weights="any")
    assert status == 500
    assert json.loads(content)["error"].startswith("ZeroDivisionError")
    assert ask("/options")[0] == 200


def test_clicks_of_several_sessions_at_once_are_all_answered(ask, explorer, weights):
    chance = random.Random(5)
    clicks = [
        {"picture": f"file-{index % 2}", "loops": 1 + index % 3 % 2}
        | {"row": chance.randrange(33), "column": chance.randrange(40)}
        for index in range(20)
    ]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda click: ask("/attention", weights=weights, **click), clicks))
    for click, (status, content, _) in zip(clicks, answers, strict=True):
        expected = explorer.attention(weights=weights, **click)
        assert (status, json.loads(content)) == (200, expected)


@pytest.fixture
def begin(monkeypatch, capsys):
    """Runs the command, which ends when it would begin to serve, and returns what it prints."""

    def serve(self):
        raise KeyboardInterrupt

    def run(*arguments):
        explore.main([*map(str, arguments), "--device", "cpu"])
        return capsys.readouterr()

    monkeypatch.setattr(ExplorerServer, "serve_forever", serve)
    return run


def test_command_prints_its_address_and_takes_a_free_port(begin, weights, picture_paths):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = begin(picture_paths[0], "--weights", weights, "--port", port)
    address, note = re.fullmatch(
        r"http://127\.0\.0\.1:(\d+)/ (\(.*\)): open it .*\n", told.out
    ).groups()
    assert int(address) != port
    assert note == f"(port {port} is taken)"
    assert told.err == ""
    told = begin("--weights", weights, "--port", port)
    assert told.out.startswith(f"http://127.0.0.1:{port}/: open it in a browser")
    told = begin("--weights", weights, "--host", "0.0.0.0", "--port", 0)
    assert "all who reach this machine can use the page" in told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "no image at missing.png"),
        (["--weights", "missing.safetensors"], "missing.safetensors"),
        (["--host", "192.0.2.1"], "192.0.2.1|assign|address"),
    ],
)
def test_command_says_what_is_wrong(begin, arguments, message):
    with pytest.raises(SystemExit, match=message):
        begin(*arguments)


def test_command_refuses_ports_that_there_are_not(begin, capsys):
    with pytest.raises(SystemExit):
        begin("--port", "70000")
    assert "--port must be 0 to 65535, not 70000" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["-1", "nan", "0", "inf"])
def test_command_refuses_limits_that_are_none(begin, capsys, limit):
    with pytest.raises(SystemExit):
        begin(f"--memory-limit={limit}")
    assert "--memory-limit must be positive, not " in capsys.readouterr().err


def test_command_ends_while_it_computes(begin, monkeypatch, weights):
    def serve(self):
        self.connections = 1
        raise KeyboardInterrupt

    ended = []
    monkeypatch.setattr(ExplorerServer, "serve_forever", serve)
    monkeypatch.setattr("os._exit", ended.append)
    begin("--weights", weights)
    assert ended == [0]


def test_open_connections_are_counted(explorer, serving):
    with serving(explorer) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        connection.request("GET", "/options")
        connection.getresponse().read()
        assert server.connections == 1
        connection.close()


def test_only_own_names_and_addresses_lead_to_an_open_server(explorer, serving):
    with serving(explorer, host="0.0.0.0") as server:
        port, own = server.server_port, socket.gethostname()
        for host, status in {
            "192.168.7.7": 200,
            "[fd00::7]": 200,
            "localhost": 200,
            own: 200,
            f"{own}.local": 200,
            "pages.example.org": 403,
            "192.168.7.7.example.org": 403,
        }.items():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/options", headers={"Host": f"{host}:{port}"})
            assert connection.getresponse().status == status, host
            connection.close()
