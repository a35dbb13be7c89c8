"""Termination: graceful handling of SIGTERM, in time to save a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(Exception):  # noqa: N818 - it is no error
    """The run stopped on SIGTERM, with a checkpoint from which it can be resumed."""


class Termination:
    """Signal handler of SIGTERM.

    Attributes:
        requested: whether SIGTERM arrived inside `awaited`.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Catches SIGTERM inside, which then only sets `requested`.

        Has no effect outside the main thread: Python allows signal handlers only there.
        """

        def note(*_: object) -> None:
            self.requested = True

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)
