"""Fixtures of the tests of scripts."""

import importlib.util
import re

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


SUMMARY = re.compile(
    r"\d+ pictures? in \d+\.\d s: [\d.e+]+ a second; the network computed \d+ % of the time"
)
"""The line that ends a run on several pictures."""


@pytest.fixture
def predict(load_script, weights_file, tmp_path, monkeypatch, capsys):
    """Runs the script in this process, in a new folder: its exit status, output and errors.

    The summary is not among the output.
    """
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
        lines = [line for line in out.splitlines(keepends=True) if not SUMMARY.match(line)]
        return status, "".join(lines), err

    return run
