"""Pickles: reading PyTorch checkpoints without running any code in them."""

import io
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
        OSError: if the file cannot be read, for example for lack of permission.
        ValueError: if it is damaged, holds more than tensors and plain values, or would unpack to
            much more than its file size.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    file = io.BytesIO(Path(path).read_bytes())
    try:
        if zipfile.is_zipfile(file):
            _check_archive(file)
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise ValueError(
            f"{path} is damaged, or holds more than tensors and plain values: {reason}"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def _check_archive(file: io.BytesIO) -> None:
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed, which torch.save never does")
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")  # torch.load ignores it
