"""Trackers: what they are told, by name and in code, and what is said where one is missing."""

import json
import re
import sys
import types

import numpy as np
import pytest
from small_runs import FILES, assert_same_end, changed, interrupt, log_of, small_model, trainer

from ccnet.classes import CAMVID
from ccnet.training.trackers import Tracker, chosen_tracker


class Memory(Tracker):
    """Keeps what it is told."""

    def __init__(self):
        self.values, self.pictures, self.ended = [], [], 0

    def scalars(self, step, values):
        self.values += [(step, name, value) for name, value in values.items()]

    def picture(self, step, name, pixels):
        self.pictures.append((step, name, pixels.shape, pixels.dtype))

    def close(self):
        self.ended += 1


def assert_complete(values, pictures, run_dir):
    """Checks that these are the curves and pictures of a small run."""
    losses = [(step, value) for step, name, value in values if name == "train/loss"]
    assert [step for step, _ in losses] == [1, 2, 3, 4]
    assert losses[1][1] == log_of(run_dir)[0]["loss"]
    for name, key in (("val/mIoU", "mIoU"), ("val/pixel_accuracy", "pixel accuracy")):
        found = [(step, value) for step, one, value in values if one == name]
        assert found == [(record["step"], record[key]) for record in log_of(run_dir)]
    assert {f"val_IoU/{name}" for name in CAMVID.categories} <= {name for _, name, _ in values}
    assert pictures == [
        (step, name, (64, 96, 3), np.uint8) for step in (2, 4) for name in ("val/0", "val/1")
    ]


def test_tracker_in_code_is_told_all(tmp_path):
    tracker = Memory()
    trainer(tmp_path, tracker=tracker).run()
    assert_complete(tracker.values, tracker.pictures, tmp_path)
    assert tracker.ended == 1
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"tensorboard"}


def test_tracker_is_closed_after_an_error(tmp_path):
    tracker = Memory()
    with pytest.raises(FloatingPointError):
        trainer(tmp_path, changed(learning_rate=1e30), tracker=tracker).run()
    assert tracker.ended == 1


def test_run_without_tracker_is_the_same(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    trainer(tmp_path, tracker="none").run()
    (tmp_path / "tensorboard").mkdir()
    assert_same_end(tmp_path, finished[0])


def test_without_tensorboard_the_default_is_none(monkeypatch, caplog):
    caplog.set_level("INFO", "ccnet")
    assert chosen_tracker(None) == "tensorboard"
    assert not caplog.records
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert chosen_tracker(None) == "none"
    assert caplog.messages == [
        "no curves are kept: tensorboard is not installed; log.jsonl has validations"
    ]


class Broken(Tracker):
    """Fails at what it is told, and at the end."""

    def __init__(self, method, error):
        self.error = error
        setattr(self, method, self.fail)
        self.close = self.fail

    def fail(self, *_):
        raise self.error


@pytest.mark.parametrize("method", ["scalars", "picture", "flush"])
@pytest.mark.parametrize("error", [RuntimeError("network\ngone."), OSError(5, "network gone")])
def test_tracker_that_fails_is_named(tmp_path, caplog, method, error):
    kind = type(error).__name__
    said = rf"the tracker Broken failed: {kind}: .*network gone"
    with pytest.raises(OSError, match=rf"^{said}\. Checkpoints are .*--tracker none") as refusal:
        trainer(tmp_path, tracker=Broken(method, error)).run()
    assert "\n" not in str(refusal.value)
    assert re.fullmatch(said, caplog.messages[-1])
    trainer(tmp_path, tracker="none", resume=True).run()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorboard", r'pip install "ccnet-pytorch\[train\]".*; or train without it: --tracker'),
        ("wandb", r'^wandb must be installed .* pip install "ccnet-pytorch\[wandb\]"'),
        ("mlflow", "there is no tracker 'mlflow': choose among tensorboard, wandb, none$"),
    ],
)
def test_missing_packages_and_unknown_trackers_are_named(tmp_path, monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=message):
        chosen_tracker(name)
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path / "run", tracker=name)
    assert not (tmp_path / "run").exists()


class WandB(types.ModuleType):
    """Stands for wandb: keeps what it is told."""

    def __init__(self, error=None):
        super().__init__("wandb")
        self.__spec__ = types.SimpleNamespace()
        self.error, self.runs, self.values, self.pictures, self.ended = error, [], [], [], 0
        self.Settings = self.Image = lambda *given, **named: given[0] if given else named

    def init(self, **options):
        if self.error:
            raise self.error
        self.runs.append(options)
        return self

    def log(self, values, step):
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                self.pictures.append((step, name, value.shape, value.dtype))
            else:
                self.values.append((step, name, value))

    def finish(self):
        self.ended += 1


def test_wandb_is_told_all_in_one_run_though_it_is_resumed(tmp_path, monkeypatch):
    wandb = WandB()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr("small_runs.trainer", with_wandb)
    interrupt(tmp_path, steps=2)
    assert wandb.ended == 1
    with_wandb(tmp_path, model=small_model(seed=99), resume=True).run()
    assert_complete(wandb.values, wandb.pictures, tmp_path)
    first, second = wandb.runs
    assert first == second
    assert (first["name"], first["dir"], first["resume"]) == (tmp_path.name, str(tmp_path), "allow")
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    network = json.loads((tmp_path / "config.json").read_text())
    assert network.pop("training_size") == [64, 96]  # learnt in the run
    assert first["config"] == {**recipe, "network": network}
    assert (tmp_path / "wandb" / "ccnet-run-id").read_text() == first["id"]


def with_wandb(*arguments, **options):
    return trainer(*arguments, tracker="wandb", **options)


def test_wandb_that_does_not_start_gives_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", WandB(RuntimeError("No API key\nconfigured.")))
    message = r"^Weights & Biases did not start: No API key configured: log in \(wandb login\), .*"
    with pytest.raises(ValueError, match=message) as refusal:
        with_wandb(tmp_path).run()
    assert "\n" not in str(refusal.value)
    trainer(tmp_path, tracker="none").run()
