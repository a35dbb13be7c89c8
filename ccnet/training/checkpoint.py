"""Checkpoints of a training run: saving, loading, keeping the newest ones."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from ccnet import distributed
from ccnet.files import atomic_write
from ccnet.weights.pickles import read_pickle, save_sealed

logger = logging.getLogger(__name__)

_CONTENTS = {"model", "step", "recipe", "config"}


class Checkpoints:
    """The checkpoints of a run: one file per step, of which the newest are kept.

    Args:
        folder: of the files; created with the first one.
        keep: number of files to keep, 1 or more; with two, one is left if the newest is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep

    def paths(self) -> list[Path]:
        """Returns the files in the order of their steps."""
        return sorted(self.folder.glob("step-*.pt"))

    def save(self, state: Mapping[str, Any]) -> Path:
        """Writes the state of step `state["step"]` and removes all but the newest files up to it.

        Files of later steps are removed too: the run was not resumed from them, so they are
        damaged.

        Raises:
            OSError: if the file cannot be written; older ones stay.
        """
        path = self.folder / f"step-{state['step']:08}.pt"
        save_checkpoint(path, state)
        paths = self.paths()
        last = paths.index(path) + 1
        for other in paths[: max(0, last - self.keep)] + paths[last:]:
            other.unlink()
        return path

    def newest(self) -> tuple[Path, dict[str, Any]] | tuple[None, None]:
        """Loads the newest intact checkpoint, skipping damaged ones with a warning.

        Returns:
            Its path and its state; None twice if there is none.
        """
        for path in reversed(self.paths()):
            try:
                return path, load_checkpoint(path)
            except ValueError as error:
                logger.warning("skipping a damaged checkpoint: %s", error)
        return None, None


def state_to_resume(run_dir: Path, resume: bool) -> dict[str, Any] | None:
    """Loads the newest intact checkpoint of a run, the same on all ranks. Every rank must call.

    Temporary files that a killed process left in the folder of the run are removed.

    Returns:
        The state; None if the folder holds no run.

    Raises:
        FileExistsError: if it holds one and `resume` is false.
    """
    checkpoints = Checkpoints(run_dir / "checkpoints")
    if checkpoints.paths() and not resume:
        raise FileExistsError(
            f"{run_dir} already holds a run: resume it (--resume auto) or choose another folder"
        )
    path, state = None, None
    if distributed.rank() == 0:
        _remove_unfinished(run_dir)
        path, state = checkpoints.newest()
    path = distributed.all_gather(path)[0]
    if path is None:
        return None
    logger.info("resuming from %s", path)
    return state or load_checkpoint(path)


def _remove_unfinished(run_dir: Path) -> None:
    for suffix in ("json", "jsonl", "npy", "pt", "safetensors"):
        for path in run_dir.rglob(f".*-????????.{suffix}"):
            path.unlink()


def refuse_changes(run_dir: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Compares the settings of a run with those of the resumed run.

    Raises:
        ValueError: if they differ; names the differences.
    """
    names = sorted(saved.keys() | current.keys())
    changed = [
        f"{name} {saved.get(name)!r}, not {current.get(name)!r}"
        for name in names
        if saved.get(name) != current.get(name)
    ]
    if changed:
        raise ValueError(f"the run in {run_dir} has {'; '.join(changed)}")


def refuse_infinite(state_dict: Mapping[str, Tensor], step: int) -> None:
    """Refuses to save weights from which no run could go on.

    Raises:
        FloatingPointError: if a value is not finite.
    """
    if not all(tensor.isfinite().all() for tensor in state_dict.values()):
        raise FloatingPointError(f"after step {step} weights are not finite")


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes tensors and plain values atomically, with a checksum over the whole file.

    Raises:
        OSError: if the file cannot be written, for example because the disk is full.
    """
    with saving(path), atomic_write(path) as temporary, temporary.open("wb") as file:
        save_sealed(dict(state), file)


@contextmanager
def saving(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns every error of writing a file into an OSError that names the file."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        # torch.save raises because its file is too short; the disk's own error is the context.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(
            f"{path} could not be written: {reason}. Earlier files are intact: "
            "remove the cause, such as a full disk, then resume the run"
        ) from error


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a file of `save_checkpoint` without running any code in it.

    Every byte is compared with the checksum before anything of it is believed.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if the file cannot be read, for example for lack of permission.
        ValueError: if the file is damaged or no checkpoint.
    """
    state = read_pickle(path, own=True)
    if not state.keys() >= _CONTENTS:
        raise ValueError(f"{path} is not a checkpoint of a training run")
    return dict(state)
