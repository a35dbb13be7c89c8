"""Files: paths that users give, atomic writing, so that no reader sees half a file, SHA-256."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote_to_bytes

_UNFINISHED = ".ccnet-unfinished-"
"""How the names of temporary files begin; eight characters, and perhaps a suffix, follow."""

_LONGEST_SUFFIX = 16
"""In bytes: libraries choose the format of a file by its suffix, and none of theirs is longer."""


def user_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path that a user gave: of a file: URL, or with "~" and "~name" expanded.

    Shells leave "~" alone in --root=~/data, in quotes, in configuration files and so on. A file
    such as "~draft.png" keeps its name unless there is a user "draft.png".

    Raises:
        ValueError: if a file: URL is of another machine.
    """
    given = os.fspath(path)
    if isinstance(given, str) and given[:5].lower() == "file:" and given[5:6] in ("/", os.sep):
        return Path(path_of_url(given))
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser() refuses "~draft.png"


def path_of_url(url: str, *, on_windows: bool = os.name == "nt") -> str:
    """Returns the path of a file: URL, such as "file:///home/me/a%20b.png".

    Args:
        url: with any number of slashes, of which `Path` leaves one.
        on_windows: whether paths may begin with a drive, as in "file:///C:/a.png", or with the name
            of another machine, as in "file://server/share/a.png".

    Raises:
        ValueError: if it is of another machine, which only Windows finds by itself.
    """
    path = os.fsdecode(unquote_to_bytes(url[len("file:") :]))
    path = path.replace("\\", "/") if on_windows else path
    host = ""
    if path.startswith("//"):
        host, slash, rest = path[2:].partition("/")
        if host.lower() in ("", "localhost"):
            host, path = "", slash + rest
    if on_windows and (drive := re.match("/*([A-Za-z])[:|](?=/|$)", path)):
        return f"{drive[1]}:{path[drive.end() :]}"
    if host and not on_windows:
        raise ValueError(
            f"{url} is of a machine {host}: a file of this one has file:/// and its path"
        )
    return path


def is_url(path: str) -> bool:
    """Whether a path that does not exist is a URL, rather; `Path` makes one slash of two."""
    return re.match("[a-z][a-z0-9+.-]+:/", path, re.IGNORECASE) is not None


def irregularity(path: Path) -> str:
    """Says why a path is not to be opened or replaced; empty for a file, or if there is nothing.

    A pipe would be waited for without end, and a device has no end. Who may remove a device would
    replace /dev/null by a file.
    """
    if path.is_dir():
        return "it is a folder"
    return "it is no regular file" if path.exists() and not path.is_file() else ""


def file_state(path: Path) -> tuple[int, ...]:
    """Returns what changes when a file is written again or replaced; () if there is none.

    Its length and times, and its number in the file system: another file that takes its place may
    have been last modified at the same time.
    """
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, replace: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames the file written there to `path`.

    The folder of `path` is created if need be. The data is flushed to the disk before the rename.
    If the body raises, the temporary file is removed and an existing file at `path` is unchanged.
    The temporary file has the suffix of `path`, and a name that `remove_unfinished` knows: a
    process that is killed leaves it behind.

    Args:
        path: of the file.
        replace: whether to replace a file at `path`.

    Raises:
        FileExistsError: if there is something at `path`, and it is not to be replaced.
        OSError: if a folder, a device or a pipe is there.
    """
    target = user_path(path)
    if replace and (problem := irregularity(target)):
        raise OSError(f"{target} cannot be written: {problem}")
    target.parent.mkdir(parents=True, exist_ok=True)
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= _LONGEST_SUFFIX else ""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=_UNFINISHED, suffix=suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        if not replace:
            _claim(temporary, target)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _claim(temporary: Path, target: Path) -> None:
    """Makes a file at `target` that is `temporary`; of several processes one alone succeeds."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: an empty file for a moment
        target.touch(exist_ok=False)


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Removes what killed processes left of `atomic_write` in a folder.

    Only regular files of such names, directly in it: no subfolder is looked into, no link followed.

    Args:
        folder: one in which no other process writes now; need not exist.

    Raises:
        OSError: if the folder cannot be read, or a file not be removed.
    """
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            is_ours = re.fullmatch(rf"{re.escape(_UNFINISHED)}[a-z0-9_]{{8}}(\..+)?", entry.name)
            if is_ours and entry.is_file(follow_symlinks=False):
                Path(entry).unlink(missing_ok=True)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with user_path(path).open("rb") as file:
        while chunk := file.read(2**24):
            digest.update(chunk)
    return digest.hexdigest()
