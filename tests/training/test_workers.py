"""Data-loading workers end with the run: in success, failure and when the process is killed."""

import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from ccnet.training.checkpoint import saving
from ccnet.training.data import iterate, training_loader

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

# What PyTorch raises at the end of a worker comes at any moment: in a callback, it is a warning.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


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


@pytest.mark.parametrize("runs", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_runs_end_by_themselves(start, runs):
    for number in range(runs):
        run = start(str(number), workers=2 - number % 2, steps=6)
        try:
            assert run.wait(timeout=200) == 0
        finally:
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
    """Samples whose workers get Ctrl-C, SIGTERM and SIGHUP before they answer."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        return index


def test_workers_go_on_when_signals_reach_them():
    with iterate(torch.utils.data.DataLoader(Interrupted(), num_workers=1)) as batches:
        assert [batch.item() for batch in batches] == [0, 1, 2]


def test_workers_end_when_the_run_is_killed(start):
    run = start("endless", workers=2, steps=0)
    end = time.monotonic() + 200
    while len(workers := children_of(run.pid)) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert len(workers) == 2
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


class Failing(torch.utils.data.Dataset):
    """Samples of which the last one fails."""

    def __init__(self, fail):
        self.fail = fail

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 3:
            self.fail()
        return torch.zeros(1), torch.zeros(1)


def load(fail, workers):
    loader = training_loader(
        Failing(fail),
        lambda image, mask: (image, mask),
        **{"batch_size": 2, "first_step": 0, "last_step": 2, "seed": 0, "workers": workers},
    )
    with iterate(loader) as batches:
        return list(batches)


class OddError(ValueError):
    """One that is not the same after its way to another process."""

    def __init__(self, name, line):
        super().__init__(f"{name} is damaged in line {line}")


def fail_with(error):
    def fail():
        raise error

    return fail


ERRORS = [
    FileNotFoundError(2, "No such file or directory", "images/7.png"),
    OSError("images/7.png cannot be read: truncated"),
    ValueError("images/7.png is (64, 96), its labels (64, 95)\nbut not here"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_of_files_are_the_same_with_workers(error, workers):
    with pytest.raises(type(error)) as caught:
        load(fail_with(error), workers)
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    if workers:
        assert "Traceback" in str(caught.value.__cause__)
        assert "in __getitem__" in str(caught.value.__cause__)


@pytest.mark.parametrize("error", [OddError("7.png", 3), KeyError("7")], ids=type)
def test_other_errors_of_workers_keep_their_traceback(error):
    with pytest.raises((RuntimeError, type(error)), match=r"Caught .*Error in DataLoader worker"):
        load(fail_with(error), workers=1)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def told(reason=r"DataLoader worker \(pid[^\n]+|ConnectionResetError|EOFError"):
    return pytest.raises(
        ChildProcessError,
        match=r"^a data-loading worker ended before its time, perhaps for lack of memory "
        rf"\(({reason})\): give fewer --workers, and resume with --resume auto$",
    )


@pytest.mark.parametrize("end", [killed, lambda: os._exit(3)], ids=["killed", "exit"])
def test_worker_that_was_killed_is_told(end):
    before = children_of(os.getpid())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the signal may interrupt DataLoader
        for _ in range(3):  # the error depends on the moment
            with told():
                load(end, workers=1)
        gc.collect()
    assert children_of(os.getpid()) == before


def test_worker_that_is_killed_while_a_file_is_written_is_told(tmp_path):
    before = set(children_of(os.getpid()))
    loader = torch.utils.data.DataLoader(Stubborn(), num_workers=1)

    def write():
        with iterate(loader), saving(tmp_path):
            (worker,) = set(children_of(os.getpid())) - before
            os.kill(worker, signal.SIGKILL)
            time.sleep(5)

    with told(r"DataLoader worker \(pid \d+\) is killed by signal: Killed\."):
        write()


@pytest.mark.parametrize("error", [ConnectionResetError("104"), EOFError()], ids=type)
def test_worker_that_is_killed_while_it_sends_a_batch_is_told(monkeypatch, error):
    batches = torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    monkeypatch.setattr(batches, "_next_data", lambda _: fail_with(error)())
    with told(type(error).__name__):
        load(lambda: None, workers=1)


def test_errors_of_a_run_are_not_taken_for_those_of_workers():
    loader = torch.utils.data.DataLoader(Interrupted(), num_workers=1)
    with pytest.raises(RuntimeError, match=r"^out of memory$"), iterate(loader):
        raise RuntimeError("out of memory")
