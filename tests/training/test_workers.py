"""Data-loading workers end with the run: in success, failure and when the process is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ccnet.training.data import iterate

RUN = """
import sys, time
from pathlib import Path
from small_runs import Scenes, changed, train, trainer
folder, workers, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if steps:
    train(folder, changed(steps=steps, validate_every=2), workers=workers)
else:
    busy = Scenes(length=9, on_draw=lambda _: time.sleep(0.01))
    endless = changed(steps=10_000, validate_every=10_000)
    trainer(folder, endless, train_set=busy, workers=workers).run()
"""


@pytest.fixture
def start(repository, tmp_path):
    """Starts a run with workers in a fresh interpreter; without steps it takes forever."""

    def start(name, workers, steps):
        path = os.pathsep.join(map(str, (repository, repository / "tests")))
        arguments = [sys.executable, "-c", RUN, str(tmp_path / name), str(workers), str(steps)]
        variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(arguments, env={**os.environ, **variables}, cwd=tmp_path)

    return start


def children_of(pid):
    """The living children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("runs", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_runs_end_by_themselves(start, runs):
    for first in range(0, runs, 2):
        pair = [start(str(run), workers=1 + run % 2, steps=6) for run in (first, first + 1)]
        try:
            assert [run.wait(timeout=60) for run in pair] == [0, 0]
        finally:
            for run in pair:
                run.kill()


class Stubborn(torch.utils.data.Dataset):
    """Samples whose workers never answer after the first ones."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        if index > 1:
            time.sleep(1000)
        return index


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_stuck_workers_are_killed(error, monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    before = children_of(os.getpid())
    loader = torch.utils.data.DataLoader(Stubborn(), num_workers=2, batch_size=1)

    def fail():
        with iterate(loader) as batches:
            next(batches)
            assert len(children_of(os.getpid())) == len(before) + 2
            raise error

    with pytest.raises(error):
        fail()
    assert children_of(os.getpid()) == before


class Interrupted(torch.utils.data.Dataset):
    """Samples whose workers get Ctrl-C and SIGTERM before they answer."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        return index


def test_workers_go_on_when_signals_reach_them():
    with iterate(torch.utils.data.DataLoader(Interrupted(), num_workers=1)) as batches:
        assert [batch.item() for batch in batches] == [0, 1, 2]


def test_workers_end_when_the_run_is_killed(start):
    run = start("endless", workers=2, steps=0)
    end = time.monotonic() + 60
    while len(workers := children_of(run.pid)) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert len(workers) == 2
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
