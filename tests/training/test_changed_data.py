"""Runs that are resumed with other data: refused, or accepted from then on."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import (
    SMALL,
    Scenes,
    SmallBackbone,
    changed,
    interrupt,
    log_of,
    newest,
    trainer,
)
from torch.utils.data import Dataset

from ccnet.training.checkpoint import save_checkpoint
from ccnet.training.class_folder import ClassFolder
from ccnet.training.classification import ClassificationRecipe
from ccnet.training.pretraining import BackboneTrainer


def test_run_records_its_data(run_dir):
    lines = [json.loads(line) for line in (run_dir / "data.jsonl").read_text().splitlines()]
    assert [(line["set"], line["name"]) for line in lines] == [
        *(("train", f"scene-00000{index}") for index in range(5)),
        *(("val", f"scene-00000{index}") for index in range(2)),
    ]
    summary = newest(run_dir)["data"]
    assert [part["samples"] for part in summary.values()] == [5, 2]
    assert json.loads((run_dir / "environment.json").read_text())["data"] == summary


def test_run_goes_on_with_other_data_where_they_are_accepted(tmp_path, caplog):
    """At the same step; from then on these are its data. Scores of other images do not count."""
    interrupt(tmp_path, steps=3)
    sets = {"train_set": Scenes(9), "val_set": Scenes(3, seed=5)}
    message = r"has 5 images to train on, not 9 \(new: .*\); 2 images to validate on, not 3 \("
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, resume=True, **sets)
    running = trainer(tmp_path, resume=True, accept_changed_data=True, **sets)
    assert running.step == 2
    assert "going on with changed data: the run had 5 images to train on, not 9" in caplog.text
    scores = running.run()
    steps = [(record["step"], record["data"]) for record in log_of(tmp_path)]
    before, now = steps[0][1], newest(tmp_path)["data"]["val"]["sha256"]
    assert before != now
    assert steps == [(2, before), (2, now), (4, now)]
    assert running.history.best == max(record["mIoU"] for record in log_of(tmp_path)[1:])
    assert trainer(tmp_path, resume=True, **sets).history.scores.miou == scores.miou
    with pytest.raises(ValueError, match="has 9 images to train on, not 5"):
        trainer(tmp_path, resume=True)


def test_finished_run_is_validated_on_other_images_that_are_accepted(run_dir):
    val_set = Scenes(3, seed=9)
    running = trainer(run_dir, resume=True, val_set=val_set, accept_changed_data=True)
    assert running.history.best == -math.inf
    scores = running.run()
    assert [record["step"] for record in log_of(run_dir)] == [2, 4, 4]
    assert trainer(run_dir, resume=True, val_set=val_set).history.best == scores.miou


@pytest.mark.parametrize(
    ("train_seed", "val_set", "count"),
    [(3, Scenes(3, seed=3), 3), (8, Scenes(2, seed=3), 2), (3, Scenes(7, seed=3), 5)],
)
def test_images_to_validate_on_that_were_trained_on_are_named(
    run_dir, caplog, train_seed, val_set, count
):
    """Whether they still are or not."""
    sets = {"train_set": Scenes(5, seed=train_seed), "val_set": val_set}
    text = f"{count} of the {len(val_set)} images to validate on (scene-000000, scene-000001"
    with pytest.raises(ValueError, match=r"changed_data=True\), but ") as refusal:
        trainer(run_dir, resume=True, **sets)
    assert f", but {text}" in str(refusal.value)
    trainer(run_dir, resume=True, accept_changed_data=True, **sets)
    end = "too high: leave these copies out, or validate on other images"
    assert caplog.messages[-1].startswith(text)
    assert ") were trained on: their score is " in caplog.messages[-1]
    assert caplog.messages[-1].endswith(end)


class Unidentified(Dataset):
    """Scenes of which nothing but their type is known."""

    def __init__(self, *scenes, **options):
        self.scenes = Scenes(*scenes, **options)

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        return self.scenes[index]


def test_images_that_are_known_by_their_type_alone_are_not_said_to_be_the_same(tmp_path, caplog):
    sets = {"train_set": Unidentified(5), "val_set": Unidentified(2, seed=4)}
    trainer(tmp_path, changed(steps=1), **sets).run()
    sets["val_set"] = Unidentified(3, seed=4)
    options = {"resume": True, "accept_changed_data": True}
    trainer(tmp_path, changed(steps=1), **sets, **options)
    assert "going on with changed data" in caplog.text
    assert "trained on:" not in caplog.text


def test_run_of_before_fingerprints_goes_on_and_says_so_once(tmp_path, caplog):
    interrupt(tmp_path, steps=3)
    path = tmp_path / "checkpoints" / "step-00000002.pt"
    torch.save({name: value for name, value in newest(tmp_path).items() if name != "data"}, path)
    (tmp_path / "data.jsonl").unlink()
    trainer(tmp_path, resume=True).run()
    assert caplog.text.count("did not record its data") == 1
    trainer(tmp_path, resume=True)
    assert caplog.text.count("did not record its data") == 1
    with pytest.raises(ValueError, match="other images to train on"):
        trainer(tmp_path, resume=True, train_set=Scenes(5, seed=8))


def test_recipes_are_compared_first(run_dir):
    with pytest.raises(ValueError, match=r"has seed 0, not 1: give"):
        trainer(run_dir, dataclasses.replace(SMALL, seed=1), train_set=Scenes(9), resume=True)


@pytest.fixture
def classes(tmp_path):
    """A function that writes noisy squares of two colours, and opens a folder or archive of them.

    Of the same number of bytes, whatever the noise.
    """

    def make(seed=0, count=4, archive=False):
        root, random = tmp_path / f"{seed}-{count}" / "classes", np.random.default_rng(seed)
        for name in ("red", "blue"):
            (root / name).mkdir(parents=True)
            for index in range(count):
                noise = random.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(noise).save(root / name / f"{index}.bmp")
        if archive:
            root = Path(shutil.make_archive(str(root), "zip", root.parent, root.name))
        return ClassFolder(root, tmp_path / "cache", 16)

    return make


def pretrain(images, run_dir, steps=2, **options):
    recipe = ClassificationRecipe(size=16, steps=steps, batch_size=2, validate_every=2)
    return BackboneTrainer(images, recipe, run_dir, **options)


def test_backbone_is_pretrained_on_the_same_images(classes, tmp_path, monkeypatch, caplog):
    """In a folder, or in an archive of it; other ones are accepted if that is asked for."""
    monkeypatch.setattr("ccnet.training.classification.Backbone", SmallBackbone)
    run_dir, images = tmp_path / "run", classes()
    pretrain(images, run_dir).run()
    shutil.rmtree(tmp_path / "0-4")
    assert pretrain(classes(archive=True), run_dir, resume=True).step == 2
    with pytest.raises(ValueError, match=r"other images to train on \(another image of 7: blue/1"):
        pretrain(classes(seed=1), run_dir, resume=True)
    more = classes(seed=2, count=5)
    with pytest.raises(ValueError, match=r"7 images to train on, not 8 \(new: red/4\.bmp; ano"):
        pretrain(more, run_dir, resume=True)
    running = pretrain(more, run_dir, resume=True, accept_changed_data=True)
    assert running.step == 2
    assert "going on with changed data: the run had 7 images to train on" in caplog.text
    running.run()
    pretrain(more, run_dir, resume=True).run()
    with pytest.raises(ValueError, match="has 8 images to train on, not 7"):
        pretrain(images, run_dir, resume=True)


def test_backbone_is_validated_on_no_image_that_it_was_trained_on(classes, tmp_path, monkeypatch):
    """One that is added is the first in the order of names."""
    monkeypatch.setattr("ccnet.training.classification.Backbone", SmallBackbone)
    images, run_dir = classes(count=21), tmp_path / "run"
    before = pretrain(images, run_dir)
    before.run()
    root = tmp_path / "0-21" / "classes"
    shutil.copy(root / "red" / "3.bmp", root / "blue" / "+.bmp")
    more = ClassFolder(root, tmp_path / "cache", 16)
    running = pretrain(more, run_dir, resume=True, accept_changed_data=True)
    held_out = [images.names[index] for index in before.val_set.indices]
    now = [more.names[index] for index in running.val_set.indices]
    assert now == ["blue/+.bmp", *held_out]


def test_best_backbone_is_chosen_anew_for_other_images(classes, tmp_path, monkeypatch):
    """Records of earlier versions do not say of which images they are: of those of the run."""
    monkeypatch.setattr("ccnet.training.classification.Backbone", SmallBackbone)
    run_dir, images = tmp_path / "run", classes()
    accuracies = iter([100.0, 90.0, 80.0, 20.0])
    monkeypatch.setattr(BackboneTrainer, "_accuracy", lambda _: next(accuracies))
    pretrain(images, run_dir, steps=4).run()
    assert [record["accuracy"] for record in log_of(run_dir)] == [100.0, 90.0]
    (run_dir / "best.safetensors").unlink()
    state = newest(run_dir)
    records = [{**record} for record in state["records"]]
    for record in records:
        del record["data"]
    save_checkpoint(run_dir / "checkpoints" / "step-00000004.pt", {**state, "records": records})
    pretrain(images, run_dir, steps=4, resume=True).run()
    assert [record["accuracy"] for record in log_of(run_dir)] == [100.0, 80.0]
    assert not (run_dir / "best.safetensors").exists()
    others = classes(seed=1)
    pretrain(others, run_dir, steps=4, resume=True, accept_changed_data=True).run()
    assert [record["accuracy"] for record in log_of(run_dir)] == [100.0, 20.0]
    assert (run_dir / "best.safetensors").is_file()
    before, now = (record["data"] for record in log_of(run_dir))
    assert now == newest(run_dir)["data"]["val"]["sha256"] != before
