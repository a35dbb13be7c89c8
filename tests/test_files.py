"""Atomic writing: a reader never meets half a file."""

import os
import stat

import pytest

from ccnet.files import atomic_write, remove_unfinished


def write(target, content="new", error=None):
    with atomic_write(target) as temporary:
        temporary.write_text(content)
        if error is not None:
            raise error


def test_folder_is_created_for_a_file(tmp_path):
    target = tmp_path / "new" / "folder" / "file.txt"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_older_file_stays_until_the_new_one_is_complete(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with atomic_write(str(target)) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "é" * 125 + ".jpeg", "a." + "b" * 253])
def test_temporary_names_are_no_longer_than_final_ones(tmp_path, name):
    with atomic_write(tmp_path / name) as temporary:
        assert len(os.fsencode(temporary.name)) <= 42
        assert temporary.suffix in ("", (tmp_path / name).suffix)
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


OTHERS = [
    *(".step-00000005-abcdefgh.pt", ".backup-20240101.json", ".log-a1b2c3d4.jsonl"),
    *(".ccnet-unfinished-abcdefg.pt", ".ccnet-unfinished-abcdefghi.pt", ".ccnet-unfinished-"),
    *(".ccnet-unfinished-ABCDEFGH.pt", ".ccnet-unfinished-a.cdefgh.pt", ".ccnet-unfinished-a1b2"),
    *("my.ccnet-unfinished-abcdefgh.pt", "ccnet-unfinished-abcdefgh.pt", ".gitignore", "notes"),
    *("sub/.ccnet-unfinished-abcdefgh.pt", "checkpoints/.ccnet-unfinished-abcdefgh.pt"),
    ".ccnet-unfinished-folder_1.pt/file",
]
"""Files that killed processes did not leave, or not in this folder."""


def test_only_what_killed_processes_left_is_removed(tmp_path):
    folder = tmp_path / "folder"
    for name in OTHERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "mine").write_text("mine")
    (folder / ".ccnet-unfinished-a_link_1.pt").symlink_to(tmp_path / "mine")
    (folder / ".ccnet-unfinished-a_link_2.pt").symlink_to(tmp_path / "nothing")
    before = sorted(folder.rglob("*"))
    for name in ("abcdefgh", "a1_2345h.pt", "________.safetensors", "abcdefgh.tar.gz"):
        (folder / f".ccnet-unfinished-{name}").touch()
    remove_unfinished(folder)
    assert sorted(folder.rglob("*")) == before
    assert (tmp_path / "mine").exists()
    for absent in ("nowhere", "mine"):
        remove_unfinished(tmp_path / absent)


@pytest.mark.parametrize("suffix", ["", ".png", ".safetensors", ".jsonl"])
def test_what_a_killed_process_leaves_is_removed(tmp_path, suffix):
    with atomic_write(tmp_path / f"file{suffix}") as temporary:
        temporary.with_name("left").write_text("half")
        name = temporary.name
    (tmp_path / "left").rename(tmp_path / name)
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"file{suffix}"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_the_older_file_and_no_other(tmp_path, error):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(error, match="stopped"):
        write(target, "half of the ne", error("stopped"))
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_failed_rename_leaves_no_temporary_file(tmp_path):
    target = tmp_path / "taken"
    (target / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        write(target)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, umask):
    previous = os.umask(umask)
    try:
        write(tmp_path / "file")
        assert os.umask(umask) == umask
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are those of POSIX")
def test_folders_and_pipes_are_not_replaced(tmp_path):
    """Nor devices: the rename would put a file in their place."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (("folder", "it is a folder"), ("pipe", "it is no regular file")):
        error = pytest.raises(OSError, match=rf"{name} cannot be written: {problem}")
        with error, atomic_write(tmp_path / name) as temporary:
            temporary.write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]
    assert (tmp_path / "pipe").is_fifo()
