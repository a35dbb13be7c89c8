"""Locks: one program at a time writes to a folder; however that ends, its lock ends with it."""

import errno
import gc
import json
import logging
import os
import shlex
import socket
import stat
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from ccnet.console import printable
from ccnet.distributed import from_rank_zero
from ccnet.files import user_path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

NAME = ".ccnet-lock"
"""The file in a folder that is locked. It says who locked it; that it exists means nothing."""

PATIENCE = 3.0
"""Seconds to wait for a holder that may be about to end: a killed process takes a moment."""

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of file systems that have no locks."""


class FolderLock:
    """The lock of a folder, which one object in one process, on any machine, holds at a time.

    The operating system drops it when its process ends, even if that is killed. Processes that are
    forked meanwhile do not hold it, and copies do not. Of several ranks rank 0 holds it.

    Args:
        folder: created if it does not exist; removed again if it is empty in the end.
        of_ranks: whether it is that of all ranks together; else each is as any other process.
    """

    def __init__(self, folder: str | os.PathLike[str], *, of_ranks: bool = True) -> None:
        self.folder = user_path(folder)
        self._of_ranks = of_ranks
        self._is_held = False
        self._taken = list[bool]()
        self._end: weakref.finalize[[int, Path, list[Path]], Any] | None = None

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return partial(FolderLock, of_ranks=self._of_ranks), (self.folder,)

    def __enter__(self) -> "FolderLock":
        self._taken.append(self.acquire())
        return self

    def __exit__(self, *_: object) -> None:
        if self._taken.pop():
            self.release()

    def acquire(self) -> bool:
        """Takes the lock; does nothing if this object holds it. Every rank must call this.

        Returns:
            Whether it was taken now: a `with` statement gives back only what it took.

        Raises:
            BlockingIOError: if another object or program holds it; says who.
            OSError: if the folder cannot be written to.
        """
        if self._is_held:
            return False
        if self._of_ranks:
            from_rank_zero(self._acquire)
        else:
            self._acquire()
        self._is_held = True
        return True

    def release(self) -> None:
        """Gives the lock back if this object holds it."""
        self._is_held = False
        if self._end is not None:
            self._end()

    @contextmanager
    def kept(self) -> Iterator[bool]:
        """Takes the lock, which the body is told, and gives it back only if that raises."""
        taken = self.acquire()
        try:
            yield taken
        except BaseException:
            if taken:
                self.release()
            raise

    @contextmanager
    def given_back(self, taken: bool) -> Iterator[None]:
        """Takes the lock, and gives it back in the end if it was taken here, or `taken` by then."""
        taken |= self.acquire()
        try:
            yield
        finally:
            if taken:
                self.release()

    def _acquire(self) -> None:
        folders = (self.folder, *self.folder.parents)
        missing = list(takewhile(lambda folder: not folder.exists(), folders))
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                file = _open(self.folder / NAME)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and time.monotonic() < end:
                    continue  # the last holder has just removed the folder that it had created
                raise OSError(
                    f"{printable(self.folder)} cannot be used: {error}: "
                    "choose a folder that can be written to"
                ) from error
            is_locked = try_to_lock(file, self.folder)
            if is_locked and is_at(file, self.folder / NAME):
                break
            holder, is_own = _read_holder(file), _is_held_here(file)
            os.close(file)
            if is_locked:
                continue  # the last holder has just removed this file
            if is_own:
                raise BlockingIOError(
                    f"{printable(self.folder)} is in use by another object of this program: "
                    "delete it (such as del trainer) or release its lock"
                )
            if time.monotonic() >= end:
                raise BlockingIOError(
                    f"{printable(self.folder)} is in use by {holder}: "
                    "wait until that ends, or choose another folder"
                )
            time.sleep(0.1)
        # The working directory may be another one by then.
        here, *missing = (path.absolute() for path in (self.folder, *missing))
        self._end = weakref.finalize(self, _release, file, here, missing)
        _held.add(self)
        _write_holder(file)

    def _file(self) -> int | None:
        """The open file that is locked, if it is."""
        ending = self._end.peek() if self._end is not None else None
        return ending[2][0] if ending is not None else None

    def _forget(self) -> None:
        """Leaves the lock to the process that this one was forked from."""
        self._is_held = False
        if self._end is not None and (ending := self._end.detach()) is not None:
            os.close(ending[2][0])


_held: "weakref.WeakSet[FolderLock]" = weakref.WeakSet()


def _is_held_here(file: int) -> bool:
    """Whether another object of this process holds the lock of a file."""
    for _ in range(2):
        files = [other for lock in list(_held) if (other := lock._file()) is not None]
        if not any(os.path.samestat(os.fstat(file), os.fstat(other)) for other in files):
            return False
        gc.collect()  # what nothing can reach any more holds no lock
    return True


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_all)


def _open(path: Path) -> int:
    """Opens a lock file, which nothing else may have taken the place of."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, f"{printable(path)} is no regular file")
    return file


def try_to_lock(file: int, folder: Path) -> bool:
    """Locks a file unless it is locked; believes, with a warning, where there are no locks."""
    try:
        if sys.platform == "win32":
            os.lseek(file, 2**30, os.SEEK_SET)  # what is locked there cannot be read
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            return False
        logger.warning(
            "%s cannot be locked (%s): see to it that nothing else writes there",
            printable(folder),
            error.strerror,
        )
    return True


def is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except OSError:
        return False


def _release(file: int, folder: Path, missing: list[Path]) -> None:
    """Removes the file while it is locked, and the folders that were missing if they are empty."""
    with suppress(OSError):  # Windows removes no open file
        if is_at(file, folder / NAME):
            (folder / NAME).unlink()
    os.close(file)
    with suppress(OSError):
        for created in missing:
            created.rmdir()


def _write_holder(file: int) -> None:
    facts = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
        "command": shlex.join(sys.orig_argv)[:1000],
    }
    with suppress(OSError):  # such as a full disk
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, json.dumps(facts).encode())


def _read_holder(file: int) -> str:
    """Says who holds a lock, by what is written in its file."""
    try:
        os.lseek(file, 0, os.SEEK_SET)
        facts = json.loads(os.read(file, 2**14))
        process, host, since, command = (
            printable(facts[name])[:1000] for name in ("process", "host", "since", "command")
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another program, which has not said who it is"
    return f"process {process} on {host} since {since} ({command})"
