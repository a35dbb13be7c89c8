"""Noticing that a job is asked to stop, in good time to save what it did."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop (SIGTERM); what it takes to go on is saved."""


class Termination:
    """Whether this process was asked to stop.

    Attributes:
        requested: SIGTERM came while it was awaited.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Inside, SIGTERM is noted and does no more; in the main thread only, as Python has it."""

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
