"""Pickles: reading PyTorch checkpoints without running any code in them."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def read_pickle(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Reads a PyTorch checkpoint without running any code in it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, holds more than tensors and plain values, or would unpack to
            much more than its file size.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise ValueError("it is compressed, which torch.save never does")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise ValueError(
            f"{path} is damaged, or holds more than tensors and plain values: {reason}"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content
