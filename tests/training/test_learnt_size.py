"""The size that a run learns at: recorded with its weights, from the images it validates on."""

import json

import pytest
import torch
from small_runs import (
    Scenes,
    best_of,
    changed,
    checkpoint_steps,
    interrupt,
    newest,
    same,
    small_model,
    trainer,
)

from ccnet.inference import InferenceProtocol
from ccnet.training.checkpoint import save_checkpoint
from ccnet.training.learnt_size import learn_size


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([(3, 4)], (3, 4)),
        ([(9, 9), (3, 4), (4, 3)], (4, 3)),
        ([(5, 8), (6, 9), (300, 400)], (6, 9)),
        ([(5, 7)] * 60 + [(50, 70)] * 40, (5, 7)),
        ([torch.Size([50, 70])] * 60 + [(5, 7)] * 40, (50, 70)),
    ],
)
def test_it_is_the_size_of_the_image_in_the_middle(sizes, size):
    model = small_model()
    learn_size(model, sizes, InferenceProtocol())
    assert model.training_size == size


def test_a_run_records_it(tmp_path):
    model = small_model(training_size=[360, 480])
    trainer(tmp_path, model=model).run()
    for config in (best_of(tmp_path).config, newest(tmp_path)["config"], model.config):
        assert config["training_size"] == [64, 96]
    assert json.loads((tmp_path / "config.json").read_text())["training_size"] == [64, 96]
    assert "training size: 96 x 64 pixels" in (tmp_path / "train.log").read_text()


def test_with_a_size_factor_it_is_the_size_that_the_network_sees(tmp_path):
    model = small_model()
    trainer(tmp_path, changed(size_factor=1.5), model=model).run()
    assert best_of(tmp_path).config["training_size"] == [96, 144]
    assert model.default_protocol.view_size((64, 96)) == (96, 144)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_validation_shows_images_as_predict_does(tmp_path, factor):
    seen, val_set = [], Scenes(2, seed=4)

    def note(module, arguments):
        if not module.training:
            seen.append(arguments[0].clone())

    model = small_model()
    model.backbone.register_forward_pre_hook(note)
    trainer(tmp_path, changed(steps=2, size_factor=factor), model=model, val_set=val_set).run()
    for image, _ in val_set:
        model.predict(image)
    assert seen[0].shape[2:] == (64 * factor, 96 * factor)
    assert same(seen[:2], seen[2:])


@pytest.mark.parametrize("recorded", [None, [5, 7]])
def test_a_run_of_an_earlier_version_goes_on(tmp_path, recorded):
    interrupt(tmp_path, steps=3)
    record = json.loads((tmp_path / "log.jsonl").read_text())
    assert record.pop("training_size") == [64, 96]
    (tmp_path / "log.jsonl").write_text(json.dumps(record) + "\n")
    (path,) = (tmp_path / "checkpoints").iterdir()
    state = newest(tmp_path)
    state["config"]["training_size"] = recorded
    if recorded is None:
        del state["config"]["training_size"]
    save_checkpoint(path, state)
    trainer(tmp_path, resume=True).run()
    assert checkpoint_steps(tmp_path)[-1] == 4
    assert json.loads((tmp_path / "config.json").read_text())["training_size"] == [64, 96]


def test_validation_is_at_the_size_of_the_images(tmp_path):
    """Whatever the median is: as if it were not known."""
    sizes = []

    def note(module, arguments):
        if not module.training:
            sizes.append(tuple(arguments[0].shape[2:]))

    class Mixed(Scenes):
        def __getitem__(self, index):
            image, labels = super().__getitem__(index)
            return (image, labels) if index else (image[:, :40], labels[:40])

    model = small_model()
    model.backbone.register_forward_pre_hook(note)
    trainer(tmp_path, changed(steps=2), model=model, val_set=Mixed(3, seed=4)).run()
    assert sizes == [(40, 96), (64, 96), (64, 96)]
