"""The file of pins: what is none is refused, and nothing is lost."""

import pytest

from ccnet.locks import FolderLock
from ccnet.publishing.pinning import write_pin
from ccnet.weights.pins import read_pins

GOOD = {
    "repo_id": "us/model",
    "revision": "0" * 40,
    "filename": "model.safetensors",
    "sha256": "0" * 64,
}
WRONG = {
    "branch": ({"revision": "main"}, "revision must be a commit: 40 hexadecimal digits"),
    "short hash": ({"sha256": "0" * 8}, "sha256 must be the whole hash"),
    "pickle": ({"filename": "model.pth"}, "filename must be a .safetensors file"),
    "no owner": ({"repo_id": "model"}, 'repo_id must be "owner/name"'),
    "more": ({"token": "x"}, "a pin has repo_id, revision, filename, sha256"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_pin_is_refused(tmp_path, change, message):
    path = tmp_path / "pins.json"
    write_pin("a", GOOD, path)
    before = path.read_text()
    with pytest.raises(ValueError, match=message):
        write_pin("b", {**GOOD, **change}, path)
    assert path.read_text() == before
    assert read_pins(path) == {"a": GOOD}


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}'])
def test_damaged_file_of_pins_is_named(tmp_path, text):
    (tmp_path / "pins.json").write_text(text)
    with pytest.raises(ValueError, match=r"pins\.json"):
        write_pin("b", GOOD, tmp_path / "pins.json")
    assert (tmp_path / "pins.json").read_text() == text


def test_programs_that_write_at_once_wait_for_one_another(tmp_path):
    path = tmp_path / "pins.json"
    with FolderLock(tmp_path), pytest.raises(BlockingIOError, match="is in use by another object"):
        write_pin("a", GOOD, path)  # which would wait for another program
    write_pin("a", GOOD, path)
    assert list(tmp_path.iterdir()) == [path]
