"""A local server that sends any bytes whatever: what a broken or hostile one may answer."""

import socket
import threading
from contextlib import suppress
from itertools import cycle


class RawServer:
    """Answers connections with `answers` one after another, the last one to all further ones.

    An answer is what is sent before the connection is closed: bytes, or several of them, among them
    seconds to wait; or a function of the request. The heads of the requests are kept in `asked`.
    """

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.is_over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> "RawServer":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        with suppress(OSError):
            socket.create_connection(self._socket.getsockname(), 1).close()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            if self.is_over.is_set():
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=[connection])
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(STALL)
            request = b""
            while b"\r\n\r\n" not in request:
                received = connection.recv(65536)
                if not received:
                    return
                request += received
            self.asked.append(request.decode("latin-1"))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if callable(answer):
                answer = answer(self.asked[-1])
            for part in [answer] if isinstance(answer, bytes) else answer:
                if self.is_over.is_set():
                    return
                if isinstance(part, bytes):
                    connection.sendall(part)
                else:
                    self.is_over.wait(part)


STALL = 20.0
"""Seconds of silence that no test waits for."""


def answer(body=b"", status="200 OK", length=None, **headers):
    """An answer as bytes, with its length if that is not another."""
    fields = {"Content-Length": len(body) if length is None else length, **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1") + body


def chunked(*chunks):
    """An answer in chunks, which only an empty one ends."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


def endless(*parts):
    """The parts of an answer that does not end."""
    return lambda request: cycle(parts)
