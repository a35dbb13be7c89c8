"""Runs that were stopped, killed or damaged end to the bit as if nothing had happened."""

import io
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from small_runs import (
    SMALL,
    Scenes,
    assert_same_end,
    changed,
    finish,
    newest,
    same,
    small_model,
    start,
    train,
    trainer,
)

from ccnet.training.checkpoint import Checkpoints, load_checkpoint, save_checkpoint

BUSY = changed(steps=8, validate_every=1)
"""A run that writes all the time."""


def interrupt_at(count):
    def on_draw(drawn):
        if drawn == count:
            raise RuntimeError("the power failed")

    return on_draw


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that was never interrupted, and its scores."""
    run_dir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return run_dir, trainer(run_dir).run()


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of that folder, to be changed."""
    return shutil.copytree(finished[0], tmp_path / "run")


@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(finished, tmp_path, stop):
    """Stopped at a step right after a checkpoint, or at one further."""
    halting = Scenes(on_draw=interrupt_at(stop * SMALL.batch_size))
    with pytest.raises(RuntimeError, match="the power failed"):
        trainer(tmp_path / "run", train_set=halting).run()
    assert newest(tmp_path / "run")["step"] == 2
    # Another seed: what counts must come from the checkpoint.
    scores = trainer(tmp_path / "run", model=small_model(seed=99), resume=True).run()
    assert torch.equal(scores.confusion, finished[1].confusion)
    assert_same_end(tmp_path / "run", finished[0])


def test_momentum_scale_and_consistency_are_resumed_too(tmp_path):
    recipe = changed(optimizer="sgd", precision="float16", consistency_weight=0.5)
    trainer(tmp_path / "whole", recipe).run()
    halting = Scenes(on_draw=interrupt_at(3 * SMALL.batch_size))
    with pytest.raises(RuntimeError, match="the power failed"):
        trainer(tmp_path / "run", recipe, train_set=halting).run()
    trainer(tmp_path / "run", recipe, model=small_model(seed=99), resume=True).run()
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_is_resumed_to_its_scores(finished, run_dir):
    scores = trainer(run_dir, model=small_model(seed=99), resume=True).run()
    assert torch.equal(scores.confusion, finished[1].confusion)
    assert_same_end(run_dir, finished[0])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.5}, "learning_rate 0.0015, not 0.5"),
        ({"steps": 6, "seed": 9}, "seed 0, not 9; steps 4, not 6"),
        ({"scale_high": 3.0}, "scale_high 2.0, not 3.0"),
    ],
)
def test_another_recipe_is_refused_and_its_fields_named(finished, changes, named):
    before = contents(finished[0])
    with pytest.raises(ValueError, match=f"has {named}$"):
        trainer(finished[0], changed(**changes), resume=True)
    assert contents(finished[0]) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_model_is_refused_and_its_arguments_named(finished):
    with pytest.raises(ValueError, match=r"has recurrence 2, not 1$"):
        trainer(finished[0], model=small_model(recurrence=1), resume=True)


def test_a_folder_with_a_run_is_not_overwritten(finished):
    before = contents(finished[0])
    with pytest.raises(FileExistsError, match=r"already holds a run: resume it \(--resume auto\)"):
        trainer(finished[0])
    assert contents(finished[0]) == before


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


