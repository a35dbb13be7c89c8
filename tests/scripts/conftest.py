"""Fixtures of the tests of scripts."""

import importlib.util

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def load_script(repository):
    """Imports a module of `ccnet.commands` anew, by its name."""

    def load(name):
        path = repository / "ccnet" / "commands" / f"{name}.py"
        specification = importlib.util.spec_from_file_location(f"{name}_script", path)
        script = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(script)
        return script

    return load


@pytest.fixture(scope="session")
def draw():
    """Writes a random RGB image of some height and width."""

    def write(path, seed=0, size=(9, 14)):
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(array).save(path)
        return path

    return write


@pytest.fixture
def predict(load_script, weights_file, tmp_path, monkeypatch, capsys):
    """Runs the script in this process, in a new folder: its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        script = load_script("predict")
        arguments = ("--weights", weights_file, "--device", "cpu", *arguments)
        monkeypatch.setattr("sys.argv", ["predict.py", *map(str, arguments)])
        try:
            script.main()
        except SystemExit as end:
            status = end.code
        else:
            status = 0
        out, err = capsys.readouterr()
        if isinstance(status, str):  # as Python exits with a message
            status, err = 1, f"{err}{status}\n"
        return status, out, err

    return run
