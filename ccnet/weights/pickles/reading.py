"""Pickles: reading PyTorch checkpoints without running any code in them."""

import io
import logging
import os
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.serialization import MAGIC_NUMBER, safe_globals

from ccnet.files import user_path
from ccnet.schema import reason_of, shown_name
from ccnet.weights.file_kinds import foreign_kind
from ccnet.weights.pickles.calls import Foreign, Stub
from ccnet.weights.pickles.dry_run import ForeignTypeError, check_pickle
from ccnet.weights.pickles.seals import is_bare, is_sealed

logger = logging.getLogger(__name__)

_OTHER_ARCHIVES = {
    "constants.pkl": "a TorchScript program: load it with torch.jit.load, save its state_dict()",
    "serialized_exported_program.json": "a program of torch.export, not a checkpoint",
    "archive_format": "a program of torch.export, not a checkpoint",
    "model.weights.h5": "a network of Keras",
    ".npy": "an archive of NumPy arrays",
    ".pth": "a zip archive around a checkpoint: unpack it first",
    ".pt": "a zip archive around a checkpoint: unpack it first",
    ".ckpt": "a zip archive around a checkpoint: unpack it first",
    ".safetensors": "a zip archive around weights: unpack it first",
}
"""How the name of an entry ends in zip archives that are no checkpoints."""

_FOLDER = 0x10
"""Attribute of folders in an archive: torch.load leaves the tensors of such entries unset."""

_LONGEST_LINE = 1000

_MAGIC = MAGIC_NUMBER.to_bytes(10, "little")

_NUMPY_CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")


def read_pickle(path: str | os.PathLike[str], *, own: bool = False) -> Mapping[str, Any]:
    """Reads a PyTorch checkpoint without running any code in it.

    Tensors, plain values, and NumPy's scalars and arrays of numbers and text are read. What the
    file would make is checked before anything is made.

    Args:
        path: of the file.
        own: the file is one of this project's training, whose seal must be whole. Those of versions
            before seals are read with a warning.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if the file cannot be read, for example for lack of permission.
        ValueError: if it is damaged or another kind of file, holds more than tensors, arrays and
            plain values, or would unpack to more than its file size; says what it is.
    """
    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if (kind := foreign_kind(path)) is not None:
        raise ValueError(f"{path} is damaged, or no checkpoint of PyTorch: it is {kind}")
    content = path.read_bytes()
    file = io.BytesIO(content)
    is_archive = content.startswith(b"PK\x03\x04")  # as torch.load decides
    try:
        sealed = is_sealed(content)
        if own and not sealed:
            _accept_bare(content, path)
        if is_archive:
            _check_archive(file, len(content), sealed)
        else:
            _check_sequence(file, len(content))
        file.seek(0)
        with safe_globals(_numpy_globals()):
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except ForeignTypeError as error:
        raise ValueError(_explain(path, error, is_archive or _MAGIC in content[:16])) from error
    except Exception as error:
        reason = reason_of(error) if isinstance(error, ValueError) else type(error).__name__
        raise ValueError(f"{path} is damaged, or no checkpoint of PyTorch: {reason}") from error
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} holds a {type(loaded).__name__}, not a state dict")
    return loaded


def _accept_bare(content: bytes, path: Path) -> None:
    if not is_bare(content):
        raise ValueError("its end is missing or changed")
    logger.warning(
        "%s was written before checkpoints had a checksum over the whole file: "
        "only those of its tensors are compared",
        path,
    )


def _check_archive(file: io.BytesIO, size: int, sealed: bool) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        for ending, kind in _OTHER_ARCHIVES.items():
            if any(name.endswith(ending) for name in names):
                raise ValueError(f"it is {kind}")
        pickles = [name for name in names if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it is a zip archive with {', '.join(names[:3]) or 'nothing in it'}")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed, which torch.save never does")
        if len(set(names)) < len(names) or sum(entry.file_size for entry in entries) > size:
            raise ValueError("its entries are more than the file")
        if any(entry.external_attr & _FOLDER and not entry.is_dir() for entry in entries):
            raise ValueError("it calls a file in it a folder")
        if not sealed:
            for entry in entries:
                _check_entry(archive, entry)
        root = pickles[0].removesuffix("data.pkl") + "data/"
        storages = {
            entry.filename.removeprefix(root): entry.file_size
            for entry in entries
            if entry.filename.startswith(root)
        }
        check_pickle(io.BytesIO(archive.read(pickles[0])), size, storages)


