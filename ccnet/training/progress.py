"""Progress of a run: a bar on a terminal, else a line in the log now and then; the time left."""

import logging
import time

from tqdm import tqdm

from ccnet import distributed

logger = logging.getLogger(__name__)

SECONDS, SHARE = 60.0, 0.01
"""Without a bar, a line is logged after so many seconds and such a share of all steps."""


class Progress:
    """Says on rank 0 how far a run is; the other ranks stay quiet.

    Args:
        step: the step at which the run starts or resumes.
        steps: its last step.
    """

    def __init__(self, step: int, steps: int) -> None:
        self.step, self.steps = step, steps
        self._start = time.monotonic(), step
        self._said = self._start
        hidden = True if distributed.rank() else None  # None: where there is no terminal
        self._bar = tqdm(initial=step, total=steps, unit="step", mininterval=2, disable=hidden)

    def on_step(self, loss: float) -> None:
        """Counts a step."""
        self.step += 1
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self._bar.update()
        seconds, steps = time.monotonic() - self._said[0], self.step - self._said[1]
        if self._bar.disable and seconds >= SECONDS and steps >= SHARE * self.steps:
            self.say(f"loss {loss:.3f}")

    def say(self, text: str) -> None:
        """Logs something of this step, with the time that is left."""
        self._said = time.monotonic(), self.step
        logger.info("step %d of %d: %s%s", self.step, self.steps, text, self._left())

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()

    def _left(self) -> str:
        """The time that all steps left take if they take as long as those of this process."""
        done, left = self.step - self._start[1], self.steps - self.step
        if not done or not left:
            return ""
        return f", {_in_words((time.monotonic() - self._start[0]) / done * left)} left"


def _in_words(seconds: float) -> str:
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
