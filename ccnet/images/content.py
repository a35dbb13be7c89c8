"""Content of files that are given opened, and URLs of files that are elsewhere."""

import inspect
import io
from contextlib import suppress
from typing import Any, Protocol

from ccnet.schema import reason_of


class BinaryFile(Protocol):
    """A file opened in binary mode, or anything else whose bytes can be read."""

    def read(self, size: int = -1, /) -> bytes | None:
        """Returns its bytes from where it is, up to a number."""


def read_content(file: Any) -> tuple[bytes, str]:
    """Reads a file from its start, or from where it is if it cannot seek; it stays open.

    Returns:
        Its bytes, and its name, for errors.

    Raises:
        ValueError: if it cannot be read, is empty, or gives no bytes.
    """
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) and name else f"the file ({type(file).__name__})"
    problem = f"{name} cannot be read as an image:"
    if isinstance(file, io.TextIOBase):
        raise ValueError(f'{problem} it was opened as text; open(path, "rb") gives its bytes')
    with suppress(AttributeError, OSError, ValueError):  # of a pipe, or of a connection
        file.seek(0)
    try:
        content = file.read()
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{problem} {reason_of(error)}") from error
    if inspect.iscoroutine(content):
        content.close()
        raise ValueError(f"{problem} its read() must be awaited; pass the bytes that it gives")
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise ValueError(f"{problem} its read() gives {type(content).__name__}, not bytes")
    if not content:
        raise ValueError(f"{problem} it is empty, or was read before")
    return bytes(content), name
