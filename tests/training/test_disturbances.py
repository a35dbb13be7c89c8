"""Runs that are killed, stopped or out of disk space end as undisturbed ones."""

import io
import itertools
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from small_runs import (
    assert_same_end,
    changed,
    checkpoint_steps,
    finish,
    log_of,
    on_call,
    start,
    train,
)

BUSY = changed(steps=8, validate_every=1)
"""A run that writes all the time."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a busy run in a process of its own, and the seconds it took."""
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    for folder in (run_dir.with_name("warming up"), run_dir):
        began = time.monotonic()
        assert finish(start(train, folder, BUSY)) == [0]
    return run_dir, time.monotonic() - began


def send(number):
    os.kill(os.getpid(), number)


def kill_in_half_a_checkpoint(_):
    save, calls = torch.save, itertools.count(1)

    def save_or_die(state, file):
        if next(calls) < 3:
            save(state, file)
            return
        buffer = io.BytesIO()
        save(state, buffer)
        file.write(buffer.getvalue()[: buffer.tell() // 2])
        file.flush()
        send(signal.SIGKILL)

    torch.save = save_or_die


def kill_before_rename(end, _):
    replace, kill = Path.replace, on_call(3, partial(send, signal.SIGKILL))

    def replace_or_die(path, target):
        if target.name.endswith(end):
            kill()
        return replace(path, target)

    Path.replace = replace_or_die


def send_in_step(number, running):
    running.objective.loss.register_forward_pre_hook(on_call(3, partial(send, number)))


def send_in_validation(number, running):
    """At the last of its two images."""
    ask = on_call(3, partial(send, number))
    running.val_set.on_draw = lambda drawn: ask() if drawn % 2 else None


def send_to_workers_as_well(name, running):
    os.setpgrp()
    multiprocessing.set_start_method("fork", force=True)

    def ask():
        # Workers take it otherwise from their parent than from a scheduler.
        subprocess.run(["kill", f"-{name}", "0"], check=False)
        time.sleep(0.5)

    running.objective.loss.register_forward_pre_hook(on_call(3, ask))


def fill_the_disk(running):
    """No large file can be written from the third step on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fill = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (150_000, 150_000))
    running.objective.loss.register_forward_pre_hook(on_call(3, fill))
    run = running.run

    def run_out_of_room():
        message = r"step-00000003\.pt could not be written: \[Errno 27\] File too large\. Earlier"
        with pytest.raises(OSError, match=message):
            run()

    running.run = run_out_of_room


KILLED, ENDED = -signal.SIGKILL, 0
DISTURBANCES = {
    "killed in half a checkpoint": (kill_in_half_a_checkpoint, KILLED, [1, 2], ".pt"),
    "killed before a checkpoint is renamed": (
        *(partial(kill_before_rename, ".pt"), KILLED, [1, 2], ".pt"),
    ),
    "killed in a validation": (partial(send_in_validation, signal.SIGKILL), KILLED, [2, 3], None),
    "killed after a validation": (
        *(partial(kill_before_rename, "log.jsonl"), KILLED, [2, 3], ".jsonl"),
    ),
    "SIGTERM in a step": (partial(send_in_step, signal.SIGTERM), ENDED, [2, 3], None),
    "SIGHUP in a step": (partial(send_in_step, signal.SIGHUP), ENDED, [2, 3], None),
    "SIGTERM in a validation": (partial(send_in_validation, signal.SIGTERM), ENDED, [2, 3], None),
    "SIGTERM to workers as well": (
        *(partial(send_to_workers_as_well, "TERM"), ENDED, [2, 3], None),
    ),
    "Ctrl-C in a step": (partial(send_in_step, signal.SIGINT), ENDED, [2, 3], None),
    "Ctrl-C in a validation": (partial(send_in_validation, signal.SIGINT), ENDED, [2, 3], None),
    "Ctrl-C to workers as well": (partial(send_to_workers_as_well, "INT"), ENDED, [2, 3], None),
    "full disk": (fill_the_disk, ENDED, [1, 2], None),
}
"""What happens in the third step or its validation; the exit code, the checkpoints and the suffix
of the temporary file that are left."""


@pytest.mark.parametrize(
    ("disturb", "exit_code", "steps", "left"), DISTURBANCES.values(), ids=DISTURBANCES
)
def test_disturbed_run_resumes_to_the_same_end(
    undisturbed, tmp_path, disturb, exit_code, steps, left
):
    run_dir = tmp_path / "run"
    workers = int(getattr(disturb, "func", None) is send_to_workers_as_well)
    assert finish(start(partial(train, workers=workers), run_dir, BUSY, disturb)) == [exit_code]
    assert checkpoint_steps(run_dir) == steps
    assert [record["step"] for record in log_of(run_dir)] == [1, 2]
    temporary = [path.suffix for path in run_dir.rglob(".ccnet-unfinished-*")]
    assert temporary == ([left] if left else [])
    assert finish(start(train, run_dir, BUSY)) == [0]
    assert_same_end(run_dir, undisturbed[0])


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_run_killed_at_random_moments_ends_as_usual(undisturbed, tmp_path, kills):
    reference, duration = undisturbed
    generator, killed = random.Random(), 0
    while killed < kills:
        run_dir = tmp_path / str(killed)
        while True:
            (process,) = start(train, run_dir, BUSY)
            process.join(generator.uniform(0, duration))
            if process.is_alive() and killed < kills:
                killed += 1
                process.kill()
            if finish([process]) == [0]:
                break
            assert process.exitcode == -signal.SIGKILL
        assert_same_end(run_dir, reference)
