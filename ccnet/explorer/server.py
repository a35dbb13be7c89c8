"""Server of the explorer: its page, its answers and uploads over HTTP, for this machine alone."""

import io
import json
import logging
import os
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from PIL import Image

from ccnet import __version__
from ccnet.explorer.answers import Explorer
from ccnet.explorer.pictures import MOST_BYTES, UnknownPictureError
from ccnet.explorer.query import Query

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")

PAGE = Path(__file__).parent / "page"

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/explorer.css": ("explorer.css", "text/css; charset=utf-8"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("explorer", "drawing", "elements", "requests")
    },
}

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

MOST_DISCARDED = 8 * MOST_BYTES
"""Of an upload that is refused, in bytes: browsers show an answer when they have sent all of it."""


class RefusalError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        reason: in words.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ExplorerServer(ThreadingHTTPServer):
    """Serves one explorer; a thread for each connection.

    Args:
        explorer: that answers.
        host: address to listen at.
        port: 0 for a free one.

    Attributes:
        connections: how many are open.
    """

    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = os.name != "nt"  # where it would share the port of another program

    def __init__(self, explorer: Explorer, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.explorer, self.connections, self._counting = explorer, 0, Lock()
        self._names = {*LOOPBACK, host.lower()}
        if host not in LOOPBACK:
            own = socket.gethostname().lower()
            self._names |= {own, f"{own}.local"}
        self._is_local = host in LOOPBACK
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Binds; a port that another program listens at is refused, and no name is looked up."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers what one connection asks for."""
        with self._counting:
            self.connections += 1
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._counting:
                self.connections -= 1

    def is_named(self, host: str | None) -> bool:
        """Whether a browser may know this server by a host name, or by an address.

        Others may have been made to lead here by the page of another site.
        """
        if host is None or host.rstrip(".").lower() in self._names:
            return host is not None
        with suppress(ValueError):
            return not self._is_local and bool(ip_address(host))
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers close connections as they like: that is not told."""
        logger.debug("connection of %s: %s", client_address, traceback.format_exc())

    @property
    def url(self) -> str:
        """The address of the page."""
        host, port = self.server_address[:2]
        name = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{name}:{port}/"


def serve(explorer: Explorer, host: str = "127.0.0.1", port: int = 0) -> ExplorerServer:
    """Binds a server, which `serve_forever()` runs.

    Args:
        explorer: that answers.
        host: address to listen at: by default requests of this machine alone.
        port: a free one if it is 0 or taken.

    Raises:
        OSError: if it cannot listen at the host.
    """
    try:
        return ExplorerServer(explorer, host, port)
    except OSError:
        if port == 0:
            raise
        return ExplorerServer(explorer, host, 0)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # of a connection that says nothing
    server: ExplorerServer

    def version_string(self) -> str:
        return f"ccnet/{__version__}"

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        logger.debug(format, *arguments)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, find: Callable[[], tuple[bytes, str]]) -> None:
        """Sends what a method returns, or why there is nothing."""
        try:
            self._check_origin()
            content, kind = find()
            status = HTTPStatus.OK
        except RefusalError as refusal:
            status, content, kind = refusal.status, *_json({"error": str(refusal)})
        except UnknownPictureError as error:
            status, content, kind = HTTPStatus.NOT_FOUND, *_json({"error": str(error)})
        except (OSError, ValueError) as error:
            status, content, kind = HTTPStatus.BAD_REQUEST, *_json({"error": str(error)})
        except Exception as error:
            logger.error("%s", traceback.format_exc())
            told = f"{type(error).__name__}: {error}"
            status, content, kind = HTTPStatus.INTERNAL_SERVER_ERROR, *_json({"error": told})
        self.send_response(status)
        for name, value in {
            **HEADERS,
            "Content-Type": kind,
            "Content-Length": str(len(content)),
        }.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def _check_origin(self) -> None:
        """Refuses what pages of other sites ask for, under their names or by this machine's."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if not self.server.is_named(host):
            self.close_connection = True
            raise RefusalError(HTTPStatus.FORBIDDEN, f"this page is not served as {host}")
        site = self.headers.get("Sec-Fetch-Site", "none")
        is_page = self.command == "GET" and urlsplit(self.path).path in FILES
        origin = self.headers.get("Origin")
        is_foreign = origin is not None and urlsplit(origin).netloc != self.headers.get("Host")
        if is_foreign or (site not in ("none", "same-origin") and not is_page):
            self.close_connection = True
            raise RefusalError(HTTPStatus.FORBIDDEN, "pages of other sites cannot ask this one")

    def _get(self) -> tuple[bytes, str]:
        address = urlsplit(self.path)
        if address.path in FILES:
            name, kind = FILES[address.path]
            return (PAGE / name).read_bytes(), kind
        given = Query(dict(parse_qsl(address.query, keep_blank_values=True)))
        explorer = self.server.explorer
        picture = partial(given.text, "picture")
        shown: dict[str, Callable[[], Any]] = {
            "/options": explorer.options,
            "/picture": lambda: explorer.picture(picture()),
            "/view": lambda: explorer.view(picture(), *given.network()),
            "/labels": lambda: explorer.labels(picture(), *given.network()),
            "/attention": lambda: explorer.attention(
                picture(), *given.network(), given.number("row"), given.number("column")
            ),
        }
        if address.path not in shown:
            raise RefusalError(HTTPStatus.NOT_FOUND, "there is no such page")
        answer = shown[address.path]()
        return _png(answer) if isinstance(answer, Image.Image) else _json(answer)

    def _post(self) -> tuple[bytes, str]:
        if urlsplit(self.path).path != "/pictures":
            self.close_connection = True
            raise RefusalError(HTTPStatus.NOT_FOUND, "there is no such page")
        picture = self.server.explorer.pictures.add(self._body())
        return _json({"picture": picture})

    def _body(self) -> bytes:
        """Reads an upload, or refuses it by the length that is declared."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()) or len(length) > 15:
            self.close_connection = True
            raise RefusalError(HTTPStatus.LENGTH_REQUIRED, "an upload must say its length")
        if int(length) > MOST_BYTES:
            self.close_connection = True
            self._discard(int(length))
            raise RefusalError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the file has {int(length) / 2**20:.0f} MiB, but may have {MOST_BYTES >> 20}",
            )
        try:
            content = self.rfile.read(int(length))
        except TimeoutError:
            content = b""
        if len(content) < int(length):
            self.close_connection = True
            raise RefusalError(HTTPStatus.BAD_REQUEST, "the upload was cut off")
        return content

    def _discard(self, length: int) -> None:
        left = min(length, MOST_DISCARDED)
        while left > 0 and (chunk := self.rfile.read(min(left, 2**16))):
            left -= len(chunk)


def _json(value: Any) -> tuple[bytes, str]:
    return json.dumps(value).encode(), "application/json"


def _png(picture: Image.Image) -> tuple[bytes, str]:
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=1)
    return content.getvalue(), "image/png"
