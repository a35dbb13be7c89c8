"""Runs of `ccnet predict` that are ended: what is computed is there, the next run does the rest."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="signals of POSIX"),
]

COUNT = 60
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture
def run(repository, draw, weights_file, tmp_path):
    """Starts a run on many pictures, in this process's folder."""
    for seed in range(COUNT):
        draw(tmp_path / "in" / f"{seed}.png", seed, (60, 80))

    def start(*launcher):
        command = [sys.executable, *launcher, "-m", "ccnet", "predict", "in", "--output", "out"]
        command += ["--weights", weights_file, "--device", "cpu"]
        environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True
        )

    return start


def results(folder):
    """How many pictures have a label map, and both files, and a line."""
    names = {path.name.partition(".")[0] for path in folder.glob("*.labels.png")}
    whole = [name for name in names if (folder / f"{name}.overlay.png").exists()]
    texts = [path.read_text() for path in folder.glob("*.jsonl")]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return len(names), len(whole), len(lines)


def do_the_rest(run, folder):
    again = run()
    again.communicate(timeout=120)
    assert again.returncode == 0
    assert results(folder) == (COUNT, COUNT, COUNT)
    assert [path.name for path in folder.glob("*.jsonl")] == ["results.jsonl"]


def wait_for_some(process, folder):
    end = time.monotonic() + 120
    while len(list(folder.glob("*.labels.png"))) < 5:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "terminated\n")],
)
def test_a_signal_ends_a_run_with_one_line(run, tmp_path, number, status, said):
    process = run()
    wait_for_some(process, tmp_path / "out")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (status, said)
    labels, whole, lines = results(tmp_path / "out")
    assert labels == whole == lines < COUNT
    do_the_rest(run, tmp_path / "out")


@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["one", "torchrun"])
def test_the_share_of_a_killed_process_is_done_by_the_next_run(run, tmp_path, launcher):
    process = run(*launcher)
    wait_for_some(process, tmp_path / "out")
    victim = process.pid
    if launcher:
        found = subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(victim)], text=True)
        victim = int(found.split()[-2])  # ps itself is the last one
    os.kill(victim, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert results(tmp_path / "out")[0] < COUNT
    do_the_rest(run, tmp_path / "out")
