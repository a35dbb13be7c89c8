"""Runs that were stopped, killed or damaged end equally to the bit as if nothing had happened."""

import json
import random
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from small_runs import (
    Scenes,
    assert_same_end,
    changed,
    checkpoint_steps,
    interrupt,
    newest,
    small_model,
    trainer,
)

from ccnet import locks, precision
from ccnet.training import checkpoint, engine
from ccnet.training.checkpoint import Checkpoints, load_checkpoint, save_checkpoint


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


@pytest.mark.parametrize("fast", ["bfloat16", "float32"])
def test_a_resumed_run_keeps_its_precision(tmp_path, monkeypatch, caplog, fast):
    """Wherever it is resumed; the precision is found out where the run starts."""
    caplog.set_level("INFO", "ccnet")

    def on_machine(factors):
        monkeypatch.setattr(precision, "slowdown", lambda name, *_, **__: factors.get(name, 1.0))

    on_machine({"float32": 1.0, "bfloat16": 0.5 if fast == "bfloat16" else 9.0})
    automatic = changed(precision="auto")
    expected = trainer(tmp_path / "whole", changed(precision=fast)).run()
    interrupt(tmp_path / "run", automatic, steps=3)
    assert f"precision: {fast} (" in caplog.text
    caplog.clear()
    on_machine({"float32": 1.0, "bfloat16": 9.0 if fast == "bfloat16" else 0.5})
    resumed = trainer(tmp_path / "run", automatic, model=small_model(seed=99), resume=True)
    assert torch.equal(resumed.run().confusion, expected.confusion)
    assert_same_end(tmp_path / "run", tmp_path / "whole")
    assert f"precision: {fast} (with which the run was started)" in caplog.text
    slow = "training will be slow: bfloat16 takes 9.0 times as long as float32 on this cpu device"
    assert (slow in caplog.text) == (fast == "bfloat16")
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["precision"] == fast
    with pytest.raises(ValueError, match=f"has precision '{fast}', not 'float16'"):
        trainer(tmp_path / "run", changed(precision="float16"), resume=True)


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
        ({"learning_rate": 0.5}, {}, "has learning_rate 0.0015, not 0.5: "),
        ({"steps": 6, "seed": 9}, {}, "has seed 0, not 9; steps 4, not 6: "),
        ({"scale_high": 3.0}, {}, "has scale_high 2.0, not 3.0: "),
        ({}, {"recurrence": 1}, "has recurrence 2, not 1: "),
        (None, {}, r"already holds a run: resume it \(--resume auto\)"),
    ],
)
def test_other_recipes_or_models_and_overwriting_are_refused(finished, recipe, config, message):
    before = contents(finished[0])
    resume = recipe is not None
    for _ in range(2):  # the first leaves no lock
        with pytest.raises(ValueError if resume else FileExistsError, match=message):
            trainer(
                finished[0], changed(**recipe or {}), model=small_model(**config), resume=resume
            )
    assert contents(finished[0]) == before


def test_folder_has_one_trainer(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    refusal = pytest.raises(BlockingIOError, match="is in use by another object of this program")
    first = trainer(tmp_path)
    with refusal:
        trainer(tmp_path, resume=True)

    def try_another(drawn):
        if drawn == 0:
            with refusal:
                trainer(tmp_path, resume=True)

    first.val_set.on_draw = try_another
    first.run()
    assert first.val_set.count == 4
    trainer(tmp_path, resume=True).run()


def test_trainer_leaves_a_lock_to_whom_it_belongs(run_dir):
    """In a program that trains twice under one lock."""
    with locks.FolderLock(run_dir) as lock:
        with pytest.raises(FileExistsError):
            trainer(run_dir, lock=lock)
        for _ in range(2):
            trainer(run_dir, resume=True, lock=lock).run()
            with pytest.raises(BlockingIOError):
                locks.FolderLock(run_dir).acquire()
    locks.FolderLock(run_dir).acquire()


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
    assert "step-00000004.pt is damaged, or no checkpoint" in warning.message
    assert_same_end(run_dir, finished[0])


def test_flipped_bit_is_found_wherever_it_is(finished, tmp_path):
    intact = finished[0] / "checkpoints" / "step-00000004.pt"
    generator = random.Random(0)
    for _ in range(100):
        path = Path(shutil.copy(intact, tmp_path / "damaged.pt"))
        flip(path, generator.randrange(intact.stat().st_size))
        with pytest.raises(ValueError, match=r"damaged\.pt is damaged"):
            load_checkpoint(path)


def test_temporary_files_of_a_killed_process_are_removed(finished, run_dir):
    (run_dir / "checkpoints" / ".ccnet-unfinished-a1b2c3d4.pt").write_bytes(b"half")
    (run_dir / ".ccnet-unfinished-a_b2c3d4.jsonl").write_bytes(b"half")
    (run_dir / ".ccnet-lock").write_bytes(b"of a process that is gone")
    trainer(run_dir, resume=True).run()
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
