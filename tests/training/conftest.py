"""A finished run, for tests that do not change it."""

import pytest
from small_runs import trainer


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of an uninterrupted run, and the scores of its last validation."""
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    return run_dir, trainer(run_dir).run()
