"""Saving the state of a training run, and taking it up again."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

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
        """Writes the state at `state["step"]`, then removes what is older than the newest ones.

        Raises:
            OSError: if it could not be written; what was there before stays.
        """
        path = self.folder / f"step-{state['step']:08}.pt"
        save_checkpoint(path, state)
        for outdated in self.paths()[: -self.keep]:
            outdated.unlink()
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

    def remove_unfinished(self) -> None:
        """Removes what a process that was killed while it wrote left behind."""
        for path in self.folder.glob(".step-*.pt"):
            path.unlink()


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes tensors and plain values; an older file stays until the new one is complete.

    Raises:
        OSError: if it could not be written: the disk is full, say.
    """
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            torch.save(dict(state), file)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{path} could not be written: {error}. What was saved before is intact: make room, "
            "then resume the run"
        ) from error


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote. No code in the file is run.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or no checkpoint.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not an intact checkpoint: {error}") from error
    if not isinstance(state, dict) or not state.keys() >= _CONTENTS:
        raise ValueError(f"{path} is not a checkpoint of a training run")
    return state
