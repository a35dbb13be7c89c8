"""Locks of folders: one holder, whoever it is, and none when it is gone."""

import copy
import errno
import gc
import os
import pickle
import re
import signal
import socket
import sys
import time
import weakref
from unittest import mock

import pytest
from small_runs import finish, start

from ccnet import locks
from ccnet.locks import NAME, FolderLock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and links of POSIX")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)


def refused(folder):
    """What another program is told."""
    with (
        mock.patch.object(locks, "_held", weakref.WeakSet()),
        pytest.raises(BlockingIOError) as refusal,
    ):
        FolderLock(folder).acquire()
    return str(refusal.value)


def test_second_one_is_told_who_holds_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.orig_argv", ["python", "train.py", "a b"])
    with FolderLock(tmp_path / "run"):
        message = refused(tmp_path / "run")
    assert message.startswith(
        f"{tmp_path / 'run'} is in use by process {os.getpid()} on {socket.gethostname()} since 20"
    )
    end = " (python train.py 'a b'): wait until that ends, or choose another folder"
    assert message.endswith(end)
    assert "\n" not in message


def test_other_names_of_a_folder_are_the_same_lock(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path)
    with FolderLock(tmp_path / "link"):
        refused("run")


@pytest.mark.parametrize(
    "facts", [b"", b"{", b"[1]", b"5", b'{"process": 1}', b"\xff", b"[" * 9000], ids=repr
)
def test_facts_of_the_holder_need_not_be_there(tmp_path, facts):
    with FolderLock(tmp_path):
        (tmp_path / NAME).write_bytes(facts)
        assert "is in use by another program, which has not said who it is" in refused(tmp_path)


def test_nothing_is_left_and_nothing_else_is_removed(tmp_path):
    with FolderLock(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run" / NAME).is_file()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with FolderLock(tmp_path / "old"):
        pass
    assert list((tmp_path / "old").iterdir()) == []
    with FolderLock(tmp_path / "new" / "run"):
        (tmp_path / "new" / "mine").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]


def test_relative_folder_is_released_from_another_one(tmp_path, monkeypatch):
    (tmp_path / "other" / "new" / "run").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with FolderLock("new/run"):
        monkeypatch.chdir("other")
    assert sorted(tmp_path.rglob("*")) == sorted(
        tmp_path / name for name in ("other", "other/new", "other/new/run")
    )


def test_lock_can_be_taken_again_and_needs_no_release(tmp_path):
    lock = FolderLock(tmp_path)
    for _ in range(2):
        lock.acquire()
        lock.acquire()
        refused(tmp_path)
        lock.release()
        lock.release()
    with pytest.raises(RuntimeError), lock.kept():
        raise RuntimeError
    with lock.kept():
        pass
    refused(tmp_path)
    del lock
    gc.collect()
    FolderLock(tmp_path).acquire()


def test_only_what_took_the_lock_gives_it_back(tmp_path):
    lock = FolderLock(tmp_path)
    with lock, lock:
        with lock:
            pass
        with lock.given_back(False):
            pass
        with pytest.raises(RuntimeError), lock.kept() as taken:
            raise RuntimeError
        refused(tmp_path)
    with lock.kept() as taken:
        assert taken
    with lock.given_back(taken):
        refused(tmp_path)
    with lock.given_back(False):
        refused(tmp_path)
    FolderLock(tmp_path).acquire()


def test_other_object_of_a_program_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 60.0)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    message = "is in use by another object of this program: delete it (such as del trainer) or"
    lock, holder = FolderLock(tmp_path / "run"), []
    lock.acquire()
    for name in ("run", "link"):
        with pytest.raises(BlockingIOError, match=f"/{name} {re.escape(message)} release its lock"):
            FolderLock(tmp_path / name).acquire()
    holder.extend([lock, holder])  # a cycle, as of a traceback
    del lock, holder
    FolderLock(tmp_path / "run").acquire()


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda lock: pickle.loads(pickle.dumps(lock))]
)
def test_copies_do_not_hold_the_lock(tmp_path, duplicate):
    with FolderLock(tmp_path) as lock:
        other = duplicate(lock)
        with pytest.raises(BlockingIOError, match="is in use by another object"):
            other.acquire()
        del other
        refused(tmp_path)


