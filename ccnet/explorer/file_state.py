"""States of files: what changes when a file is written again."""

from contextlib import suppress
from pathlib import Path

FileState = tuple[tuple[str, int, int], ...]
"""Name, time of the last change in nanoseconds, and size of each file."""


def state_of(path: Path) -> FileState:
    """Returns the state of a file, or of the files in a folder; empty if there are none."""
    with suppress(OSError):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [(file.name, file.stat()) for file in files]
        return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)
    return ()
