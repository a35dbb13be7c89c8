"""Requests in time: an end to waiting for what need not ever come.

A timeout of the HTTP client counts from byte to byte. A server that sends a byte of its header now
and then, or interim answers without end, and a name server that is silent are not stopped by it.
"""

import logging
import socket
from collections.abc import Generator, Iterator
from contextlib import suppress
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any

from huggingface_hub import get_session

from ccnet.weights.retries import NoAnswerError, client

logger = logging.getLogger(__name__)

NOTICE = 2.0
"""Seconds without an answer after which a line says what is waited for."""

CONNECTION = 6.0
"""Seconds for a connection: more than the five after which a name is asked of another server."""

SECONDS = 60.0
"""In which the header of an answer must have come, and every `CHUNK` of its body."""

CHUNK = 2**16
"""Bytes of the body that come at a time."""


def request(
    method: str, url: str, *, headers: dict[str, str], timeout: float, follow_redirects: bool
) -> Generator[Any, None, None]:
    """Sends a request; yields the response, then its body in parts, as it is sent.

    It is sent from a thread, whose connection is cut if something is late, or when this generator
    is closed.

    Args:
        method: of HTTP.
        url: on http or https.
        headers: of the request.
        timeout: seconds to wait from byte to byte, and for a connection, but that are `CONNECTION`
            at most.
        follow_redirects: go where the server points to, as the response's `history` says.

    Raises:
        NoAnswerError: if no answer comes in time.
        TimeoutError: if something takes longer than `SECONDS`.
        Exception: whatever the client raises, such as its ConnectTimeout.
    """
    session = get_session()  # which takes long the first time
    parts: Queue[Any] = Queue(maxsize=4)
    sockets: list[socket.socket] = []
    is_connected, is_left = Event(), Event()

    def watch(event: str, details: dict[str, Any]) -> None:
        if "connect_tcp.complete" in event or "send_request_headers" in event:
            is_connected.set()
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            sockets.append(details["return_value"].get_extra_info("socket"))
            if is_left.is_set():
                sockets[-1].close()

    def receive() -> Iterator[Any]:
        with session.stream(
            method,
            url,
            headers={**headers, "Connection": "close"},
            timeout=client.Timeout(timeout, connect=min(timeout, CONNECTION)),
            follow_redirects=follow_redirects,
            extensions={"trace": watch},
        ) as response:
            yield response
            yield from response.iter_raw(CHUNK)

    def run() -> None:
        try:
            for part in receive():
                parts.put(part)
                if is_left.is_set():
                    return
            parts.put(StopIteration())
        except BaseException as error:
            parts.put(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        part = _answer(url, parts, is_connected)
        if isinstance(part, client.ReadTimeout):
            raise NoAnswerError(f"no answer within {timeout:.0f} s") from part
        if isinstance(part, client.ConnectTimeout):
            raise client.ConnectTimeout(f"no connection within {min(timeout, CONNECTION):.0f} s")
        while True:
            if isinstance(part, StopIteration):
                return
            if isinstance(part, BaseException):
                raise part
            yield part
            try:
                part = parts.get(timeout=SECONDS)
            except Empty:
                raise TimeoutError(f"too little came within {SECONDS:.0f} s") from None
    finally:
        is_left.set()
        with suppress(Empty):  # makes room, should the thread be waiting for it
            while True:
                parts.get_nowait()
        if sockets and thread.is_alive():
            _cut(sockets[-1], thread)


def _answer(url: str, parts: Queue[Any], is_connected: Event) -> Any:
    """Waits for the first part, an answer or an error; says so if that takes long."""
    waited = 0.0
    for limit in (NOTICE, CONNECTION, SECONDS):
        until = min(limit, SECONDS)
        with suppress(Empty):
            return parts.get(timeout=until - waited)
        waited = until
        if waited == NOTICE:
            logger.warning("waiting for an answer of %s", url)
        if limit == CONNECTION and not is_connected.is_set():  # as where a name server is silent
            return client.ConnectTimeout("")
    raise NoAnswerError(f"no answer within {SECONDS:.0f} s")


def _cut(connection: socket.socket, thread: Thread) -> None:
    """Takes a connection away from the thread that reads it, however much there is to be read."""
    try:
        descriptor = connection.detach()
    except OSError:
        return
    if descriptor >= 0:
        with socket.socket(fileno=descriptor) as taken, suppress(OSError):
            taken.shutdown(socket.SHUT_RDWR)
            thread.join(1)
