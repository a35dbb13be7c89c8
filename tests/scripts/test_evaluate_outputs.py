"""`scripts/evaluate.py`: what it writes is never mixed with what another evaluation wrote."""

import json

import numpy as np
import pytest
from PIL import Image

from ccnet.weights import write_weights


@pytest.fixture
def run(load_script, make_model, tmp_path, monkeypatch, capsys):
    """Evaluates one of two networks on two pictures: its exit message, or what it printed."""
    monkeypatch.chdir(tmp_path)
    classes = {"categories": ["grass", "sand"]}
    for seed, name in enumerate(("one", "other")):
        write_weights(f"{name}.safetensors", make_model(2, seed, label_set=classes).to_weights())
    random = np.random.default_rng(0)
    for name in "ab":
        for folder, high, shape in (("images", 256, (24, 32, 3)), ("masks", 2, (24, 32))):
            path = tmp_path / "own" / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, high, shape, np.uint8)).save(path)
    (tmp_path / "own" / "classes.json").write_text(json.dumps(classes))

    def evaluate(*options, weights="one"):
        arguments = ["folder", "--root", "own", "--weights", f"{weights}.safetensors"]
        try:
            load_script("evaluate").main([*arguments, "--device", "cpu", *options])
        except SystemExit as end:
            assert capsys.readouterr().out == ""
            return end.code
        return capsys.readouterr().out

    return evaluate


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_label_ids_are_written_to_a_folder_of_their_own(run, tmp_path):
    ids = tmp_path / "ids"
    assert "mean (mIoU)" in run("--save-label-ids", "ids")
    assert sorted(path.name for path in ids.iterdir()) == ["a.png", "b.png"]
    before = contents(tmp_path)
    for options in ({"weights": "other"}, {}):
        message = run("--save-label-ids", "ids", "--limit", "1", **options)
        assert message.startswith("error: ids holds a.png, and label ids are written to a folder")
        assert "\n" not in message
    assert "own/images holds a.png" in run("--save-label-ids", "own/images")
    assert "need two folders, not new" in run("--save-label-ids", "new", "--report", "new")
    assert contents(tmp_path) == before
    for path in ids.iterdir():
        path.unlink()
    (ids / ".hidden").touch()
    run("--save-label-ids", "ids", "--limit", "1", weights="other")
    assert sorted(path.name for path in ids.iterdir()) == [".hidden", "a.png"]


def test_report_takes_the_place_of_its_own_kind_alone(run, tmp_path):
    run("--report", "report")
    before = contents(tmp_path)
    for options, message in (
        (
            {"weights": "other"},
            r"another evaluation (weights one.safetensors, not other.safetensors): choose another",
        ),
        ({"options": ["--flip"]}, "another evaluation (protocol {"),
        ({"options": ["--limit", "1"]}, "another evaluation (dataset own, not own, the first 1)"),
    ):
        found = run("--report", "report", *options.pop("options", []), **options)
        assert f"error: report holds the report of {message}" in found
        assert contents(tmp_path) == before
    (tmp_path / "report" / "worst.png").write_bytes(b"older")
    run("--report", "report")
    assert contents(tmp_path) == before
