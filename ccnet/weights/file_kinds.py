"""Kinds of files: what a file that holds no weights is, by its first bytes.

Servers answer with a page, tools wrap or rename, and other frameworks share suffixes: an error that
names what a file is helps more than one that says what it is not.
"""

import os
from pathlib import Path

from ccnet.files import is_url, user_path

ZEROS = "a file of zeros, as a broken download leaves"

_STARTS = (
    (0, b"\x1f\x8b", "gzip data: unpack it first"),
    (0, b"BZh", "bzip2 data: unpack it first"),
    (0, b"\xfd7zXZ\x00", "xz data: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "zstd data: unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (0, b"Rar!", "a rar archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and MATLAB write"),
    (4, b"TFL3", "a TFLite network"),
    (4, b"ET12", "an ExecuTorch program"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a git-lfs pointer: fetch the file itself with `git lfs pull`"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x89PNG\r\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x12\x01\x00\x00", "an MXNet parameter file"),
)
"""Where certain bytes are in files of a kind, and what to call it."""

_TEXTS = (
    ((b"<!doctype html", b"<html", b"<head"), "an HTML page, not the file that it links to"),
    ((b"<?xml",), "an XML text, such as a server's error message"),
    ((b"{", b"["), "a JSON text"),
)
"""Likewise for texts, which may begin with white space and in capitals."""

_TENSORFLOW_INDEX = bytes.fromhex("57fb808b247547db")
_HEAD = 512
_MAX_HEADER = 100_000_000
"""Bytes that the header of a safetensors file may have."""


def foreign_kind(path: Path) -> str | None:
    """Returns what a file without weights is; None for pickles, zip archives and safetensors.

    Raises:
        OSError: if the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(0, size - len(_TENSORFLOW_INDEX)))
        end = file.read()
    if not head.strip(b"\0"):
        return ZEROS if head else "an empty file"
    for offset, magic, kind in _STARTS:
        if head[offset:].startswith(magic):
            return kind
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for starts, kind in _TEXTS:
        if text.startswith(starts):
            return kind
    if end == _TENSORFLOW_INDEX:
        return "the index of a TensorFlow checkpoint"
    if path.suffix.lower() == ".onnx" or _looks_like_onnx(head):
        return "an ONNX network"
    return None


def check_no_url(location: str | os.PathLike[str]) -> None:
    """Checks that weights are not given as a URL, of which a path would lose a slash.

    Raises:
        ValueError: if they are, other than by file: or hf://.
    """
    path = user_path(location)
    if is_url(str(path)) and not str(path).startswith("hf:") and not path.exists():
        raise ValueError(
            f"{location} is a URL: download the file and give its path, or give hf://owner/name "
            "for a repository of the Hugging Face Hub"
        )


def is_safetensors(path: Path) -> bool:
    """Tells whether a file begins as safetensors files do: its header's length, then JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _MAX_HEADER


def is_pickle(path: Path) -> bool:
    """Tells whether a file begins as those of `torch.save` do: an archive or a pickle."""
    with path.open("rb") as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80\x02"))


def _looks_like_onnx(head: bytes) -> bool:
    """Whether the protobuf's first field is a small version, the next a producer or a graph."""
    return len(head) > 3 and head[0] == 0x08 and head[1] < 0x20 and head[2] in (0x12, 0x3A, 0x42)
