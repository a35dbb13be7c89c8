"""Metadata of ONNX files, read without further packages, and a seal: the hash of all of a file.

A file is a message of protocol buffers, a sequence of fields, each with a number and a length. Each
entry of the metadata is a field, wherever it stands, so that the seal may be appended.
"""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ccnet.deployment.exported.contract import KEY

SEAL = f"{KEY}_sha256"
"""The last entry of a file's metadata: the SHA-256 of all bytes before it."""

_METADATA = 14
"""The number of the fields `metadata_props`."""

_NUMBER, _BYTES = 0, 2
"""The kinds of fields that there are in a file, by the three lowest bits of their tags."""

_CHUNK = 2**24


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata of an ONNX file.

    Raises:
        ValueError: if it is none, or cut short.
    """
    with path.open("rb") as file:
        fields = _fields(file, path.stat().st_size)
        entries = [file.read(length) for number, length in fields if number == _METADATA]
    return dict(_texts(entry) for entry in entries)


def seal(path: Path) -> None:
    """Appends the hash of a file to its metadata."""
    field = _sealing_field(_sha256(path, path.stat().st_size))
    with path.open("ab") as file:
        file.write(field)


def check_seal(path: Path) -> None:
    """Checks that a file has not changed since it was sealed.

    Raises:
        ValueError: if it has, or never was.
    """
    if SEAL not in read_metadata(path):
        raise ValueError(f"its metadata has no {SEAL!r}: ccnet export did not write it as it is")
    end = path.stat().st_size - len(_sealing_field("0" * 64))
    with path.open("rb") as file:
        file.seek(max(0, end))
        found = file.read()
    if found != _sealing_field(_sha256(path, end)):
        raise ValueError(f"it is damaged or was changed: its SHA-256 is not its {SEAL!r}")


def _sha256(path: Path, length: int) -> str:
    """Returns the hash of the first bytes of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while length > 0 and (chunk := file.read(min(length, _CHUNK))):
            digest.update(chunk)
            length -= len(chunk)
    return digest.hexdigest()


def _sealing_field(digest: str) -> bytes:
    texts = [
        bytes([number << 3 | _BYTES, len(text)]) + text.encode()
        for number, text in ((1, SEAL), (2, digest))
    ]
    entry = b"".join(texts)
    return bytes([_METADATA << 3 | _BYTES, len(entry)]) + entry


def _texts(entry: bytes) -> tuple[str, str]:
    """Returns key and value of an entry."""
    file = BytesIO(entry)
    texts = {
        number: file.read(length).decode(errors="replace")
        for number, length in _fields(file, len(entry))
    }
    return texts.get(1, ""), texts.get(2, "")


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Yields number and length of each field of bytes of a message, the file at its first byte."""
    while file.tell() < end:
        number, kind = divmod(_varint(file), 8)
        length = _varint(file)
        if kind == _NUMBER:
            continue
        place = file.tell()
        if kind != _BYTES or place + length > end:
            raise ValueError("it is no ONNX file, or cut short")
        yield number, length
        file.seek(place + length)


def _varint(file: BinaryIO) -> int:
    """Reads a number: seven bits in each byte, the lowest first, and a bit that more follow."""
    number = 0
    for shift in range(0, 70, 7):
        byte = (file.read(1) or b"\0")[0]
        number |= (byte & 127) << shift
        if byte < 128:
            break
    return number
