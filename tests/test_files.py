"""Atomic writing: a reader never meets half a file."""

import os
import stat

import pytest

from ccnet.files import atomic_write


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
