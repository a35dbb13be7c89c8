"""Saving the state of a training run, and taking it up again."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ccnet.files import atomic_write


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes tensors and plain values; an older file stays until the new one is complete."""
    with atomic_write(path) as temporary:
        torch.save(dict(state), temporary)


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
    if not isinstance(state, dict) or not state.keys() >= {"model", "step", "recipe", "config"}:
        raise ValueError(f"{path} is not a checkpoint of a training run")
    return state
