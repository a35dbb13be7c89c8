"""Runs that are resumed with another recipe: refused, or accepted from then on."""

import json

import pytest
import torch
from PIL import Image
from small_runs import (
    Scenes,
    SmallBackbone,
    assert_same_end,
    best_of,
    changed,
    fail,
    interrupt,
    log_of,
    newest,
    same,
    small_model,
    trainer,
)

from ccnet.training.checkpoint import load_checkpoint, save_checkpoint
from ccnet.training.class_folder import ClassFolder
from ccnet.training.classification import ClassificationRecipe
from ccnet.training.pretraining import BackboneTrainer


@pytest.fixture
def small_images(tmp_path, monkeypatch):
    """Four images of two classes, for a small backbone."""
    monkeypatch.setattr("ccnet.training.classification.Backbone", SmallBackbone)
    for name, color in (("sand", "yellow"), ("water", "blue")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (16, 16), color).save(tmp_path / "images" / name / f"{index}.png")
    return ClassFolder(tmp_path / "images", tmp_path, 16, progress=False)


STEADY = {"power": 0.0}
"""A learning rate that does not depend on the number of steps."""


def resume(run_dir, *, accept=True, **fields):
    options = {"model": small_model(seed=99), "resume": True, "accept_changed_recipe": accept}
    return trainer(run_dir, changed(**fields), **options)


def test_changed_fields_are_named_with_the_option_that_accepts_them(run_dir):
    with pytest.raises(ValueError, match="recipe") as refusal:
        resume(run_dir, accept=False, steps=6, learning_rate=0.5)
    assert str(refusal.value) == (
        f"the run in {run_dir} has learning_rate 0.0015, not 0.5; steps 4, not 6: give its values, "
        "choose another folder, or go on with these (--accept-changed-recipe, "
        "accept_changed_recipe=True)"
    )


def test_finished_run_that_gets_more_steps_ends_as_if_it_had_had_them(tmp_path, caplog):
    """To the bit, if the learning rate is that of the longer run."""
    trainer(tmp_path / "whole", changed(steps=6, **STEADY)).run()
    trainer(tmp_path / "run", changed(steps=4, **STEADY)).run()
    caplog.set_level("INFO", "ccnet")
    resume(tmp_path / "run", steps=6, **STEADY).run()
    assert_same_end(tmp_path / "run", tmp_path / "whole")
    assert "going on with a changed recipe: steps 4, now 6" in caplog.messages
    assert "the learning rate goes on at 0.0015" in caplog.messages
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["steps"] == 6
    caplog.clear()
    resume(tmp_path / "run", accept=False, steps=6, **STEADY).run()
    assert "changed" not in caplog.text


def test_accepted_recipe_is_recorded_before_the_next_step(tmp_path):
    interrupt(tmp_path, steps=3)
    running = resume(tmp_path, optimizer="sgd")
    running.train_set.on_draw = lambda _: fail()
    with pytest.raises(RuntimeError, match="the power failed"):
        running.run()
    assert newest(tmp_path)["recipe"]["optimizer"] == "sgd"
    again = resume(tmp_path, accept=False, optimizer="sgd")
    assert again.step == 2
    again.run()


ANEW = "the optimizer starts anew: its state does not fit the changed recipe"

CHANGES = {
    "schedule": ({"learning_rate": 0.01, "warmup_steps": 0, "weight_decay": 0.1}, True),
    "batches": ({"batch_size": 4, "accumulation": 2, "seed": 7, "crop_width": 41}, True),
    "fewer steps": ({"steps": 3, "validate_every": 3}, True),
    "optimizer": ({"optimizer": "sgd"}, False),
    "optimizer without a state": ({"optimizer": "sgd", "momentum": 0.0}, False),
    "precision": ({"precision": "float16"}, True),
    "class weights": ({"balance_classes": False}, True),
    "loss": ({"ohem": True, "ohem_min_kept": 0}, True),
    "parameters of the loss": ({"consistency_weight": 0.5}, False),
}
"""What changes, and whether the optimizer keeps its state."""


