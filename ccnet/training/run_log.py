"""Log of a run: train.log in its folder, with all that is said from the start on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path

from ccnet.distributed import rank
from ccnet.training.termination import Terminated

logger = logging.getLogger("ccnet")


class _File(logging.FileHandler):
    """A file that may be on a full disk: a run that fails there says so once, in its own words."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Leaves the line out."""


class RunLog(MemoryHandler):
    """Keeps what `ccnet` logs on rank 0, and writes it to `train.log` from `open` on.

    So a start that is refused leaves the log of the run in that folder as it is.

    Args:
        run_dir: the folder of the run.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(capacity=1, flushOnClose=False)
        self.path = run_dir / "train.log"

    @contextmanager
    def attached(self) -> Iterator["RunLog"]:
        """Listens to the logger, whatever the program shows, and last notes an error of the body.

        The file is closed in the end. Does nothing within itself, and on other ranks.
        """
        if rank() or self in logger.handlers:
            yield self
            return
        level = logger.level
        logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
        logger.addHandler(self)
        try:
            yield self
        except BaseException as error:
            text = str(error) or type(error).__name__
            severity = logging.INFO if isinstance(error, Terminated) else logging.ERROR
            self.handle(logger.makeRecord(logger.name, severity, "", 0, text, (), None))
            raise
        finally:
            logger.removeHandler(self)
            logger.setLevel(level)
            if self.target is not None:
                with suppress(OSError):
                    self.target.close()
                self.setTarget(None)

    def open(self) -> None:
        """Opens the file, on rank 0, and writes what was kept.

        Raises:
            OSError: if it cannot be opened.
        """
        if rank() == 0 and self.target is None:
            file = _File(self.path, encoding="utf-8", errors="backslashreplace")
            file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            self.setTarget(file)
            self.flush()
