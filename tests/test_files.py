"""Atomic writing: a reader never meets half a file."""

import os
import stat

import pytest

from ccnet.files import atomic_write


def test_a_file_is_written_in_a_folder_that_is_made_for_it(tmp_path):
    target = tmp_path / "new" / "folder" / "file.txt"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_an_older_file_is_there_until_the_new_one_is_complete(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with atomic_write(str(target)) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_older_file_and_no_other(tmp_path, error):
    target = tmp_path / "file"
    target.write_text("old")

    def fail():
        with atomic_write(target) as temporary:
            temporary.write_text("half of the ne")
            raise error("stopped")

    with pytest.raises(error, match="stopped"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_rename_that_fails_leaves_no_temporary_file(tmp_path):
    target = tmp_path / "taken"
    (target / "inside").mkdir(parents=True)

    def write():
        with atomic_write(target) as temporary:
            temporary.write_text("new")

    with pytest.raises(OSError, match="taken"):
        write()
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, umask):
    previous = os.umask(umask)
    try:
        with atomic_write(tmp_path / "file") as temporary:
            temporary.write_text("new")
        assert os.umask(umask) == umask
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
