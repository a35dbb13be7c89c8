"""Records: `results.jsonl`, a line for each picture, written by any number of processes.

Every process appends to a part of its own, which it keeps locked, and which is merged into the one
file in the end: its own process, or the next one if that was killed. A merge takes the parts that
nobody holds, and removes them when the merged file is in its place, so that wherever it is cut, no
line is lost.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from ccnet.files import atomic_write
from ccnet.inference.image_files import RECORDS
from ccnet.locks import FolderLock, is_at, try_to_lock

NAME = "results.jsonl"
"""The file in the folder of the results."""

PATIENCE = 60.0
"""Seconds to wait for other processes that merge; what is left then, the next run merges."""

_STRING = rb'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(
    rb'\{"name": (?P<name>%b), "picture": (?P<picture>%b), (?P<error>"error")?.*\}\n'
    % (_STRING, _STRING)
)
"""A line, whose first fields are always these."""

_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What some programs take for the end of a line, or no text encodes."""


def _encode(value: Any) -> bytes:
    """Encodes a value as JSON, in UTF-8 and in one line."""
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


class Records:
    """The records of a run in one process. Leaving its context closes its part, but merges nothing.

    Args:
        folder: of the results.
        label: of this process, in the name of its part: lower case, digits and hyphens.

    Raises:
        OSError: if they cannot be written there.
        ValueError: if there is a file of that name that is no such one.
    """

    def __init__(self, folder: Path, label: str) -> None:
        self.folder = folder
        self._known = _names_in(folder / NAME)
        self._file, self.part = _new_part(folder, label)

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        with suppress(OSError):
            if self.part.stat().st_size == 0:
                self.part.unlink()

    def has(self, name: str) -> bool:
        """Whether the results of a picture were recorded before this run."""
        return hash(_encode(name)) in self._known

    def add(self, entry: dict[str, Any]) -> None:
        """Appends a line, whole or not at all.

        Args:
            entry: what it says, JSON-able: "name" and "picture" first, then perhaps "error".

        Raises:
            OSError: if the disk is full, for one.
        """
        line = _encode(entry) + b"\n"
        end = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError:
            os.ftruncate(self._file, end)
            os.lseek(self._file, end, os.SEEK_SET)
            raise


def _new_part(folder: Path, label: str) -> tuple[int, Path]:
    """Opens a new part, locked."""
    while True:
        file, name = tempfile.mkstemp(dir=folder, prefix=f"results.{label}.", suffix=".jsonl")
        if try_to_lock(file, folder) and is_at(file, Path(name)):
            return file, Path(name)
        os.close(file)  # another process has taken it for one that was left behind


def is_held(part: Path) -> bool:
    """Whether the process that writes a part is still there."""
    try:
        with part.open("rb+") as file:
            return not try_to_lock(file.fileno(), part.parent)
    except OSError:
        return False


def _names_in(path: Path) -> set[int]:
    """The hashes of the names of pictures that have results, as `Records.has` makes them."""
    if not path.exists():
        return set()
    with path.open("rb") as file:
        return {hash(line["name"]) for _, line in _lines(file, path) if not line["error"]}


def _lines(file: IO[bytes], path: Path) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Yields the place and the match of every line, but of one that was cut.

    Raises:
        ValueError: if the file at the path is `NAME`, and someone else's.
    """
    place = 0
    for content in file:
        if line := _LINE.fullmatch(content):
            yield place, line
        elif path.name == NAME and content.endswith(b"\n"):
            raise ValueError(
                f"{path} is no record of results of this version's: move it away, or choose "
                "another folder for the results"
            )
        place += len(content)


def merge(folder: Path) -> None:
    """Merges the parts that no process holds any more; lines are sorted by the name.

    Of each name the newest results have a line, and errors since, one for each picture.

    Raises:
        OSError: if the disk is full, for one; nothing is lost.
        ValueError: if there is a file of the name that is no such one.
    """
    lock = FolderLock(folder, of_ranks=False)
    end = time.monotonic() + PATIENCE
    while _parts(folder):
        try:
            with lock:
                _merge(folder)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                return


def _parts(folder: Path) -> list[Path]:
    """The parts in a folder, the last one to be written last."""
    with os.scandir(folder) as entries:
        parts = [entry for entry in entries if RECORDS.fullmatch(entry.name)]
        parts = [entry for entry in parts if entry.name != NAME]
        parts = [entry for entry in parts if entry.is_file(follow_symlinks=False)]
    return [Path(part) for part in sorted(parts, key=lambda part: part.stat().st_mtime_ns)]


def _merge(folder: Path) -> None:
    target = folder / NAME
    with ExitStack() as stack:
        files = list[IO[bytes]]()
        if target.exists():
            files.append(stack.enter_context(target.open("rb")))
        parts = []
        for part in _parts(folder):
            with suppress(PermissionError):  # that of another user
                file = stack.enter_context(part.open("rb+"))
                if try_to_lock(file.fileno(), folder):
                    files.append(file)
                    parts.append(part)
        if not parts:
            return
        places = _newest(files)
        with atomic_write(target) as temporary, temporary.open("wb") as merged:
            for name in sorted(places):
                merged.writelines(_line_at(files, place) for place in places[name])
    for part in parts:
        part.unlink()


def _newest(files: list[IO[bytes]]) -> dict[bytes, tuple[int, ...]]:
    """The places of the lines that stay, by name: those of `_line_at`."""
    places: dict[bytes, tuple[int, ...]] = {}
    for number, file in enumerate(files):
        for start, line in _lines(file, Path(file.name)):
            others: tuple[int, ...] = ()
            if line["error"]:
                before = places.get(line["name"], ())
                others = tuple(
                    place for place in before if line["picture"] not in _line_at(files, place)
                )
            places[line["name"]] = (*others, start * len(files) + number)
    return places


def _line_at(files: list[IO[bytes]], place: int) -> bytes:
    """Reads the line at a place: where it begins in a file, times their number, plus its own."""
    start, number = divmod(place, len(files))
    here = files[number].tell()
    files[number].seek(start)
    line = files[number].readline()
    files[number].seek(here)
    return line
