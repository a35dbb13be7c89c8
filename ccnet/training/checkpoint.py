"""Saving the state of a training run, and taking it up again."""

import io
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ccnet.files import atomic_write

logger = logging.getLogger(__name__)

_CONTENTS = {"model", "step", "recipe", "config"}


class Checkpoints:
    """The checkpoints of a run, one file a step, the newest ones kept.

    Args:
        folder: in which they lie; made with the first.
        keep: how many stay, 1 or more. Two leave a good one should the newest be damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep

    def paths(self) -> list[Path]:
        """The files, the oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def save(self, state: Mapping[str, Any]) -> Path:
        """Writes the state at `state["step"]`, then removes all but it and the newest before it.

        Files of later steps go too: the run was not resumed from them, as they are damaged.

        Raises:
            OSError: if it could not be written; what was there before stays.
        """
        path = self.folder / f"step-{state['step']:08}.pt"
        save_checkpoint(path, state)
        paths = self.paths()
        last = paths.index(path) + 1
        for other in paths[: max(0, last - self.keep)] + paths[last:]:
            other.unlink()
        return path

    def newest(self) -> Path | None:
        """The newest intact one; None if there is none. Damaged ones are warned of and passed."""
        for path in reversed(self.paths()):
            try:
                load_checkpoint(path)
            except ValueError as error:
                logger.warning("passing over a damaged checkpoint: %s", error)
            else:
                return path
        return None


def remove_unfinished(run_dir: Path) -> None:
    """Removes what a process that was killed while it wrote left behind in the folder of a run."""
    for suffix in ("json", "jsonl", "pt", "safetensors"):
        for path in run_dir.rglob(f".*-????????.{suffix}"):
            path.unlink()


def refuse_changes(run_dir: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Compares the settings of a run with those that it is to go on with.

    Raises:
        ValueError: if they differ; names those that do.
    """
    names = sorted(saved.keys() | current.keys())
    changed = [
        f"{name} {saved.get(name)!r}, not {current.get(name)!r}"
        for name in names
        if saved.get(name) != current.get(name)
    ]
    if changed:
        raise ValueError(f"the run in {run_dir} has {'; '.join(changed)}")


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes tensors and plain values; an older file stays until the new one is complete.

    Raises:
        OSError: if it could not be written: the disk is full, say.
    """
    with saving(path), atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(dict(state), file)


@contextmanager
def saving(path: str | os.PathLike[str]) -> Iterator[None]:
    """Inside, whatever keeps the file from being written becomes an OSError that names it."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch.save finds its file shorter than it should be, after the disk has said why.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(
            f"{path} could not be written: {reason}. What was saved before is intact; mend this "
            "(a full disk needs room), then resume the run"
        ) from error


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote. No code in the file is run.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read: not permitted, say. It may be intact.
        ValueError: if it is damaged or no checkpoint.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    file = io.BytesIO(Path(path).read_bytes())
    try:
        with zipfile.ZipFile(file) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {damaged} is wrong")  # torch.load ignores it
        file.seek(0)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not an intact checkpoint: {error}") from error
    if not isinstance(state, dict) or not state.keys() >= _CONTENTS:
        raise ValueError(f"{path} is not a checkpoint of a training run")
    return state
