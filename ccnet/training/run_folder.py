"""Folder of a run: what lies in it before the run begins is the run's own, or stays as it is."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ccnet import distributed
from ccnet.files import irregularity, remove_unfinished
from ccnet.training.checkpoint import Checkpoints, load_checkpoint
from ccnet.training.recipes import Recipe, with_later_fields
from ccnet.weights.sources import BEST_OF_A_RUN

logger = logging.getLogger(__name__)

BEGINNING: Mapping[str, Callable[[str], bool]] = {
    "data.jsonl": lambda text: json.loads(text.splitlines()[0])["set"] in ("train", "val"),
    "train.log": lambda text: bool(re.match(r"\d{4}(-\d\d){2} [\d:,]+ [A-Z]+ |$", text)),
    "recipe.json": lambda text: (
        with_later_fields(json.loads(text)).keys() == {one.name for one in fields(Recipe)}
    ),
    "config.json": lambda text: "backbone" in dict(json.loads(text)),
    "environment.json": lambda text: json.loads(text).keys() >= {"data", "torch"},
}
"""What a run writes before its first checkpoint, in this order, and how the start of each looks."""

_RESULTS = (BEST_OF_A_RUN, "log.jsonl", "results.json")
"""What a run writes after its first checkpoint."""

_START = 2**20
"""Number of bytes of a file that are looked at."""


def state_to_resume(
    run_dir: Path, resume: bool, beginning: Iterable[str] = BEGINNING
) -> dict[str, Any] | None:
    """Loads the newest intact checkpoint of a run, the same on all ranks. Every rank must call.

    The lock of the folder must be held. Temporary files that a killed process left in the two
    folders of the run are removed.

    Args:
        run_dir: the folder of the run.
        resume: whether to resume a run that is there.
        beginning: those of `BEGINNING` that this kind of run writes.

    Returns:
        The state; None if a run may begin in the folder.

    Raises:
        FileExistsError: if it holds a run and `resume` is false; or no intact checkpoint, but
            files that would be replaced: results of a run, damaged checkpoints, or others' files.
        ContentsError: if its newest intact checkpoint is not what a run writes.
        OSError: if a folder or a checkpoint cannot be read.
    """
    checkpoints = Checkpoints(run_dir / "checkpoints")
    loaded: list[dict[str, Any]] = []

    def newest() -> Path | None:
        if checkpoints.paths() and not resume:
            raise FileExistsError(
                f"{run_dir} already holds a run: resume it (--resume auto) or choose another folder"
            )
        for folder in (run_dir, checkpoints.folder):
            if folder == run_dir or not folder.is_symlink():
                remove_unfinished(folder)
        path, state = checkpoints.newest()
        if path is None:
            _refuse_to_replace(run_dir, checkpoints.paths(), beginning)
        loaded.extend([state] if state else [])
        return path

    path = distributed.from_rank_zero(newest)
    if path is None:
        return None
    logger.info("resuming from %s", path)
    return loaded[0] if loaded else load_checkpoint(path)


def _refuse_to_replace(run_dir: Path, damaged: list[Path], beginning: Iterable[str]) -> None:
    """Refuses a folder without an intact checkpoint in which a run would replace what it finds.

    All that it may replace is what a run left that ended before its first checkpoint.

    Raises:
        FileExistsError: names the files.
    """
    results = [name for name in _RESULTS if os.path.lexists(run_dir / name)]
    results += [path.relative_to(run_dir).as_posix() for path in damaged]
    if results:
        raise FileExistsError(
            f"{run_dir} holds results of a run but no intact checkpoint: choose another folder or "
            f"move them away ({', '.join(results)})"
        )
    is_next = True
    for name in beginning:
        exists = os.path.lexists(run_dir / name)
        if exists and not (is_next and _is_ours(run_dir / name)):
            raise FileExistsError(
                f"{run_dir} holds a file {name} that no run has left there, and that this one "
                "would replace: choose another folder or move it away"
            )
        is_next = exists


def _is_ours(path: Path) -> bool:
    if path.is_symlink() or irregularity(path):
        return False
    with path.open("rb") as file:
        start = file.read(_START)
    try:
        return bool(BEGINNING[path.name](start.decode(errors="replace")))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return False