def hold_or_report(folder, results, count):
    """Writes down what became of an attempt; a holder waits until all have tried."""
    while len(list(results.glob("* ready"))) < count:
        (results / f"{os.getpid()} ready").touch()
        time.sleep(0.01)
    locks.PATIENCE = 0.0
    try:
        with FolderLock(folder):
            (results / f"{os.getpid()} held").touch()
            while len([*results.glob("* held"), *results.glob("* refused")]) < count:
                time.sleep(0.01)
    except BlockingIOError as error:
        (results / f"{os.getpid()} refused").write_text(str(error))


def test_one_of_many_simultaneous_processes_gets_the_lock(tmp_path):
    count = 8
    started = [start(hold_or_report, tmp_path / "run", tmp_path, count)[0] for _ in range(count)]
    assert finish(started) == [0] * count
    (holder,) = (path.name.split()[0] for path in tmp_path.glob("* held"))
    refusals = [path.read_text() for path in tmp_path.glob("* refused")]
    assert len(refusals) == count - 1
    assert all(f"by process {holder} on" in text or "has not said" in text for text in refusals)


def take_turns(folder, counter, turns):
    locks.PATIENCE = 60.0
    for _ in range(turns):
        with FolderLock(folder):
            count = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(count + 1))


def test_no_two_hold_the_lock_while_its_file_comes_and_goes(tmp_path):
    (tmp_path / "counter").write_text("0")
    started = [start(take_turns, tmp_path / "run", tmp_path / "counter", 10)[0] for _ in range(4)]
    assert finish(started) == [0] * 4
    assert (tmp_path / "counter").read_text() == "40"


def test_file_that_a_holder_removes_meanwhile_is_not_locked(tmp_path, monkeypatch):
    opened, open_file = [], locks._open

    def open_too_early(path):
        opened.append(open_file(path))
        if len(opened) == 1:
            path.unlink()
        return opened[-1]

    monkeypatch.setattr(locks, "_open", open_too_early)
    with FolderLock(tmp_path):
        assert (tmp_path / NAME).exists()
        refused(tmp_path)


def hold_and_die(folder):
    lock = FolderLock(folder)
    lock.acquire()
    if os.fork() == 0:  # outlives the holder, as a data-loading worker may
        del lock
        time.sleep(5)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_holder_leaves_no_lock(tmp_path):
    assert finish(start(hold_and_die, tmp_path)) == [-signal.SIGKILL]
    assert (tmp_path / NAME).read_bytes()
    with FolderLock(tmp_path):
        refused(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_systems_without_locks_are_used_with_a_warning(tmp_path, monkeypatch, caplog, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", fail)
    with FolderLock(tmp_path / "run"):
        (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path / 'run'} cannot be locked ({os.strerror(number)}): ")
    assert not (tmp_path / "run").exists()


def folder_that_is_a_file(tmp_path):
    (tmp_path / "run").touch()


def lock_that_is_a_link(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).symlink_to(tmp_path / "mine")


def lock_that_is_a_pipe(tmp_path):
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / NAME)


def lock_that_is_a_folder(tmp_path):
    (tmp_path / "run" / NAME).mkdir(parents=True)


@pytest.mark.parametrize(
    "obstruct",
    [folder_that_is_a_file, lock_that_is_a_link, lock_that_is_a_pipe, lock_that_is_a_folder],
)
def test_what_cannot_be_locked_is_named_and_stays(tmp_path, obstruct):
    (tmp_path / "mine").write_text("mine")
    obstruct(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=r"/run cannot be used: [^\n]+: choose a folder that can be"):
        FolderLock(tmp_path / "run").acquire()
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "mine").read_text() == "mine"


def test_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / NAME))

    monkeypatch.setattr("os.open", fail)
    with pytest.raises(OSError, match=f"^{tmp_path} cannot be used: .*Permission denied: "):
        FolderLock(tmp_path).acquire()
