"""Consoles of command lines: names, closed pipes, Ctrl-C; which extra is missing."""

import atexit
import errno
import io
import os
import select
import signal
import socket
import sys
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

ENDS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Signals that end a run when what is computed is written."""

SAME_PRESS = 1.0
"""Seconds within which a second SIGINT is no second request: launchers pass on what all got."""

_LAST_WORDS = 1.0
"""Seconds to clean up after a second Ctrl-C."""

_QUIT = 0
"""No signal has this number."""

_GONE = {errno.EPIPE, errno.EIO} | ({errno.EINVAL} if os.name == "nt" else set())
"""Errors of writing to a pipe that nobody reads any more, or to a terminal that was closed."""


class _Outlet(io.FileIO):
    """A file that takes what is written to it even if nobody reads it any more."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in _GONE:  # a full disk must not pass for success
                raise
            return memoryview(data).nbytes


def prepare_console() -> None:
    r"""Prepares stdout and stderr for a long run; every script calls this first.

    Characters that the console cannot show are written as escapes such as "\u540d", and output
    that nobody reads any more, or that was closed from the start, is dropped: the files that a run
    writes are worth more than its messages. Ctrl-C ends the script with one line and status 130.
    """
    sys.excepthook = _end
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # all is done then
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if stream is getattr(sys, f"__{name}__") and not (os.name == "nt" and stream.isatty()):
                setattr(sys, name, _patient(stream))


def _patient(stream: io.TextIOWrapper) -> TextIO:
    """The same stream, but output that nobody reads any more is dropped."""
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Outlet(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows an error that nothing has caught; at KeyboardInterrupt ends at once, with one line.

    Blocks have cleaned up by then; to unload libraries takes a second or more.
    """
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    with suppress(ValueError):  # outside the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = error.args and isinstance(error.args[0], int)  # by `ending_on_signals`
    number = error.args[0] if told else signal.SIGINT
    start = "\n" if sys.stderr.isatty() else ""  # a progress bar may be in this line
    what = "interrupted" if number == signal.SIGINT else "terminated"
    with suppress(OSError):
        sys.stdout.flush()
        print(f"{start}{what}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(128 + number)


@contextmanager
def ending_on_signals(numbers: Iterable[int]) -> Iterator[None]:
    """Raises KeyboardInterrupt inside, once, when one of these signals arrives.

    The body cleans up undisturbed by others of them. Its argument is the number; `prepare_console`
    has scripts end with 128 more, and a line. Has no effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        for one in previous:
            signal.signal(one, lambda *_: None)
        raise KeyboardInterrupt(number)

    previous = {one: signal.getsignal(one) for one in numbers}
    previous = {one: was for one, was in previous.items() if was is not signal.SIG_IGN}
    for number in previous:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def signals_held() -> Iterator[None]:
    """Holds back those of `ENDS` that Python handles, until the end of the block.

    Has no effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    previous = {one: was for one in ENDS if callable(was := signal.getsignal(one))}
    for number in previous:
        signal.signal(number, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


@contextmanager
def ending_on_second_interrupt() -> Iterator[None]:
    """Ends the process on a second Ctrl-C, even if a library waits and Python handles no signal.

    Only handlers that are Python's count the first one. Has no effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    listening, telling = socket.socketpair()
    telling.setblocking(False)
    previous = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(listening,), daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        telling.send(bytes([_QUIT]))
        watch.join()
        listening.close()
        telling.close()


def _watch(listening: socket.socket) -> None:
    """Reads the numbers of signals; ends the process some moments after a second Ctrl-C."""
    pressed: float | None = None
    while (number := listening.recv(1)[0]) != _QUIT:
        now = time.monotonic()
        if number != signal.SIGINT:
            continue
        if pressed is None:
            pressed = now
        elif now - pressed > SAME_PRESS:
            break
    else:
        return
    listening.settimeout(_LAST_WORDS)
    with suppress(TimeoutError):
        while (number := listening.recv(1)[0]) != signal.SIGINT:
            if number == _QUIT:
                return
    with suppress(OSError):
        if select.select([], [2], [], 0)[1]:  # else to write would wait for the reader
            os.write(2, b"\ninterrupted\n")
    os._exit(128 + signal.SIGINT)


def printable(text: object) -> str:
    """One line of text that can be encoded: line breaks, control characters and the like escaped.

    Names of files may hold any of them, and bytes that are no text.
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        else character
        for character in str(text)
    )


def require_extra(extra: str, packages: Iterable[str]) -> None:
    """Refuses to begin without the packages of an extra.

    Raises:
        ValueError: if a package is missing; says how to install them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} must be installed for this: "
            f'pip install "ccnet-pytorch[{extra}]", or in a checkout pip install -e ".[{extra}]"'
        )
