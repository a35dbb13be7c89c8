"""Runs that were stopped, killed or damaged end equally to the bit as if nothing had happened."""

import io
import itertools
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from small_runs import (
    Scenes,
    assert_same_end,
    changed,
    checkpoint_steps,
    finish,
    interrupt,
    log_of,
    newest,
    on_call,
    same,
    small_model,
    start,
    train,
    trainer,
)

from ccnet.training import checkpoint, engine
from ccnet.training.checkpoint import Checkpoints, load_checkpoint, save_checkpoint


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of the folder of a finished run, to be changed."""
    return shutil.copytree(finished[0], tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, 2),
        ({}, 3),
        ({"optimizer": "sgd", "precision": "float16", "consistency_weight": 0.5}, 3),
    ],
    ids=["after a checkpoint", "a step later", "momentum, loss scale, consistency"],
)
def test_interrupted_run_ends_as_if_it_had_not_been(tmp_path, fields, steps):
    recipe = changed(**fields)
    expected = trainer(tmp_path / "whole", recipe).run()
    interrupt(tmp_path / "run", recipe, steps=steps)
    assert newest(tmp_path / "run")["step"] == 2
    # Another seed: what counts must come from the checkpoint.
    scores = trainer(tmp_path / "run", recipe, model=small_model(seed=99), resume=True).run()
    assert torch.equal(scores.confusion, expected.confusion)
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_each_validation_has_one_checkpoint_and_a_resume_reads_one(tmp_path, monkeypatch):
    calls = []

    def count(function, path, *state):
        calls.append((function.__name__, path.name))
        return function(path, *state)

    for function in (save_checkpoint, load_checkpoint):
        for module in (checkpoint, engine):
            monkeypatch.setattr(module, function.__name__, partial(count, function), raising=False)
    interrupt(tmp_path, steps=3)
    assert calls == [("save_checkpoint", "step-00000002.pt")]
    trainer(tmp_path, resume=True).run()
    assert calls[1:] == [
        ("load_checkpoint", "step-00000002.pt"),
        ("save_checkpoint", "step-00000004.pt"),
    ]


def cut_last_line(log):
    log.write_text(log.read_text()[:-10])


def lose_last_line(log):
    log.write_text(log.read_text().splitlines(keepends=True)[0])


@pytest.mark.parametrize(
    ("step", "damage", "validations"),
    [
        pytest.param(4, None, 0, id="intact"),
        pytest.param(4, cut_last_line, 1, id="last line cut"),
        pytest.param(4, lose_last_line, 1, id="last line lost"),
        pytest.param(2, None, 1, id="later than the checkpoint"),
        pytest.param(2, cut_last_line, 1, id="later than the checkpoint, last line cut"),
        pytest.param(2, Path.unlink, 2, id="lost"),
        pytest.param(2, lambda log: log.write_text("{"), 2, id="damaged"),
    ],
)
def test_validations_missing_in_the_log_are_repeated(finished, run_dir, step, damage, validations):
    """Only those: a finished run is not evaluated again."""
    if step == 2:
        (run_dir / "checkpoints" / "step-00000004.pt").unlink()
    if damage:
        damage(run_dir / "log.jsonl")
    val_set = Scenes(2, seed=4)
    resumed = trainer(run_dir, model=small_model(seed=99), val_set=val_set, resume=True)
    assert torch.equal(resumed.run().confusion, finished[1].confusion)
    assert val_set.count == len(val_set) * validations
    assert_same_end(run_dir, finished[0])


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("recipe", "config", "message"),
    [
        ({"learning_rate": 0.5}, {}, "has learning_rate 0.0015, not 0.5$"),
        ({"steps": 6, "seed": 9}, {}, "has seed 0, not 9; steps 4, not 6$"),
        ({"scale_high": 3.0}, {}, "has scale_high 2.0, not 3.0$"),
        ({}, {"recurrence": 1}, "has recurrence 2, not 1$"),
        (None, {}, r"already holds a run: resume it \(--resume auto\)"),
    ],
)
def test_other_recipes_or_models_and_overwriting_are_refused(finished, recipe, config, message):
    before = contents(finished[0])
    resume = recipe is not None
    with pytest.raises(ValueError if resume else FileExistsError, match=message):
        trainer(finished[0], changed(**recipe or {}), model=small_model(**config), resume=resume)
    assert contents(finished[0]) == before


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


DAMAGES = {
    "text": lambda path: path.write_bytes(b"no checkpoint"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-700]),
    "flipped": lambda path: flip(path, path.stat().st_size // 2),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint_is_skipped(finished, run_dir, caplog, damage):
    damage(run_dir / "checkpoints" / "step-00000004.pt")
    trainer(run_dir, model=small_model(seed=99), resume=True).run()
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "skipping a damaged checkpoint: " in warning.message
    assert "step-00000004.pt is damaged, or holds more than" in warning.message
    assert_same_end(run_dir, finished[0])


def test_damage_is_either_found_or_harmless(finished, tmp_path):
    intact = finished[0] / "checkpoints" / "step-00000004.pt"
    size, found = intact.stat().st_size, 0
    expected = load_checkpoint(intact)
    generator = random.Random(0)
    for _ in range(100):
        path = Path(shutil.copy(intact, tmp_path / "damaged.pt"))
        flip(path, generator.randrange(size))
        try:
            assert same(load_checkpoint(path), expected)
        except ValueError:
            found += 1
    assert found > 50


def test_run_starts_afresh_where_all_checkpoints_are_damaged(finished, run_dir, caplog):
    # Of later steps than the new ones, which must survive beside them.
    for path in Checkpoints(run_dir / "checkpoints").paths():
        path.write_bytes(path.read_bytes()[:-1])
        path.rename(path.with_name(f"step-{int(path.stem[5:]) + 4:08}.pt"))
    interrupt(run_dir, steps=3)
    assert [record.levelname for record in caplog.records].count("WARNING") == 2
    assert newest(run_dir)["step"] == 2
    trainer(run_dir, model=small_model(seed=99), resume=True).run()
    assert_same_end(run_dir, finished[0])


def test_temporary_files_of_a_killed_process_are_removed(finished, run_dir):
    (run_dir / "checkpoints" / ".step-00000006-a1b2c3d4.pt").write_bytes(b"half")
    (run_dir / ".best-a1b2c3d4.safetensors").write_bytes(b"half")
    (run_dir / ".log-a_b2c3d4.jsonl").write_bytes(b"half")
    (run_dir / ".gitignore").write_bytes(b"*")
    trainer(run_dir, resume=True).run()
    (run_dir / ".gitignore").unlink()  # not written by the run
    assert_same_end(run_dir, finished[0])


@pytest.mark.parametrize("state", [{"weights": 1}, {"model": {}}])
def test_other_files_are_not_checkpoints(tmp_path, state):
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is not a checkpoint of a training run"):
        load_checkpoint(tmp_path / "other.pt")


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.pt"):
        load_checkpoint(tmp_path / "none.pt")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/step\.pt could not be written: .* intact"):
        save_checkpoint(tmp_path / "file" / "step.pt", {})


def test_newest_checkpoints_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    for step in (5, 50, 7, 8, 9, 10, 11, 11):
        checkpoints.save({"step": step, "model": {}, "recipe": {}, "config": {}})
    assert checkpoint_steps(tmp_path) == [9, 10, 11]
    path, state = checkpoints.newest()
    assert (path.name, state["step"]) == ("step-00000011.pt", 11)


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


def kill_before_rename(suffix, _):
    replace, kill = Path.replace, on_call(3, partial(send, signal.SIGKILL))

    def replace_or_die(path, target):
        if target.suffix == suffix:
            kill()
        return replace(path, target)

    Path.replace = replace_or_die


def send_in_step(number, running):
    running.objective.loss.register_forward_pre_hook(on_call(3, partial(send, number)))


def send_in_validation(number, running):
    """At the last of its two images."""
    ask = on_call(3, partial(send, number))
    running.val_set.on_draw = lambda drawn: ask() if drawn % 2 else None


def send_to_workers_as_well(running):
    os.setpgrp()
    multiprocessing.set_start_method("fork", force=True)

    def ask():
        # Workers take it otherwise from their parent than from a scheduler.
        subprocess.run(["kill", "-TERM", "0"], check=False)
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
    "killed in half a checkpoint": (kill_in_half_a_checkpoint, KILLED, [1, 2], ".step-"),
    "killed before a checkpoint is renamed": (
        *(partial(kill_before_rename, ".pt"), KILLED, [1, 2], ".step-"),
    ),
    "killed in a validation": (partial(send_in_validation, signal.SIGKILL), KILLED, [2, 3], None),
    "killed after a validation": (
        *(partial(kill_before_rename, ".jsonl"), KILLED, [2, 3], ".log-"),
    ),
    "SIGTERM in a step": (partial(send_in_step, signal.SIGTERM), ENDED, [2, 3], None),
    "SIGTERM in a validation": (partial(send_in_validation, signal.SIGTERM), ENDED, [2, 3], None),
    "SIGTERM to workers as well": (send_to_workers_as_well, ENDED, [2, 3], None),
    "full disk": (fill_the_disk, ENDED, [1, 2], None),
}
"""What happens in the third step or its validation; the exit code, the checkpoints and the
beginning of the temporary file that are left."""


@pytest.mark.parametrize(
    ("disturb", "exit_code", "steps", "left"), DISTURBANCES.values(), ids=DISTURBANCES
)
def test_disturbed_run_resumes_to_the_same_end(
    undisturbed, tmp_path, disturb, exit_code, steps, left
):
    run_dir = tmp_path / "run"
    workers = int(disturb is send_to_workers_as_well)
    assert finish(start(partial(train, workers=workers), run_dir, BUSY, disturb)) == [exit_code]
    assert checkpoint_steps(run_dir) == steps
    assert [record["step"] for record in log_of(run_dir)] == [1, 2]
    temporary = [path.name for path in run_dir.rglob(".*")]
    assert len(temporary) == (left is not None)
    assert all(name.startswith(left) for name in temporary)
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
