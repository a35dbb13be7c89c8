"""This repository as others get it: a copy, and an archive that a local server gives as GitHub."""

import io
import json
import re
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PARTS = ("hubconf.py", "README.md", "LICENSE", "ccnet")
"""What a copy has, the weights aside."""

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"

FROM_GITHUB = """
import sys
import torch

def answer_for_github(request, *arguments, urlopen=torch.hub.urlopen, **options):
    place = sys.argv[1]
    url = request if isinstance(request, str) else request.full_url
    url = url.replace("https://api.github.com", f"{place}/api").replace("https://github.com", place)
    if isinstance(request, str):
        return urlopen(url, *arguments, **options)
    request.full_url = url
    return urlopen(request, *arguments, **options)

torch.hub.urlopen = answer_for_github
"""
"""Begins a program for which the server at the address in its first argument is GitHub."""


def copy_repository(repository, target):
    """Copies the code, and links the weights."""
    target.mkdir(parents=True)
    for name in PARTS:
        if (repository / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "bundled")
            shutil.copytree(repository / name, target / name, ignore=ignored)
        else:
            shutil.copy(repository / name, target / name)
    (target / "weights").symlink_to(repository / "weights", target_is_directory=True)
    return target


def archive(folder, changes=(), weights=False):
    """A folder as GitHub packs it, with the texts of some files replaced."""
    file, changes = io.BytesIO(), dict(changes)
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr(f"OWNER-NAME-{COMMIT[:7]}/", "")
        for part in (*PARTS, *(["weights"] if weights else [])):
            inside = (folder / part).rglob("*") if (folder / part).is_dir() else [folder / part]
            for path in sorted(inside):
                name = path.relative_to(folder).as_posix()
                if path.is_file() and not {"__pycache__", "bundled"} & {*path.parts}:
                    content = changes.get(name, path.read_bytes())
                    packed.writestr(f"OWNER-NAME-{COMMIT[:7]}/{name}", content)
    return file.getvalue()


class GitHub:
    """Serves `archives` of OWNER/NAME by branch or tag; `asked` has the paths of all requests."""

    def __init__(self, archives):
        self.archives, self.asked = archives, []
        handler = type("Handler", (_Handler,), {"github": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.github.asked.append(path)
        refs = self.github.archives
        if found := re.fullmatch(r"/OWNER/NAME/tree/(.+)/", path):
            return self._answer(200 if found[1] in refs else 404)
        if path == "/api/repos/OWNER/NAME/branches":
            listed = [{"name": name, "commit": {"sha": COMMIT}} for name in refs]
            page = listed if query.endswith("&page=1") else []
            return self._answer(200, json.dumps(page).encode())
        if found := re.fullmatch(r"/OWNER/NAME/zipball/(.+)", path):
            return self._answer(302, Location=f"/codeload/OWNER/NAME/legacy.zip/{found[1]}")
        if found := re.fullmatch(r"/codeload/OWNER/NAME/legacy\.zip/(.+)", path):
            known = found[1] in refs
            return self._answer(200 if known else 404, refs.get(found[1], b""))
        return self._answer(404, b"[]")

    def _answer(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)