DAMAGES = {
    "emptied": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"no checkpoint"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-700]),
    "begun": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "flipped": lambda path: flip(path, path.stat().st_size // 2),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(finished, run_dir, caplog, damage):
    damage(run_dir / "checkpoints" / "step-00000004.pt")
    trainer(run_dir, model=small_model(seed=99), resume=True).run()
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "passing over a damaged checkpoint: " in warning.message
    assert "step-00000004.pt is not an intact checkpoint" in warning.message
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


def checkpoints_of(run_dir):
    return Checkpoints(run_dir / "checkpoints").paths()


def test_a_run_starts_afresh_where_all_checkpoints_are_damaged(finished, run_dir, caplog):
    # Of later steps than the new ones, which must survive beside them.
    for path, step in ((path, int(path.stem[5:])) for path in checkpoints_of(run_dir)):
        path.write_bytes(path.read_bytes()[:-1])
        path.rename(path.with_name(f"step-{step + 4:08}.pt"))
    halting = Scenes(on_draw=interrupt_at(3 * SMALL.batch_size))
    with pytest.raises(RuntimeError, match="the power failed"):
        trainer(run_dir, train_set=halting, resume=True).run()
    assert [record.levelname for record in caplog.records].count("WARNING") == 2
    assert newest(run_dir)["step"] == 2
    trainer(run_dir, model=small_model(seed=99), resume=True).run()
    assert_same_end(run_dir, finished[0])


def test_what_killed_writes_left_behind_is_removed(finished, run_dir):
    (run_dir / "checkpoints" / ".step-00000006-a1b2c3d4.pt").write_bytes(b"half")
    (run_dir / ".best-a1b2c3d4.safetensors").write_bytes(b"half")
    (run_dir / ".log-a_b2c3d4.jsonl").write_bytes(b"half")
    (run_dir / ".gitignore").write_bytes(b"*")
    trainer(run_dir, resume=True).run()
    (run_dir / ".gitignore").unlink()  # is not of the run's making
    assert_same_end(run_dir, finished[0])


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


def test_no_code_in_a_checkpoint_is_run(tmp_path):
    path = tmp_path / "checkpoints" / "step-00000001.pt"
    path.parent.mkdir()
    torch.save({"model": {}, "step": Code(tmp_path / "executed")}, path)
    with pytest.raises(ValueError, match=r"step-00000001\.pt is not an intact checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False)  # a loader that is not careful does run it
    assert (tmp_path / "executed").is_dir()


@pytest.mark.parametrize("state", [{"weights": 1}, [1, 2], {"model": {}}])
def test_other_files_are_no_checkpoints(tmp_path, state):
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is not a checkpoint of a training run"):
        load_checkpoint(tmp_path / "other.pt")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.pt"):
        load_checkpoint(tmp_path / "none.pt")


def test_the_newest_checkpoints_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new", keep=3)
    for step in (5, 50, 7, 8, 9, 10, 11, 11):
        checkpoints.save({"step": step, "model": {}, "recipe": {}, "config": {}})
    assert [path.name for path in checkpoints.paths()] == [
        f"step-{step:08}.pt" for step in (9, 10, 11)
    ]
    assert load_checkpoint(checkpoints.newest())["step"] == 11


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a busy run in a process of its own, and the seconds it took."""
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    for folder in (run_dir.with_name("warming up"), run_dir):
        began = time.monotonic()
        assert finish(start(train, folder, BUSY)) == [0]
    return run_dir, time.monotonic() - began


def killed_while_writing(run_dir, moment):
    """A busy run that kills itself at some moment of a checkpoint's writing."""
    calls = []

    def nth(function, *arguments):
        calls.append(function)
        if len(calls) == 7:
            function(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

    save, replace = torch.save, Path.replace

    def write_half(state, file):
        buffer = io.BytesIO()
        save(state, buffer)
        file.write(buffer.getvalue()[: buffer.tell() // 2])
        file.flush()

    def save_or_die(state, file):
        nth(write_half, state, file)
        save(state, file)

    def replace_or_die(path, target):
        if target.suffix == ".pt":
            nth(lambda: None)
        return replace(path, target)

    def on_start(_):
        if moment == "half written":
            torch.save = save_or_die
        else:
            Path.replace = replace_or_die

    train(run_dir, BUSY, on_start)


@pytest.mark.parametrize("moment", ["half written", "not renamed"])
def test_killed_while_a_checkpoint_is_written(undisturbed, tmp_path, moment):
    run_dir = tmp_path / "run"
    assert finish(start(killed_while_writing, run_dir, moment)) == [-signal.SIGKILL]
    assert [path.name[:6] for path in (run_dir / "checkpoints").glob(".*")] == [".step-"]
    assert finish(start(train, run_dir, BUSY, None)) == [0]
    assert_same_end(run_dir, undisturbed[0])


def kill_at_random(folder, undisturbed, kills):
    """Kills busy runs until there were so many kills; each that ends must end as usual."""
    reference, duration = undisturbed
    generator, killed = random.Random(), 0
    while killed < kills:
        run_dir = folder / str(killed)
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


def test_killed_at_random_moments(undisturbed, tmp_path):
    kill_at_random(tmp_path, undisturbed, 2)


@pytest.mark.slow
def test_killed_at_many_random_moments(undisturbed, tmp_path):
    kill_at_random(tmp_path, undisturbed, 20)


def terminated(run_dir, moment):
    """A busy run that gets SIGTERM in its third step or its third validation."""
    calls = []

    def ask(*_):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_start(running):
        if moment == "step":
            running.objective.loss.register_forward_pre_hook(ask)
        else:
            running.val_set.on_draw = lambda drawn: ask() if drawn % 2 else None

    train(run_dir, BUSY, on_start)


@pytest.mark.parametrize("moment", ["step", "validation"])
def test_sigterm_saves_and_ends_the_run(undisturbed, tmp_path, moment):
    run_dir = tmp_path / "run"
    assert finish(start(terminated, run_dir, moment)) == [0]
    assert newest(run_dir)["step"] == 3
    assert len(newest(run_dir)["history"]) == 2
    assert finish(start(train, run_dir, BUSY)) == [0]
    assert_same_end(run_dir, undisturbed[0])


def grouped(run_dir):
    """A run with a worker in a process group of its own; both get SIGTERM in the first step."""
    os.setpgrp()
    multiprocessing.set_start_method("fork", force=True)
    calls = []

    def ask(*_):
        calls.append(1)
        if len(calls) == 1:
            # Workers take it otherwise from their parent than from a scheduler.
            subprocess.run(["kill", "-TERM", "0"], check=False)
            time.sleep(0.5)

    def on_start(running):
        running.objective.loss.register_forward_pre_hook(ask)

    train(run_dir, BUSY, on_start, workers=1)


def test_sigterm_to_workers_as_well(undisturbed, tmp_path):
    run_dir = tmp_path / "run"
    assert finish(start(grouped, run_dir)) == [0]
    assert newest(run_dir)["step"] == 1
    assert finish(start(train, run_dir, BUSY)) == [0]
    assert_same_end(run_dir, undisturbed[0])


def short_of_room(run_dir):
    """A busy run that may write no large file from its third step on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    calls = []

    def fill(*_):
        calls.append(1)
        if len(calls) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    def on_start(running):
        running.objective.loss.register_forward_pre_hook(fill)

    message = r"step-00000003\.pt could not be written: \[Errno 27\] File too large\. What was"
    with pytest.raises(OSError, match=message):
        train(run_dir, BUSY, on_start)


def test_a_full_disk_is_named_and_the_last_checkpoint_kept(undisturbed, tmp_path):
    run_dir = tmp_path / "run"
    assert finish(start(short_of_room, run_dir)) == [0]
    names = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert names == {"step-00000001.pt", "step-00000002.pt"}
    assert finish(start(train, run_dir, BUSY)) == [0]
    assert_same_end(run_dir, undisturbed[0])


def test_a_checkpoint_in_a_place_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/step\.pt could not be written: .* intact"):
        save_checkpoint(tmp_path / "file" / "step.pt", {})
