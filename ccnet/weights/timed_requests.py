"""Requests in time: an end to waiting for what need not ever come.

A timeout of the HTTP client counts from byte to byte. A server that sends a byte of its header now
and then, or interim answers without end, and a name server that is silent are not stopped by it.
"""

import socket
from collections.abc import Generator, Iterator
from contextlib import suppress
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any

from huggingface_hub import get_session

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
        timeout: seconds to wait for a connection and from byte to byte.
        follow_redirects: go where the server points to, as the response's `history` says.

    Raises:
        TimeoutError: if something takes longer than `SECONDS`.
    """
    parts: Queue[Any] = Queue(maxsize=4)
    sockets: list[socket.socket] = []
    is_left = Event()

    def watch(event: str, details: dict[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            sockets.append(details["return_value"].get_extra_info("socket"))
            if is_left.is_set():
                sockets[-1].close()

    def receive() -> Iterator[Any]:
        with get_session().stream(
            method,
            url,
            headers={**headers, "Connection": "close"},
            timeout=timeout,
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
        while True:
            try:
                part = parts.get(timeout=SECONDS)
            except Empty:
                raise TimeoutError(f"too little came within {SECONDS:.0f} s") from None
            if isinstance(part, StopIteration):
                return
            if isinstance(part, BaseException):
                raise part
            yield part
    finally:
        is_left.set()
        with suppress(Empty):  # makes room, should the thread be waiting for it
            while True:
                parts.get_nowait()
        if sockets and thread.is_alive():
            _cut(sockets[-1], thread)


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
