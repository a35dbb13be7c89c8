"""Consoles of command lines: no name and no closed pipe ends a run; which extra is missing."""

import errno
import io
import os
import sys
import unicodedata
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

_GONE = {errno.EPIPE, errno.EIO} | ({errno.EINVAL} if os.name == "nt" else set())
"""Errors of writing to a pipe that nobody reads any more, or to a terminal that was closed."""


class _Outlet(io.FileIO):
    """A file that takes what is written to it even if nobody reads it any more."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in _GONE:  # a full disk must not pass for success
                raise
            return memoryview(data).nbytes


def prepare_console() -> None:
    r"""Prepares stdout and stderr for a long run; every script calls this first.

    Characters that the console cannot show are written as escapes such as "\u540d", and output
    that nobody reads any more, or that was closed from the start, is dropped: the files that a run
    writes are worth more than its messages.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if stream is getattr(sys, f"__{name}__") and not (os.name == "nt" and stream.isatty()):
                setattr(sys, name, _patient(stream))


def _patient(stream: io.TextIOWrapper) -> TextIO:
    """The same stream, but output that nobody reads any more is dropped."""
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Outlet(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def printable(text: object) -> str:
    """One line of text that can be encoded: line breaks, control characters and the like escaped.

    Names of files may hold any of them, and bytes that are no text.
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        else character
        for character in str(text)
    )


def require_extra(extra: str, packages: Iterable[str]) -> None:
    """Refuses to begin without the packages of an extra.

    Raises:
        ValueError: if a package is missing; says how to install them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} must be installed for this: "
            f'pip install "ccnet-pytorch[{extra}]", or in a checkout pip install -e ".[{extra}]"'
        )
