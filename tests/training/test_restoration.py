"""Checkpoints that are intact, and hold something else than the run would have written."""

import math
import os
import shutil
from unittest import mock

import pytest
import torch
from PIL import Image
from small_runs import (
    Scenes,
    SmallBackbone,
    assert_same_end,
    changed,
    checkpoint_steps,
    small_model,
    trainer,
)

from ccnet.training.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from ccnet.training.class_folder import ClassFolder
from ccnet.training.classification import ClassificationRecipe
from ccnet.training.pretraining import BackboneTrainer

LAST = "step-00000004.pt"


def change(run_dir, name, keys, make):
    """Rewrites a checkpoint, with its seal, after a change deep in it; None removes."""
    path = run_dir / "checkpoints" / name
    state = load_checkpoint(path)
    *outer, last = keys
    place = state
    for key in outer:
        place = place[key]
    value = make(place[last]) if callable(make) else make
    if value is None:
        del place[last]
    else:
        place[last] = value
    save_checkpoint(path, state)


KERNEL = "aux_head.classifier.weight"

CHANGES = {
    "no tensor": (["model", KERNEL], None, f"model lacks '{KERNEL}'"),
    "unknown tensor": (["model", "more"], torch.ones(1), "model has an unknown 'more'"),
    "text for a tensor": (["model", KERNEL], "x", f"model {KERNEL} is str, not 11 x"),
    "other shape": (["model", KERNEL], torch.ones(3), f"{KERNEL} is 3 of float32, not 11 x"),
    "other dtype": (["model", KERNEL], lambda old: old.double(), "of float64, not 11 x"),
    "model a list": (["model"], [1], "model is list"),
    "no model": (["model"], None, "model is nothing"),
    "step a string": (["step"], "4", "step is str"),
    "step a truth": (["step"], True, "holds step True, not that of its name"),
    "step negative": (["step"], -4, "holds step -4, not that of its name"),
    "another step": (["step"], 2, "step-00000004.pt holds step 2, not that of its name"),
    "data a list": (["data"], [1], "data is list"),
    "data a string": (["data"], "x", "data is str"),
    "number for a name": (["recipe", 1], 2, "recipe are not names and values of JSON"),
    "recipe with a tensor": (["recipe", "seed"], torch.ones(2), "recipe are not names and values"),
    "config with a number": (["config", 1], 2, "config are not names and values of JSON"),
    "config with a tensor": (["config", "a"], torch.ones(2), "config are not names and values"),
    "config with a set": (["config", "a"], {1}, "config are not names and values of JSON"),
    "details of numbers": (["details", 1], 2, "details are not names and values of JSON"),
    "recipe a list": (["recipe"], [], "recipe is list"),
    "recipe without a field": (["recipe", "steps"], None, "has steps None, not 4"),
    "config a number": (["config"], 1, "config is int"),
    "no config": (["config"], None, "config is nothing"),
    "loss a string": (["loss"], "1", "loss is str, not float"),
    "no loss": (["loss"], None, "loss is NoneType, not float"),
    **{
        f"best {value!r}"[:14]: (["best"], value, f"best is {value!r}, not a number in 0..100, or")
        for value in ([], math.nan, math.inf, 1e9, -1.0, True, torch.ones(2))
    },
    "no weights": (["model", KERNEL], lambda old: old / 0, f"model {KERNEL} is not finite"),
    "details a number": (["details"], 1, "details are not names and values of JSON"),
    "detail a tensor": (["details", "license"], torch.ones(1), "details are not names and values"),
    "no loss function": (["loss_function"], None, "loss_function is NoneType, not names"),
    "scaler": (["scaler"], {"scale": 1.0}, "scaler has an unknown 'scale'"),
    "no optimizer": (["optimizer"], None, "optimizer holds no state"),
    "optimizer a number": (["optimizer"], 3, "optimizer holds no state"),
    "state a list": (["optimizer", "state"], [], "optimizer holds no state"),
    "more parameters": (["optimizer", "state", 999], {}, "optimizer is not that of"),
    "named parameters": (["optimizer", "state", "a"], {}, "optimizer is not that of"),
    "parameter's state": (["optimizer", "state", 0], 7, "optimizer lacks exp_avg, exp_avg_sq"),
    "no average": (["optimizer", "state", 0, "exp_avg"], None, "optimizer lacks exp_avg"),
    "average a number": (["optimizer", "state", 0, "exp_avg"], 1.0, "exp_avg is float, not"),
    "average's shape": (
        *(["optimizer", "state", 0, "exp_avg"], torch.ones(2), "exp_avg is 2 of float32, not"),
    ),
    "average nan": (
        *(
            ["optimizer", "state", 0, "exp_avg"],
            lambda old: old * math.nan,
            "exp_avg is not finite",
        ),
    ),
    "no parameters": (["optimizer", "state"], {}, "optimizer lacks the state of 32 of 32 param"),
    "no parameter": (["optimizer", "state", 3], None, "optimizer lacks the state of 1 of 32 param"),
    "step's shape": (["optimizer", "state", 0, "step"], torch.ones(2), "step is 2 of float32"),
}
"""Where, what, and what is said."""


@pytest.mark.parametrize(("keys", "value", "message"), CHANGES.values(), ids=CHANGES)
def test_other_contents_are_refused_with_one_line(run_dir, keys, value, message):
    change(run_dir, LAST, keys, value)
    for _ in range(2):  # the first leaves no lock
        with pytest.raises(ValueError, match=r"^[^\n]*$") as refusal:
            trainer(run_dir, model=small_model(), resume=True)
        assert message in str(refusal.value)
    assert "has steps None" in message or "move it away to resume from the one before" in str(
        refusal.value
    )
    assert checkpoint_steps(run_dir) == [2, 4]


