"""Scripts on files and classes with names that no console shows."""

import json
import os
import sys

import pytest
from small_runs import Scenes, small_backbones, trainer, write_mask_folder

ODD = ["new\nline", "\x1b[31mred", "\u9053\u8def", "bytes \udcff"]
"""The last one is no text: a byte that is not UTF-8."""

SHOWN = [r"new\nline", r"\x1b[31mred", "\u9053\u8def", r"bytes \udcff"]

pytestmark = pytest.mark.skipif(
    os.name == "nt" or sys.platform == "darwin", reason="file systems that refuse such names"
)


@pytest.fixture
def run(load_script, tmp_path, monkeypatch, capsys):
    """Runs a script in this process and in a new folder; gives back what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments, fails=False):
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        status = None
        try:
            load_script(name).main()
        except SystemExit as end:
            status = end.code
        assert bool(status) == fails, status
        return capsys.readouterr()

    return run


def test_predict_segments_all(run, draw, tmp_path, weights_file):
    for name in ODD:
        draw(tmp_path / "in" / f"{name}.png")
        (tmp_path / "in" / f"cut {name}.png").write_bytes(b"nothing")
    arguments = ("in", "--output", "out", "--weights", weights_file, "--device", "cpu")
    printed = run("predict", *arguments, fails=True)
    *lines, _ = printed.out.splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == sorted(SHOWN)
    failures = [line for line in printed.err.splitlines() if line.startswith("in/cut")]
    assert len(failures) == len(ODD)
    assert all(any(name in line for line in failures) for name in SHOWN)
    assert len(list((tmp_path / "out").glob("*.png"))) == 2 * len(ODD)
    single = run("predict", tmp_path / "in" / f"{ODD[0]}.png", *arguments[1:], "--overwrite")
    assert f"  picture     {tmp_path}/in/{SHOWN[0]}.png" in single.out.splitlines()


def test_run_folder_without_a_readable_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run folder, .*run \\udcff, is not UTF-8"):
        trainer(tmp_path / "run \udcff")
    assert not list(tmp_path.iterdir())


def test_train_and_evaluate_on_a_folder(run, tmp_path):
    classes = ["a|b", ODD[2], *(f"class {index}" for index in range(9))]
    folder = tmp_path / "own \udcff"
    write_mask_folder(folder, Scenes(4), classes)
    for name, path in zip(ODD, sorted((folder / "images").iterdir()), strict=True):
        for sample in (path, folder / "masks" / path.name):
            sample.rename(sample.with_name(f"{name}.png"))
    train = ["finetune", "--root", folder, "--run-dir", "run", "--weights", "", "--device", "cpu"]
    train += ["--steps", 1, "--batch-size", 2, "--crop-height", 33, "--crop-width", 49]
    train += ["--output-stride", 32, "--precision", "float32", "--workers", 0]
    with small_backbones():
        printed = run("train", *train).out
        arguments = ("folder", "--root", folder, "--weights", "run/best.safetensors")
        found = run("evaluate", *arguments, "--device", "cpu", "--report", "report").out
    for text in (printed, found):
        assert r"| a\|b | " in text
        assert f"| {SHOWN[2]} | " in text
    assert r"own \udcff" in found
    command = json.loads((tmp_path / "run" / "environment.json").read_text())["command"]
    assert str(folder) in command
    names = [
        image["name"]
        for image in json.loads((tmp_path / "report/report.json").read_text())["images"]
    ]
    assert sorted(names) == sorted(ODD)
