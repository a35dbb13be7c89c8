"""Trackers: where the curves and pictures of a run go; TensorBoard, Weights & Biases or nowhere."""

import logging
import shlex
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.console import printable, require_extra
from ccnet.schema import reason_of
from ccnet.training.checkpoint import saving

logger = logging.getLogger(__name__)


class Tracker:
    """What a run tells of itself while it trains; keeps nothing.

    Others inherit from it. Rank 0 alone calls. A run that is resumed tells the steps after its
    checkpoint again, with the same values.
    """

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Takes values by names such as "train/loss", after a step of the optimiser."""

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Takes a picture (H, W, 3), uint8, RGB."""

    def flush(self) -> None:
        """Is called after each validation."""

    def close(self) -> None:
        """Is called at the end, also after errors."""


class TensorBoard(Tracker):
    """Writes the folder `tensorboard`.

    Args:
        run_dir: the folder of the run.
        settings: of the run; not written.
        step: at which the run starts or resumes: what was written of later ones is taken back.
    """

    def __init__(self, run_dir: Path, settings: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(run_dir / "tensorboard", purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a point of each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Writes a picture."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Writes what is in memory."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the files. On a full disk the last events are lost."""
        with suppress(OSError):
            self._writer.close()


class WeightsAndBiases(Tracker):
    """Sends to Weights & Biases; its own environment variables, such as WANDB_MODE, count.

    A run that is resumed goes on in the same curves: the folder `wandb` has its id.

    Args:
        run_dir: the folder of the run, whose name is that of the run.
        settings: of the run, which it shows.
        step: at which the run starts or resumes.

    Raises:
        ValueError: if it cannot start, for example because nobody is logged in.
    """

    def __init__(self, run_dir: Path, settings: Mapping[str, Any], step: int) -> None:
        import wandb

        path = run_dir / "wandb" / "ccnet-run-id"
        path.parent.mkdir(exist_ok=True)
        if not (step and path.is_file()):
            path.write_text(uuid.uuid4().hex[:16])
        try:
            self._run = wandb.init(
                dir=str(run_dir),
                name=run_dir.resolve().name,
                id=path.read_text().strip(),
                resume="allow",
                config=dict(settings),
                settings=wandb.Settings(console="off"),
            )
        except Exception as error:  # of wandb's own kinds
            reason = reason_of(error).rstrip(".")
            raise ValueError(
                f"Weights & Biases did not start: {reason}: log in (wandb login), set "
                "WANDB_MODE=offline, or choose another tracker (--tracker none)"
            ) from error
        self._picture: Any = wandb.Image

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Sends a point of each curve."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Sends a picture."""
        self._run.log({name: self._picture(pixels)}, step=step)

    def close(self) -> None:
        """Waits until all is sent."""
        self._run.finish()


_Kind = Callable[[Path, Mapping[str, Any], int], Tracker]

TRACKERS: dict[str, _Kind] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "none": lambda *_: Tracker(),
}
"""What makes each tracker, by its name."""

_EXTRAS = {"tensorboard": "train", "wandb": "wandb", "none": ""}
"""The extra that each tracker is part of; its package has the tracker's name."""


_WAY_ON = (
    "Checkpoints are intact: remove the cause, or choose another tracker (--tracker none, "
    'tracker="none"), then resume the run'
)


def chosen_tracker(tracker: str | Tracker | None) -> str | Tracker:
    """Returns what was chosen; for None TensorBoard, or nothing where that is not installed.

    Raises:
        ValueError: if there is no tracker of that name, or its package is not installed.
    """
    if tracker is None:
        if find_spec("tensorboard"):
            return "tensorboard"
        logger.info("no curves are kept: tensorboard is not installed; log.jsonl has validations")
        return "none"
    if isinstance(tracker, str):
        if tracker not in TRACKERS:
            raise ValueError(f"there is no tracker {tracker!r}: choose among {', '.join(TRACKERS)}")
        try:
            require_extra(_EXTRAS[tracker], [tracker] if _EXTRAS[tracker] else [])
        except ValueError as error:
            raise ValueError(f"{error}; or train without it: --tracker none") from error
    return tracker


def open_tracker(
    tracker: str | Tracker, run_dir: Path, settings: Mapping[str, Any], step: int
) -> Tracker:
    """Opens a tracker by its name; one that is opened already is returned.

    Raises:
        ValueError: if it cannot start.
    """
    return TRACKERS[tracker](run_dir, settings, step) if isinstance(tracker, str) else tracker


@contextmanager
def telling(tracker: Tracker, run_dir: Path) -> Iterator[None]:
    """Turns every error of a tracker into an OSError that names it.

    Args:
        tracker: is told something inside.
        run_dir: the folder of the run, where TensorBoard writes.
    """
    if isinstance(tracker, TensorBoard):
        with saving(run_dir):
            yield
        return
    try:
        yield
    except Exception as error:  # whatever its kind may raise
        raise OSError(f"{_failure(tracker, error)}. {_WAY_ON}") from error


def close_tracker(tracker: Tracker) -> None:
    """Closes a tracker; the log has its error, so that another one is not lost."""
    try:
        tracker.close()
    except Exception as error:  # whatever its kind may raise
        logger.warning("%s", _failure(tracker, error))


def _failure(tracker: Tracker, error: Exception) -> str:
    return f"the tracker {type(tracker).__name__} failed: {type(error).__name__}: " + reason_of(
        error
    ).rstrip(".")


def describe_curves(tracker: str | Tracker, run_dir: Path) -> str:
    """Says where the curves of a run are; nothing of a tracker that somebody wrote, or of none."""
    known = {
        "tensorboard": f"; curves: tensorboard --logdir {shlex.quote(printable(run_dir))}",
        "wandb": "; curves: Weights & Biases",
    }
    return known.get(tracker, "") if isinstance(tracker, str) else ""
