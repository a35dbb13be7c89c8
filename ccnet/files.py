"""Files: paths that users give, atomic writing, so that no reader sees half a file, SHA-256."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def user_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path that a user gave, with "~" and "~name" at its start expanded.

    Shells leave "~" alone in --root=~/data, in quotes, in configuration files and so on. A file
    such as "~draft.png" keeps its name unless there is a user "draft.png".
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser() refuses "~draft.png"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames the file written there to `path`.

    The folder of `path` is created if need be. The data is flushed to the disk before the rename.
    If the body raises, the temporary file is removed and an existing file at `path` is unchanged.
    """
    target = user_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.stem[:40]}-", suffix=target.suffix
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with user_path(path).open("rb") as file:
        while chunk := file.read(2**24):
            digest.update(chunk)
    return digest.hexdigest()