def test_step_beyond_the_last_one_is_refused(run_dir):
    state = load_checkpoint(run_dir / "checkpoints" / LAST)
    Checkpoints(run_dir / "checkpoints").save({**state, "step": 5})
    with pytest.raises(ValueError, match="does not fit it: step is 5 of 4: move it away"):
        trainer(run_dir, model=small_model(), resume=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "sgd", "precision": "float16"},
        {"aux_weight": 0.0},
        {"consistency_weight": 0.5, "ohem": True},
    ],
    ids=str,
)
def test_whatever_a_run_saves_is_resumed(tmp_path, fields):
    recipe = changed(steps=1, validate_every=1, **fields)
    trainer(tmp_path, recipe, val_set=Scenes(1)).run()
    assert trainer(tmp_path, recipe, val_set=Scenes(1), resume=True).step == 1


def test_settings_of_the_optimizer_are_those_of_the_recipe(finished, run_dir):
    (run_dir / "checkpoints" / LAST).unlink()
    group = ["optimizer", "param_groups", 0]
    for key, value in (("weight_decay", "x"), ("betas", (math.nan, 2.0)), ("eps", 1e9)):
        change(run_dir, "step-00000002.pt", [*group, key], value)
    trainer(run_dir, model=small_model(seed=99), resume=True).run()
    assert_same_end(run_dir, finished[0])


def as_folder(path):
    path.mkdir()
    (path / "mine").touch()


def as_link_to_nothing(path):
    path.symlink_to("nowhere")


def as_link_in_a_circle(path):
    path.symlink_to(path.name)


def as_link_to_a_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "make", [as_folder, os.mkfifo, as_link_to_nothing, as_link_in_a_circle, as_link_to_a_device]
)
def test_what_is_no_file_is_passed_over_and_stays(finished, run_dir, caplog, make):
    odd = run_dir / "checkpoints" / "step-00000003.pt"
    newer = run_dir / "checkpoints" / "step-00000007.pt"
    (run_dir / "checkpoints" / LAST).unlink()
    for path in (odd, newer):
        make(path)
    trainer(run_dir, model=small_model(seed=99), resume=True).run()
    assert caplog.text.count("skipping a damaged checkpoint") == 2
    assert checkpoint_steps(run_dir) == [2, 3, 4, 7]
    for path in (odd, newer):
        shutil.rmtree(path) if make is as_folder else path.unlink()
    assert_same_end(run_dir, finished[0])


USERS = ("step-foo.pt", "step-00000005.pt.bak", "step-5.pt", "step-000000006.pt", "my-step-1.pt")


def test_files_of_other_names_are_not_checkpoints(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in (*USERS, f"step-{chr(0x665) * 8}.pt"):
        (folder / name).write_text("mine")
    before = set(folder.iterdir())
    trainer(tmp_path).run()
    assert set(folder.iterdir()) == before | {folder / "step-00000002.pt", folder / LAST}
    state = load_checkpoint(folder / LAST)
    checkpoints = Checkpoints(folder)
    for step in (99_999_999, 100_000_000):
        checkpoints.save({**state, "step": step})
    assert checkpoint_steps(tmp_path) == [99_999_999, 100_000_000]


RECORD = {"step": 1, "loss": 1.0}

PRETRAINING = {
    "average": (["average", "n_averaged"], None, "average lacks 'n_averaged'"),
    "losses": (["losses"], ["x"], "an item of losses is str, not float"),
    "losses a number": (["losses"], 1, "losses is int, not list"),
    "records": (["records"], [{"step": 1}], "an item of records lacks '"),
    "record": (
        ["records", slice(0)],
        [{**RECORD, "accuracy": "x"}],
        "accuracy is 'x', not a number in 0",
    ),
    "infinite record": (
        *(
            ["records", slice(0)],
            [{**RECORD, "accuracy": math.inf}],
            "accuracy is inf, not a number",
        ),
    ),
    "no averages": (["optimizer", "state"], {}, "optimizer lacks the state of"),
    "optimizer": (["optimizer", "state", 0], {}, "optimizer lacks exp_avg, exp_avg_sq, step"),
    "model": (["model", "classifier.bias"], torch.ones(5), "bias is 5 of float32, not 2 of"),
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A trainer of a small backbone, and the folder of its run."""
    root = tmp_path_factory.mktemp("pretraining")
    for name, color in (("sand", "yellow"), ("water", "blue")):
        (root / "images" / name).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (16, 16), color).save(root / "images" / name / f"{index}.png")
    images = ClassFolder(root / "images", root, 16, progress=False)
    recipe = ClassificationRecipe(size=16, steps=2, batch_size=2, precision="float32")

    def make(folder):
        with mock.patch("ccnet.training.classification.Backbone", SmallBackbone):
            return BackboneTrainer(images, recipe, folder, resume=True)

    make(root / "run").run()
    return make, root / "run"


@pytest.mark.parametrize(("keys", "value", "message"), PRETRAINING.values(), ids=PRETRAINING)
def test_other_contents_of_a_pretraining_are_refused(pretrained, tmp_path, keys, value, message):
    make, folder = pretrained
    run_dir = shutil.copytree(folder, tmp_path / "run")
    change(run_dir, "step-00000002.pt", keys, value)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refusal:
        make(run_dir)
    assert message in str(refusal.value)
