"""Pre-training of a backbone: it learns, stops, resumes, and its weights are used."""

import dataclasses
import os
import signal
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import SmallBackbone, best_of, finish, log_of, newest, same, start

from ccnet import precision
from ccnet.distributed import all_gather, rank
from ccnet.training.class_folder import ClassFolder
from ccnet.training.classification import ClassificationRecipe, Classifier, one_cycle
from ccnet.training.pretraining import BackboneTrainer
from ccnet.training.termination import Terminated
from ccnet.weights import read_weights

SMALL = ClassificationRecipe(
    size=16,
    steps=6,
    batch_size=4,
    warmup_steps=2,
    validate_every=3,
    average_decay=0.5,
    precision="float32",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Sixty noisy squares of three colours."""
    root = tmp_path_factory.mktemp("classes")
    random = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir()
        for index in range(20):
            array = random.integers(0, 120, (16, 16, 3), np.uint8)
            array[..., channel] += 120
            Image.fromarray(array).save(root / name / f"{index:02}.png")
    return ClassFolder(root, tmp_path_factory.mktemp("cache"), 16)


@pytest.fixture
def _small_backbone(monkeypatch):
    monkeypatch.setattr("ccnet.training.classification.Backbone", SmallBackbone)


def trainer(images, run_dir, recipe=SMALL, **options):
    return BackboneTrainer(images, recipe, run_dir, details={"license": "CC-BY-4.0"}, **options)


@pytest.mark.usefixtures("_small_backbone")
def test_run_learns_and_writes_its_backbone(images, tmp_path):
    recipe = dataclasses.replace(SMALL, steps=40, validate_every=40, batch_size=16)
    assert trainer(images, tmp_path, recipe).run() == 100
    (record,) = log_of(tmp_path)
    assert (record["step"], record["accuracy"]) == (40, 100)
    state = newest(tmp_path)
    written = read_weights(tmp_path / "best.safetensors").state_dict
    assert written.keys() == Classifier(recipe, 3).backbone.state_dict().keys()
    for name, value in written.items():
        assert torch.equal(value, state["average"][f"module.backbone.{name}"])
    name = "stages.0.0.weight"
    assert not torch.equal(written[name], state["model"][f"backbone.{name}"])


@pytest.mark.usefixtures("_small_backbone")
def test_every_twentieth_image_is_held_out(images, tmp_path):
    made = trainer(images, tmp_path)
    assert list(made.val_set.indices) == [0, 20, 40]
    assert set(made.loader.dataset.dataset.indices) == set(range(60)) - {0, 20, 40}


@pytest.mark.usefixtures("_small_backbone")
@pytest.mark.parametrize("step", [2, 3, 6], ids=["between", "at a validation", "at the end"])
def test_stopped_run_ends_as_if_it_had_not_been(images, tmp_path, monkeypatch, step):
    trainer(images, tmp_path / "whole").run()
    train_step = BackboneTrainer._train_step

    def stop(running, *arguments):
        if running.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(running, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(BackboneTrainer, "_train_step", stop)
        with pytest.raises(Terminated, match=f"checkpoint saved at step {step}$"):
            trainer(images, tmp_path, resume=True).run()
    assert newest(tmp_path)["step"] == step
    trainer(images, tmp_path, resume=True, workers=1).run()
    assert same(newest(tmp_path), newest(tmp_path / "whole"))
    assert log_of(tmp_path) == log_of(tmp_path / "whole")
    assert same(best_of(tmp_path).state_dict, best_of(tmp_path / "whole").state_dict)
    with pytest.raises(FileExistsError, match="already holds a run"):
        trainer(images, tmp_path)
    other = dataclasses.replace(SMALL, learning_rate=1.0)
    with pytest.raises(ValueError, match=r"has learning_rate 0\.002, not 1\.0: give"):
        trainer(images, tmp_path, other, resume=True)


@pytest.mark.usefixtures("_small_backbone")
@pytest.mark.parametrize("fast", ["bfloat16", "float32"])
def test_a_resumed_run_keeps_its_precision(images, tmp_path, monkeypatch, caplog, fast):
    caplog.set_level("INFO", "ccnet")
    automatic = dataclasses.replace(SMALL, precision="auto")
    factors = {"bfloat16": 0.5 if fast == "bfloat16" else 9.0}
    monkeypatch.setattr(precision, "slowdown", lambda name, *_, **__: factors.get(name, 1.0))
    running, seen = trainer(images, tmp_path, automatic), set()
    running.model.classifier.register_forward_hook(lambda *passed: seen.add(str(passed[2].dtype)))
    running.run()
    assert seen == {f"torch.{fast}"}
    assert newest(tmp_path)["recipe"]["precision"] == fast
    factors["bfloat16"] = 1 / factors["bfloat16"]
    assert trainer(images, tmp_path, automatic, resume=True).recipe.precision == fast
    assert f"precision: {fast} (with which the run was started)" in caplog.text
    other = dataclasses.replace(SMALL, precision="float32" if fast == "bfloat16" else "bfloat16")
    with pytest.raises(ValueError, match=f"has precision '{fast}', not '"):
        trainer(images, tmp_path, other, resume=True)


@pytest.mark.usefixtures("_small_backbone")
def test_run_of_before_seals_and_automatic_precision_is_resumed(images, tmp_path, caplog):
    trainer(images, tmp_path, dataclasses.replace(SMALL, steps=3, precision="bfloat16")).run()
    path = tmp_path / "checkpoints" / "step-00000003.pt"
    state = dict(newest(tmp_path))
    state["recipe"] = {**state["recipe"], "steps": SMALL.steps}
    torch.save(state, path)
    trainer(images, tmp_path, dataclasses.replace(SMALL, precision="auto"), resume=True).run()
    assert f"{path} was written before checkpoints had a checksum" in caplog.text
    assert [record["step"] for record in log_of(tmp_path)] == [3, 6]


@pytest.mark.usefixtures("_small_backbone")
def test_processes_that_have_not_joined_are_refused(images, tmp_path, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "::1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(ValueError, match="2 processes were started together"):
        trainer(images, tmp_path)


def two_ranks(images, run_dir, stopped_at):
    """Runs on one of two ranks; SIGTERM reaches the second one alone."""
    with mock.patch("ccnet.training.classification.Backbone", SmallBackbone):
        running = trainer(images, run_dir, resume=True)
    train_step = running._train_step

    def stop(*arguments):
        if running.step == stopped_at - 1 and rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*arguments)

    running._train_step = stop
    try:
        running.run()
        assert stopped_at == 0
    except Terminated:
        assert running.step == stopped_at
    average = {name: value.tolist() for name, value in running.average.state_dict().items()}
    assert all_gather(average)[0] == average, "ranks hold different averages"


def test_ranks_train_and_stop_together(images, tmp_path):
    for stopped_at in (2, 0):
        assert finish(start(two_ranks, images, tmp_path, stopped_at, ranks=2)) == [0, 0]
        assert newest(tmp_path)["step"] == (stopped_at or SMALL.steps)
    assert [record["step"] for record in log_of(tmp_path)] == [3, 6]


def stopped_ranks(images, run_dir):
    """SIGTERM reaches the second rank before it validates, and the first while it does."""

    def stopping(call):
        def stop(*arguments):
            os.kill(os.getpid(), signal.SIGTERM)
            return call(*arguments)

        return stop

    with mock.patch("ccnet.training.classification.Backbone", SmallBackbone):
        running = trainer(images, run_dir)
    if rank() == 1:
        running._validate = stopping(running._validate)
    else:
        running.average.forward = stopping(running.average.forward)
    with pytest.raises(Terminated, match="stopped while validating; checkpoint saved at step 3"):
        running.run()


def test_ranks_stop_while_validating(images, tmp_path):
    assert finish(start(stopped_ranks, images, tmp_path, ranks=2)) == [0, 0]


@pytest.mark.usefixtures("_small_backbone")
def test_infinite_weights_are_not_saved(images, tmp_path):
    running = trainer(images, tmp_path, dataclasses.replace(SMALL, validate_every=1))
    running.optimizer.register_step_post_hook(
        lambda *_: torch.nn.init.constant_(running.model.classifier.bias, float("inf"))
    )
    with pytest.raises(FloatingPointError, match="after step 1 weights are not finite"):
        running.run()
    assert newest(tmp_path) is None


def test_learning_rate_rises_linearly_and_falls_with_the_cosine():
    recipe = dataclasses.replace(SMALL, steps=12, warmup_steps=4)
    factors = [one_cycle(step, recipe) for step in range(13)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert factors[8] == pytest.approx(0.5)
    assert factors[12] == pytest.approx(0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("backbone", "vgg", "backbone must be one of"),
        ("output_stride", 4, "output_stride must be one of"),
        ("precision", "float16", "precision must be one of"),
        ("steps", 0, r"steps must be in 1\.\.inf, not 0"),
        ("scale_low", 1.5, r"scale_low must be in 0\.\.1, not 1\.5"),
        ("learning_rate", -1.0, r"learning_rate must be in 0\.\.inf, not -1"),
        ("average_decay", float("nan"), "average_decay must be in"),
    ],
)
def test_invalid_fields_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **{field: value})


@pytest.mark.usefixtures("_small_backbone")
def test_kernels_alone_decay(images, tmp_path):
    kernels, others = trainer(images, tmp_path).optimizer.param_groups
    assert [group["weight_decay"] for group in (kernels, others)] == [0.05, 0.0]
    assert {p.dim() for p in kernels["params"]} == {2, 4}
    assert {p.dim() for p in others["params"]} == {1}
    assert len(kernels["params"]) + len(others["params"]) == 3 * 3 + 2
