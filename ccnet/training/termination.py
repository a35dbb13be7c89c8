"""Termination: signals end a run gracefully, in time to save a checkpoint."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ccnet import distributed
from ccnet.console import SAME_PRESS

ENDS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Signals that ask a run to end: of a scheduler, of Ctrl-C, of a terminal that is closed."""

_STOPPING = b"\nstopping after this step, with a checkpoint; Ctrl-C again ends at once\n"


class Terminated(Exception):  # noqa: N818 - it is no error
    """The run stopped on request, with a checkpoint from which it can be resumed."""


class Termination:
    """Signal handler of `ENDS`.

    Attributes:
        requested: whether one arrived inside `awaited`.
    """

    def __init__(self) -> None:
        self.requested = False
        self._pressed: float | None = None

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Catches signals inside, which then only set `requested`.

        A second Ctrl-C raises KeyboardInterrupt. Where the process ignores Ctrl-C, as those in the
        background of a shell's script do, or the end of its terminal, as under nohup, it is ignored
        here too. Has no effect outside the main
        thread: Python allows signal handlers only there.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {one: signal.getsignal(one) for one in ENDS}
        for number in ENDS[1:]:
            if previous[number] is signal.SIG_IGN:
                del previous[number]
        for number in previous:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _note(self, number: int, _: object) -> None:
        self.requested = True
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if self._pressed is None:
            self._pressed = now
            if distributed.rank() == 0:
                with suppress(OSError):  # print() must not be called in a signal handler
                    os.write(2, _STOPPING)
        elif now - self._pressed > SAME_PRESS:
            signal.signal(signal.SIGINT, lambda *_: None)
            raise KeyboardInterrupt