@pytest.mark.parametrize(("fields", "is_kept"), CHANGES.values(), ids=CHANGES)
def test_what_does_not_fit_starts_anew_and_the_rest_goes_on(run_dir, caplog, fields, is_kept):
    (run_dir / "checkpoints" / "step-00000004.pt").unlink()
    before = newest(run_dir)
    running = resume(run_dir, **fields)
    assert running.step == 2
    assert same(running.model.state_dict(), before["model"])
    assert (ANEW in caplog.messages) is not is_kept
    state = running.optimizer.state_dict()["state"]
    assert same(state, before["optimizer"]["state"] if is_kept else {})
    assert running.history.best == log_of(run_dir)[0]["mIoU"]
    group = running.optimizer.param_groups[0]
    assert group["weight_decay"] == running.recipe.weight_decay
    fresh = trainer(run_dir.parent / "fresh", running.recipe).objective.loss.state_dict()
    restored = running.objective.loss.state_dict()
    assert restored.keys() == fresh.keys()
    for name, weights in fresh.items():
        assert "class_weights" not in name or torch.equal(restored[name], weights)
    running.run()
    assert log_of(run_dir)[-1]["step"] == running.recipe.steps
    assert resume(run_dir, accept=False, **fields).step == running.recipe.steps


def test_class_weights_are_those_of_the_new_recipe(run_dir):
    """Also where those of the old one have their shape."""
    path = run_dir / "checkpoints" / "step-00000004.pt"
    state = load_checkpoint(path)
    own = {name: value.clone() for name, value in state["loss_function"].items()}
    for value in state["loss_function"].values():
        value *= 3
    save_checkpoint(path, state)
    assert not same(resume(run_dir, accept=False).objective.loss.state_dict(), own)
    assert same(resume(run_dir, seed=3).objective.loss.state_dict(), own)


@pytest.mark.parametrize(
    ("fields", "config", "message"),
    [
        ({"steps": 3}, {}, "is at step 4: steps must be at least that, not 3"),
        ({"weights": "DEFAULT", "steps": 9}, {}, "has weights '', not 'DEFAULT': this cannot"),
        (
            {"norm": "inplace"},
            {"negative_slope": 0.01},
            "has norm 'batch', not 'inplace': this cannot",
        ),
        (
            {"weights": "DEFAULT"},
            {"negative_slope": 0.01},
            "has weights '', not 'DEFAULT': this cannot",
        ),
        ({}, {"negative_slope": 0.01}, "has backbone_options {'negative_slope'"),
        ({}, {"recurrence": 1}, r"has recurrence 2, not 1: .* another folder, and start there"),
        ({"seed": 1}, {"num_classes": 12, "label_set": None}, "has label_set .*; num_classes 11"),
    ],
)
def test_what_cannot_change_is_refused_with_the_way_out(run_dir, fields, config, message):
    options = {"resume": True, "accept_changed_recipe": True, "model": small_model(**config)}
    with pytest.raises(ValueError, match=message) as refusal:
        trainer(run_dir, changed(**fields), **options)
    if "cannot" in message or not fields:
        assert str(refusal.value).endswith(f"from the weights of this run (--weights {run_dir})")


def test_best_weights_stay_those_of_the_run_on_the_same_images(tmp_path):
    interrupt(tmp_path, steps=3)
    path = tmp_path / "checkpoints" / "step-00000002.pt"
    save_checkpoint(path, {**newest(tmp_path), "best": 99.0})
    before = best_of(tmp_path)
    running = resume(tmp_path, steps=6)
    running.run()
    assert running.history.best == 99.0
    assert same(best_of(tmp_path).state_dict, before.state_dict)
    others = {"val_set": Scenes(2, seed=5), "accept_changed_data": True}
    again = trainer(tmp_path, changed(steps=8), resume=True, accept_changed_recipe=True, **others)
    again.run()
    assert 0 <= again.history.best < 99.0


def test_pretraining_gets_more_steps(tmp_path, small_images):
    recipe = ClassificationRecipe(size=16, steps=1, batch_size=2, precision="float32")
    run_dir = tmp_path / "run"
    BackboneTrainer(small_images, recipe, run_dir).run()
    longer = {"size": 16, "steps": 2, "batch_size": 2, "precision": "float32"}
    recipe = ClassificationRecipe(**longer)
    with pytest.raises(ValueError, match=r"has steps 1, not 2: .*\(--accept-changed-recipe"):
        BackboneTrainer(small_images, recipe, run_dir, resume=True)
    other = ClassificationRecipe(**longer, backbone="resnet50")
    options = {"resume": True, "accept_changed_recipe": True}
    with pytest.raises(ValueError, match="not 'resnet50': this cannot change in a run"):
        BackboneTrainer(small_images, other, run_dir, **options)
    BackboneTrainer(small_images, recipe, run_dir, **options).run()
    assert [record["step"] for record in log_of(run_dir)] == [1, 2]
    assert newest(run_dir)["recipe"]["steps"] == 2
