"""What lies in the folder of a run without an intact checkpoint is not replaced."""

import re
import shutil

import pytest
from small_runs import Scenes, assert_same_end, fail, small_model, trainer

from ccnet.training.checkpoint import Checkpoints
from ccnet.training.run_folder import state_to_resume


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def lose_checkpoints(run_dir):
    shutil.rmtree(run_dir / "checkpoints")


def damage_checkpoints(run_dir):
    for path in Checkpoints(run_dir / "checkpoints").paths():
        path.write_bytes(path.read_bytes()[:-1])


def damage_checkpoints_alone(run_dir):
    damage_checkpoints(run_dir)
    for path in run_dir.iterdir():
        if path.is_file():
            path.unlink()


def keep_best(run_dir):
    lose_checkpoints(run_dir)
    for path in run_dir.iterdir():
        if path.is_file() and path.name != "best.safetensors":
            path.unlink()


LOST = {
    lose_checkpoints: "best.safetensors, log.jsonl, results.json",
    keep_best: "best.safetensors",
    damage_checkpoints: "best.safetensors, log.jsonl, results.json, "
    "checkpoints/step-00000002.pt, checkpoints/step-00000004.pt",
    damage_checkpoints_alone: "checkpoints/step-00000002.pt, checkpoints/step-00000004.pt",
}


@pytest.mark.parametrize(("lose", "names"), LOST.items(), ids=lambda value: str(value)[:20])
def test_results_are_not_replaced_where_no_checkpoint_is_intact(finished, tmp_path, lose, names):
    run_dir = shutil.copytree(finished[0], tmp_path / "run")
    lose(run_dir)
    before = contents(run_dir)
    with pytest.raises(FileExistsError) as refusal:
        trainer(run_dir, resume=True)
    assert str(refusal.value) == (
        f"{run_dir} holds results of a run but no intact checkpoint: choose another folder or "
        f"move them away ({names})"
    )
    damaged = "step" in names
    message = "already holds a run" if damaged else "holds results of a run but no intact"
    with pytest.raises(FileExistsError, match=message):
        trainer(run_dir)
    assert contents(run_dir) == before


OTHERS = {
    "data.jsonl": ["", "[]", '{"text": "mine"}', '{"set": "test"}', "[" * 5000],
    "recipe.json": ["", '{"flour": 500}', "null", "\0"],
    "config.json": ["", '{"hidden_size": 768}', '{"backbone": "resnet18"}'],
    "environment.json": ["{}", '{"torch": "2.6"}'],
    "train.log": ["", "epoch 1", "2026-01-01 10:00:00,000 INFO mine"],
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("resume", [False, True])
def test_files_of_others_are_not_replaced(tmp_path, name, resume):
    for content in OTHERS[name]:
        (tmp_path / name).write_text(content)
        with pytest.raises(FileExistsError) as refusal:
            state_to_resume(tmp_path, resume)
        assert str(refusal.value) == (
            f"{tmp_path} holds a file {name} that no run has left there, and that this one would "
            "replace: choose another folder or move it away"
        )
        assert contents(tmp_path) == {tmp_path / name: content.encode()}


def begin(run_dir):
    """Starts a run that fails before its first checkpoint."""
    with pytest.raises(RuntimeError, match="the power failed"):
        trainer(run_dir, train_set=Scenes(on_draw=lambda _: fail())).run()


def test_run_begins_again_that_ended_before_its_first_checkpoint(finished, tmp_path):
    """Wherever it ended; what others have put in the place of its files stays."""
    names = ["environment.json", "config.json", "recipe.json", "train.log", "data.jsonl"]
    run_dir = tmp_path / "run"
    begin(run_dir)
    assert {path.name for path in run_dir.iterdir()} == {*names, "tensorboard"}
    for name in names:
        for resume in (False, True):
            assert state_to_resume(run_dir, resume) is None
        ours = (run_dir / name).read_bytes()
        (run_dir / name).write_text(OTHERS[name][1])
        with pytest.raises(FileExistsError, match=f"holds a file {re.escape(name)} that no"):
            state_to_resume(run_dir, resume=True)
        (run_dir / name).unlink()
        (run_dir / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(FileExistsError, match=f"holds a file {re.escape(name)} that no"):
            state_to_resume(run_dir, resume=True)
        (run_dir / name).unlink()
        (tmp_path / name).write_bytes(ours)
    for name in names:
        shutil.move(tmp_path / name, run_dir / name)
    begin(run_dir)
    trainer(run_dir, model=small_model()).run()
    assert_same_end(run_dir, finished[0])


def test_pretraining_leaves_alone_what_it_does_not_write(tmp_path):
    (tmp_path / "recipe.json").write_text("mine")
    assert state_to_resume(tmp_path, resume=True, beginning=("data.jsonl",)) is None
    (tmp_path / "data.jsonl").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds a file data\.jsonl that no run"):
        state_to_resume(tmp_path, resume=True, beginning=("data.jsonl",))
