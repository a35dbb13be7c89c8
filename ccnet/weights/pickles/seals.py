"""Seals: a SHA-256 over a whole checkpoint, in the comment of the archive that the checkpoint is.

`torch.save` writes an archive with a checksum for what each entry holds, but none for the archive's
directory: a flipped bit there may make one tensor take another's place. A sealed file is still an
archive that every version of `torch.load` reads.
"""

import hashlib
from collections.abc import Mapping
from typing import IO, Any

import torch

_MARK = b"ccnet sha256 "
_LENGTH = len(_MARK) + 64
_END = b"PK\x05\x06"
_END_SIZE = 22
"""The archive's last record; its last two bytes are the length of the comment that follows."""


class _Hashing:
    """Passes writes on to a file and computes their SHA-256."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save_sealed(content: Mapping[str, Any], file: IO[bytes]) -> None:
    """Writes a checkpoint with `torch.save`, and its seal.

    Args:
        content: tensors and plain values.
        file: new and open for writing; may be read back by `torch.load`.
    """
    hashing = _Hashing(file)
    torch.save(content, hashing)  # type: ignore[arg-type] # it takes whatever can be written to
    file.seek(-2, 2)
    file.write(_LENGTH.to_bytes(2, "little") + _MARK + hashing.digest.hexdigest().encode())


def is_sealed(content: bytes) -> bool:
    """Tells whether a checkpoint has a seal, which fits.

    Returns:
        True if every byte is as it was written; False if there is no seal to tell.

    Raises:
        ValueError: if the seal does not fit the content.
    """
    start = len(content) - _LENGTH - 2
    length, mark, digest = (content[start:][a:b] for a, b in ((0, 2), (2, 15), (15, None)))
    if start < 0 or length != _LENGTH.to_bytes(2, "little") or mark != _MARK:
        return False
    found = hashlib.sha256(memoryview(content)[:start])
    found.update(b"\0\0")
    if found.hexdigest().encode() != digest:
        raise ValueError("its checksum is wrong")
    return True


def is_bare(content: bytes) -> bool:
    """Tells whether a checkpoint ends as `torch.save` ends it, without a seal or half of one."""
    end = content[-_END_SIZE:]
    return end.startswith(_END) and end.endswith(b"\0\0")
