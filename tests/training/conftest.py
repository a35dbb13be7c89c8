"""A finished run, for tests that do not change it, and copies of it for those that do."""

import shutil

import pytest
from small_runs import trainer


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of an uninterrupted run, and the scores of its last validation."""
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    return run_dir, trainer(run_dir).run()


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of the folder of a finished run, to be changed."""
    return shutil.copytree(finished[0], tmp_path / "run")