def _check_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Reads an entry to its end, where zipfile compares checksums; torch.load ignores them."""
    try:
        with archive.open(entry) as content:
            while content.read(2**22):
                pass
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"the checksum of {entry.filename} is wrong") from error


def _check_sequence(file: io.BytesIO, size: int) -> None:
    """Checks the pickles of a file in the format before archives: header, content, storage keys."""
    file.seek(0)
    if check_pickle(file, size) != MAGIC_NUMBER:
        raise ValueError("it was not written by torch.save")
    for _ in range(4):
        check_pickle(file, size)


def _numpy_globals() -> list[Any]:
    """NumPy's functions and types that arrays are unpickled with, under their names of any version.

    `check_pickle` has checked the arguments of every call of them.
    """
    multiarray: Any = np.array(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    functions = {"_reconstruct": multiarray, "scalar": scalar}
    dtypes = {type(np.dtype(code)) for code in (*_NUMPY_CODES, "U1", "S1")}
    return [
        *(np.ndarray, np.dtype, *dtypes, torch.torch_version.TorchVersion, bytes),
        *(
            (function, f"numpy.{package}.multiarray.{name}")
            for name, function in functions.items()
            for package in ("core", "_core")
        ),
    ]


def _explain(path: Path, error: ForeignTypeError, is_torch: bool) -> str:
    names = ", ".join(map(shown_name, error.names[:5])) + (
        " and more" if len(error.names) > 5 else ""
    )
    message = f"{path} holds more than tensors and plain values: {names}"
    if error.executes:
        return f"{message}; such functions run programs or touch files, so do not load it at all"
    if is_torch:
        load = f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
    else:
        load = f"pickle.load(open({str(path)!r}, 'rb'))"
    kept = _what_to_keep(error.content)
    if len(kept) > _LONGEST_LINE or not kept.isprintable():
        return f"{message}. Save its weights alone with the program that it is from"
    code = (
        f"import pickle, torch; c = {load}; "
        f"torch.save({kept}, {str(path.with_suffix('.weights.pth'))!r})"
    )
    return (
        f"{message}. This saves its weights alone, but runs the file's own code, so only if you "
        f"trust its author: python -c {shlex.quote(code)}"
    )


def _what_to_keep(content: Any) -> str:
    """Returns an expression for the weights in `c`, the content of a pickle with foreign types."""
    if isinstance(content, Foreign):
        return "c.state_dict()"
    if not isinstance(content, dict):
        return "c.get('state_dict', c)"
    blamed = [key for key, value in content.items() if _holds_foreign(value)]
    has_others = any(_has_tensors(content[key]) for key in content.keys() - set(blamed))
    for key in [] if has_others else blamed:
        value = content[key]
        if isinstance(value, Foreign) and "_modules" in (value.state or ()):
            return f"c[{key!r}].state_dict()"
        if _has_tensors(value):
            return f"{{k: v for k, v in c[{key!r}].items() if isinstance(v, torch.Tensor)}}"
    if not blamed:
        return "c"
    return f"{{k: v for k, v in c.items() if k not in {blamed!r}}}"


def _has_tensors(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else ()
    return any(type(part) is Stub and "_rebuild_tensor" in part.name for part in parts)


def _holds_foreign(value: Any, depth: int = 8) -> bool:
    """Whether a value is or contains an object of a foreign type; true beyond a depth."""
    parts: list[Any] = list(value) if isinstance(value, (list, tuple, dict)) else []
    if isinstance(value, dict):
        parts += [*value.values(), *getattr(value, "__dict__", {}).values()]
    if isinstance(value, Stub):
        parts += [*value.arguments, value.state]
    if depth == 0 and parts:
        return True
    return isinstance(value, Foreign) or any(_holds_foreign(part, depth - 1) for part in parts)
