"""The file of pins: what is none is refused, and nothing is lost."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

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


WRITE = """
import json, sys
from pathlib import Path
from ccnet.publishing.pinning import write_pin
for number in range(12):
    write_pin(f"{sys.argv[1]}{number}", json.loads(sys.argv[2]), Path("pins.json"))
"""


def test_programs_that_write_at_once_lose_no_pin(run_forked, tmp_path):
    def write(name):
        run_forked("-c", WRITE, name, json.dumps(GOOD), cwd=tmp_path)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, "ab"))
    assert len(read_pins(tmp_path / "pins.json")) == 2 * 12
    assert [path.name for path in tmp_path.iterdir()] == ["pins.json"]
