"""A local server that speaks the Hugging Face Hub's protocol, with faults on demand."""

import hashlib
import re
import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from hub_uploads import Uploads
from torchvision.models import Weights, WeightsEnum

COMMIT = "0123456789abcdef0123456789abcdef01234567"

NOWHERE = "http://127.0.0.1:9"
"""An address where no server answers."""

uploads = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""For tests that upload: the Hub's client sends large files in a deprecated way."""

assert_equal = partial(torch.testing.assert_close, rtol=0, atol=0)


@dataclass
class Repository:
    """What the server holds under one name, and how it misbehaves there."""

    files: dict[str, bytes] = field(default_factory=dict)
    revisions: tuple[str, ...] = ("main", COMMIT)  # names of its last commit, which is the last
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files of earlier commits
    token: str = ""  # if not empty, what a request must be authorised with
    failures: list[int] = field(default_factory=list)  # statuses of the next answers, instead
    cuts: list[int] = field(default_factory=list)  # bytes of the next downloads that break off
    continues: bool = True  # gives the rest of a file to those who ask for it

    @property
    def head(self) -> str:
        return self.revisions[-1]

    def commit(self, changed: dict[str, bytes]) -> str:
        """Makes a commit of changed files, and returns its name."""
        self.history[self.head] = self.files
        self.files = {**self.files, **changed}
        name = hashlib.sha1(repr((self.head, sorted(changed))).encode()).hexdigest()
        self.revisions = (*self.revisions[:-1], name)
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes] | None]:
        """The commit of a revision, and its files; None if there is no such revision."""
        if revision in self.revisions:
            return self.head, self.files
        return revision, self.history.get(revision)


class HubServer:
    """Serves `repositories`, those of "" under /files/, and records requests in `asked`."""

    def __init__(self) -> None:
        self.reset()
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def reset(self) -> None:
        """Forgets all repositories and requests."""
        self.repositories: dict[str, Repository] = {"": Repository()}
        self.large: dict[str, bytes] = {}  # uploaded files by their SHA-256
        self.new_repository = Repository
        self.before_commit = self.after_commit = lambda repository: None
        self.asked: list[tuple[str, str, str | None]] = []

    def environment(self, home: Path) -> dict[str, str]:
        """Variables for a process of its own whose client takes this server for the Hub."""
        places = {"HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        return {**places, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "", "CCNET_WEIGHTS_DIR": ""}

    def requests(self, method: str, part: str) -> list[tuple[str, str, str | None]]:
        """The requests of this method whose path contains `part`."""
        return [request for request in self.asked if request[0] == method and part in request[1]]


def connect(monkeypatch, address, home, *, offline=False):
    """Points the client in this process, which read its environment on import, to a server."""
    for name, value in {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    for name in ("HF_TOKEN", "CCNET_WEIGHTS_DIR"):
        monkeypatch.delenv(name, raising=False)


def registered(**meta):
    """A registry entry."""
    places = {"file": "none.safetensors", "sha256": None, "hub": None, "origin": None}

    class Own(WeightsEnum):
        OWN = Weights(url="", transforms=None, meta={**places, **meta})

    return Own.OWN


class _Handler(Uploads, BaseHTTPRequestHandler):
    server_state: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        state = self.server_state
        path = self.path.partition("?")[0]
        state.asked.append((self.command, path, self.headers.get("Range")))
        if path.startswith("/api/"):
            return self.answer_question(path)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name, revision, filename = found.groups() if found else ("", "main", path[len("/files/") :])
        repository = self.find(name)
        if repository is None:
            return None
        commit, files = repository.at(revision)
        if files is None:
            return self._answer(404, X_Error_Code="RevisionNotFound")
        if filename not in files:
            return self._answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        return self._send_file(repository, commit, files[filename])

    def find(self, name: str) -> Repository | None:
        """The repository; None after an answer that says why not."""
        repository = self.server_state.repositories.get(name)
        if repository is None:
            self._answer(404, X_Error_Code="RepoNotFound")
        elif repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}":
            self._answer(401, X_Error_Code="RepoNotFound")
        elif repository.failures:
            self._answer(repository.failures.pop(0))
        else:
            return repository
        return None

    do_GET = do_HEAD  # noqa: N815 - the names that http.server calls

    def _send_file(self, repository: Repository, commit: str, content: bytes) -> None:
        etag = hashlib.sha256(content).hexdigest()
        span = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
        span = span if repository.continues else None
        begin = int(span[1]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Accept-Ranges", "bytes")
        if span:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(content)
        if repository.cuts:
            end = begin + repository.cuts.pop(0)
            self.close_connection = True
        self.wfile.write(content[begin:end])
