"""Progress of a run: a bar on a terminal, else a line now and then; both tell the time left."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

INTERVAL = 60.0
"""Seconds between two lines."""


class Progress:
    """Shows how many pictures are done, on the standard error.

    Args:
        total: their number.
        is_shown: whether anything is shown; else nothing is ever.
        unit: what they are called.
    """

    def __init__(self, total: int, *, is_shown: bool = True, unit: str = "pictures") -> None:
        self._unit = f" {unit}"
        self._bar = tqdm(total=total, unit=self._unit, disable=None if is_shown else True)
        self._say: Callable[[str], None] | None = None
        if is_shown and self._bar.disable:
            self._say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: T201
        self._total = total
        self._start = self._said = time.monotonic()

    def show(self, done: int) -> None:
        """Shows the number of pictures that are done."""
        if not self._bar.disable:
            self._bar.update(done - self._bar.n)
        now = time.monotonic()
        if self._say is not None and now - self._said >= INTERVAL:
            self._said = now
            self._say(
                tqdm.format_meter(
                    done, self._total, now - self._start, ncols=0, unit=self._unit
                ).strip()
            )

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
