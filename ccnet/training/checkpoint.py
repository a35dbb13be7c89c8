"""Checkpoints of a training run: saving, loading, keeping the newest ones."""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from ccnet.files import atomic_write
from ccnet.weights.pickles import read_pickle, save_sealed

logger = logging.getLogger(__name__)

_CONTENTS: dict[str, type] = {"model": Mapping, "step": int, "recipe": Mapping, "config": Mapping}
"""What every checkpoint holds, with the types."""


class ContentsError(ValueError):
    """An intact file, which does not hold what a run puts into its checkpoints."""


class Checkpoints:
    """The checkpoints of a run: one file per step, of which the newest are kept.

    Args:
        folder: of the files; created with the first one.
        keep: number of files to keep, 1 or more; with two, one is left if the newest is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep

    def paths(self) -> list[Path]:
        """Returns the files in the order of their steps.

        Of such a name may also be something else than a file, which `newest` skips.
        """
        names = [path.name for path in self.folder.glob("step-*.pt")]
        ours = [name for name in names if re.fullmatch(r"step-([0-9]{8}|[1-9][0-9]{8,})\.pt", name)]
        return [self.folder / name for name in sorted(ours, key=lambda name: int(name[5:-3]))]

    def save(self, state: Mapping[str, Any]) -> Path:
        """Writes the state of step `state["step"]` and removes all but the newest files up to it.

        Files of later steps are removed too: the run was not resumed from them, so they are
        damaged. What is no file is not removed.

        Raises:
            OSError: if the file cannot be written; older ones stay.
        """
        path = self.folder / f"step-{state['step']:08}.pt"
        save_checkpoint(path, state)
        paths = [one for one in self.paths() if one.is_file() and not one.is_symlink()]
        last = paths.index(path) + 1
        for other in paths[: max(0, last - self.keep)] + paths[last:]:
            other.unlink()
        return path

    def newest(self) -> tuple[Path, dict[str, Any]] | tuple[None, None]:
        """Loads the newest intact checkpoint, skipping damaged ones with a warning.

        Returns:
            Its path and its state; None twice if there is none.

        Raises:
            ContentsError: if it is intact but not what a run writes: to skip it would lose the run.
            OSError: if it cannot be read, for example for lack of permission.
        """
        for path in reversed(self.paths()):
            try:
                state = load_checkpoint(path)
                if state["step"] != int(path.stem[5:]):
                    raise ContentsError(
                        f"{path} holds step {state['step']}, not that of its name: move it away "
                        "to resume from the one before"
                    )
                return path, state
            except ContentsError:
                raise
            except (ValueError, FileNotFoundError) as error:
                logger.warning("skipping a damaged checkpoint: %s", error)
        return None, None


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
        ValueError: if the file is damaged or no checkpoint; a `ContentsError` if it is intact.
    """
    state = read_pickle(path, own=True)
    problems = [
        f"{name} is {type(state[name]).__name__ if name in state else 'nothing'}"
        for name, kind in _CONTENTS.items()
        if not isinstance(state.get(name), kind)
    ]
    problems += [
        f"{name} are not names and values of JSON"
        for name in ("recipe", "config", "details")
        if not _is_plain(state.get(name, {}))
    ]
    if problems:
        raise ContentsError(
            f"{path} is not a checkpoint of a training run: {problems[0]}: "
            "move it away to resume from the one before"
        )
    return dict(state)


def _is_plain(values: Any) -> bool:
    """Whether something is JSON-able values by names, which can be compared and printed."""
    try:
        json.dumps(values)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(values, Mapping) and all(isinstance(name, str) for name in values)
