"""Records: `results.jsonl`, a line for each picture, written by any number of processes.

Every process appends to a part of its own, which it keeps locked, and which is merged into the one
file in the end: its own process, or the next one if that was killed. A merge takes the parts that
nobody holds, and removes them when the merged file is in its place, so that wherever it is cut, no
line is lost.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from ccnet.files import atomic_write, irregularity
from ccnet.inference.marked_png import Origin
from ccnet.jobs.search import RECORDS
from ccnet.locks import FolderLock, is_at, try_to_lock
from ccnet.prediction_run.record_lines import Line, encode, newest, read_lines

NAME = "results.jsonl"
"""The file in the folder of the results."""

PATIENCE = 60.0
"""Seconds to wait for other processes that merge; what is left then, the next run merges."""

_ELSE = "move it away, or choose another folder for the results"


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
        self._known = _known_in(folder)
        self._file, self.part = _new_part(folder, label)

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        with suppress(OSError):
            if self.part.stat().st_size == 0:
                self.part.unlink()

    def has(self, name: str, origin: Origin) -> bool:
        """Whether the results of a picture, of that origin, were recorded before this run."""
        return hash((encode(name), origin.digest.encode())) in self._known

    def are_there(self) -> bool:
        """Whether nobody has removed these, or those from before this run."""
        is_merged = not self._known or (self.folder / NAME).exists()
        return is_merged and is_at(self._file, self.part)

    def add(self, entry: dict[str, Any]) -> None:
        """Appends a line, whole or not at all.

        Args:
            entry: what it says, JSON-able: "name" and "picture" first, then perhaps "made_by",
                "written" and "error".

        Raises:
            OSError: if the disk is full, for one.
        """
        line = encode(entry) + b"\n"
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


def _known_in(folder: Path) -> set[int]:
    """The hashes of the names and origins of results, as `Records.has` makes them."""
    with ExitStack() as stack:
        file = _merged(folder, stack)
        lines = _lines(file) if file is not None else ()
        return {hash((line.name, line.made_by)) for _, line in lines if not line.is_error}


def _merged(folder: Path, stack: ExitStack) -> IO[bytes] | None:
    """Opens the records of all processes, if there are some.

    Raises:
        ValueError: if there is no file, but something else.
    """
    path = folder / NAME
    if reason := irregularity(path):
        raise ValueError(f"{path}: {reason}: {_ELSE}")
    return stack.enter_context(path.open("rb")) if path.exists() else None


def _lines(file: IO[bytes]) -> Iterator[tuple[int, Line]]:
    """Yields the lines of `read_lines`; its error says which file, and what to do."""
    try:
        yield from read_lines(file)
    except ValueError as error:
        raise ValueError(f"{file.name} {error}: {_ELSE}") from error


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
    parts: list[os.DirEntry[str]] = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        parts = [entry for entry in entries if RECORDS.fullmatch(entry.name)]
        parts = [entry for entry in parts if entry.name != NAME]
        parts = [entry for entry in parts if entry.is_file(follow_symlinks=False)]
    return [Path(part) for part in sorted(parts, key=lambda part: part.stat().st_mtime_ns)]


def _merge(folder: Path) -> None:
    with ExitStack() as stack:
        merged = _merged(folder, stack)
        files = [merged] if merged is not None else []
        parts = [part for part in _parts(folder) if _take(part, files, stack)]
        if not parts:
            return
        places: dict[bytes, tuple[int, ...]] = {}
        for number, file in enumerate(files):
            for start, line in _lines(file):
                others = places.get(line.name, ())
                places[line.name] = (*others, start * len(files) + number)
        with atomic_write(folder / NAME) as temporary, temporary.open("wb") as target:
            for name in sorted(places):
                target.writelines(_contents_at(files, places[name]))
    for part in parts:
        part.unlink()


def _take(part: Path, files: list[IO[bytes]], stack: ExitStack) -> bool:
    """Opens a part and adds it to files, unless another process or user has it.

    A file of such a name that holds anything else is someone's own, and stays as it is.
    """
    with suppress(PermissionError, ValueError), ExitStack() as attempt:
        file = attempt.enter_context(part.open("rb+"))
        if try_to_lock(file.fileno(), part.parent):
            for _ in read_lines(file):
                pass
            file.seek(0)
            files.append(file)
            stack.push(attempt.pop_all())
            return True
    return False


def _contents_at(files: list[IO[bytes]], places: tuple[int, ...]) -> list[bytes]:
    """Reads the lines of one name that stay.

    Args:
        files: in which they are.
        places: where each begins in its file, times the number of files, plus that of the file.
    """
    contents = []
    for place in places:
        start, number = divmod(place, len(files))
        files[number].seek(start)
        contents.append(files[number].readline())
    if len(contents) == 1:
        return contents
    return [line.content for line in newest(filter(None, map(Line.parse, contents)))]
